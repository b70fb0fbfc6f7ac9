"""The embedded images in Git, and the working copy that DVC tracks: requests change only the latter."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.datasets.parquet import parquet, remove
from tasks.requests.high_water import extend
from tasks.requests.keys import KeyStore
from tasks.requests.suppression import lines_for
from tests.datasets.building import reading
from tests.functional.repository import EMBEDDED, Repository

COPY = "data/sample"
SHIPPED = {"split.source": "parquet", "split.path": COPY}


@pytest.fixture
def shipped(repository: Repository) -> Repository:
    """A repository whose source is the working copy, split and committed."""
    repository.change(SHIPPED)
    repository.dvc("repro", "split")
    repository.commit("the embedded images")
    return repository


def ids(repository: Repository, folder: str) -> tuple[str, ...]:
    return parquet(repository.root / folder, reading()).sample_ids


def erase(repository: Repository, row: int) -> str:
    """Do to the working copy what a request does; return the id that has left."""
    images = parquet(repository.root / COPY, reading())
    keys = KeyStore(Path(repository.environment["EXPUNGE_KEYS"]), repository.root)
    arrays = (images.sample_ids, images.images, images.pictures)
    extend(repository.root / "data/requests/erased.txt", keys, lambda key: lines_for([row], *arrays, key))
    remove(repository.root / COPY, [images.sources[row]], reading())
    repository.dvc("commit", "--force", "sample")
    repository.dvc("repro", "split")
    repository.commit("a request")
    return images.sample_ids[row]


def test_the_first_run_makes_the_copy_which_git_ignores_and_split_reads(shipped: Repository) -> None:
    assert shipped.git("ls-files", COPY) == ""
    assert shipped.git("status", "--porcelain") == ""
    assert {dep["path"] for dep in shipped.lock("split")["deps"]} >= {COPY}
    assert shipped.json("data/split/run.json")["inputs"][COPY] == shipped.lock("sample")["outs"][0]["md5"]
    assert ids(shipped, COPY) == ids(shipped, EMBEDDED)


def test_a_source_of_ones_own_and_the_embedded_images_themselves_work_beside_the_copy(
    shipped: Repository,
) -> None:
    first = shipped.contents("split")
    shipped.change({"split.path": EMBEDDED})
    shipped.dvc("repro", "split")
    names = {"data/split/images/00000.npy", "data/split/manifest.csv", "data/split/samples.csv"}
    assert {name: shipped.contents("split")[name] for name in names} == {name: first[name] for name in names}


def test_what_was_erased_stays_away_from_a_clone_without_a_cache(shipped: Repository, tmp_path: Path) -> None:
    shipped.environment["EXPUNGE_KEYS"] = str(tmp_path / "keys")
    gone = erase(shipped, 4)
    shipped.git("clone", "--quiet", str(shipped.root), str(tmp_path / "clone"))
    clone = Repository(tmp_path / "clone", shipped.environment)
    clone.dvc("repro", "split")
    assert ids(clone, COPY) == ids(shipped, COPY)
    assert gone in ids(clone, EMBEDDED)
    assert gone not in ids(clone, COPY)
    assert clone.contents("split") != {}


def test_a_purged_copy_is_not_made_again_by_a_run_an_experiment_or_a_checkout(
    shipped: Repository, tmp_path: Path
) -> None:
    shipped.environment["EXPUNGE_KEYS"] = str(tmp_path / "keys")
    gone = erase(shipped, 4)
    purged = shipped.contents("sample")
    assert "Running stage" not in shipped.dvc("repro", "split")
    shipped.dvc("repro", "--force", "--single-item", "sample")
    assert shipped.contents("sample") == purged
    shipped.dvc("exp", "run", "--temp", "--name", "aside", "-S", "split.seed=5", "split")
    assert shipped.contents("sample") == purged
    assert shipped.git("status", "--porcelain") == ""
    shipped.append("tasks/sample.py", "\n# a remark\n")
    shipped.git("checkout", "--quiet", "HEAD~1", "--", "dvc.lock")
    shipped.dvc("repro", "sample")
    assert shipped.contents("sample") == purged
    assert gone not in ids(shipped, COPY)


def test_a_project_without_the_embedded_images_runs_without_the_stage(shipped: Repository) -> None:
    shipped.change({"split.source": "digits", "split.path": "data/source"})
    shipped.git("rm", "-r", "-q", EMBEDDED)
    assert "split" in shipped.dvc("repro", "split")
