from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tasks.core.errors import ExpungeError
from tasks.core.plugins import choices
from tasks.engine.training import Epoch
from tasks.train import train
from tasks.unlearn import unlearn
from tests import small_split
from tests.small_split import OUTPUTS, digest, parameters

every_method = pytest.mark.parametrize("method", choices("methods"))


@pytest.fixture(autouse=True)
def _original(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small_split.write()
    train(parameters())


@every_method
def test_where_all_that_was_to_be_forgotten_was_erased_nothing_is_unlearned(method: str) -> None:
    split = small_split.write()
    manifest = split.manifest
    roles = np.where(manifest.roles == "forget", "retain", manifest.roles)
    replace(manifest, roles=roles).write(Path("data/split/manifest.csv"))
    with pytest.raises(ExpungeError, match=r"no sample with role forget; there is nothing to unlearn"):
        unlearn(parameters(unlearn={"method": method}))
    assert not Path("data/unlearn").exists()


@every_method
def test_a_plain_call_writes_the_files_of_the_architecture_and_leaves_the_original(method: str) -> None:
    original = small_split.files("train")
    seen: list[tuple[int, Epoch]] = []
    metrics = unlearn(parameters(unlearn={"method": method}), lambda epoch, row: seen.append((epoch, row)))
    assert list(small_split.files("unlearn")) == OUTPUTS
    assert json.loads(Path("data/unlearn/metrics.json").read_text()) == metrics
    assert set(metrics) == {"time/seconds"} | {
        f"{role}/{figure}" for role in small_split.COUNTS for figure in ("acc", "loss")
    }
    header, *rows = Path("data/unlearn/history.csv").read_text().splitlines()
    assert header.startswith("epoch,")
    assert len(rows) == len(seen)
    assert small_split.files("train") == original


@every_method
def test_of_few_samples_neither_the_method_nor_the_stage_tells_a_figure(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = small_split.write().manifest
    roles = np.where(np.arange(len(manifest.roles)) == manifest.indices("forget")[0], "forget", "retain")
    few = np.where(np.isin(manifest.roles, ("retain", "forget")), roles, manifest.roles)
    replace(manifest, roles=few).write(Path("data/split/manifest.csv"))
    seen: list[tuple[int, Epoch]] = []
    with caplog.at_level("INFO"):
        metrics = unlearn(parameters(unlearn={"method": method}), lambda *told: seen.append(told))
    assert seen == []
    assert Path("data/unlearn/history.csv").read_text().count("\n") == 1
    assert set(metrics) == {"time/seconds", "val/acc", "val/loss", "test/acc", "test/loss"}
    assert "fewer than 20 samples are to be forgotten: figures of so few" in caplog.text


@every_method
def test_a_method_sees_neither_val_nor_test(method: str) -> None:
    params = parameters(unlearn={"method": method})
    unlearn(params)
    first = digest("unlearn")
    small_split.replace("val", "test")
    unlearn(params)
    assert digest("unlearn") == first


def test_no_unlearning_keeps_every_bit_of_the_original() -> None:
    unlearn(parameters())
    assert digest("unlearn") == digest("train")
    assert np.array_equal(small_split.logits("unlearn"), small_split.logits("train"))
    assert Path("data/unlearn/history.csv").read_text().count("\n") == 1


@pytest.mark.parametrize("method", sorted({*choices("methods")} - {"none"}))
def test_every_other_method_changes_the_weights(method: str) -> None:
    unlearn(parameters(unlearn={"method": method}))
    assert digest("unlearn") != digest("train")


def test_an_option_of_the_method_reaches_it() -> None:
    digests = []
    for layers in (1, 2):
        unlearn(parameters(unlearn={"method": "reinit", "reinit": {"layers": layers}}))
        digests.append(digest("unlearn"))
    assert digests[0] != digests[1]


def test_an_impossible_option_is_refused_before_anything_is_written() -> None:
    with pytest.raises(ExpungeError, match=r"^params.yaml: unlearn\.ssd\.alpha is -1.0; "):
        unlearn(parameters(unlearn={"method": "ssd", "ssd": {"alpha": -1.0}}))
    assert not Path("data/unlearn").exists()


@pytest.mark.parametrize("file", ["weights.safetensors", "weights.json"])
def test_weights_that_are_not_there_are_named(file: str) -> None:
    Path("data/train", file).unlink()
    with pytest.raises(ExpungeError, match=rf"^data/train/{file} is missing; "):
        unlearn(parameters())
    assert not Path("data/unlearn").exists()


@pytest.mark.parametrize("where", [0.0, 0.5, 0.999])
def test_a_flipped_bit_anywhere_in_the_weights_is_refused(where: float) -> None:
    path = Path("data/train/weights.safetensors")
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(ExpungeError, match=r"^data/train/weights\.safetensors "):
        unlearn(parameters())
    assert not Path("data/unlearn").exists()
