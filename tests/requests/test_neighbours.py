"""Copies that the features of the model in production tell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from ruamel.yaml import YAML
from typer.testing import CliRunner

from tasks import cli
from tasks.engine import features
from tasks.engine.weights import Info, load, store
from tasks.requests import events as facts
from tasks.requests import pending
from tasks.requests.catalogue import Catalogue
from tasks.requests.copies import Copies
from tasks.requests.desk import Desk
from tasks.requests.inbox import take as take_inbox
from tasks.requests.intake import Receipt
from tasks.requests.keys import SUBJECTS_KEY
from tasks.requests.neighbours import NO_MODEL
from tasks.requests.production import BASE
from tasks.requests.settings import Settings
from tasks.requests.subjects import write_subjects
from tasks.samples import mapped
from tasks.samples.manifest import LoadedSplit, Manifest, Samples
from tests import small_split, tiny
from tests.requests.conftest import named, submission, validated
from tests.requests.test_inbox import drop

PROJECT = Path(__file__).parents[2]
LEAST = 0.995
CLASSES = ("cat", "dog")
IMAGES = np.random.default_rng(5).integers(0, 256, (14, 1, 8, 8), dtype=np.uint8)


def varied(row: int, seed: int) -> NDArray[np.uint8]:
    """An image of which no pixel is as it was, and all are nearly so."""
    change = np.random.default_rng(seed).integers(1, 9, IMAGES[row].shape)
    changed = np.where(IMAGES[row] > 127, IMAGES[row] - change, IMAGES[row] + change)
    return np.array(changed, dtype=np.uint8)


IMAGES[7], IMAGES[13], IMAGES[11] = varied(3, 0), varied(3, 1), varied(4, 2)
ROW_OF = {f"train/{row}.png": row for row in range(12)} | {f"test/{row}.png": 12 + row for row in range(2)}


def write_images(images: NDArray[np.uint8] = IMAGES) -> None:
    samples = Samples.read(Path("data/split/samples.csv"))
    roles = np.where(samples.parts == "train", "retain", samples.parts)
    manifest = Manifest(samples.sample_ids, samples.sources, samples.labels, roles)
    LoadedSplit(images, samples, manifest, CLASSES).write()


def put_into_production(desk: Desk, seed: int = 0) -> Info:
    info = tiny.info(classes=2).model_copy(update={"classes": CLASSES})
    info = store(BASE, tiny.model(classes=2, seed=seed), info)
    desk.record(facts.Adopted(weights=info.sha256))
    return info


@pytest.fixture
def project(root: Path) -> Path:
    """A split with images, and parameters."""
    write_images()
    with Path("params.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(small_split.parameters().model_dump(mode="json"), file)
    return root


@pytest.fixture
def near(project: Path, desk: Desk) -> Desk:
    """A desk that compares features, with a model in production."""
    put_into_production(desk)
    return replace(desk, settings=Settings(near_features=LEAST))


def take(desk: Desk, catalogue: Catalogue | None = None, **changes: object) -> Receipt:
    return desk.submit(submission(**changes), "a.json", catalogue or Catalogue.load(), channel="cli")


FOUND = Copies(features=("train/7.png",), test_features=("test/1.png",))


def test_what_is_near_is_told_and_stays(near: Desk) -> None:
    receipt = take(near)
    assert receipt.copies == FOUND
    assert receipt.untold == ""
    assert named(near, receipt) == ["train/3.png"]
    told = validated(receipt)
    assert (told.copies, told.near_copies, told.by_features) == (2, 0, 2)
    assert "2 of these only the model's features tell" in told.told()
    assert list(FOUND.lines()) == [
        "2 other sample(s) are near by the model's features and stay:",
        "  train/7.png: near by the model's features",
        "  test/1.png: near by the model's features, a test sample",
        "  to have them erased, too, submit a request that names them, or has near_copies: include",
    ]
    assert "train/7" not in receipt.told()
    assert "train/7" not in "".join(event.text for event in receipt.request.events)


def test_include_takes_them_along(near: Desk) -> None:
    receipt = take(near, near_copies="include")
    assert named(near, receipt) == ["test/1.png", "train/3.png", "train/7.png"]
    told = validated(receipt)
    assert (told.copies, told.near_copies, told.by_features) == (0, 2, 2)
    line = "2 sample(s) that show the same picture, or are near by the model's features (2), are taken along"
    assert line in receipt.told()


def test_what_the_pixels_tell_is_told_by_them_and_copies_of_what_is_near_are_not_taken(near: Desk) -> None:
    rows = [
        "train/3.png,0,1",
        "train/7.png,0,1",
        "train/5.png,0,1",
        "train/11.png,0,2",
        "train/6.png,0,2",
        "",
    ]
    Path("data/split/copies.csv").write_text("\n".join(["sample_id,same,alike", *rows]))
    both = {"id": ["train/3.png", "train/4.png"]}
    receipt = take(near, samples=both)
    assert receipt.copies == Copies(
        alike=("train/7.png", "train/5.png"), features=("train/11.png",), test_features=("test/1.png",)
    )
    assert "2 other sample(s) show the same picture and 2 other sample(s) are near" in receipt.told()
    receipt = take(near, samples=both, near_copies="include")
    taken = ["test/1.png", *(f"train/{row}.png" for row in (11, 3, 4, 5, 7))]  # and not train/6.png
    assert named(near, receipt) == taken
    assert (validated(receipt).near_copies, validated(receipt).by_features) == (4, 2)


def test_no_chain_is_followed(near: Desk) -> None:
    images = IMAGES.copy()
    images[6] = (images[5].astype(int) + images[8]) // 2
    write_images(images)
    model = load(BASE)[0]

    def largest(one: int, other: int) -> float:
        """The largest cosine at which they are near, to a thousandth."""
        steps = [step / 1000 for step in range(500, 1000)]
        return max(
            least for least in steps if other in features.near(model, images, [np.array([one])], least)[0]
        )

    least = largest(5, 8) + 2e-3
    assert least < min(largest(5, 6), largest(6, 8))
    desk = replace(near, settings=Settings(near_features=least))
    for asked, others in ((5, {6}), (6, {5, 8}), (8, {6})):
        copies = take(desk, samples={"id": [f"train/{asked}.png"]}).copies or Copies()
        assert {ROW_OF[name] for name in copies.ids} & {5, 6, 8} == others


@pytest.mark.parametrize("in_memory", [0, mapped.IN_MEMORY])
@pytest.mark.parametrize("seed", range(3))
def test_a_set_in_a_file_and_one_in_memory_give_what_every_pair_alone_does(
    near: Desk, monkeypatch: pytest.MonkeyPatch, in_memory: int, seed: int
) -> None:
    info = put_into_production(near, seed)
    monkeypatch.setattr(mapped, "IN_MEMORY", in_memory)
    desk = replace(near, settings=Settings(near_features=0.98))
    asked = [f"train/{row}.png" for row in np.random.default_rng(seed).permutation(12)[:3]]
    receipt = take(desk, samples={"id": asked})
    assert load(BASE)[1] == info
    rows = [ROW_OF[name] for name in asked]
    (expected,) = features.near(load(BASE)[0], IMAGES, [np.array(rows)], 0.98)
    assert {ROW_OF[name] for name in (receipt.copies or Copies()).ids} == set(expected.tolist())


def test_nothing_is_left_of_the_features(near: Desk, project: Path) -> None:
    catalogue = Catalogue.load()
    before = set(project.rglob("*"))
    take(near, catalogue, near_copies="include")
    assert {path.relative_to(project) for path in set(project.rglob("*")) - before} == set()


def test_the_command_line_names_them_when_a_request_is_taken_and_while_it_is_open(
    near: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "desk", lambda: near)
    Path("a.json").write_bytes(submission())
    told, *lines = CliRunner().invoke(cli.app, ["submit", "a.json"]).stdout.splitlines()
    request = told.split()[2]
    assert lines == [f"a.json: {line}" if not number else line for number, line in enumerate(FOUND.lines())]
    shown = CliRunner().invoke(cli.app, ["show", request])
    assert lines[1] in shown.stdout
    assert shown.stderr == ""
    (row,) = json.loads(CliRunner().invoke(cli.app, ["submit", "a.json", "--json"]).stdout)
    assert row["copies"] == json.loads(json.dumps(asdict(FOUND)))
    assert (row["by_features"], row["untold"]) == (2, None)
    change_weights(near)
    shown = CliRunner().invoke(cli.app, ["show", request])
    assert shown.exit_code == 0
    assert lines[1] not in shown.stdout
    assert shown.stderr.startswith("expunge: requests.near_features is not followed: data/base does not hold")
    (row,) = json.loads(CliRunner().invoke(cli.app, ["submit", "a.json", "--json"]).stdout)
    assert row["untold"] in shown.stderr


# what cannot be followed


@pytest.mark.parametrize("near_copies", ["tell", "include"])
def test_before_there_is_a_model_in_production_the_pixels_tell_and_a_line_says_so(
    project: Path, desk: Desk, near_copies: str
) -> None:
    Path("data/split/copies.csv").write_text("sample_id,same,alike\ntrain/3.png,1,1\ntrain/9.png,1,1\n")
    desk = replace(desk, settings=Settings(near_features=LEAST))
    receipt = take(desk, near_copies=near_copies)
    assert receipt.untold == NO_MODEL
    assert receipt.told().endswith(f"; {NO_MODEL}")
    assert named(desk, receipt) == ["train/3.png", *(["train/9.png"] if near_copies == "include" else [])]


def lose_weights(desk: Desk) -> None:
    (BASE / "weights.safetensors").unlink()


def change_weights(desk: Desk) -> None:
    info = tiny.info(classes=2).model_copy(update={"classes": CLASSES})
    store(BASE, tiny.model(classes=2, seed=9), info)


def scale(desk: Desk) -> None:
    write_images(IMAGES.repeat(2, axis=2).repeat(2, axis=3))


def cut(desk: Desk) -> None:
    shard = Path("data/split/images/00000.npy")
    shard.write_bytes(shard.read_bytes()[:-1])


def take_parameters_away(desk: Desk) -> None:
    Path("params.yaml").unlink()


def damage_weights(desk: Desk) -> None:
    Path("data/base/weights.json").write_text("{}")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lose_weights, "data/base does not hold the weights in production"),
        (change_weights, "data/base does not hold the weights in production"),
        (scale, "the model in production takes images of 1×8×8, those in data/split are 1×16×16"),
        (cut, "data/split cannot be read; make it again: dvc repro split"),
        (take_parameters_away, "params.yaml is missing"),
        (damage_weights, "data/base/weights.json: sha256 is wrong or missing"),
    ],
)
def test_a_request_is_taken_all_the_same_where_features_cannot_be_compared(
    near: Desk, damage: object, reason: str
) -> None:
    catalogue = Catalogue.load()
    assert callable(damage)
    damage(near)
    receipt = take(near, catalogue)
    assert receipt.request.state.status == "validated"
    assert receipt.copies == Copies()
    assert receipt.untold.startswith(f"requests.near_features is not followed: {reason}")
    assert "\n" not in receipt.untold


def test_a_rejected_request_is_not_told_of_copies(project: Path, desk: Desk) -> None:
    desk = replace(desk, settings=Settings(near_features=LEAST))
    receipt = take(desk, samples={"id": ["train/3.png", "nobody"]})
    assert receipt.request.state.status == "rejected"
    assert receipt.untold == ""


def test_a_person_whose_samples_cannot_be_told_waits(near: Desk) -> None:
    write_subjects(["train/3.png"], [("crm:1",)], near.keys, Path("data/split"))
    (near.keys.folder / f"{SUBJECTS_KEY}.key").unlink()
    receipt = take(near, samples={"subject": ["crm:1"]})
    assert receipt.request.state.status == "received"
    assert receipt.waits


@pytest.mark.parametrize("value", [0, -0.5, 1.01, "0.9", True])
def test_the_setting_is_a_cosine_above_nought(value: object) -> None:
    with pytest.raises(ValueError, match="near_features"):
        Settings.model_validate({"near_features": value})


# many at once


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of how many sets of samples each pass over the images was."""
    made: list[int] = []
    compare = features.near

    def counted(model: object, images: object, asked: object, least: float) -> object:
        assert isinstance(asked, list)
        made.append(len(asked))
        return compare(model, images, asked, least)  # type: ignore[arg-type]

    monkeypatch.setattr(features, "near", counted)
    return made


def test_the_images_are_read_once_for_all_that_lies_in_the_inbox(near: Desk, passes: list[int]) -> None:
    drop("a.json", submission())
    drop("b.json", submission(samples={"id": ["train/4.png"]}))
    drop("c.json", submission(samples={"index": [3]}))
    drop("d.json", submission(samples={"id": ["nobody"]}))
    drop("e.json", b"{")
    found = {
        name: receipt.copies
        for name, receipt in take_inbox(near, Catalogue.load())
        if isinstance(receipt, Receipt)
    }
    assert found == {
        "a.json": FOUND, "b.json": Copies(features=("train/11.png",)), "c.json": FOUND, "d.json": None,
        "e.json": None,
    }  # fmt: skip
    assert passes == [2]


def test_the_images_are_read_once_for_all_that_waits(near: Desk, passes: list[int]) -> None:
    requests = [
        near.submit(submission(samples={"id": [f"train/{row}.png"]}), "a.json", None, channel="cli").request
        for row in (3, 4)
    ]
    assert len(list(pending.waiting())) == 2
    found = {receipt.request.id: receipt.copies for receipt in near.resolve(Catalogue.load())}
    assert [found[each.id] for each in requests] == [FOUND, Copies(features=("train/11.png",))]
    assert passes == [2]


def test_another_model_in_production_is_asked_anew(near: Desk, passes: list[int]) -> None:
    catalogue = Catalogue.load()
    for _ in range(2):
        take(near, catalogue)
    assert passes == [1]
    put_into_production(near, seed=4)
    take(near, catalogue)
    assert passes == [1, 1]


OFF = """
import sys
from pathlib import Path

from tasks.requests.catalogue import Catalogue
from tasks.requests.desk import Desk
from tasks.requests.keys import KeyStore
from tasks.requests.ledger import Ledger
from tasks.requests.settings import Settings

keys = KeyStore(Path("../others"), Path.cwd())
desk = Desk(Ledger("sqlite:///data/requests/other.db"), keys, Settings())
catalogue, content = Catalogue.load(), Path("a.json").read_bytes()
desk.foresee(catalogue, [(content, "a.json")])
receipt = desk.submit(content, "a.json", catalogue, channel="cli")
print(receipt.request.state.status, len(receipt.copies or ()), *sys.modules)
"""


def test_without_the_setting_neither_images_nor_torch_are_touched(near: Desk, project: Path) -> None:
    Path("a.json").write_bytes(submission(near_copies="include"))
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [sys.executable, "-c", OFF], env=environment, capture_output=True, text=True, check=True
    )
    status, count, *modules = done.stdout.split()
    assert (status, count) == ("validated", "0")
    assert not {"numpy", "torch"} & set(modules)
