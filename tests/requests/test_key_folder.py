from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tasks.core.errors import ExpungeError
from tasks.requests.high_water import extend, read_checked
from tasks.requests.key_folder import LIST, REMEMBERED, open_keys, own_folder
from tasks.requests.keys import LIST_KEY, KeyStore
from tasks.requests.settings import Settings
from tasks.requests.suppression import Erased, load_key


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "home/keys"


def project(folder: Path, listed: str = Erased(()).text) -> Path:
    (folder / LIST).parent.mkdir(parents=True)
    (folder / LIST).write_text(listed)
    return folder


def erased(root: Path, base: Path) -> KeyStore:
    """Erase a sample, so that list, mark and key are there."""
    keys = KeyStore(own_folder(root, base), root)
    extend(root / LIST, keys, lambda _: [("id", "0" * 64)])
    return keys


def test_every_project_has_a_folder_of_its_own_and_remembers_it(tmp_path: Path, base: Path) -> None:
    one, two = project(tmp_path / "one"), project(tmp_path / "two of them")
    keys = erased(one, base)
    assert keys.folder.parent == base
    assert own_folder(one, base) == keys.folder != own_folder(two, base)
    assert own_folder(two, base) == own_folder(two, base)
    assert read_checked(two / LIST, KeyStore(own_folder(two, base), two)).lines == ()
    assert not own_folder(two, base).exists()  # nothing is made before there is a key
    one.rename(tmp_path / "elsewhere")
    assert own_folder(tmp_path / "elsewhere", base) == keys.folder


def test_a_project_that_is_cloned_anew_where_another_was_starts_afresh(tmp_path: Path, base: Path) -> None:
    root = project(tmp_path / "one")
    old = erased(root, base)
    root.rename(tmp_path / "gone")
    root = project(tmp_path / "one")
    keys = KeyStore(own_folder(root, base), root)
    assert keys.folder != old.folder
    assert read_checked(root / LIST, keys).lines == ()


@pytest.mark.parametrize("flat", [True, False])
def test_another_checkout_of_a_project_finds_the_folder_of_its_list(
    tmp_path: Path, base: Path, flat: bool
) -> None:
    one = project(tmp_path / "one")
    if flat:  # all keys lay in one folder once
        keys = KeyStore(base, one)
        extend(one / LIST, keys, lambda _: [("id", "0" * 64)])
    else:
        keys = erased(one, base)
    erased(project(tmp_path / "other"), base)
    clone = project(tmp_path / "clone", (one / LIST).read_text())
    found = KeyStore(own_folder(clone, base), clone)
    assert load_key(found) == keys.load(LIST_KEY)
    assert read_checked(clone / LIST, found).lines == (("id", "0" * 64),)


def test_a_list_that_came_later_is_found_unless_the_checkout_has_keys(tmp_path: Path, base: Path) -> None:
    early, with_keys = project(tmp_path / "early"), project(tmp_path / "keys")
    own_folder(early, base)
    KeyStore(own_folder(with_keys, base), with_keys).create("20260501-9f86d081")
    keys = erased(project(tmp_path / "one"), base)
    for root in (early, with_keys):
        (root / LIST).write_text((tmp_path / "one" / LIST).read_text())
    assert own_folder(early, base) == keys.folder
    assert own_folder(with_keys, base) != keys.folder


def test_processes_that_begin_at_once_agree(tmp_path: Path, base: Path) -> None:
    root = project(tmp_path / "one")
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: own_folder(root, base), range(32)))) == 1


def test_what_was_chosen_goes_before(tmp_path: Path) -> None:
    environ = {"EXPUNGE_KEYS": str(tmp_path / "environ")}
    settings = Settings(keys=str(tmp_path / "settings"))
    assert open_keys(settings, environ, tmp_path / "root").folder == tmp_path / "environ"
    assert open_keys(settings, {}, tmp_path / "root").folder == tmp_path / "settings"
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("content", ["", "../keys-00000000", "a/b-00000000", "\ufffd-1"])
def test_a_damaged_memory_is_refused(tmp_path: Path, base: Path, content: str) -> None:
    root = project(tmp_path / "one")
    (root / REMEMBERED).parent.mkdir()
    (root / REMEMBERED).write_text(content)
    with pytest.raises(ExpungeError, match="damaged"):
        own_folder(root, base)
