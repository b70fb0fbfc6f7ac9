from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tasks.audit import FOLDER, audit, moments
from tasks.core.errors import ExpungeError
from tasks.core.params import Params, validate
from tasks.metrics.scores import cross_entropy
from tasks.metrics.selection import match_classes
from tests import fabricated

COUNTS = {"retain": 300, "forget": 2000, "val": 2000, "test": 100}
SIGNAL = {"original": 3.0, "unlearned": 0.0, "finetuned": 0.0, "retrained": 0.0}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def verdict() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "verdict.json").read_text())
    return found


def test_the_figures_are_those_of_forget_against_val() -> None:
    manifest = fabricated.write(Path(), counts=COUNTS)
    metrics = audit(fabricated.parameters())
    assert json.loads((FOLDER / "metrics.json").read_text()) == metrics
    labels = manifest.labels
    forget, val = manifest.indices("forget"), manifest.indices("val")
    members, others = match_classes(labels[forget], labels[val], seed=4)
    rows = np.concatenate([forget[members], val[others]])
    is_member = np.arange(len(rows)) < len(members)
    right = {}
    for key, folder in (("audit/original_auc", "train"), ("audit/auc", "finetune")):
        logits = np.load(f"data/{folder}/logits.npy")
        losses = cross_entropy(logits[rows], labels[rows])
        assert metrics[key] == pytest.approx(roc_auc_score(is_member, -losses), abs=1e-12)
        assert metrics[f"{key}/low"] < metrics[key] < metrics[f"{key}/high"]
        right[folder] = (logits[val].argmax(1) == labels[val]).mean()
    assert metrics["audit/val_acc_loss"] == pytest.approx(right["train"] - right["finetune"])
    assert metrics["audit/count"] == len(members)


def test_neither_the_test_set_nor_a_reference_is_looked_at() -> None:
    manifest = fabricated.write(Path(), counts=COUNTS)
    before = audit(fabricated.parameters())
    shutil.rmtree("data/retrain")
    for folder in ("train", "finetune"):
        logits = np.load(f"data/{folder}/logits.npy")
        logits[manifest.indices("test")] = 7
        np.save(f"data/{folder}/logits.npy", logits)
    assert audit(fabricated.parameters()) == before


@pytest.mark.parametrize(
    ("signal", "forget", "word"),
    [
        ({}, 2000, "indistinguishable"),
        ({"finetuned": 2.0}, 2000, "remembers"),
        ({"finetuned": -2.0}, 2000, "over-forgotten"),
        ({"original": 0.0}, 2000, "inconclusive"),
        ({}, 60, "inconclusive"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_the_verdict_is_two_sided_and_says_why(
    signal: dict[str, float], forget: int, word: str, seed: int
) -> None:
    fabricated.write(Path(), SIGNAL | signal, COUNTS | {"forget": forget}, seed)
    audit(fabricated.parameters())
    found = verdict()
    assert found["verdict"] == word
    assert "differs from one half by" in found["text"]
    assert "retrained" not in found["text"]
    assert found["reason"].endswith(".")


def test_the_verdict_names_the_weights_that_it_is_about() -> None:
    fabricated.write(Path(), counts=COUNTS)
    audit(fabricated.parameters())
    assert verdict()["weights"] == {
        "original": fabricated.digest("train"),
        "result": fabricated.digest("finetune"),
    }


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"forget": 0}, "no sample with role forget; there is nothing to audit"),
        ({"val": 0}, "no sample with role val; there is nothing to audit"),
    ],
)
def test_without_samples_to_compare_nothing_is_written(counts: dict[str, int], message: str) -> None:
    fabricated.write(Path(), counts=COUNTS | counts)
    with pytest.raises(ExpungeError, match=message):
        audit(fabricated.parameters())
    assert not FOLDER.exists()


@pytest.mark.parametrize(
    ("name", "content"), [("weights.json", "{}"), ("weights.json", "[]"), ("logits.npy", "x")]
)
def test_a_damaged_input_is_one_line(name: str, content: str) -> None:
    fabricated.write(Path(), counts=COUNTS)
    Path("data/finetune", name).write_text(content)
    with pytest.raises(ExpungeError, match=rf"^data/finetune/{name} .*restore it"):
        audit(fabricated.parameters())
    assert not FOLDER.exists()


def from_base(**changes: str) -> Params:
    values = fabricated.parameters().model_dump()
    values["train"]["start"] = "base"
    values["audit"] |= changes
    return validate(values)


def test_what_the_base_has_seen_is_no_member_of_val_and_what_it_has_not_no_member_of_forget() -> None:
    manifest = fabricated.write(Path(), counts=COUNTS)
    audit(fabricated.parameters())
    ids = np.array(manifest.sample_ids)
    forget, val = manifest.indices("forget"), manifest.indices("val")
    Path("data/base").mkdir(parents=True)
    Path("data/base/heldout.txt").write_text("\n".join([*ids[val[:1500]], *ids[forget[:1000]], ""]))
    logits = np.load("data/finetune/logits.npy")
    logits[val[1500:]] = logits[forget[:1000]] = 0  # whoever looks at them gets other figures
    metrics = audit(from_base())
    assert metrics["audit/count"] <= 1000
    np.save("data/finetune/logits.npy", logits)
    assert audit(from_base()) == metrics
    assert audit(fabricated.parameters()) != metrics


def test_the_sums_over_the_placements_are_those_of_what_was_attacked() -> None:
    fabricated.write(Path(), counts=COUNTS)
    metrics = audit(fabricated.parameters())
    found = moments(fabricated.parameters())
    assert found.count == found.nonmembers == metrics["audit/count"]
    assert found.total / found.count == pytest.approx(metrics["audit/auc"], abs=1e-4)


@pytest.mark.parametrize("forget", [1, 19])
def test_of_few_samples_no_figure_is_written_and_the_verdict_says_why(forget: int) -> None:
    fabricated.write(Path(), counts=COUNTS | {"forget": forget})
    metrics = audit(fabricated.parameters())
    assert set(metrics) == {
        "audit/count", "audit/val_acc_loss", "audit/val_acc_loss/low", "audit/val_acc_loss/high",
    }  # fmt: skip
    assert json.loads((FOLDER / "metrics.json").read_text()) == metrics
    assert metrics["audit/count"] == forget
    found = verdict()
    assert (found["verdict"], found["text"]) == (
        "inconclusive", "Fewer than 20 forget samples support no verdict.",
    )  # fmt: skip
    assert found["reason"].endswith("figures of so few would tell of persons, so none is kept.")
    assert moments(fabricated.parameters()).count == forget


@pytest.mark.parametrize("forget", [1, 20, 2000])
def test_nothing_of_a_single_sample_is_written(forget: int) -> None:
    fabricated.write(Path(), counts=COUNTS | {"forget": forget})
    audit(fabricated.parameters())
    assert set(verdict()) == {"verdict", "text", "reason", "weights"}


def test_a_base_that_has_seen_all_of_val_is_refused() -> None:
    fabricated.write(Path(), counts=COUNTS)
    Path("data/base").mkdir(parents=True)
    Path("data/base/heldout.txt").write_text("other.png\n")
    with pytest.raises(ExpungeError, match="the base was made for other data"):
        audit(from_base())


def test_a_base_that_has_seen_all_of_val_supports_no_verdict_and_no_figure_of_loss() -> None:
    manifest = fabricated.write(Path(), counts=COUNTS)
    Path("data/base").mkdir(parents=True)
    held = [manifest.sample_ids[row] for row in manifest.indices("forget")[:2]]
    Path("data/base/heldout.txt").write_text("\n".join([*held, ""]))
    metrics = audit(from_base())
    assert verdict()["verdict"] == "inconclusive"
    assert "has seen every validation sample" in verdict()["text"]
    assert metrics == {"audit/count": 0.0}
    Path("data/base/heldout.txt").write_text("")
    assert audit(from_base()) == {"audit/count": 0.0}


def test_retraining_can_be_what_is_audited() -> None:
    fabricated.write(Path(), counts=COUNTS)
    shutil.rmtree("data/finetune")
    audit(from_base(result="retrain"))
    assert verdict()["weights"]["result"] == fabricated.digest("retrain")


def test_whole_classes_leave_nothing_to_compare() -> None:
    manifest = fabricated.write(Path(), counts=COUNTS)
    roles = manifest.roles.copy()
    own = np.isin(roles, ("forget", "val"))
    roles[own] = np.where(manifest.labels[own] == 0, "forget", "val")
    type(manifest)(manifest.sample_ids, manifest.sources, manifest.labels, roles).write(
        Path("data/split/manifest.csv")
    )
    metrics = audit(fabricated.parameters())
    assert verdict()["verdict"] == "inconclusive"
    assert moments(fabricated.parameters()).count == 0
    assert metrics["audit/count"] == 0
    assert "audit/auc" not in metrics
    assert "audit/val_acc_loss" in metrics
