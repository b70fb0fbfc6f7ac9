from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from tasks.core.errors import ExpungeError
from tasks.metrics.scores import cross_entropy
from tasks.metrics.selection import match_classes
from tasks.mia import FOLDER, MODELS, READS, headline, mia
from tasks.reporting.tables import read_table
from tests import fabricated

Attacked = tuple[Path, dict[str, float]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    fabricated.write(root)
    return root


@pytest.fixture(scope="module")
def attacked(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Attacked:
    root = tmp_path_factory.mktemp("attacked")
    shutil.copytree(world, root, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        return root, mia(fabricated.parameters())


@pytest.fixture
def here(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(world, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def verdict_of(root: Path) -> dict[str, Any]:
    found = json.loads((root / FOLDER / "verdict.json").read_text())
    assert isinstance(found, dict)
    return found


def test_every_model_and_the_result_have_every_figure_with_its_interval(attacked: Attacked) -> None:
    root, metrics = attacked
    figures = ["retain/acc", "forget/acc", "val/acc", "test/acc", "mia/acc", "mia/auc"]
    figures += ["mia/tpr_at_0.01", "mia/tpr_at_0.001"]
    both = [f"{prefix}{figure}" for prefix in ("", *(f"{model}/" for model in MODELS)) for figure in figures]
    for key in [*both, "mia/auc_difference", "gap", "tow", "tow_mia", "nomus"]:
        assert metrics[f"{key}/low"] <= metrics[key] <= metrics[f"{key}/high"], key
    assert {"time/seconds", "time/ratio", "forget/count", "mia/count"} <= metrics.keys()
    assert all(math.isfinite(value) for value in metrics.values())
    assert json.loads((root / FOLDER / "models.json").read_text()) == metrics


def test_the_headline_is_short_and_holds_the_result_and_the_main_figures_of_the_others(
    attacked: Attacked,
) -> None:
    root, metrics = attacked
    shown = json.loads((root / FOLDER / "metrics.json").read_text())
    assert shown == headline(metrics)
    assert len(shown) < 60
    assert shown.items() <= metrics.items()
    assert {"mia/auc", "mia/auc/low", "mia/auc/high", "gap", "tow", "time/ratio"} <= shown.keys()
    assert {"original/mia/auc", "unlearned/test/acc", "retrained/time/seconds"} <= shown.keys()
    assert not any(key.startswith("finetuned/") for key in shown)


def test_figures_agree_with_computing_them_from_the_files(here: Path) -> None:
    metrics = mia(fabricated.parameters(seed=9))
    manifest = fabricated.write(here)
    forget, test = manifest.indices("forget"), manifest.indices("test")
    members, others = match_classes(manifest.labels[forget], manifest.labels[test], seed=9)
    rows = np.concatenate([forget[members], test[others]])
    is_member = np.arange(len(rows)) < len(members)
    for model, folder in MODELS.items():
        logits = np.load(here / folder / "logits.npy")
        losses = cross_entropy(logits[rows], manifest.labels[rows])
        assert metrics[f"{model}/mia/auc"] == pytest.approx(roc_auc_score(is_member, -losses))
        right = logits.argmax(axis=1) == manifest.labels
        for role in ("retain", "forget", "val", "test"):
            assert metrics[f"{model}/{role}/acc"] == pytest.approx(right[manifest.indices(role)].mean())
    gap = np.mean(
        [
            abs(metrics[f"finetuned/{key}"] - metrics[f"retrained/{key}"])
            for key in ("forget/acc", "retain/acc", "test/acc", "mia/acc")
        ]
    )
    assert metrics["gap"] == pytest.approx(gap)
    assert metrics["mia/auc_difference"] == pytest.approx(metrics["mia/auc"] - metrics["retrained/mia/auc"])
    assert metrics["mia/count"] == len(members)


def test_times_of_unlearning_and_fine_tuning_add_up(attacked: Attacked) -> None:
    metrics = attacked[1]
    assert metrics["time/seconds"] == metrics["finetuned/time/seconds"] == 4.0
    assert metrics["unlearned/time/seconds"] == 1.5
    assert metrics["time/ratio"] == 4.5


def test_a_method_that_takes_no_time_leaves_the_ratio_finite(here: Path) -> None:
    for model in ("unlearned", "finetuned"):
        (here / MODELS[model] / "metrics.json").write_text('{"time/seconds": 0}')
    assert math.isfinite(mia(fabricated.parameters())["time/ratio"])


@pytest.mark.parametrize(
    ("result", "expected"), [(3.0, "remembers"), (-3.0, "over-forgotten"), (0.0, "indistinguishable")]
)
@pytest.mark.parametrize("seed", range(2))
def test_the_verdict_finds_the_signal_that_was_put_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, result: float, expected: str, seed: int
) -> None:
    signal = {**fabricated.SIGNAL, "finetuned": result}
    fabricated.write(tmp_path, signal, {"retain": 500, "forget": 900, "val": 50, "test": 1000}, seed)
    monkeypatch.chdir(tmp_path)
    mia(fabricated.parameters(margin=0.08, folds=2))
    assert verdict_of(tmp_path)["verdict"] == expected


def test_without_a_signal_in_the_original_nothing_is_called_indistinguishable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fabricated.write(tmp_path, dict.fromkeys(MODELS, 0.0))
    monkeypatch.chdir(tmp_path)
    mia(fabricated.parameters(margin=0.2, folds=2))
    assert verdict_of(tmp_path)["verdict"] == "inconclusive"
    assert "nothing to forget" in verdict_of(tmp_path)["text"]


@pytest.mark.parametrize("forget", [1, 7])
def test_a_handful_of_forget_samples_gives_figures_but_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: int
) -> None:
    fabricated.write(tmp_path, counts={"retain": 60, "forget": forget, "val": 10, "test": 60})
    monkeypatch.chdir(tmp_path)
    metrics = mia(fabricated.parameters())
    assert metrics["mia/count"] == forget
    assert metrics["mia/auc/high"] - metrics["mia/auc/low"] > 0.3
    assert verdict_of(tmp_path)["verdict"] == "inconclusive"


def test_the_same_model_four_times_differs_by_nothing(here: Path) -> None:
    for model in ("unlearned", "finetuned", "retrained"):
        shutil.copy(here / "data/train/logits.npy", here / MODELS[model] / "logits.npy")
    metrics = mia(fabricated.parameters())
    assert metrics["mia/auc_difference"] == metrics["gap"] == 0
    assert metrics["tow"] == metrics["tow_mia"] == 1
    assert metrics["mia/auc_difference/low"] < 0 < metrics["mia/auc_difference/high"]


def test_a_diverged_model_with_huge_but_finite_logits_is_measured(here: Path) -> None:
    logits = np.load(here / "data/finetune/logits.npy")
    np.save(here / "data/finetune/logits.npy", logits * np.float32(1e37))
    metrics = mia(fabricated.parameters())
    assert metrics["forget/acc"] == pytest.approx(0.765, abs=0.05)


def test_a_second_run_writes_the_same_bytes(attacked: Attacked, monkeypatch: pytest.MonkeyPatch) -> None:
    def content() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (attacked[0] / FOLDER).iterdir()}

    first = content()
    monkeypatch.chdir(attacked[0])
    mia(fabricated.parameters())
    assert set(first) == {
        "models.json",
        "metrics.json",
        "verdict.json",
        "losses.csv",
        "roc.csv",
        "losses.png",
        "roc.png",
    }
    assert content() == first


def test_the_tables_hold_every_attacked_sample_and_whole_short_curves(attacked: Attacked) -> None:
    root, metrics = attacked
    losses = read_table(root / FOLDER / "losses.csv", ("model", "bin_left", "bin_right", "forget", "test"))
    curves = read_table(root / FOLDER / "roc.csv", ("model", "fpr", "tpr"))
    for model in MODELS:
        rows = np.array(losses.columns["model"]) == model
        assert losses.numbers("forget")[rows].sum() == losses.numbers("test")[rows].sum()
        assert losses.numbers("forget")[rows].sum() == metrics["mia/count"]
        points = np.array(curves.columns["model"]) == model
        assert 2 <= points.sum() <= 500
        area = np.trapezoid(curves.numbers("tpr")[points], curves.numbers("fpr")[points])
        assert area == pytest.approx(metrics[f"{model}/mia/auc"], abs=0.01)


def test_the_pictures_are_as_wide_as_a_page(attacked: Attacked) -> None:
    for name in ("losses.png", "roc.png"):
        with Image.open(attacked[0] / FOLDER / name) as image:
            assert image.width == 1300


@pytest.mark.parametrize("path", READS)
def test_a_missing_input_is_named_and_nothing_is_written(here: Path, path: str) -> None:
    (here / path).unlink()
    with pytest.raises(ExpungeError, match=path) as caught:
        mia(fabricated.parameters())
    assert "\n" not in str(caught.value)
    assert not (here / FOLDER).exists()


@pytest.mark.parametrize("path", READS)
@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01", b'{"a": 1', b"[1]"])
def test_a_damaged_input_is_named_and_nothing_is_written(here: Path, path: str, content: bytes) -> None:
    (here / path).write_bytes(content)
    with pytest.raises(ExpungeError, match=path) as caught:
        mia(fabricated.parameters())
    assert "\n" not in str(caught.value)
    assert not (here / FOLDER).exists()


@pytest.mark.parametrize("seconds", ["-1", "1e999", '"4"', "null", "true"])
def test_a_time_that_is_no_time_is_refused(here: Path, seconds: str) -> None:
    (here / "data/unlearn/metrics.json").write_text(f'{{"time/seconds": {seconds}}}')
    with pytest.raises(ExpungeError, match=r"data/unlearn/metrics.json: time/seconds is"):
        mia(fabricated.parameters())


def test_logits_of_another_split_and_pickles_are_refused(here: Path) -> None:
    path = here / "data/retrain/logits.npy"
    logits = np.load(path)
    for wrong, message in (
        (logits[:-1], "2349 rows for 2350 samples"),
        (logits[:, :3], "3 columns, but the label"),
        (np.where(np.arange(2350)[:, None] == 7, np.nan, logits), "the first is row 7"),
        (np.array([None]), "is damaged"),
    ):
        np.save(path, wrong)
        with pytest.raises(ExpungeError, match=rf"data/retrain/logits.npy.*{message}"):
            mia(fabricated.parameters())


@pytest.mark.parametrize("role", ["retain", "forget", "val", "test"])
def test_a_split_without_one_of_the_roles_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    fabricated.write(tmp_path, counts={**fabricated.COUNTS, role: 0})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExpungeError, match=f"no sample with role {role}"):
        mia(fabricated.parameters())


def test_the_stage_imports_neither_torch_nor_trackers() -> None:
    heavy = "{'torch', 'mlflow', 'dvc', 'prefect', 'pandas'} & set(sys.modules)"
    code = f"import sys, tasks.mia, tasks.attacks.loss; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
