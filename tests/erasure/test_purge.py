"""The purge of a real DVC repository: what stays is not harmed, what was cut short is finished."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, cast

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from tasks.core.files import digest, write_whole
from tasks.core.params import load
from tasks.erasure import search
from tasks.erasure.account import Account
from tasks.erasure.again import search_again
from tasks.erasure.checklist import Checklist, Outcome
from tasks.erasure.fingerprints import Contents
from tasks.erasure.pointers import read_pointers
from tasks.erasure.purge import Purge, verify
from tasks.erasure.search import find
from tasks.erasure.sought import Sought
from tasks.erasure.stores import Scans
from tasks.erasure.stores.dvc import DvcCache, Objects
from tasks.requests import events as facts
from tasks.requests.catalogue import Catalogue
from tasks.requests.desk import Desk
from tasks.requests.high_water import extend
from tasks.requests.keys import KeyStore, reference
from tasks.requests.ledger import Ledger
from tasks.requests.request import Request
from tasks.requests.settings import load_settings
from tasks.requests.states import Status
from tests.datasets.building import encoded, grey, write_hub_file
from tests.functional.repository import Repository, environment
from tests.once import made_once

SETTINGS = {"split.source": "image_folder", "split.path": "data/images", "split.val_fraction": 0.2}
GONE, TWIN, OTHER = "train/0/000.png", "train/1/twin.png", "train/0/001.png"
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


def write_images(folder: Path, seed: int) -> None:
    """Two classes of random images; the twin has the pixels of ``GONE`` in another file."""
    random = np.random.default_rng(seed)
    for part, count in (("train", 12), ("test", 4)):
        for label in "01":
            (folder / part / label).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (8, 8), np.uint8)
                Image.fromarray(pixels).save(folder / part / label / f"{number:03}.png")
    with Image.open(folder / GONE) as image:
        image.save(folder / TWIN, compress_level=0)
    assert (folder / TWIN).read_bytes() != (folder / GONE).read_bytes()


def tracked_project(folder: Path, *, seed: int = 0, remote: str = "../store") -> Repository:
    """The project with images that DVC tracks, split, committed and pushed."""
    folder.mkdir(parents=True)
    repository = Repository(folder, environment(folder.parent))
    repository.create()
    shutil.rmtree(folder / "data/source")
    write_images(folder / "data/images", seed)
    repository.change(SETTINGS)
    repository.dvc("remote", "add", "--default", "store", remote)
    repository.dvc("add", "--quiet", "data/images")
    repository.dvc("repro", "--quiet", "split")
    repository.commit("images that DVC tracks")
    repository.dvc("push", "--quiet", "--run-cache")
    return repository


@dataclass
class Project:
    repository: Repository
    keys: KeyStore

    @property
    def root(self) -> Path:
        return self.repository.root

    @property
    def store(self) -> Path:
        return self.root.parent / "store"

    @property
    def desk(self) -> Desk:
        url = f"sqlite:///{self.root}/data/requests/ledger.db"
        return Desk(Ledger(url, lambda: NOW), self.keys, load_settings(), lambda: NOW)

    def purge(self) -> Purge:
        return Purge(self.root, load(), self.desk, {"HOME": str(self.root.parent)})

    def promoted(self, *names: str) -> Request:
        """A request that is promoted: its samples are to be purged, and are on the list of erased ones."""
        value = {
            "requester": "crm:1", "received_at": NOW.isoformat(), "ground": "consent-withdrawn",
            "samples": {"id": list(names)},
        }  # fmt: skip
        request = self.desk.submit(
            json.dumps(value).encode(), "r.json", Catalogue.load(), channel="cli"
        ).request
        contents = Contents(self.keys, load().split, names)
        extend(Path("data/requests/erased.txt"), self.keys, contents.lines)
        base = facts.Base(weights="0" * 64)
        promotion = facts.Promotion(method="retrain", guarantee="exact", weights="1" * 64)
        with self.desk.writing() as writer:
            writer.append(facts.Batched(batch="b-1"), request.id)
            writer.append(facts.Attempt(attempt=1, method="retrain", base=base), "b-1")
            writer.append(facts.Started(batch="b-1"), request.id)
            writer.append(facts.Audited(batch="b-1", content=tuple(contents.of(request))), request.id)
            writer.append(promotion, "b-1")
            writer.append(facts.Promoted(batch="b-1"), request.id)
        return self.desk.show(request.id)

    def record(self, request: Request, checklist: Checklist) -> Request:
        """Commit and record a purge, as the processor does."""
        changed = [path for path in self.purge().own_changes() if (self.root / path).exists()]
        self.repository.git("add", "--", "dvc.lock", "data/requests/erased.txt", *changed)
        self.repository.git("commit", "--quiet", "--message", "purged")
        lines = tuple(facts.ChecklistLine.model_validate(line.as_json()) for line in checklist)
        with self.desk.writing() as writer:
            writer.append(facts.Purge(checklist=lines, void_weights=checklist.weights), "b-1")
            writer.append(facts.Purged(batch="b-1"), request.id)
        return self.desk.show(request.id)

    def clone(self, folder: Path) -> Repository:
        """What somebody gets who clones the repository and pulls from the remote."""
        self.repository.run("git", "clone", "--quiet", str(self.root), str(folder))
        clone = Repository(folder, self.repository.environment)
        clone.dvc("remote", "modify", "--local", "store", "url", str(self.store))
        clone.dvc("pull", "--quiet", "data/images.dvc")
        return clone


@pytest.fixture(scope="session")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    def make(folder: Path) -> None:
        tracked_project(folder / "project")

    folder = made_once(tmp_path_factory, "tracked", make)
    return Repository(folder / "project", environment(folder))


@pytest.fixture
def project(tracked: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    shutil.copytree(tracked.root.parent / "store", tmp_path / "store")
    repository = tracked.copy(tmp_path / "project")
    for name in [name for name in os.environ if name.startswith(("EXPUNGE_", "DVC_", "GIT_"))]:
        monkeypatch.delenv(name)
    repository.environment["EXPUNGE_KEYS"] = str(tmp_path / "keys")
    for name, value in repository.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(repository.root))
    monkeypatch.chdir(repository.root)
    return Project(repository, KeyStore(tmp_path / "keys", repository.root))


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def images_of(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in files(folder).items() if name.endswith(".png")}


def outcomes(checklist: Checklist, store: str) -> set[Outcome]:
    return {line.outcome for line in checklist if line.store == store}


def items(checklist: Checklist, store: str, outcome: Outcome) -> set[str]:
    return {each.item for each in checklist.details if (each.store, each.outcome) == (store, outcome)}


def names_nobody(checklist: Checklist) -> bool:
    said = json.dumps([line.as_json() for line in checklist])
    return not any(name in said for name in (GONE, Path(GONE).name, OTHER, TWIN, "data/images"))


def test_only_the_erased_leaves_and_a_clone_gets_all_that_stays(project: Project, tmp_path: Path) -> None:
    project.repository.write("docs/example.md", f"such as {GONE}\n")  # the project's own text
    project.repository.commit("an example")
    before = images_of(project.root / "data/images")
    erased = before.pop(GONE)
    stores = {"cache": project.root / ".dvc/cache", "remote": project.store}
    old = {name: files(folder) for name, folder in stores.items()}
    list_of_old = project.repository.git("show", "HEAD:data/images.dvc").split()[3]
    request = project.promoted(GONE)
    checklist = project.purge().carry_out([request])
    request = project.record(request, checklist)
    assert images_of(project.root / "data/images") == before
    assert project.repository.git("status", "--porcelain", "-uno") == ""
    assert images_of(project.clone(tmp_path / "clone").root / "data/images") == before
    for name, folder in stores.items():
        now = files(folder)
        assert erased not in now.values()
        assert not any(GONE.encode() in content for content in now.values())
        gone = {path for path in old[name] if path not in now and "runs/" not in path}
        objects = {"".join(Path(path).parts[-2:]) for path in gone}
        assert list_of_old in objects
        assert hashlib.md5(erased).hexdigest() in objects
        # the image, the folder's list, a shard with slots and their list, pictures.npy and three tables
        assert len(objects) == 9
    assert outcomes(checklist, "DVC cache") == outcomes(checklist, "DVC remote store") == {Outcome.DELETED}
    assert outcomes(checklist, "all stores") == {Outcome.KEPT_SHARED}  # the twin
    assert outcomes(checklist, "Git history") == {Outcome.NOT_APPLICABLE}
    assert names_nobody(checklist)
    assert checklist.open == ()
    found = verify(project.purge(), [request])
    assert [line for line in found if not line.holds] == []


def test_a_table_that_the_user_tracks_is_reported_and_stays(project: Project) -> None:
    ids = "".join(f"{name},x\n" for name in sorted(images_of(project.root / "data/images")))
    project.repository.write("data/annotations.csv", ids)
    project.repository.dvc("add", "--quiet", "data/annotations.csv")
    project.repository.commit("annotations")
    project.repository.dvc("push", "--quiet")
    md5 = digest(project.root / "data/annotations.csv")
    request = project.promoted(GONE)
    checklist = project.purge().carry_out([request])
    for store in ("DVC cache", "DVC remote store"):
        assert md5 in items(checklist, store, Outcome.KEPT_REPORTED)
        assert Outcome.KEPT_REPORTED in outcomes(checklist, store)
    (why,) = {each.why for each in checklist.details if each.item == md5}
    assert "tracked as data/annotations.csv" in why
    (project.root / "data/annotations.csv").unlink()
    shutil.rmtree(project.root / ".dvc/cache" / "files/md5" / md5[:2])
    project.repository.dvc("pull", "--quiet", "data/annotations.csv")
    assert (project.root / "data/annotations.csv").read_text() == ids
    assert names_nobody(checklist)
    assert not checklist.holds


def beside_another(project: Project, tmp_path: Path, seed: int) -> tuple[Path, Repository]:
    """Let the project share its cache and remote with another one; return the cache, and that project."""
    shared = tmp_path / "shared"
    project.repository.dvc("cache", "dir", str(shared))
    shutil.move(project.root / ".dvc/cache", shared)
    project.repository.commit("a shared cache")
    other = tracked_project(tmp_path / "other", seed=seed, remote=str(project.store))
    other.dvc("cache", "dir", str(shared))
    return shared, other


def split_and_pushed(repository: Repository, message: str) -> None:
    """Track what the images are by now, split them, commit and push."""
    repository.dvc("add", "--quiet", "data/images")
    repository.dvc("repro", "--quiet", "split")
    repository.commit(message)
    repository.dvc("push", "--quiet", "--run-cache")


def test_another_project_in_the_same_stores_loses_nothing(project: Project, tmp_path: Path) -> None:
    """Its files have the same names, one of its images the same content."""
    shared, other = beside_another(project, tmp_path, seed=1)
    same = (project.root / "data/images" / OTHER).read_bytes()
    (other.root / "data/images" / OTHER).write_bytes(same)
    split_and_pushed(other, "one image is the other project's, too")
    before = {k: v for k, v in other.contents("images", "split").items() if ".gitignore" not in k}
    request = project.promoted(GONE, OTHER)
    checklist = project.purge().carry_out([request])
    for store in ("DVC cache", "DVC remote store"):
        assert outcomes(checklist, store) >= {Outcome.DELETED, Outcome.KEPT_REPORTED, Outcome.KEPT_SHARED}
        assert hashlib.md5(same).hexdigest() in items(checklist, store, Outcome.KEPT_SHARED)
    for folder in ("data/images", "data/split"):
        shutil.rmtree(other.root / folder)
    other.dvc("checkout", "--quiet", "--force", "data/images.dvc", "split")
    assert other.contents("images", "split") == before
    shutil.rmtree(shared)
    other.dvc("pull", "--quiet", "data/images.dvc", "split", "--force")
    assert other.contents("images", "split") == before


def test_a_second_data_set_with_the_same_names_stays_and_stops_no_later_purge(project: Project) -> None:
    write_images(project.root / "data/second", seed=7)
    project.repository.dvc("add", "--quiet", "data/second")
    project.repository.commit("a second data set")
    project.repository.dvc("push", "--quiet")
    before = images_of(project.root / "data/second")
    for name in (GONE, OTHER):
        request = project.promoted(name)
        checklist = project.purge().carry_out([request])
        project.record(request, checklist)
        assert Outcome.KEPT_REPORTED in outcomes(checklist, "DVC cache")
    shutil.rmtree(project.root / "data/second")
    project.repository.dvc("checkout", "--quiet", "data/second")
    assert images_of(project.root / "data/second") == before


def test_what_other_stages_made_of_something_else_stays(project: Project, tmp_path: Path) -> None:
    """Annotations and a second data set that the user's own stages brought; one image is the erased one."""
    ids = "".join(f"{name},x\n" for name in sorted(images_of(project.root / "data/images")))
    (tmp_path / "elsewhere.csv").write_text(ids)
    write_images(tmp_path / "elsewhere", seed=7)
    shutil.copy(project.root / "data/images" / GONE, tmp_path / "elsewhere" / GONE)
    stages = {"annotations": ("cp", "data/annotations.csv"), "second": ("cp -r", "data/second")}
    for (stage, (copy, out)), origin in zip(stages.items(), ("elsewhere.csv", "elsewhere"), strict=True):
        command = f"{copy} {tmp_path / origin} {out}"
        project.repository.dvc("stage", "add", "--quiet", "--run", "--name", stage, "--outs", out, command)
    project.repository.commit("what other stages bring")
    project.repository.dvc("push", "--quiet", "--run-cache")
    data = files(project.root / "data")
    before = {name: data[name] for name in data if name.startswith(("annotations", "second"))}
    for name in (GONE, OTHER):
        request = project.promoted(name)
        checklist = project.purge().carry_out([request])
        project.record(request, checklist)
        for store in ("DVC cache", "DVC remote store"):
            assert Outcome.KEPT_REPORTED in outcomes(checklist, store)
        assert names_nobody(checklist)
    now = files(project.root / "data")
    assert {name: now.get(name) for name in before} == before
    for folder in (project.root / ".dvc/cache/files", None):
        shutil.rmtree(project.root / "data/second")
        (project.root / "data/annotations.csv").unlink()
        project.repository.dvc("checkout" if folder else "pull", "--quiet", *stages)
        now = files(project.root / "data")
        assert {name: now.get(name) for name in before} == before
        if folder:
            shutil.rmtree(folder)


def test_work_on_another_branch_keeps_what_it_needs(project: Project) -> None:
    """Its list names the erased image, and one that is only there: a list without the erased one is kept."""
    project.repository.git("checkout", "--quiet", "-b", "side")
    Image.new("L", (8, 8), 77).save("data/images/train/1/only-here.png")
    project.repository.dvc("add", "--quiet", "data/images")
    project.repository.commit("one image more")
    project.repository.dvc("push", "--quiet")
    expected = images_of(project.root / "data/images")
    del expected[GONE]
    project.repository.git("checkout", "--quiet", "main")
    project.repository.dvc("checkout", "--quiet", "data/images.dvc")
    request = project.promoted(GONE)
    checklist = project.purge().carry_out([request])
    project.record(request, checklist)
    assert Outcome.MADE_AGAIN in outcomes(checklist, "DVC cache")
    (why,) = {each.why for each in checklist.details if "another branch" in each.why}
    new = why.split("; ")[1].split()[0]
    project.repository.git("checkout", "--quiet", "side")
    pointer = (project.root / "data/images.dvc").read_text()
    project.repository.write("data/images.dvc", pointer.replace(pointer.split()[3], new))
    shutil.rmtree(project.root / ".dvc/cache")
    project.repository.dvc("pull", "--quiet", "data/images.dvc", "--force")
    assert images_of(project.root / "data/images") == expected


@pytest.mark.parametrize(
    ("pointer", "path"),
    [("data/images", "data/images/"), ("data/all", "data/all/images"), ("data/all", "data/all/images/")],
)
def test_the_right_pointer_is_brought_up_to_date(
    project: Project, tmp_path: Path, pointer: str, path: str
) -> None:
    if pointer == "data/all":
        project.repository.dvc("remove", "data/images.dvc")
        (project.root / "data/all").mkdir()
        shutil.move("data/images", "data/all/images")
        project.repository.write("data/all/else.txt", "kept")
        project.repository.dvc("add", "--quiet", "data/all")
    project.repository.change({"split.path": path})
    project.repository.dvc("repro", "--quiet", "split")
    project.repository.commit("another path")
    project.repository.dvc("push", "--quiet")
    expected = files(project.root / path)
    del expected[GONE]
    old = project.repository.git("show", f"HEAD:{pointer}.dvc").split()[3]
    request = project.promoted(GONE)
    purge = project.purge()
    checklist = purge.carry_out([request])
    assert not any(store.has(old) for store in purge.places.objects(Scans()))  # it names the erased
    assert purge.own_changes() == [f"{pointer}.dvc"]
    project.record(request, checklist)
    assert project.repository.git("status", "--porcelain", "-uno") == ""
    shutil.rmtree(project.root / pointer)
    shutil.rmtree(project.root / ".dvc/cache")
    project.repository.dvc("pull", "--quiet", f"{pointer}.dvc")
    assert files(project.root / path) == expected


@pytest.mark.parametrize("where", ["_renew_pointers", "_split_again", "_purge_objects", "put", "delete"])
def test_a_purge_that_was_cut_short_is_finished_by_the_next(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    expected = images_of(project.root / "data/images")
    erased = expected.pop(GONE)
    request = project.promoted(GONE)
    assert project.purge().own_changes() == []

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    target: Any = Purge if where.startswith("_") else DvcCache if where == "put" else Objects
    with monkeypatch.context() as patch:
        patch.setattr(target, "add_list" if where == "put" else where, killed)
        with pytest.raises(Killed):
            project.purge().carry_out([request])
    assert not Path("data/images", GONE).exists()
    assert project.purge().own_changes() == ["data/images.dvc"]
    checklist = project.purge().carry_out([request])
    request = project.record(request, checklist)
    assert project.purge().own_changes() == []
    for folder in (".dvc/cache", "../store"):
        assert erased not in files(Path(folder)).values()
    assert images_of(project.clone(tmp_path / "clone").root / "data/images") == expected
    assert verify(project.purge(), [request]).holds


def test_a_remote_that_does_not_answer_is_told_and_alone_searched_once_it_is_back(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    erased = Path("data/images", GONE).read_bytes()
    request = project.promoted(GONE)
    project.store.rename(project.store.with_name("unmounted"))
    purge = project.purge()
    checklist = purge.carry_out([request])
    assert outcomes(checklist, "DVC remote store") == {Outcome.UNREACHABLE}
    assert checklist.open == ("DVC remote store",)
    assert "DVC remote store" in checklist.open
    assert erased not in files(Path(".dvc/cache")).values()
    project.record(request, checklist)
    assert not verify(project.purge(), [project.desk.show(request.id)]).holds
    assert project.purge().open_requests() == [request.id]
    before = files(project.root / ".dvc/cache")
    done = set[str]()

    def noted(name: str, function: Any) -> Any:
        def call(self: Any, first: Any, *rest: Any, **options: Any) -> Any:
            done.add(f"{name} {getattr(first, 'name', '' if name != 'dvc' else first)}")
            return function(self, first, *rest, **options)

        return call

    with monkeypatch.context() as patch:
        for name, owner, method in (
            ("search", Account, "search"),
            ("dvc", Purge, "_dvc"),
            ("git", Purge, "git"),
            ("source", Purge, "_originals"),
        ):
            patch.setattr(owner, method, noted(name, getattr(owner, method)))
        unchanged = "all other stores", Outcome.NOT_APPLICABLE
        again = search_again(project.purge(), [project.desk.show(request.id)])
        assert done == {"search DVC remote store"}
        assert [(line.store, line.outcome) for line in again] == [
            ("DVC remote store", Outcome.UNREACHABLE), unchanged
        ]  # fmt: skip
        assert project.purge().open_requests() == [request.id]
        project.store.with_name("unmounted").rename(project.store)
        again = search_again(project.purge(), [project.desk.show(request.id)])
        assert done == {"search DVC remote store", "dvc push"}
        assert [(line.store, line.outcome) for line in again] == [
            ("DVC remote store", Outcome.DELETED), unchanged
        ]  # fmt: skip
        assert files(project.root / ".dvc/cache") == before
    assert erased not in files(project.store).values()
    assert project.purge().open_requests() == []
    assert verify(project.purge(), [project.desk.show(request.id)]).holds


def test_strangers_and_what_cannot_be_read_end_no_purge(project: Project) -> None:
    project.repository.write("data/foreign.dvc", "outs: [{md5: 3\n")
    project.repository.dvc("remote", "add", "bucket", "s3://bucket/x")
    project.repository.dvc("remote", "add", "far", "https://example.org/x")
    project.repository.commit("strangers")
    request = project.promoted(GONE)
    checklist = project.purge().carry_out([request])
    for store in ("DVC remote bucket", "DVC remote far", "DVC pointers"):
        assert Outcome.NOT_SEARCHED in outcomes(checklist, store)
    assert outcomes(checklist, "DVC cache") == {Outcome.DELETED}
    assert checklist.open == ()
    found = verify(project.purge(), [project.record(request, checklist)])
    assert not found.holds
    assert names_nobody(found)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_folder_is_named(project: Project) -> None:
    Path("data/secret").mkdir(mode=0)
    request = project.promoted(GONE)
    checklist = project.purge().carry_out([request])
    assert Outcome.NOT_SEARCHED in outcomes(checklist, "workspace")
    Path("data/secret").chmod(0o700)


def test_a_folder_that_may_not_be_entered_ends_no_search_for_pointers(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``Path.exists`` is for whoever may not enter the folder, and is not root."""
    there = Path.exists

    def exists(path: Path, **options: bool) -> bool:
        if "secret" in path.parts[:-1]:
            raise PermissionError(13, "Permission denied", str(path))
        return there(path, **options)

    Path("data/secret").mkdir()
    before = read_pointers(project.root)
    monkeypatch.setattr(Path, "exists", exists)
    assert read_pointers(project.root) == before


def test_a_file_that_may_not_be_read_is_not_said_to_be_gone(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = search._opened

    def guarded(path: Path) -> BinaryIO:
        if path.name == "private.png":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path)

    request = project.promoted(GONE)
    shutil.copy(Path("data/images", GONE), "data/private.png")
    monkeypatch.setattr(search, "_opened", guarded)
    checklist = project.purge().carry_out([request])
    assert Outcome.NOT_SEARCHED in outcomes(checklist, "workspace")
    assert not verify(project.purge(), [project.record(request, checklist)]).holds
    assert names_nobody(checklist)


def test_a_twin_that_stays_is_no_trace(project: Project) -> None:
    """The new split holds the twin's pixels; a copy of the array that holds both goes by lineage."""
    request = project.promoted(GONE)
    project.purge().carry_out([request])
    new = digest(Path("data/split/images/00000.npy"))
    assert DvcCache(project.root).has(new)
    key = project.keys.load(request.id)
    held = {reference(key, "id", name) for name in Catalogue.load().sources}
    assert held.isdisjoint(request.digests["id"])


def test_the_old_file_of_a_table_goes_also_if_what_stays_looks_the_same(project: Project) -> None:
    """Only the old file tells that there were two of them; and no list stays without what it names."""
    images = [encoded(grey(5000 + number, 8, 8)) for number in (0, 1, 2, 3, 0, 4)]
    for part, count in (("train", 6), ("test", 2)):
        table = Path(f"data/tables/{part}-00000-of-0000{2 if part == 'train' else 1}.parquet")
        write_hub_file(table, images[:count], [number % 2 for number in range(count)])
    write_hub_file(Path("data/tables/train-00001-of-00002.parquet"), images[1:4], [0, 1, 0])
    project.repository.dvc("add", "--quiet", "data/tables")
    project.repository.change({"split.source": "parquet", "split.path": "data/tables"})
    project.repository.dvc("repro", "--quiet", "split")
    project.repository.commit("tables")
    project.repository.dvc("push", "--quiet")
    before = files(Path("data/tables"))
    stores = project.purge().places.objects(Scans())
    old = {name: hashlib.md5(content).hexdigest() for name, content in before.items()}
    old_list = project.repository.git("show", "HEAD:data/tables.dvc").split()[3]
    (name,) = [
        each for each, path in Catalogue.load().sources.items() if path.endswith("0-of-00002.parquet#4")
    ]
    request = project.promoted(name)
    checklist = project.purge().carry_out([request])
    project.record(request, checklist)
    rewritten = "train-00000-of-00002.parquet"
    assert files(Path("data/tables")).keys() == before.keys()
    assert [each for each, content in files(Path("data/tables")).items() if content != before[each]] == [
        rewritten
    ]
    for store in stores:
        assert not store.has(old[rewritten])
        assert not store.has(old_list)
        assert all(store.has(md5) for each, md5 in old.items() if each != rewritten)


def test_what_git_once_tracked_of_the_source_is_told(project: Project) -> None:
    project.repository.git("add", "--force", f"data/images/{OTHER}")
    project.repository.git("commit", "--quiet", "--message", "by mistake")
    project.repository.git("rm", "--quiet", "--cached", f"data/images/{OTHER}")
    project.repository.git("commit", "--quiet", "--message", "tracked no longer")
    request = project.promoted(OTHER)
    checklist = project.purge().carry_out([request])
    assert outcomes(checklist, "Git history") == {Outcome.KEPT_REPORTED}
    assert not any("restored" in line.detail for line in checklist)


def test_a_training_at_work_keeps_its_checkpoint(project: Project) -> None:
    from tasks.core.files import only_writer

    experiments = Path(".dvc/tmp/exps/busy"), Path(".dvc/tmp/exps/ended")
    for checkout in (Path(), *experiments):
        for stage in ("train", "retrain"):
            project.repository.write(f"{checkout}/.expunge/checkpoints/{stage}.ckpt", "weights")
    for checkout in experiments:
        project.repository.write(f"{checkout}/data/split/ids.csv", f"{GONE}\n")
    project.repository.write(".expunge/tmp/0123/object", "nothing that a search would find")
    request = project.promoted(GONE)
    (experiments[0] / ".expunge/locks").mkdir()
    with only_writer(Path("data/train")), FileLock(experiments[0] / ".expunge/locks/data-retrain.lock"):
        checklist = project.purge().carry_out([request])
    left = {str(path) for path in Path().rglob("*.ckpt")}
    assert left == {".expunge/checkpoints/train.ckpt", f"{experiments[0]}/.expunge/checkpoints/retrain.ckpt"}
    assert [path.parts[3] for path in Path(".dvc/tmp/exps").rglob("ids.csv")] == ["busy"]
    assert outcomes(checklist, "DVC's temporary files") == {Outcome.DELETED, Outcome.UNREACHABLE}
    assert checklist.open == ("checkpoints", "DVC's temporary files")
    assert outcomes(checklist, "temporary folders") == {Outcome.DELETED}
    assert not Path(".expunge/tmp/0123").exists()


def test_what_killed_processes_left_half_written_goes(project: Project) -> None:
    """Nothing but its name and its lock tell what it is: it may be weights, cut off anywhere."""
    half = ("data/base/.weights.safetensors.a1b2c3d4.part", ".expunge/runs/.x.json.a1b2c3d4.part")
    stays = ("data/base/weights.part", "data/.notes.part", "notes/.other.A1B2C3D4.part")
    request = project.promoted(GONE)
    project.keys.folder.joinpath(".purge-0.sought.a1b2c3d4.part").write_text(GONE)
    for path in (*half, *stays):
        project.repository.write(path, "cut off")
    with write_whole(Path("data/retrain/logits.npy")) as file:
        checklist = project.purge().carry_out([request])
        file.write(b"whole")
    assert outcomes(checklist, "unfinished files") == {Outcome.DELETED}
    assert [line.count for line in checklist if line.store == "unfinished files"] == [3]
    assert not [path for path in half if Path(path).exists()]
    assert all(Path(path).exists() for path in stays)
    assert Path("data/retrain/logits.npy").read_bytes() == b"whole"
    assert not list(project.keys.folder.glob(".*"))


def test_what_a_user_put_into_data_stays_even_if_it_is_the_same_as_an_output(project: Project) -> None:
    Path("data/mine").mkdir()
    shutil.copy("data/split/images/00000.npy", "data/mine/images.npy")
    request = project.promoted(OTHER)
    checklist = project.purge().carry_out([request])
    assert Path("data/mine/images.npy").exists()
    assert str(project.root / "data/mine/images.npy") in items(checklist, "workspace", Outcome.KEPT_REPORTED)


def test_a_source_outside_the_checkout_is_searched(project: Project, tmp_path: Path) -> None:
    shutil.copytree("data/images", tmp_path / "images")
    project.repository.change({"split.path": str(tmp_path / "images")})
    project.repository.dvc("repro", "--quiet", "split")
    project.repository.commit("a source elsewhere")
    request = project.promoted(OTHER)
    (tmp_path / "images/notes.txt").write_text(f"see {OTHER}")
    checklist = project.purge().carry_out([request])
    assert not (tmp_path / "images" / OTHER).exists()
    assert str(tmp_path / "images/notes.txt") in items(checklist, "source", Outcome.KEPT_REPORTED)
    shutil.rmtree(tmp_path / "images")
    found = verify(project.purge(), [project.desk.show(request.id)])
    assert Outcome.NOT_SEARCHED in outcomes(found, "source")


def test_no_content_is_read_twice_under_one_address(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, read = project.promoted(GONE), list[str]()

    def counted(content: Path | bytes, wanted: Any) -> Any:
        read.extend([digest(content)] if isinstance(content, Path) else [])
        return find(content, wanted)

    entries, local = list[str](), Objects._local

    def opened(self: Objects, path: str) -> Any:
        entries.extend([f"{self.name} {path}"] if "/runs/" in path else [])
        return local(self, path)

    monkeypatch.setattr("tasks.erasure.stores.dvc.find", counted)
    monkeypatch.setattr(Objects, "_local", opened)
    project.purge().carry_out([request])
    assert entries
    assert len(entries) == len(set(entries))
    objects = [
        each for each in read if each in {digest(path) for path in project.store.rglob("*") if path.is_file()}
    ]
    assert objects
    assert len(objects) == len(set(objects))


@pytest.mark.parametrize("ledger", ["data/requests/ledger.db", "ledger.db"])
def test_ledger_and_certificates_are_not_searched_as_data_and_copies_of_them_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ledger: str
) -> None:
    """A requester may be called like a sample: the ledger would be deleted as what names it."""
    params = load()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EXPUNGE_TRACKING", "off")
    desk = SimpleNamespace(ledger=SimpleNamespace(name=f"sqlite:///{tmp_path}/{ledger}"))
    own = [f"{ledger}{end}" for end in ("", "-wal", "-shm", "-journal")]
    own += ["data/requests/certificates/1.json"]
    copies = ["data/copy/ledger.db", "data/requests/1.json", "notes/ledger.db-wal"]
    for path in (*own, *copies):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f"requester: {GONE}")
    purge = Purge(tmp_path, params, cast("Any", desk), {"HOME": str(tmp_path / "home")})
    found = [
        hit.item
        for store in purge.places.others()
        if store.name in {"workspace", "rest of the checkout"}
        for hit in store.search(Sought.of_samples([GONE]))
    ]
    assert sorted(found) == sorted(str(tmp_path / path) for path in copies)


def test_the_request_is_still_promoted_until_it_is_recorded(project: Project) -> None:
    request = project.promoted(GONE)
    checklist = project.purge().carry_out([request])
    assert project.desk.show(request.id).state.status is Status.PROMOTED
    assert project.record(request, checklist).state.status is Status.PURGED
