from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.core.errors import ExpungeError
from tasks.core.params import Params
from tasks.engine.training import Epoch
from tasks.train import train
from tests import small_split
from tests.small_split import COUNTS, OUTPUTS, EndedError, digest, end_after, parameters


@pytest.fixture(autouse=True)
def _split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small_split.write()


def test_a_plain_call_writes_the_files_of_the_architecture() -> None:
    seen: list[tuple[int, Epoch]] = []
    metrics = train(parameters(), lambda epoch, row: seen.append((epoch, row)))
    assert list(small_split.files("train")) == OUTPUTS
    assert json.loads(Path("data/train/metrics.json").read_text()) == metrics
    assert set(metrics) == {"time/seconds"} | {
        f"{part}/{figure}" for part in ("train_set", "val", "test") for figure in ("acc", "loss")
    }
    with Path("data/train/history.csv").open(newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert rows == [{"epoch": epoch, **row} for epoch, row in seen]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert list(rows[0])[:5] == ["epoch", "train/loss", "train/acc", "val/loss", "val/acc"]


def test_the_figures_are_those_of_the_logits() -> None:
    split = small_split.write()
    metrics = train(parameters())
    logits = small_split.logits("train").astype(np.float64)
    assert logits.shape == (sum(COUNTS.values()), 3)
    rows = split.samples.indices("test")
    labels = split.samples.labels[rows]
    assert metrics["test/acc"] == (logits[rows].argmax(1) == labels).mean()
    losses = np.log(np.exp(logits[rows]).sum(1)) - logits[rows, labels]
    assert metrics["test/loss"] == pytest.approx(losses.mean(), rel=1e-5)


def test_one_seed_gives_the_same_bits_and_another_does_not() -> None:
    digests = []
    for seed in (0, 0, 1):
        section = parameters().train.model_copy(update={"seed": seed})
        train(parameters().model_copy(update={"train": section}))
        digests.append(digest("train"))
    assert digests[0] == digests[1] != digests[2]


def test_the_model_learns_from_retain_and_forget_alike_and_from_nothing_else() -> None:
    train(parameters())
    first = digest("train")
    small_split.replace("val", "test")
    train(parameters())
    assert digest("train") == first
    for role in ("retain", "forget"):
        small_split.replace(role)
        train(parameters())
        assert digest("train") != first
        small_split.write()


def test_it_does_not_look_at_who_is_to_be_forgotten() -> None:
    train(parameters())
    first = digest("train")
    Path("data/split/manifest.csv").unlink()
    train(parameters())
    assert digest("train") == first


def test_a_finished_training_leaves_no_checkpoint() -> None:
    train(parameters())
    assert list(Path(".expunge/checkpoints").iterdir()) == []


@pytest.mark.parametrize("last", [1, 2, 3])
def test_an_ended_training_goes_on_where_it_was(last: int) -> None:
    train(parameters())
    first = digest("train")
    with pytest.raises(EndedError):
        train(parameters(), end_after(last))
    seen: list[tuple[int, Epoch]] = []
    train(parameters(), lambda epoch, row: seen.append((epoch, row)))
    assert digest("train") == first
    assert [epoch for epoch, _ in seen] == [1, 2, 3]


@pytest.mark.parametrize("change", ["seed", "recipe", "data"])
def test_what_is_left_of_another_training_is_not_used(change: str) -> None:
    params = parameters()
    with pytest.raises(EndedError):
        train(params, end_after(2))
    if change == "seed":
        params = params.model_copy(update={"train": params.train.model_copy(update={"seed": 7})})
    elif change == "recipe":
        recipe = params.train.recipe.model_copy(update={"lr": 0.03})
        params = params.model_copy(update={"train": params.train.model_copy(update={"recipe": recipe})})
    else:
        small_split.replace("forget")
    train(params)
    resumed = digest("train")
    train(params)
    assert digest("train") == resumed


def test_an_unknown_option_of_the_model_is_refused_before_anything_is_written() -> None:
    section = {"model": "small_cnn", "recipe": {"epochs": 1, "lr": 0.1}, "small_cnn": {"width": 4}}
    with pytest.raises(ExpungeError, match=r"^params.yaml: train\.small_cnn\.width is an unknown key"):
        train(parameters(train=section))
    assert not Path("data/train").exists()


def test_a_recipe_that_diverges_is_refused_with_the_key_to_change() -> None:
    section = {"model": "small_cnn", "recipe": {"epochs": 3, "batch_size": 16, "lr": 1e30}}
    with pytest.raises(ExpungeError, match=r"loss became .* in epoch \d; lower the recipe's lr"):
        train(parameters(train=section))
    assert not Path("data/train").exists()


def test_images_that_begin_too_small_for_the_model_are_refused_before_it_trains() -> None:
    section = {"model": "small_cnn", "recipe": {"epochs": 3, "batch_size": 16, "lr": 0.1, "start_scale": 0.5}}
    with pytest.raises(
        ExpungeError, match=r"on images of 1×4×4 fails: .*raise the recipe's start_scale \(0\.5\)$"
    ):
        train(parameters(train=section))
    assert not Path("data/train").exists()


def test_a_split_that_is_not_there_is_named() -> None:
    Path("data/split/samples.csv").unlink()
    with pytest.raises(ExpungeError, match=r"^data/split/samples\.csv is missing; "):
        train(parameters())


def base(**train_section: Any) -> Params:
    recipe = parameters().train.model_dump(mode="json")
    return parameters(train=recipe | {"start": "base"} | train_section)


def trained_before() -> str:
    """Train, move the result to data/base, and return its digest."""
    train(parameters())
    Path("data/train").rename("data/base")
    return str(json.loads(Path("data/base/weights.json").read_text())["sha256"])


def test_a_base_is_taken_as_it_is_whatever_the_recipe_says() -> None:
    before = trained_before()
    logits = np.load("data/base/logits.npy")
    seen: list[int] = []
    metrics = train(base(seed=9), lambda epoch, _: seen.append(epoch))
    assert digest("train") == before
    assert list(small_split.files("train")) == OUTPUTS
    assert np.array_equal(small_split.logits("train"), logits)
    assert metrics["time/seconds"] == 0
    assert seen == []


def test_a_base_of_other_classes_or_sizes_is_refused() -> None:
    trained_before()
    Path("data/split/classes.json").write_text('["round", "square", "flat", "new"]')
    with pytest.raises(ExpungeError, match=r"1×8×8 images of 3 classes; the split has 1×8×8 images of 4$"):
        train(base())
    Path("data/split/classes.json").write_text('["round", "square", "new"]')
    with pytest.raises(ExpungeError, match="of 3, of other names"):
        train(base())
    assert not Path("data/train").exists()


def test_a_base_of_another_model_is_refused() -> None:
    trained_before()
    with pytest.raises(ExpungeError, match=r"^data/base holds a small_cnn, but train.model is grey_cnn$"):
        train(base(model="grey_cnn"))


def test_a_base_with_other_options_is_refused_though_its_model_has_the_same_name() -> None:
    trained_before()
    with pytest.raises(
        ExpungeError,
        match=r"^data/base holds a small_cnn whose hidden is 256, but train\.small_cnn\.hidden is 64; set ",
    ):
        train(base(small_cnn={"widths": [4, 6, 8], "hidden": 64}))
    assert not Path("data/train").exists()


def test_a_base_of_before_that_does_not_name_an_option_has_its_default() -> None:
    trained_before()
    path = Path("data/base/weights.json")
    info = json.loads(path.read_text())
    del info["options"]["depth"]
    path.write_text(json.dumps(info))
    train(base())
    Path("data/train/weights.json").unlink()
    with pytest.raises(
        ExpungeError, match=r"whose depth is not recorded, but train\.small_cnn\.depth is 2; "
    ):
        train(base(small_cnn={"widths": [4, 6, 8], "depth": 2}))


def test_a_missing_base_is_one_line() -> None:
    with pytest.raises(ExpungeError, match=r"data/base/weights.json is missing"):
        train(base())
