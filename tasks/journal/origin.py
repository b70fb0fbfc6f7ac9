"""Where a run comes from: main repository, process, pipeline run, tags, earlier runs on disk; its store."""

from __future__ import annotations

import contextlib
import getpass
import json
import logging
import os
import re
import socket
import uuid
from pathlib import Path
from typing import Any

from tasks.core.errors import ExpungeError

log = logging.getLogger(__name__)


def main_root(workspace: Path) -> Path:
    """Root of the main repository, absolute: DVC_ROOT, or ``workspace`` when DVC did not start us."""
    return Path(os.environ.get("DVC_ROOT") or workspace).resolve()


def store_uri(uri: str, root: Path) -> str:
    """``tracking.uri`` with a relative SQLite path made absolute.

    Raises
    ------
    ExpungeError
        If it is no store that another process could write to.
    """
    if "://" not in uri:
        raise ExpungeError(
            f"tracking.uri is {uri!r}, but MLflow 3 records no runs in a plain folder; "
            "use sqlite:///mlflow.db or the address of a server, e.g. http://127.0.0.1:5000"
        )
    scheme, _, rest = uri.partition("://")
    if scheme != "sqlite":
        return uri
    if rest.strip("/") in {"", ":memory:"}:
        raise ExpungeError(f"tracking.uri is {uri!r}, which names no file; use sqlite:///mlflow.db")
    if rest.startswith("//"):
        return uri
    quoted = str(root).replace("%", "%25").replace("?", "%3F")  # SQLAlchemy reads %xx and ? as URLs do
    return f"sqlite:///{quoted}/{rest.removeprefix('/')}"


def process_of(pid: int) -> dict[str, Any]:
    """Identity of a process: host, pid and creation time in seconds since 1970; 0 if it is gone."""
    import psutil

    try:
        created = psutil.Process(pid).create_time()
    except psutil.Error:
        created = 0.0
    return {"host": socket.gethostname(), "pid": pid, "created": created}


def pipeline_of_this_process() -> tuple[str, dict[str, Any]] | None:
    """Key and process of the pipeline run that started this process."""
    given = os.environ.get("EXPUNGE_PIPELINE")
    if given:
        if match := re.fullmatch(r"(?P<key>[0-9a-f]{32}):(?P<pid>[1-9][0-9]{0,9})", given, re.ASCII):
            return match["key"], process_of(int(match["pid"]))
        log.warning("EXPUNGE_PIPELINE=%r is ignored; it must be <32 hex digits>:<pid>", given)
    import psutil

    for ancestor in psutil.Process().parents():
        with contextlib.suppress(psutil.Error):
            if is_dvc(ancestor.cmdline()):
                process = process_of(ancestor.pid)
                name = f"{process['host']}:{process['pid']}:{process['created']:.2f}"
                return uuid.uuid5(uuid.NAMESPACE_URL, f"expunge:{name}").hex, process
    return None


def is_dvc(command: list[str]) -> bool:
    """Whether a command line is ``dvc ...``, ``python .../dvc ...`` or ``python -m dvc ...``."""
    words = [word for word in command if not re.fullmatch(r"-[^m]\S*", word)]
    if words and "python" in Path(words[0]).name.lower():
        words = words[2:] if words[1:2] == ["-m"] else words[1:]
    return bool(words) and Path(words[0]).name == "dvc"


def runs_on_disk(workspace: Path) -> dict[str, dict[str, Any]]:
    """For each ``data/<stage>/run.json``: key of the run, digests of its inputs and outputs by path."""
    found = {}
    for path in sorted(workspace.glob("data/*/run.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            value = json.loads(path.read_text(encoding="utf-8"))
            digests = {side: dict(value.get(side, {})) for side in ("inputs", "outputs")}
            found[path.parent.name] = {"run": str(value["run"]), **digests}
    return found


def tags_of_environment() -> dict[str, str]:
    """EXPUNGE_TAGS as a mapping; empty, with a warning, if it is not a JSON object of strings."""
    given = os.environ.get("EXPUNGE_TAGS")
    if not given:
        return {}
    try:
        value = json.loads(given)
    except ValueError:
        value = None
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        log.warning("EXPUNGE_TAGS=%r is ignored; it must be a JSON object of strings", given)
        return {}
    return value


def user() -> str:
    """Name of the user, as MLflow shows it."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return "unknown"
