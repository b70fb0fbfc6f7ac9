from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tasks.retrain import retrain
from tasks.samples.manifest import load_split
from tasks.samples.shards import write_shards
from tasks.train import train
from tests import small_split
from tests.small_split import OUTPUTS, digest, parameters


@pytest.fixture(autouse=True)
def _split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small_split.write()


def test_a_plain_call_writes_the_files_of_the_architecture() -> None:
    metrics = retrain(parameters())
    assert list(small_split.files("retrain")) == OUTPUTS
    assert json.loads(Path("data/retrain/metrics.json").read_text()) == metrics
    assert set(metrics) == {"time/seconds"} | {
        f"{role}/{figure}" for role in small_split.COUNTS for figure in ("acc", "loss")
    }


def test_the_reference_never_saw_the_forget_set() -> None:
    retrain(parameters())
    first = digest("retrain")
    small_split.replace("forget", "val", "test")
    retrain(parameters())
    assert digest("retrain") == first
    small_split.replace("retain")
    retrain(parameters())
    assert digest("retrain") != first


def test_it_is_the_original_recipe_on_fewer_samples() -> None:
    params = parameters(retrain={"seed": 0})
    retrain(params)
    split = load_split()
    kept = np.flatnonzero(split.manifest.roles != "forget")
    columns = (
        tuple(split.samples.sample_ids[row] for row in kept),
        tuple(split.samples.sources[row] for row in kept),
        split.samples.labels[kept],
    )
    type(split.samples)(*columns, split.samples.parts[kept]).write(Path("data/split/samples.csv"))
    write_shards(split.images[kept], columns[0], Path("data/split/images"), 1000)
    train(params)
    assert digest("train") == digest("retrain")


def test_it_has_a_seed_of_its_own() -> None:
    digests = []
    for seed in (0, 1):
        retrain(parameters(retrain={"seed": seed}))
        digests.append(digest("retrain"))
    assert digests[0] != digests[1]


def test_it_needs_no_original_model() -> None:
    retrain(parameters())
    assert not Path("data/train").exists()
    assert small_split.logits("retrain").shape == (134, 3)
