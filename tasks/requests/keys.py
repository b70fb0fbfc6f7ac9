"""Keys of requests, and the keyed digests that stand for samples in every record.

Each request has a random key of its own. Records name a sample by HMAC-SHA-256 under that key: whoever
has the key can tell whether a given sample is meant; without it the digest says nothing, not even to
someone who knows all ids. So destroying the key makes a request's references meaningless, everywhere.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

from tasks.core.errors import ExpungeError
from tasks.core.files import write_whole

SIZE = 32
"""Bytes of a key: the length of the digest (RFC 2104, section 3)."""

REQUEST_ID = re.compile(r"[0-9]{8}-[0-9a-f]{8}")
"""What a request's id looks like: a day, and 32 random bits."""

LIST_KEY = "erased"
"""Name of the key under which the list of what was erased names samples."""

SUBJECTS_KEY = "subjects"
"""Name of the key under which ``data/split`` names people."""

_KEY_NAME = re.compile(rf"{LIST_KEY}|{SUBJECTS_KEY}|(?:batch-|hold-)?{REQUEST_ID.pattern}")


def reference(key: bytes, kind: str, value: str) -> str:
    """Return the HMAC-SHA-256 (RFC 2104) of a value, in hex.

    Parameters
    ----------
    key
        The request's.
    kind
        What the value is, such as ``id`` or ``pixels``: equal text of another kind has another digest.
    value
        The sample id, or a digest of the sample's bytes.
    """
    return hmac.digest(key, f"{kind}\0{value}".encode(), hashlib.sha256).hex()


def references(key: bytes, kind: str) -> Callable[[str], str]:
    """Return :func:`reference` for many values of one kind: the key is hashed once."""
    start = hmac.new(key, f"{kind}\0".encode(), hashlib.sha256)

    def digest(value: str) -> str:
        each = start.copy()
        each.update(value.encode())
        return each.hexdigest()

    return digest


def check_value(key: bytes) -> str:
    """Digest of a constant, by which whatever was written under a key tells which that was."""
    return reference(key, "check", LIST_KEY)


class KeyStore:
    """A folder that holds one file a request, readable by its owner alone.

    Parameters
    ----------
    folder
        Outside the repository: what Git, DVC or a backup of the project copies cannot be destroyed.
    root
        The repository's root.

    Raises
    ------
    ExpungeError
        If the folder lies inside the repository.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder = folder.expanduser().absolute()
        if self.folder.resolve().is_relative_to(root.resolve()):
            raise ExpungeError(
                f"the folder of keys, {self.folder}, lies inside the repository; "
                "set requests.keys or EXPUNGE_KEYS to one outside"
            )

    def create(self, request: str) -> bytes:
        """Draw a key and keep it; it is on the disk when this returns."""
        path = self._path(request)
        if path.exists():
            raise FileExistsError(f"{path} exists")
        key = secrets.token_bytes(SIZE)
        with write_whole(path, private=True) as file:
            file.write(key)
        return key

    def load(self, request: str) -> bytes:
        """Return a request's key.

        Raises
        ------
        ExpungeError
            If there is none, or it is damaged.
        """
        path = self._path(request)
        try:
            key = path.read_bytes()
        except FileNotFoundError:
            raise ExpungeError(
                f"request {request}: no key in {self.folder}; "
                "it was destroyed, or requests.keys names another folder"
            ) from None
        if len(key) != SIZE:
            raise ExpungeError(
                f"request {request}: {path} is damaged; restore it from the backup of the keys"
            )
        return key

    def exists(self, request: str) -> bool:
        """Whether the key is there."""
        return self._path(request).exists()

    def can_name(self, request: str) -> bool:
        """Whether it can still be told what one names: by its key, or by the names beside it."""
        try:
            self.load(request)
        except ExpungeError:
            return self.names(request) is not None
        return True

    def destroy(self, request: str) -> None:
        """Overwrite and delete a key; one that is gone already stays gone.

        A journaling file system or a flash drive may keep old blocks: encrypt the disk that holds keys.
        """
        path = self._path(request)
        self.forget_names(request)
        if not path.exists():
            return
        with path.open("r+b") as file:
            file.write(secrets.token_bytes(SIZE))
            file.flush()
            os.fsync(file.fileno())
        path.unlink()

    def keep_names(self, request: str, ids: Sequence[str]) -> None:
        """Keep what a request names in the clear, until its samples are gone; by digests alone it is slow."""
        with write_whole(self._path(request).with_suffix(".names"), private=True) as file:
            file.write(json.dumps(sorted(ids)).encode())

    def names(self, request: str) -> list[str] | None:
        """Return what :meth:`keep_names` kept; ``None`` if it is not there or damaged."""
        try:
            found = json.loads(self._path(request).with_suffix(".names").read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        whole = isinstance(found, list) and all(isinstance(name, str) for name in found)
        return found if whole else None

    def forget_names(self, request: str) -> None:
        """Delete what :meth:`keep_names` kept."""
        self._path(request).with_suffix(".names").unlink(missing_ok=True)

    def _path(self, request: str) -> Path:
        """Where a key lies; a name may come from a file's name, so none but a key's own is taken."""
        if not _KEY_NAME.fullmatch(request):
            raise ExpungeError(
                f"{request!a} names no key; a request's id is right, such as 20260501-9f86d081"
            )
        return self.folder / f"{request}.key"
