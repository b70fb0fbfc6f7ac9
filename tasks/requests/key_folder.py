"""Which folder holds the keys of a project.

Each project has one of its own, so that two clones on a machine do not take each other's list of what was
erased for an older one of theirs. A checkout remembers its folder; one that does not, such as a second
clone of a project or the copy in which DVC runs an experiment, finds the folder whose key its list was
written under.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock

from tasks.core.errors import ExpungeError
from tasks.core.files import STATE, write_text
from tasks.requests.keys import LIST_KEY, KeyStore, check_value
from tasks.requests.settings import Settings

BASE = Path("~/.local/share/expunge/keys")
"""Where folders of keys lie, unless ``requests.keys`` or EXPUNGE_KEYS says otherwise."""

LIST = Path("data/requests/erased.txt")
REMEMBERED = STATE / "keys"
"""Holds the name of the checkout's folder in :data:`BASE`."""

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,48}-[0-9a-f]{8}|\.")


def open_keys(settings: Settings, environ: Mapping[str, str], root: Path) -> KeyStore:
    """Return the keys of the checkout at ``root``: EXPUNGE_KEYS, ``requests.keys``, or its own folder.

    Raises
    ------
    ExpungeError
        If the folder lies inside the repository, or what the checkout remembers is damaged.
    """
    chosen = environ.get("EXPUNGE_KEYS") or settings.keys
    return KeyStore(Path(chosen) if chosen else own_folder(root, BASE.expanduser()), root)


def own_folder(root: Path, base: Path) -> Path:
    """Return the checkout's own folder in ``base``, chosen at the first call; nothing is made in it."""
    path = root / REMEMBERED
    remembered = _remembered(path, base)
    if remembered is not None and (base / remembered).exists():
        return base / remembered
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        remembered = _remembered(path, base)  # by another process, maybe
        name = _of_the_list(root / LIST, base) or remembered or _drawn(root)
        if name != remembered:
            write_text(path, f"{name}\n")
    return base / name


def _remembered(path: Path, base: Path) -> str | None:
    if not path.exists():
        return None
    name = path.read_text(encoding="utf-8", errors="replace").strip()
    if not _NAME.fullmatch(name):
        raise ExpungeError(f"{path} is damaged; write the name of this project's folder in {base} into it")
    return name


def _of_the_list(listed: Path, base: Path) -> str | None:
    """Return the folder whose key the list was written under, if there is one; ``.`` is ``base`` itself."""
    text = listed.read_text(encoding="ascii", errors="replace") if listed.exists() else ""
    named = re.search(r"^key ([0-9a-f]{64})$", text, re.MULTILINE)
    if named is None or not base.is_dir():
        return None
    for folder in (base, *sorted(each for each in base.iterdir() if each.is_dir())):
        path = folder / f"{LIST_KEY}.key"
        if path.is_file() and check_value(path.read_bytes()) == named[1]:
            return str(folder.relative_to(base))
    return None


def _drawn(root: Path) -> str:
    name = re.sub(r"[^a-zA-Z0-9_-]+", "-", root.resolve().name)[:48] or "project"
    return f"{name}-{secrets.token_hex(4)}"
