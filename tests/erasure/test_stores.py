"""What was erased leaves every store of a real DVC repository, and what is kept stays as it was."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from tasks.core.errors import ExpungeError
from tasks.core.files import digest
from tasks.erasure.checklist import Outcome
from tasks.erasure.ownership import Ownership
from tasks.erasure.search import Found, Wanted
from tasks.erasure.stores import Hit
from tasks.erasure.stores.dvc import DvcCache, DvcRemote, DvcState, Objects, remotes
from tasks.erasure.stores.folder import Folder
from tasks.requests.keys import reference
from tasks.requests.suppression import fingerprint
from tests.erasure.test_lineage import ERASED, TWIN, TWIN_KEPT, chw, original, png, repository
from tests.functional.repository import Repository

__all__ = ["original", "repository"]

KEY = b"k" * 32


def wanted() -> list[Wanted]:
    """What is known of the samples to erase: the twin's pixels are not, for kept data has the very same."""
    files = [hashlib.sha256(png(name)).hexdigest() for name in (ERASED, TWIN)]
    names = frozenset(reference(KEY, kind, name) for kind in ("id", "path") for name in (ERASED, TWIN))
    pixels = frozenset({reference(KEY, "pixels", fingerprint(chw(ERASED)))})
    return [Wanted(KEY, names, pixels, frozenset(reference(KEY, "file", each) for each in files))]


def objects(repository: Repository) -> dict[str, bytes]:
    """Content of every file of cache and remote."""
    roots = (repository.root / ".dvc/cache", repository.root.parent / "store")
    return {str(path): path.read_bytes() for root in roots for path in root.rglob("*") if path.is_file()}


def holding(contents: dict[str, bytes]) -> list[str]:
    """Files that hold a sample's bytes or names, told without any of the project's code."""
    needles = [png(ERASED), chw(ERASED).tobytes()]
    needles += [text.encode() for name in (ERASED, TWIN) for text in (name, json.dumps(name)[1:-1])]
    return sorted(path for path, content in contents.items() if any(needle in content for needle in needles))


def purge(*stores: Objects) -> dict[Hit, Outcome]:
    """Search stores, delete what is to go, and say of each hit what became of it."""
    hits = [(store, hit) for store in stores for hit in store.search(wanted())]
    ownership = Ownership(stores[0].root, "data/source", wanted(), list(stores))
    fates = {}
    for store, hit in hits:
        fates[hit], _ = ownership.fate(hit, store)
    for store, hit in hits:
        if fates[hit] is Outcome.DELETED:
            store.delete(hit.item)
            for path, named in ownership.lineage.entries.get(store.name, {}).items():
                if hit.item.removesuffix(".dir") in named:
                    store.delete(path)
    return fates


def test_nothing_is_left_in_cache_and_remote(repository: Repository) -> None:
    before = objects(repository)
    held = holding(before)
    assert len(held) == 2 * 5  # the image, the folder's list, images.npy, two tables
    stores = [DvcCache(repository.root), *remotes(repository.root)]
    assert [store.name for store in stores] == ["DVC cache", "DVC remote store"]
    shared = digest(repository.root / "data/source" / TWIN_KEPT)
    fates = purge(*stores)
    for store in stores:
        hits = [hit for hit in fates if hit.store == store.name]
        assert len({hit.item for hit in hits}) == len(hits) == 5 + 1
        assert [hit.item for hit in hits if fates[hit] is Outcome.KEPT_SHARED] == [shared]
        assert [hit.item for hit in store.search(wanted())] == [shared]
        store.delete("0" * 32)
        store.delete(next(hit.item for hit in hits if hit.item != shared))
    after = objects(repository)
    assert holding(after) == []
    gone = set(before) - set(after)
    assert {path for path in gone if "/runs/" not in path} == set(held)
    assert after == {path: content for path, content in before.items() if path not in gone}
    void = {Path(path).parent.name + Path(path).name for path in held}
    assert not any(
        md5.encode() in content for md5 in void for path, content in after.items() if "/runs/" in path
    )


def test_what_is_kept_still_works(repository: Repository) -> None:
    purge(DvcCache(repository.root), *remotes(repository.root))
    workspace = repository.contents()
    assert repository.dvc("status").strip() == "Data and pipelines are up to date."
    repository.dvc("push", "--run-cache")
    assert "didn't change, skipping" in repository.dvc("repro", "--pull")
    shutil.rmtree(repository.root / "data/source")
    (repository.root / "data/split/images.npy").unlink()
    repository.dvc("checkout")
    assert repository.contents() == workspace
    shutil.rmtree(repository.root / ".dvc/cache")
    (repository.root / "data/train/weights.safetensors").unlink()
    repository.dvc("pull", "--run-cache")
    assert repository.contents() == workspace
    assert repository.git("status", "--porcelain") == ""


def test_dvc_never_restores_what_is_gone(repository: Repository) -> None:
    purge(DvcCache(repository.root), *remotes(repository.root))
    for name in (ERASED, TWIN):  # as in a backup
        (repository.root / "data/source" / name).write_bytes(png(name))
    repository.dvc("add", "data/source")
    (repository.root / "dvc.lock").unlink()
    assert "Running stage 'split'" in repository.dvc("repro", "--pull", "split")


def test_the_twin_of_a_kept_file_is_shared_only_while_that_is_kept(repository: Repository) -> None:
    shared = digest(repository.root / "data/source" / TWIN_KEPT)
    cache = DvcCache(repository.root)
    assert shared in Ownership(repository.root, "data/source", wanted(), [cache]).kept
    (repository.root / "data/source" / TWIN_KEPT).unlink()
    repository.dvc("add", "data/source")
    assert Outcome.KEPT_SHARED not in purge(DvcCache(repository.root)).values()


def test_a_pointer_whose_list_is_nowhere_stops_nothing_and_is_told(repository: Repository) -> None:
    for folder in (repository.root / ".dvc/cache", repository.root.parent / "store"):
        for path in folder.rglob("*.dir"):
            path.unlink()
    ownership = Ownership(repository.root, "data/source", wanted(), [DvcCache(repository.root)])
    assert ownership.unknown == ["data/source.dvc"]
    assert purge(DvcCache(repository.root)) != {}


def test_damaged_objects_and_objects_of_dvc_2_are_searched(repository: Repository) -> None:
    cache = repository.root / ".dvc/cache"
    for path in (cache / "files/md5").glob("*/*"):
        if path.suffix != ".dir":
            path.chmod(0o644)
            path.write_bytes(path.read_bytes()[:100])
    old = cache / "ab" / ("c" * 30)
    old.parent.mkdir(exist_ok=True)
    old.write_bytes(png(ERASED))
    old.chmod(0o444)
    hits = list(DvcCache(repository.root).search(wanted()))
    assert ("ab" + "c" * 30, "is the image file of a sample") in [(hit.item, hit.why) for hit in hits]
    for hit in hits:
        DvcCache(repository.root).delete(hit.item)
    assert not old.exists()


def test_an_object_is_deleted_and_its_link_in_the_workspace_stays(repository: Repository) -> None:
    repository.dvc("config", "cache.type", "hardlink")
    repository.dvc("config", "cache.dir", "../elsewhere")
    (repository.root / ".dvc/cache").rename(repository.root.parent / "elsewhere")
    repository.dvc("checkout", "--relink")
    path = repository.root / "data/split/images.npy"
    assert path.stat().st_nlink == 2
    content, store = path.read_bytes(), DvcCache(repository.root)
    store.delete(digest(path))
    assert path.read_bytes() == content
    assert path.stat().st_nlink == 1
    assert len(purge(store)) == 6


def test_what_dvc_remembers_of_paths_is_forgotten(repository: Repository) -> None:
    (repository.root / "data/source" / ERASED).write_bytes(png(ERASED))
    repository.dvc("add", "data/source")
    store, name = DvcState(repository.root), Path(ERASED).name.encode()
    assert [hit.why for hit in store.search(wanted())] == [Found(weak=1).why]
    for hit in list(store.search(wanted())):
        store.delete(hit.item)
        store.delete(hit.item)
    assert not [path for path in store.path.rglob("*") if path.is_file() and name in path.read_bytes()]
    (repository.root / "data/source" / ERASED).unlink()
    repository.dvc("add", "data/source")
    assert "up to date" in repository.dvc("status")


def test_a_remote_that_is_no_folder_is_searched_object_by_object(repository: Repository) -> None:
    from dvc.fs import MemoryFileSystem

    class InMemory(Objects):
        def _open(self) -> tuple[object, str]:
            return fs, "/bucket/store"

    fs, store = MemoryFileSystem(global_store=False), repository.root.parent / "store"
    for path in store.rglob("*"):
        if path.is_file():
            fs.pipe_file(f"/bucket/store/{path.relative_to(store).as_posix()}", path.read_bytes())
    fs.pipe_file("/bucket/store/notes/of somebody else.txt", ERASED.encode())
    fs.pipe_file("/bucket/other/files/md5/ab/" + "c" * 30, ERASED.encode())
    expected = purge(DvcRemote(repository.root, "store"))
    hits = purge(InMemory("memory", repository.root))
    assert sorted(hit.item for hit in hits) == sorted(hit.item for hit in expected)
    left = {path: fs.cat_file(path) for path in fs.find("/bucket")}
    assert len(holding(left)) == 2
    assert len(left) - 2 == len([path for path in store.rglob("*") if path.is_file()])


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://example.org/x", "DVC remote far cannot be searched"),
        ("s3://bucket/x", "DVC remote far cannot be used"),
    ],
)
def test_a_remote_that_cannot_be_searched_is_told_in_a_line(
    repository: Repository, url: str, message: str
) -> None:
    repository.dvc("remote", "add", "far", url)
    store = remotes(repository.root)[0]
    with pytest.raises(ExpungeError, match=message) as caught:
        list(store.search(wanted()))
    assert "\n" not in str(caught.value)


def test_a_folder_is_searched_by_path_and_content(tmp_path: Path) -> None:
    for name in ("a/.git/x", "a/skipped/x", "a/ä/x", "a/kept.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("nothing" if "kept" in name else f"lost {TWIN}")
    (tmp_path / "a" / ERASED).parent.mkdir(parents=True)
    (tmp_path / "a" / ERASED).write_text("")
    (tmp_path / "a/link").symlink_to(tmp_path / "a/ä/x")
    (tmp_path / "a/loop").symlink_to(tmp_path / "a")
    os.mkfifo(tmp_path / "a/pipe")
    folder = Folder("workspace", tmp_path / "a", skip=["skipped"])
    hits = {Path(hit.item).relative_to(folder.path).as_posix(): hit.why for hit in folder.search(wanted())}
    assert hits == {ERASED: "has the name of a sample", "ä/x": "holds names of samples: 1"}
    for hit in folder.search(wanted()):
        folder.delete(hit.item)
        folder.delete(hit.item)
    assert list(folder.search(wanted())) == []
    assert (folder.path / "kept.txt").read_text() == "nothing"
    assert list(Folder("none", folder.path / "none").search(wanted())) == []
