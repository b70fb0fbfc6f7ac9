from __future__ import annotations

import hashlib
import stat
from pathlib import Path

import pytest

from tasks.core.errors import ExpungeError
from tasks.requests.keys import SIZE, KeyStore, reference, references

FIRST, SECOND = "20260501-0000000a", "20260501-0000000b"


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path / "keys", tmp_path / "project")


def test_a_reference_is_the_hmac_of_rfc_2104() -> None:
    # computed from the definition: H((K ^ opad) || H((K ^ ipad) || text))
    key, text = bytes(range(32)), b"id\0train/3.png"
    padded = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded) + text).digest()
    expected = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded) + inner).hexdigest()
    assert reference(key, "id", "train/3.png") == expected
    of_many = references(key, "id")
    names = ["train/3.png", "", "é"]
    assert [of_many(name) for name in names] == [reference(key, "id", name) for name in names]


def test_kind_value_and_key_all_matter() -> None:
    first, second = bytes(32), bytes(31) + b"\1"
    found = {
        reference(first, "id", "a"), reference(first, "path", "a"), reference(first, "id", "b"),
        reference(second, "id", "a"), reference(first, "i", "d\0a"),
    }  # fmt: skip
    assert len(found) == 5


def test_a_key_is_kept_for_its_owner_alone(store: KeyStore) -> None:
    key = store.create(FIRST)
    assert len(key) == SIZE
    assert store.load(FIRST) == key
    path = store.folder / f"{FIRST}.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    assert store.create(SECOND) != key


def test_a_key_is_never_replaced(store: KeyStore) -> None:
    key = store.create(FIRST)
    with pytest.raises(FileExistsError):
        store.create(FIRST)
    assert store.load(FIRST) == key


def test_a_destroyed_key_is_gone_and_can_be_destroyed_again(store: KeyStore) -> None:
    key = store.create(FIRST)
    with (store.folder / f"{FIRST}.key").open("rb") as still_open:
        store.destroy(FIRST)
        assert still_open.read() != key  # the blocks were overwritten before they were given back
    store.destroy(FIRST)
    assert not store.exists(FIRST)
    with pytest.raises(ExpungeError, match=rf"request {FIRST}: no key in .*keys; it was destroyed"):
        store.load(FIRST)


def test_a_damaged_key_is_refused(store: KeyStore) -> None:
    store.create(FIRST)
    (store.folder / f"{FIRST}.key").write_bytes(b"short")
    with pytest.raises(ExpungeError, match="is damaged"):
        store.load(FIRST)


@pytest.mark.parametrize("inside", ["keys", "data/../keys", "."])
def test_a_folder_inside_the_repository_is_refused(tmp_path: Path, inside: str) -> None:
    with pytest.raises(ExpungeError, match="lies inside the repository"):
        KeyStore(tmp_path / inside, tmp_path)


def test_a_link_into_the_repository_is_refused(tmp_path: Path) -> None:
    (tmp_path / "project/keys").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "project/keys")
    with pytest.raises(ExpungeError, match="lies inside the repository"):
        KeyStore(tmp_path / "link", tmp_path / "project")


@pytest.mark.parametrize(
    "name",
    [
        "", "a", "..", "../keys/erased", "erased.key", "Erased", "signing", "20260501-0000000A",
        "20260501-0000000a\n", "20260501-0000000a/../erased", "٢0260501-0000000a", "batch-erased", "batch-",
        "hold-erased", "hold-", "hold-batch-20260501-0000000a",
        "20260501-0000000a0", "\udcff",
    ],
)  # fmt: skip
def test_no_name_but_a_keys_own_reaches_the_folder(store: KeyStore, name: str) -> None:
    key = store.create("erased")
    for action in (store.create, store.load, store.exists, store.destroy):
        with pytest.raises(ExpungeError, match="names no key") as caught:
            action(name)
        assert "\n" not in str(caught.value)
    assert [path.name for path in store.folder.iterdir()] == ["erased.key"]
    assert store.load("erased") == key


def test_requests_batches_holds_and_the_list_of_erased_samples_have_keys(store: KeyStore) -> None:
    for name in (FIRST, f"batch-{FIRST}", f"hold-{FIRST}", "erased"):
        assert store.create(name) == store.load(name)
