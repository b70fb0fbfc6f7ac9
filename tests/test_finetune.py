from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tasks.core.params import Params
from tasks.engine.training import Epoch
from tasks.finetune import finetune
from tasks.train import train
from tasks.unlearn import unlearn
from tests import small_split
from tests.small_split import OUTPUTS, EndedError, digest, end_after, parameters


@pytest.fixture(autouse=True)
def _unlearned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small_split.write()
    train(parameters())
    unlearn(parameters(unlearn={"method": "reinit"}))


def seeded(seed: int) -> Params:
    return parameters(finetune={"seed": seed, "recipe": {"epochs": 3, "batch_size": 16, "lr": 0.02}})


def test_a_plain_call_writes_the_files_of_the_architecture_and_leaves_its_input() -> None:
    before = small_split.files("unlearn")
    seen: list[int] = []
    metrics = finetune(parameters(), lambda epoch, _: seen.append(epoch))
    assert seen == [1, 2, 3]
    assert list(small_split.files("finetune")) == OUTPUTS
    assert json.loads(Path("data/finetune/metrics.json").read_text()) == metrics
    assert {"retain/acc", "forget/acc", "val/acc", "test/acc", "time/seconds"} <= metrics.keys()
    assert len(Path("data/finetune/history.csv").read_text().splitlines()) == 4
    assert small_split.files("unlearn") == before
    assert digest("finetune") != digest("unlearn")


def test_without_a_recipe_every_bit_stays() -> None:
    metrics = finetune(parameters(finetune={"recipe": None}))
    assert digest("finetune") == digest("unlearn")
    assert np.array_equal(small_split.logits("finetune"), small_split.logits("unlearn"))
    assert metrics["time/seconds"] == 0
    assert Path("data/finetune/history.csv").read_text().count("\n") == 1


def test_the_repair_sees_the_retain_set_alone() -> None:
    finetune(parameters())
    first = digest("finetune")
    small_split.replace("forget", "val", "test")
    finetune(parameters())
    assert digest("finetune") == first
    small_split.replace("retain")
    finetune(parameters())
    assert digest("finetune") != first


def test_one_seed_gives_the_same_bits_and_another_does_not() -> None:
    digests = []
    for seed in (3, 3, 4):
        finetune(seeded(seed))
        digests.append(digest("finetune"))
    assert digests[0] == digests[1] != digests[2]


def test_an_ended_repair_goes_on_where_it_was() -> None:
    finetune(parameters())
    first = digest("finetune")
    with pytest.raises(EndedError):
        finetune(parameters(), end_after(2))
    seen: list[tuple[int, Epoch]] = []
    finetune(parameters(), lambda epoch, row: seen.append((epoch, row)))
    assert [epoch for epoch, _ in seen] == [1, 2, 3]
    assert digest("finetune") == first
    assert list(Path(".expunge/checkpoints").iterdir()) == []


def test_what_is_left_of_the_repair_of_other_weights_is_not_used() -> None:
    with pytest.raises(EndedError):
        finetune(parameters(), end_after(2))
    unlearn(parameters())
    finetune(parameters())
    resumed = digest("finetune")
    finetune(parameters())
    assert digest("finetune") == resumed
