"""The key that signs certificates: made once, recorded in the ledger, published, replaced only on purpose.

The private key is an Ed25519 key in PEM beside the keys of the requests. The public one stands in the ledger
from its first use on. A private key that does not match what the ledger records is never used and never
replaced silently: it is restored from the backup, or given up by a rotation that is recorded.

Key ids are those of securesystemslib, SHA-256 over the canonical JSON of type, scheme and public key, so that
tools made with it find the key of an envelope.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from filelock import FileLock, Timeout
from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]  # public, by its documentation

from tasks.core.errors import BusyError, ExpungeError
from tasks.core.files import write_whole
from tasks.requests.keys import KeyStore

FILE = "signing.pem"
NEXT = "signing.next.pem"
"""A key that is to become the signing key: it does so once the ledger records it."""

WAIT = 60
"""Seconds to wait for another process that makes or rotates the key."""

LARGEST = 2**16
"""Bytes of a file of public keys that is read."""

MEND = "restore it from the backup of the keys, or, if it is lost: expunge rotate-key --reason ..."

_PEM = re.compile(r"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)
_HEX = re.compile(r"^\s*(?:public key:\s*)?([0-9a-f]{64})\s*$", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An Ed25519 public key.

    Attributes
    ----------
    hex
        Its 32 bytes in lower-case hex.
    """

    hex: str

    def __post_init__(self) -> None:
        if not re.fullmatch("[0-9a-f]{64}", self.hex):
            raise ExpungeError(f"{self.hex[:80]!r} is no Ed25519 public key; one is 64 hex digits")

    @classmethod
    def of(cls, key: Ed25519PrivateKey | Ed25519PublicKey) -> PublicKey:
        """Return the public key of a key."""
        public = key.public_key() if isinstance(key, Ed25519PrivateKey) else key
        return cls(public.public_bytes_raw().hex())

    @property
    def sslib(self) -> SSlibKey:
        """The key as securesystemslib has it."""
        return SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.hex)))

    @property
    def key_id(self) -> str:
        """What names it in an envelope."""
        return str(self.sslib.keyid)

    @property
    def pem(self) -> str:
        """The key in PEM, as OpenSSL reads it."""
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.hex))
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def published(self) -> str:
        """Return the text that an operator publishes; :func:`parse_public_keys` reads it."""
        return (
            f"Ed25519 key that signs certificates of erasure\npublic key: {self.hex}\n"
            f"key id: {self.key_id}\n{self.pem}"
        )


@dataclass(frozen=True, slots=True)
class KeyPeriod:
    """From when to when a key was the one that the ledger records.

    Attributes
    ----------
    key
        The key.
    from_seq
        Number of the event that recorded it.
    to_seq
        Number of the event that replaced it; ``None`` if it still signs.
    compromised
        Whether it was replaced because somebody else may have it: then nothing that it signed is trusted.
    """

    key: PublicKey
    from_seq: int
    to_seq: int | None = None
    compromised: bool = False


def periods(changes: Iterable[tuple[int, PublicKey, bool]]) -> tuple[KeyPeriod, ...]:
    """Return the period of every key that a ledger records, oldest first; the last signs now.

    Parameters
    ----------
    changes
        For every event that records a key: its number, the key, and whether the key before it was
        compromised.
    """
    found: list[KeyPeriod] = []
    for seq, key, compromised in changes:
        if found:
            last = found[-1]
            found[-1] = KeyPeriod(last.key, last.from_seq, seq, compromised)
        found.append(KeyPeriod(key, seq))
    return tuple(found)


def parse_public_keys(text: str, where: str) -> tuple[PublicKey, ...]:
    """Return the keys in a text: PEM, or else lines of 64 hex digits, alone or after ``public key:``.

    Raises
    ------
    ExpungeError
        If there is none, or one that is no Ed25519 key; ``where`` names the text.
    """
    found = []
    for block in _PEM.findall(text):
        try:
            key = load_pem_public_key(block.encode())
        except (ValueError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PublicKey):
            raise ExpungeError(f"{where} holds a public key in PEM that is no Ed25519 key")
        found.append(PublicKey.of(key))
    found = found or [PublicKey(digits.lower()) for digits in _HEX.findall(text)]
    if not found:
        raise ExpungeError(
            f"{where} holds no public key; give 64 hex digits, or a file with them or with PEM"
        )
    return tuple(dict.fromkeys(found))


def read_public_keys(given: str) -> tuple[PublicKey, ...]:
    """Return the keys that ``--public-key`` names: 64 hex digits, or a file of :func:`parse_public_keys`.

    Raises
    ------
    ExpungeError
        If it is neither.
    """
    if re.fullmatch(r"\s*[0-9a-fA-F]{64}\s*", given):
        return parse_public_keys(given, "--public-key")
    path = Path(given)
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except (OSError, ValueError):
        raise ExpungeError(
            f"--public-key {given[:100]!r}: neither 64 hex digits nor a file that can be read"
        ) from None
    if len(content) > LARGEST:
        raise ExpungeError(f"{path} is larger than {LARGEST // 2**10} KiB, so it holds no public key")
    return parse_public_keys(content.decode("utf-8", "replace"), str(path))


def signing_key(keys: KeyStore, recorded: PublicKey | None) -> Ed25519PrivateKey:
    """Return the key that signs certificates; it is made only if none was ever recorded.

    A rotation that was recorded and then cut short is completed. Do not call this within a transaction of
    the ledger: :func:`rotate` holds its lock while it waits for one.

    Parameters
    ----------
    keys
        The folder that it lies in.
    recorded
        The key that the ledger records. If that is ``None``, record what this returns before it signs.

    Raises
    ------
    ExpungeError
        If the key is missing, damaged or another than the one recorded; nothing is changed then.
    """
    path = keys.folder / FILE
    if recorded is None and not path.exists():
        with _locked(keys):
            if not path.exists():  # no other process was faster
                _make(path)
    elif recorded is not None and (keys.folder / NEXT).exists():
        with _locked(keys):
            _complete(keys, recorded)
    key = _load(path)
    if recorded is None and key is not None:
        return key
    recorded_as = f"the ledger records {recorded.hex if recorded else 'none'}"
    if key is None:
        raise ExpungeError(f"{path} is missing; {recorded_as}; {MEND}")
    if PublicKey.of(key) != recorded:
        raise ExpungeError(f"{path} is not the key that signs: {recorded_as}; {MEND}")
    return key


def rotate(
    keys: KeyStore, recorded: PublicKey | None, record: Callable[[PublicKey], object]
) -> Ed25519PrivateKey:
    """Replace the signing key, be it there, lost or damaged, by a new one; the old private key is destroyed.

    Whatever was signed is verified with public keys, which the ledger keeps for ever. An old private key
    could only be stolen, so none is archived; a certificate that is made again is signed by the new key.
    The new key lies beside the old one before it is recorded, and takes its place after that: whenever this
    is cut short, :func:`signing_key` finds the one that is recorded.

    Parameters
    ----------
    keys
        The folder that it lies in.
    recorded
        The key that the ledger records, if any.
    record
        Records the new key in the ledger.

    Returns
    -------
    Ed25519PrivateKey
        The new one.
    """
    with _locked(keys):
        if recorded is not None:
            _complete(keys, recorded)
        new = _make(keys.folder / NEXT)
        record(PublicKey.of(new))
        _complete(keys, PublicKey.of(new))
    return new


def _complete(keys: KeyStore, recorded: PublicKey) -> None:
    """Put the next key in the place of the signing key if it is the one recorded."""
    path, following = keys.folder / FILE, keys.folder / NEXT
    new = _load(following)
    if new is None or PublicKey.of(new) != recorded:
        return
    with ExitStack() as stack:
        old = stack.enter_context(path.open("r+b")) if path.exists() else None
        following.replace(path)
        if old:  # it has no name any more; a journaling file system or a flash drive may keep old blocks
            size = os.fstat(old.fileno()).st_size
            old.write(secrets.token_bytes(size))
            old.flush()
            os.fsync(old.fileno())


def _load(path: Path) -> Ed25519PrivateKey | None:
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ExpungeError(f"{path} is no Ed25519 key in PEM; {MEND}")
    return key


def _make(path: Path) -> Ed25519PrivateKey:
    key = Ed25519PrivateKey.generate()
    with write_whole(path, private=True) as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return key


@contextmanager
def _locked(keys: KeyStore) -> Iterator[None]:
    keys.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with FileLock(keys.folder / ".signing.lock", timeout=WAIT):
            yield
    except Timeout:
        raise BusyError(
            f"another process makes or rotates the key in {keys.folder}; run again later"
        ) from None
