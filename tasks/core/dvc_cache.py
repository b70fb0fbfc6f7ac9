"""Where DVC keeps contents: with ``cache.type: symlink`` its links lead there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

CONTENT = re.compile(r"files/md5/[0-9a-f]{2}/[0-9a-f]{30}|[0-9a-f]{2}/[0-9a-f]{30}")
"""Path of a content below the cache, as DVC 3 names it and as DVC 2 did."""


def holds(real: Path) -> bool:
    """Whether a file, all links resolved, is a content in the cache of the repository that is at work."""
    found = folder(Path.cwd()) if CONTENT.search(real.as_posix()) else None
    return (
        found is not None
        and real.is_relative_to(found)
        and bool(CONTENT.fullmatch(real.relative_to(found).as_posix()))
    )


def recorded(path: Path, name: str) -> bytes | None:
    """Return a file of a folder that a stage made, as ``dvc.lock`` has it, from the cache.

    DVC deletes the outputs of a stage before it runs the stage; what they were can still be read so.

    Parameters
    ----------
    path, name
        Of the folder, as ``dvc.yaml`` has it, and of the file in it.

    Returns
    -------
    bytes or None
        None if no stage made it, or the cache does not have it any more.
    """
    try:
        stages = YAML(typ="safe", pure=True).load(Path("dvc.lock").read_text(encoding="utf-8"))["stages"]
        outs = {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", ())}
        listed = json.loads(_content(outs[str(path)]) or "[]")
        return _content({each["relpath"]: each["md5"] for each in listed}[name])
    except (OSError, YAMLError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _content(md5: str) -> bytes | None:
    usual = Path(".dvc/cache")
    place = Path("files/md5", md5[:2], md5[2:])
    found = usual if (usual / place).exists() else folder(Path.cwd())
    return (found / place).read_bytes() if found else None


@cache
def folder(root: Path) -> Path | None:
    """Return the cache of the repository at ``root``, wherever its settings put it; None without one.

    DVC itself is asked, once: its settings lie in up to four files.
    """
    asked = [sys.executable, "-m", "dvc", "cache", "dir"]
    done = subprocess.run(asked, cwd=root, capture_output=True, text=True, check=False)
    answer = done.stdout.strip()
    return (root / answer).resolve() if done.returncode == 0 and answer else None
