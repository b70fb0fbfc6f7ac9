"""Files that appear whole or not at all, their digests, and the lock on a folder."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from filelock import FileLock, Timeout

from tasks.core.errors import RESTORE, AtWorkError, ExpungeError

STATE = Path(".expunge")
"""Folder for what is neither source nor stage output: locks, checkpoints, unsent records."""


SMALL = 2**20
"""Bytes of a file below which it is read at once."""

_UMASK = os.umask(0)
os.umask(_UMASK)

_PART = re.compile(r"\..+\.[a-z0-9_]{8}\.part", re.DOTALL)
"""Name of a file that :func:`write_whole` has not finished."""


@contextmanager
def write_whole(path: Path, *, private: bool = False) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path``; on success flush it to disk and rename it there.

    When the body raises, or the disk is full, ``path`` stays as it was and nothing is left beside it.
    A process that is killed leaves the temporary file, without its lock: see :func:`clear_parts`.
    A ``private`` file can be read by its owner alone, and so can its folder if there was none.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700 if private else 0o777)
    handle, part = _open_part(path)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            if not private:  # mkstemp makes files that only their owner may read
                part.chmod(0o666 & ~_UMASK)
            os.fsync(file.fileno())
            part.replace(path)  # before it is closed, and with that unlocked
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _open_part(path: Path) -> tuple[int, Path]:
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        part = Path(name)
        _lock(handle)
        if part.exists():  # else it was cleared before it was locked
            return handle, part
        os.close(handle)


def _lock(handle: int, *, wait: bool = True) -> bool:
    """Lock a file until it is closed; whether nobody else has. Some file systems know no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def clear_parts(folder: Path) -> int:
    """Delete what killed processes have left of files that they were writing; return how many there were.

    Parameters
    ----------
    folder
        All that lies below it is looked through, but for other repositories, what Git and DVC keep for
        themselves, virtual environments, and what links lead to.
    """
    count = 0
    for place, folders, files in os.walk(folder):
        below = [Path(place, name) for name in folders if name not in {".git", ".dvc"}]
        folders[:] = [
            each.name for each in below if not (each / ".git").exists() and not (each / "pyvenv.cfg").exists()
        ]
        count += sum(_clear(Path(place, name)) for name in files if _PART.fullmatch(name))
    return count


def _clear(part: Path) -> bool:
    try:
        handle = os.open(part, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        gone = _lock(handle, wait=False)
        if gone:
            part.unlink()
        return gone
    except OSError:  # not ours to delete
        return False
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole, as UTF-8."""
    with write_whole(path) as file:
        file.write(text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole: indented, keys in the given order, NaN and infinity refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file that a stage wrote; NaN, infinity and keys that stand twice are no JSON.

    Raises
    ------
    ExpungeError
        If the file is missing or is not JSON.
    """
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except FileNotFoundError:
        raise ExpungeError(f"{path} is missing; run the stage that writes it: dvc repro") from None
    except (ValueError, RecursionError) as error:
        raise ExpungeError(f"{path} is not valid JSON ({error}); {RESTORE}") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"key {twice!r} stands twice")
    return value


def digest(path: Path, algorithm: str = "md5") -> str:
    """Hex digest of a file's bytes; ``md5`` is what DVC records for a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def content_digest(path: Path) -> str:
    """MD5 of a file or a folder, as DVC records it.

    A folder's is the MD5 of the sorted JSON list of its files' MD5s and paths, with ``.dir`` after it.
    """
    return digest(path) if path.is_file() else folder_digest(file_digests(path))


def file_digests(folder: Path) -> dict[str, str]:
    """MD5 of every file below a folder, by its path below that, but for what Python compiles."""
    found: dict[str, str] = {}
    for place, folders, files in os.walk(folder):  # a Path for each of many files would take most of the time
        if "__pycache__" in folders:
            folders.remove("__pycache__")
        below = Path(place).relative_to(folder).as_posix()
        start = "" if below == "." else f"{below}/"
        found |= {f"{start}{name}": _md5(f"{place}/{name}") for name in files if _is_file(f"{place}/{name}")}
    return found


def _is_file(path: str) -> bool:
    return os.path.isfile(path)  # noqa: PTH113


def _md5(path: str) -> str:
    with open(path, "rb") as file:  # noqa: PTH123
        start = file.read(SMALL)
    return hashlib.md5(start, usedforsecurity=False).hexdigest() if len(start) < SMALL else digest(Path(path))


def folder_digest(files: Mapping[str, str]) -> str:
    """MD5 that DVC records for a folder, of the MD5s of its files by path, with ``.dir`` after it."""
    entries = [{"md5": md5, "relpath": path} for path, md5 in sorted(files.items())]
    listing = json.dumps(entries, sort_keys=True).encode()
    return hashlib.md5(listing, usedforsecurity=False).hexdigest() + ".dir"


def holder(folder: Path) -> int | None:
    """Return the id of the process that holds the lock on a folder, 0 if it cannot be told; else ``None``."""
    path = _lock_file(folder)
    if not path.exists():
        return None
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        pid = _owner(path)
        return int(pid) if pid.isascii() and pid.isdigit() else 0
    lock.release()
    return None


def _lock_file(folder: Path) -> Path:
    return STATE / "locks" / (str(folder).replace("/", "-") + ".lock")


def _owner(lock_file: Path) -> str:
    owner = lock_file.with_suffix(".pid")
    return owner.read_text().strip() if owner.exists() else "unknown"


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold the lock that keeps a second process out of an output folder.

    The lock lies in ``.expunge/locks``, not in the folder: DVC deletes a stage's outputs before
    it starts the stage. The operating system frees it when the process dies, however it dies.

    Raises
    ------
    AtWorkError
        If another process holds it; the message names that process.
    """
    path = _lock_file(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        pid = _owner(path)
        raise AtWorkError(
            f"{folder} is being written by process {pid}; wait for it or end it (kill {pid}), then run again"
        ) from None
    try:
        path.with_suffix(".pid").write_text(f"{os.getpid()}\n")
        yield
    finally:
        lock.release()
