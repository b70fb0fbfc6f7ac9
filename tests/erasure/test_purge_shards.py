"""A purge where the images lie in several shards: one of them changes, and the others stay where they are."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from tasks.core.params import load
from tasks.erasure.checklist import Outcome
from tasks.erasure.purge import Purge, verify
from tasks.samples.manifest import load_split
from tests.erasure.test_purge import (
    GONE,
    OTHER,
    Project,
    beside_another,
    files,
    outcomes,
    project,
    split_and_pushed,
    tracked,
)  # fmt: skip

__all__ = ["project", "tracked"]

SHARD = 4 * 64 / 2**20
"""MiB of four images of 8×8."""


@pytest.fixture
def sharded(project: Project) -> Project:
    project.repository.change({"split.shard_mib": SHARD})
    project.repository.dvc("repro", "--quiet", "split")
    project.repository.commit("small shards")
    project.repository.dvc("push", "--quiet", "--run-cache")
    return project


def shards(root: Path) -> dict[str, str]:
    return {Path(name).name: content.hex() for name, content in files(root / "data/split/images").items()}


def slots(root: Path) -> dict[str, int]:
    with (root / "data/split/images/slots.csv").open(newline="") as file:
        return {row["sample_id"]: int(row["slot"]) for row in csv.DictReader(file)}


def md5_of_images(project: Project) -> str:
    outs = project.repository.lock("split")["outs"]
    return next(str(out["md5"]) for out in outs if out["path"] == "data/split/images")


def listed(project: Project) -> dict[str, str]:
    """MD5 of the shards, and of the folder, as ``dvc.lock`` has them."""
    md5 = md5_of_images(project)
    return {"": md5, **(dict_of(project, md5))}


def dict_of(project: Project, md5: str) -> dict[str, str]:
    text = (project.root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]).read_text()
    return {each["relpath"]: each["md5"] for each in json.loads(text)}


def has(store: Path, md5: str) -> bool:
    return (store / "files/md5" / md5[:2] / md5[2:]).exists()


def test_one_shard_goes_from_every_store_and_nothing_else_of_the_images(
    sharded: Project, tmp_path: Path
) -> None:
    old, place, before = listed(sharded), slots(sharded.root), shards(sharded.root)
    assert len(old) == 1 + 9 + 1  # 33 images in nine shards, their slots, and the list of all
    number = f"{place[GONE] // 4:05}.npy"
    request = sharded.promoted(GONE)
    planned = Purge(sharded.root, load(), sharded.desk, {}).plan([request])
    checklist = sharded.purge().carry_out([request])
    sharded.record(request, checklist)
    now = listed(sharded)
    changed = {"", number, "slots.csv"}
    assert {name for name in old if old[name] != now[name]} == changed
    assert {name for name in before if before[name] != shards(sharded.root)[name]} == changed - {""}
    assert slots(sharded.root) == {name: slot for name, slot in place.items() if name != GONE}
    for store in (sharded.root / ".dvc/cache", sharded.store):
        assert {name for name, md5 in old.items() if not has(store, md5)} == changed
    in_plan = {md5 for name, md5 in old.items() if any(md5 in each.item for each in planned)}
    assert in_plan == {old[name] for name in changed}
    assert outcomes(checklist, "DVC cache") == outcomes(checklist, "DVC remote store") == {Outcome.DELETED}
    assert [line for line in verify(sharded.purge(), [sharded.desk.show(request.id)]) if not line.holds] == []
    sharded.repository.dvc("push", "--quiet")
    clone = sharded.clone(tmp_path / "clone")
    clone.dvc("pull", "--quiet", "split")
    assert shards(clone.root) == shards(sharded.root)
    assert "split:" not in clone.dvc("status")
    assert len(load_split().samples) == 32


def test_the_next_one_changes_its_own_shard_and_a_new_image_takes_a_free_slot(sharded: Project) -> None:
    first = sharded.promoted(GONE)
    sharded.record(first, sharded.purge().carry_out([first]))
    old, place = listed(sharded), slots(sharded.root)
    shutil.copy("data/images/train/1/005.png", "data/images/train/1/new.png")
    sharded.repository.dvc("add", "--quiet", "data/images")
    sharded.repository.dvc("repro", "--quiet", "split")
    sharded.repository.commit("a new image")
    assert slots(sharded.root) == place | {"train/1/new.png": (set(range(33)) - set(place.values())).pop()}
    assert sum(old[name] != md5 for name, md5 in listed(sharded).items()) == 3


def test_splits_that_were_never_committed_go_too(sharded: Project) -> None:
    """The run cache alone knows them."""
    sharded.repository.change({"split.resize": 16})
    sharded.repository.dvc("repro", "--quiet", "split")
    md5 = md5_of_images(sharded)
    large = dict_of(sharded, md5)
    sharded.repository.change({"split.resize": None})
    sharded.repository.dvc("repro", "--quiet", "split")
    request = sharded.promoted(GONE)
    sharded.purge().carry_out([request])
    assert not any(has(sharded.root / ".dvc/cache", each) for each in [md5, *large.values()])


def test_another_project_with_nearly_the_same_images_in_the_same_stores_loses_none(
    sharded: Project, tmp_path: Path
) -> None:
    _, other = beside_another(sharded, tmp_path, seed=0)
    other.root.joinpath("data/images/train/1/011.png").unlink()
    other.change({"split.shard_mib": SHARD, "split.seed": 5})
    split_and_pushed(other, "the same images but one, another split of them")
    before = {k: v for k, v in other.contents("images", "split").items() if ".gitignore" not in k}
    request = sharded.promoted(GONE, OTHER)
    checklist = sharded.purge().carry_out([request])
    assert Outcome.KEPT_SHARED in outcomes(checklist, "DVC cache")
    for folder in ("data/images", "data/split"):
        shutil.rmtree(other.root / folder)
    other.dvc("checkout", "--quiet", "--force", "data/images.dvc", "split")
    assert {k: v for k, v in other.contents("images", "split").items() if ".gitignore" not in k} == before
