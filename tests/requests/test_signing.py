from __future__ import annotations

import multiprocessing
import re
import subprocess
from pathlib import Path
from threading import Barrier

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]

from tasks.core.errors import ExpungeError
from tasks.requests.keys import KeyStore
from tasks.requests.signing import (
    KeyPeriod,
    PublicKey,
    parse_public_keys,
    periods,
    read_public_keys,
    rotate,
    signing_key,
)
from tests.requests.certified import ANOTHER, KEY, PUBLIC

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def keys(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path / "keys", Path("/nowhere"))


def files(keys: KeyStore) -> set[str]:
    return {path.name for path in keys.folder.iterdir() if path.name != ".signing.lock"}


def test_the_first_key_is_made_and_kept_for_its_owner_alone(keys: KeyStore) -> None:
    key = signing_key(keys, None)
    assert PublicKey.of(signing_key(keys, None)) == PublicKey.of(signing_key(keys, PublicKey.of(key)))
    assert (keys.folder / "signing.pem").stat().st_mode & 0o777 == 0o600


def test_a_key_that_was_recorded_and_is_lost_is_never_made_again(keys: KeyStore) -> None:
    recorded = PublicKey.of(signing_key(keys, None))
    (keys.folder / "signing.pem").unlink()
    with pytest.raises(ExpungeError, match=rf"missing.*{recorded.hex}.*backup.*expunge rotate-key --reason"):
        signing_key(keys, recorded)
    assert files(keys) == set()


def test_another_key_than_the_recorded_one_is_refused(keys: KeyStore) -> None:
    before = PublicKey.of(signing_key(keys, None))
    with pytest.raises(ExpungeError, match=rf"is not the key that signs.*{ANOTHER.hex}.*expunge rotate-key"):
        signing_key(keys, ANOTHER)
    assert PublicKey.of(signing_key(keys, before)) == before


@pytest.mark.parametrize("recorded", [None, PUBLIC])
def test_a_damaged_key_is_refused_and_not_replaced(keys: KeyStore, recorded: PublicKey | None) -> None:
    keys.folder.mkdir()
    path = keys.folder / "signing.pem"
    path.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    with pytest.raises(ExpungeError, match=r"signing\.pem is no Ed25519 key.*restore it"):
        signing_key(keys, recorded)
    assert "AAAA" in path.read_text()


def make_keys(folders: list[Path], start: Barrier, number: int) -> None:
    for folder in folders:
        start.wait(60)
        key = signing_key(KeyStore(folder, Path("/nowhere")), None)
        (folder / f"{number}.public").write_text(PublicKey.of(key).hex)


def test_two_processes_at_once_make_one_key(tmp_path: Path) -> None:
    folders, start = [tmp_path / str(number) for number in range(20)], SPAWN.Barrier(2)
    processes = [SPAWN.Process(target=make_keys, args=(folders, start, number)) for number in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    for folder in folders:
        kept = PublicKey.of(signing_key(KeyStore(folder, Path("/nowhere")), None)).hex
        assert [path.read_text() for path in folder.glob("*.public")] == [kept, kept]


@pytest.mark.parametrize("state", ["there", "lost", "damaged"])
def test_a_rotation_replaces_and_destroys_the_old_key_whatever_became_of_it(
    keys: KeyStore, state: str
) -> None:
    old = PublicKey.of(signing_key(keys, None))
    path = keys.folder / "signing.pem"
    if state == "lost":
        path.unlink()
    elif state == "damaged":
        path.write_text("nothing")
    told: list[PublicKey] = []
    kept = path.open("rb") if state == "there" else None
    new = PublicKey.of(rotate(keys, old, told.append))
    assert told == [new] != [old]
    assert PublicKey.of(signing_key(keys, new)) == new
    assert files(keys) == {"signing.pem"}
    assert path.stat().st_mode & 0o777 == 0o600
    if kept:
        with kept:
            assert b"PRIVATE KEY" not in kept.read()
    with pytest.raises(ExpungeError, match="is not the key that signs"):
        signing_key(keys, old)


class StopError(Exception):
    pass


def test_a_rotation_that_stops_before_it_is_recorded_changes_nothing(keys: KeyStore) -> None:
    old = PublicKey.of(signing_key(keys, None))

    def fail(new: PublicKey) -> None:
        raise StopError

    with pytest.raises(StopError):
        rotate(keys, old, fail)
    assert PublicKey.of(signing_key(keys, old)) == old
    new = PublicKey.of(rotate(keys, old, lambda new: None))
    assert PublicKey.of(signing_key(keys, new)) == new != old


def test_a_rotation_that_stops_once_it_is_recorded_is_completed_by_the_next_use(keys: KeyStore) -> None:
    old = PublicKey.of(signing_key(keys, None))
    told: list[PublicKey] = []

    def record(new: PublicKey) -> None:
        told.append(new)
        raise StopError

    for _ in range(2):  # the second rotation must not lose the first one's key
        with pytest.raises(StopError):
            rotate(keys, told[-1] if told else old, record)
    assert PublicKey.of(signing_key(keys, told[-1])) == told[-1]
    assert files(keys) == {"signing.pem"}


def test_key_ids_are_those_of_securesystemslib_and_openssl_reads_the_pem(tmp_path: Path) -> None:
    assert PUBLIC.key_id == SSlibKey.from_crypto(KEY.public_key()).keyid
    path = tmp_path / "operator.pub"
    path.write_text(PUBLIC.published())
    told = subprocess.run(
        ["openssl", "pkey", "-pubin", "-in", path, "-noout", "-text"], capture_output=True, text=True
    )
    assert re.sub(r"[\s:]", "", told.stdout).endswith(f"pub{PUBLIC.hex}")


@pytest.mark.parametrize("form", ["hex", "upper", "pem", "published", "labelled", "two"])
def test_a_public_key_is_read_in_every_form_that_an_operator_may_publish(tmp_path: Path, form: str) -> None:
    text, expected = {
        "hex": (f"{PUBLIC.hex}\n", [PUBLIC]),
        "upper": (PUBLIC.hex.upper(), [PUBLIC]),
        "pem": (PUBLIC.pem, [PUBLIC]),
        "published": (PUBLIC.published(), [PUBLIC]),
        "labelled": (f"Our key\nPublic key: {PUBLIC.hex}\nkey id: {PUBLIC.key_id}\n", [PUBLIC]),
        "two": (PUBLIC.published() + ANOTHER.published() + PUBLIC.pem, [PUBLIC, ANOTHER]),
    }[form]
    path = tmp_path / "key"
    path.write_text(text)
    assert list(read_public_keys(str(path))) == expected
    assert read_public_keys(f" {PUBLIC.hex.upper()} ") == (PUBLIC,)


def test_what_is_no_public_key_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "key"
    with pytest.raises(ExpungeError, match="neither 64 hex digits nor a file"):
        read_public_keys(str(path))
    with pytest.raises(ExpungeError, match="neither 64 hex digits nor a file"):
        read_public_keys("\0")
    rsa = generate_private_key(65537, 2048).public_key()
    pem = rsa.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    wrong = {"": "no public key", PUBLIC.hex[:-1]: "no public key", pem: "no Ed25519 key",
             "x" * 70_000: "larger", PUBLIC.pem.replace("MCow", "MCoA"): "no Ed25519 key"}  # fmt: skip
    for text, message in wrong.items():
        path.write_text(text)
        with pytest.raises(ExpungeError, match=message):
            read_public_keys(str(path))
    with pytest.raises(ExpungeError, match="one is 64 hex digits"):
        PublicKey("A" * 64)


def test_the_ledgers_events_give_every_key_its_period() -> None:
    third = PublicKey("0" * 64)
    found = periods([(5, PUBLIC, False), (9, ANOTHER, False), (14, third, True)])
    assert found == (
        KeyPeriod(PUBLIC, 5, 9),
        KeyPeriod(ANOTHER, 9, 14, compromised=True),
        KeyPeriod(third, 14),
    )
    assert periods([]) == ()
    assert parse_public_keys(PUBLIC.published(), "here") == (PUBLIC,)
