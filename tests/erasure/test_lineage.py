"""Outputs that were made of a void split are told by what DVC and Git recorded."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from tasks.core.errors import ExpungeError
from tasks.erasure.lineage import Lineage, Output, forget_in_lock
from tasks.erasure.pointers import read_pointers
from tasks.erasure.stores.dvc import DvcCache, remotes
from tests.functional.repository import Repository, environment

ERASED = "train/cat/my ä 1.png"
TWIN, TWIN_KEPT = "train/cat/2.png", "train/dog/2 too.png"
"""Two names of the same bytes: only the first is erased."""
NAMES = (ERASED, TWIN, TWIN_KEPT, *(f"train/dog/{number}.png" for number in range(6)))
IMAGES = dict(zip(NAMES, np.random.default_rng(3).integers(0, 256, (9, 16, 16, 3), np.uint8), strict=True))
IMAGES[TWIN_KEPT] = IMAGES[TWIN]

SCRIPT = """
import csv, sys
from pathlib import Path
import numpy as np
from PIL import Image
stage, out = sys.argv[1], Path("data") / sys.argv[1]
out.mkdir(parents=True, exist_ok=True)
if stage == "split":
    names = sorted(path.relative_to("data/source").as_posix() for path in Path("data/source").rglob("*.png"))
    images = np.stack([np.asarray(Image.open(f"data/source/{name}")).transpose(2, 0, 1) for name in names])
    np.save(out / "images.npy", images)
    for table in ("samples.csv", "manifest.csv"):
        with open(out / table, "w", newline="") as file:
            csv.writer(file).writerows([["sample_id", table], *([name, "train"] for name in names)])
    (out / "classes.json").write_text('["cat", "dog"]')
elif stage == "train":
    images = np.load("data/split/images.npy").astype("float64")
    (out / "weights.safetensors").write_bytes(images.mean(axis=0).tobytes())
    np.save(out / "logits.npy", images.mean(axis=(1, 2, 3)))
    (out / "metrics.json").write_text(str(len(images)))
    (out / "verdict.json").write_text(str(images.mean()))
else:
    (out / "report.html").write_text(Path("data/split/classes.json").read_text())
"""
STAGES = """\
stages:
  split:
    cmd: python make.py split
    deps: [make.py, data/source]
    outs: [data/split/images.npy, data/split/samples.csv, data/split/manifest.csv, data/split/classes.json]
  train:
    cmd: python make.py train
    deps: [data/split/images.npy]
    outs:
    - data/train/weights.safetensors
    - data/train/logits.npy
    - data/train/metrics.json
    - data/train/verdict.json
  report:
    cmd: python make.py report
    deps: [data/split/classes.json]
    outs: [data/report/report.html]
"""


def lineage(root: Path) -> Lineage:
    """What the repository's records tell, in whatever store."""
    stores = [DvcCache(root), *remotes(root)] if (root / ".dvc/config").exists() else []
    run_caches = {store.name: store.runs() for store in stores}
    pointers = read_pointers(root)
    return Lineage.read(root, "data/source", pointers, run_caches, private="DVC cache")


def void_outputs(root: Path, void: Collection[str], keep: Collection[str] = ()) -> list[Output]:
    return lineage(root).void_outputs(void, keep)


def commits_without_data(root: Path, void: Collection[str]) -> list[str]:
    return lineage(root).commits_without_data(root, void)


def png(name: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(IMAGES[name]).save(file, "png")
    return file.getvalue()


def chw(name: str) -> np.ndarray:
    return np.moveaxis(IMAGES[name], 2, 0)


def erased_repository(folder: Path) -> Repository:
    """A repository whose last commit is without the samples, and its remote ``store`` beside it."""
    (folder / "project").mkdir()
    repository = Repository(folder / "project", environment(folder))
    repository.git("init", "--quiet", "--initial-branch=main")
    repository.dvc("init", "--quiet")
    repository.dvc("remote", "add", "--default", "store", "../store")
    for name in NAMES:
        path = repository.root / "data/source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(name))
    repository.write("make.py", SCRIPT)
    repository.write("dvc.yaml", STAGES)
    for message in ("first", "erased"):
        repository.dvc("add", "--quiet", "data/source")
        repository.dvc("repro")
        repository.commit(message)
        repository.dvc("push", "--run-cache")
        for name in (ERASED, TWIN):
            (repository.root / "data/source" / name).unlink(missing_ok=True)
    return repository


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return erased_repository(tmp_path_factory.mktemp("original"))


@pytest.fixture
def repository(original: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    for name, value in original.environment.items():
        monkeypatch.setenv(name, value)
    shutil.copytree(original.root.parent / "store", tmp_path / "store")
    return original.copy(tmp_path / "project")


def locked(repository: Repository, revision: str) -> dict[str, str]:
    """MD5 of what ``dvc.lock`` names in a commit, by path."""
    stages = YAML(typ="safe").load(repository.git("show", f"{revision}:dvc.lock"))["stages"].values()
    return {each["path"]: each["md5"] for stage in stages for each in [*stage["deps"], *stage["outs"]]}


def by_path(outputs: list[Output]) -> dict[str, str]:
    assert len({output.path for output in outputs}) == len(outputs)
    return {output.path: output.md5 for output in outputs}


VOID = (
    *("data/split/images.npy", "data/split/samples.csv", "data/split/manifest.csv"),
    *("data/train/weights.safetensors", "data/train/logits.npy", "data/train/verdict.json"),
)


@pytest.mark.parametrize("suffix", [".dir", ""])
def test_all_that_was_made_of_the_erased_is_void_and_nothing_else(
    repository: Repository, suffix: str
) -> None:
    old, new = locked(repository, "HEAD~1"), locked(repository, "HEAD")
    source = {old["data/source"].removesuffix(".dir") + suffix}
    outputs = void_outputs(repository.root, source, keep=())
    assert by_path(outputs) == {path: old[path] for path in VOID}
    assert set(by_path(outputs).values()).isdisjoint(new.values())
    assert {output.revs for output in outputs} == {
        (repository.git("rev-parse", "HEAD~1").strip(), "run cache")
    }
    assert {output.stage for output in outputs} == {"split", "train"}
    assert void_outputs(repository.root, {"0" * 32}, keep=()) == []


@pytest.mark.parametrize("table", ["samples.csv", "manifest.csv"])
def test_what_was_made_beside_a_void_table_is_void(repository: Repository, table: str) -> None:
    old = locked(repository, "HEAD~1")
    outputs = void_outputs(repository.root, {old[f"data/split/{table}"]}, keep=())
    assert by_path(outputs) == {path: old[path] for path in VOID}


def test_what_is_kept_is_not_void_and_passes_nothing_on(repository: Repository) -> None:
    old = locked(repository, "HEAD~1")
    weights = old["data/train/weights.safetensors"]
    outputs = void_outputs(repository.root, {old["data/source"]}, keep={weights})
    assert by_path(outputs) == {path: old[path] for path in VOID if "weights" not in path}
    images = old["data/split/images.npy"]
    outputs = void_outputs(repository.root, {old["data/source"]}, keep={images})
    assert set(by_path(outputs)) == {"data/split/samples.csv", "data/split/manifest.csv"}


def test_experiments_and_what_only_the_reflog_has_count(repository: Repository) -> None:
    old = locked(repository, "HEAD~1")
    repository.git("checkout", "--quiet", "--detach", "HEAD~1")
    commits = {}
    for other, reference in {"a" * 32: "refs/exps/ab/cdef/x", "b" * 32: "refs/heads/gone"}.items():
        lock = (repository.root / "dvc.lock").read_text()
        repository.write("dvc.lock", lock.replace(old["data/train/weights.safetensors"], other))
        repository.commit("an experiment")
        commits[other] = repository.git("rev-parse", "HEAD").strip()
        repository.git("update-ref", reference, "HEAD")
        repository.git("checkout", "--quiet", "main~1")
    repository.git("update-ref", "-d", "refs/heads/gone")
    repository.git("checkout", "--quiet", "main")
    outputs = void_outputs(repository.root, {old["data/source"]}, keep=())
    assert {each.md5: each.revs[0] for each in outputs if each.md5 in commits} == commits
    found = commits_without_data(repository.root, {old["data/source"]})
    assert set(found) == {*commits.values(), repository.git("rev-parse", "main~1").strip()}


@pytest.mark.parametrize("place", [".dvc/cache", "../store"])
def test_the_run_cache_alone_tells_it_too(repository: Repository, place: str) -> None:
    """Of a run that was never committed; in a remote an entry is the project's own if it read its source."""
    old = locked(repository, "HEAD~1")
    pointer = repository.git("show", "HEAD~1:data/source.dvc")
    shutil.rmtree(repository.root / ".git")
    repository.git("init", "--quiet")
    repository.write("data/source.dvc", pointer)
    repository.commit("the source alone")
    other = {".dvc/cache": "../store", "../store": ".dvc/cache"}[place]
    shutil.rmtree(repository.root / other / "runs")
    damaged = repository.root / place / "runs/ab/abc"
    damaged.mkdir(parents=True)
    for number, text in enumerate(["{", "", "- 1", "cmd: x\ndeps: 3\n", "\ufeff\0"]):
        (damaged / str(number)).write_text(text)
    outputs = void_outputs(repository.root, {old["data/source"]}, keep=())
    assert by_path(outputs) == {path: old[path] for path in VOID}
    assert {output.stage for output in outputs} == {"python make.py split", "python make.py train"}
    assert {output.revs for output in outputs} == {("run cache",)}


def test_only_commits_that_name_void_objects_are_without_data(repository: Repository) -> None:
    old = locked(repository, "HEAD~1")
    (repository.root / "notes.txt").write_text("dvc.lock stays as it is")
    repository.commit("another")
    repository.git("checkout", "--quiet", "-b", "side", "HEAD~2")
    repository.write("dvc.lock", "<<<<<<< half a merge\n")
    repository.commit("damaged")
    (repository.root / "dvc.lock").unlink()
    repository.commit("none")
    repository.git("checkout", "--quiet", "main")
    root, commits = repository.root, repository.git("rev-list", "main").split()
    assert commits_without_data(root, {old["data/train/logits.npy"]}) == commits[2:]
    assert commits_without_data(root, {locked(repository, "HEAD")["data/source"]}) == commits[:2]
    assert commits_without_data(root, {old["data/split/classes.json"]}) == commits
    assert commits_without_data(root, {"0" * 32}) == []


def test_a_project_in_a_folder_of_a_repository(repository: Repository, tmp_path: Path) -> None:
    old = locked(repository, "HEAD~1")
    outer = Repository(tmp_path / "outer", repository.environment)
    (outer.root / "inner/.dvc").mkdir(parents=True)
    outer.write("inner/dvc.lock", repository.git("show", "HEAD~1:dvc.lock"))
    outer.write("dvc.lock", "{}")
    outer.git("init", "--quiet")
    outer.commit("one")
    assert by_path(void_outputs(outer.root / "inner", {old["data/source"]}, ())) == {p: old[p] for p in VOID}
    assert len(commits_without_data(outer.root / "inner", {old["data/source"]})) == 1
    with pytest.raises(ExpungeError, match=r"git log failed in .*: fatal: not a git repository"):
        commits_without_data(tmp_path, {"0" * 32})


def test_void_stages_leave_the_lock_and_the_rest_stays_to_the_byte(repository: Repository) -> None:
    path, new = repository.root / "dvc.lock", locked(repository, "HEAD")
    before = path.read_text()
    assert forget_in_lock(path, {"0" * 32, locked(repository, "HEAD~1")["data/split/images.npy"]}) == []
    assert path.read_text() == before
    assert forget_in_lock(path, {new["data/train/logits.npy"]}) == ["train"]
    assert path.read_text() == re.sub(r"(?m)^  train:\n(?:    .*\n)+", "", before)
    assert "train" in repository.dvc("status")
    repository.dvc("repro")
    assert sorted(path.read_text().splitlines()) == sorted(before.splitlines())
    assert set(forget_in_lock(path, new.values())) == {"split", "train", "report"}
    assert "changed" in repository.dvc("status")
    repository.dvc("repro")
    assert sorted(path.read_text().splitlines()) == sorted(before.splitlines())
    path.unlink()
    assert forget_in_lock(path, new.values()) == []


@pytest.mark.parametrize("text", ["<<<<<<< mine\n", "- 1\n", "stages: 3\n", "stages: {a: {outs: 3}}\n"])
def test_a_damaged_lock_of_the_workspace_is_told_in_a_line(repository: Repository, text: str) -> None:
    repository.write("dvc.lock", text)
    message = r"dvc\.lock is damaged; restore it: git checkout -- dvc\.lock$"
    with pytest.raises(ExpungeError, match=message):
        forget_in_lock(repository.root / "dvc.lock", {"0" * 32})
    with pytest.raises(ExpungeError, match=message):
        void_outputs(repository.root, {"0" * 32}, ())
    assert (repository.root / "dvc.lock").read_text() == text
