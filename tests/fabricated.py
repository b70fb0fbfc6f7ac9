"""Outputs of the stages before ``mia``, with a membership signal of known strength."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.core.params import Params, validate
from tasks.samples.manifest import Manifest

FOLDERS = {"original": "train", "unlearned": "unlearn", "finetuned": "finetune", "retrained": "retrain"}
SECONDS = {"original": 20.0, "unlearned": 1.5, "finetuned": 2.5, "retrained": 18.0}
SIGNAL = {"original": 3.0, "unlearned": 1.0, "finetuned": 0.0, "retrained": 0.0}
COUNTS = {"retain": 1200, "forget": 400, "val": 150, "test": 600}
CLASSES = 5


def parameters(title: str = "Unlearning report", **mia: float) -> Params:
    """Parameters with some of section mia given."""
    recipe = {"epochs": 6, "lr": 0.1}
    return validate(
        {
            "split": {"source": "digits", "path": "digits", "forget": {"kind": "random", "fraction": 0.25}},
            "train": {"model": "grey_cnn", "recipe": recipe, "small_cnn": {"widths": [8]}},
            "retrain": {},
            "unlearn": {"method": "none", "ssd": {"alpha": 10.0}},
            "finetune": {"recipe": recipe},
            "mia": mia,
            "report": {"title": title},
            "tracking": {"uri": "https://user:secret@example.org"},
        }
    )


def write(
    root: Path, signal: Mapping[str, float] = SIGNAL, counts: Mapping[str, int] = COUNTS, seed: int = 0
) -> Manifest:
    """Write ``data/`` below ``root``: manifest and, for each model, logits, metrics and history.

    The margin of the true class is normal: 1.5 ± 2 on samples never seen, higher by ``signal`` on
    the forget set and by 3 on the retain set. Samples share half of their margin's variance between
    the models, as real ones do.
    """
    random = np.random.default_rng(seed)
    roles = random.permutation(np.repeat(list(counts), list(counts.values())))
    labels = random.integers(CLASSES, size=len(roles))
    ids = tuple(f"sample-{row:05d}" for row in range(len(roles)))
    manifest = Manifest(ids, ids, labels, roles)
    manifest.write(root / "data/split/manifest.csv")
    _write_json(root / "data/split/classes.json", [f"class {label}" for label in range(CLASSES)])
    _write_json(root / "data/split/metrics.json", {f"{role}/count": n for role, n in counts.items()})
    shared = random.normal(size=len(roles))
    for model, name in FOLDERS.items():
        shift = np.select([roles == "retain", roles == "forget"], [3.0, signal[model]], 0.0)
        margin = 1.5 + shift + 2 * np.sqrt(0.5) * (shared + random.normal(size=len(roles)))
        folder = root / "data" / name
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "logits.npy", logits_of(margin, labels, random))
        _write_json(folder / "metrics.json", {"time/seconds": SECONDS[model]})
        _write_json(folder / "weights.json", {"sha256": digest(name)})
        (folder / "history.csv").write_text(_history(random))
        _write_json(folder / "run.json", _run(name))
    return manifest


def digest(stage: str) -> str:
    """What stands for the digest of a stage's weights."""
    return hashlib.sha256(stage.encode()).hexdigest()


def logits_of(
    margin: NDArray[np.float64], labels: NDArray[np.int64], random: np.random.Generator
) -> NDArray[np.float32]:
    """Logits in which the true class stands ``margin`` above the best of the others."""
    logits = random.normal(size=(len(margin), CLASSES))
    rows = np.arange(len(margin))
    logits[rows, labels] = -np.inf
    logits[rows, labels] = logits.max(axis=1) + margin
    return logits.astype(np.float32)


def _history(random: np.random.Generator) -> str:
    lines = ["epoch,train/loss,train/acc,val/loss,val/acc,lr,images_per_second"]
    for epoch in range(1, 7):
        loss = 2 / epoch + 0.05 * random.random()
        lines.append(f"{epoch},{loss:.4f},{1 - loss / 3:.4f},{loss + 0.2:.4f},{0.9 - loss / 3:.4f},0.1,900")
    return "\n".join(lines) + "\n"


def _run(stage: str) -> dict[str, object]:
    return {
        "run": f"{stage}-run-key",
        "pipeline": "pipeline-key",
        "stage": stage,
        "started": "2025-11-23T15:00:00+00:00",
        "seconds": 12.345,
        "git.commit": "f0de538aa8f3f43ccfdff2ba40b5ccd4ab7e4e15",
        "git.dirty": "false",
        "environment": {"python": "3.11.2", "platform": "Linux", "torch": "2.15.0", "numpy": "2.4.6"},
        "inputs": {"data/split/manifest.csv": "0123456789abcdef0123456789abcdef"},
        "outputs": {f"data/{stage}/logits.npy": "fedcba9876543210fedcba9876543210"},
    }


def _write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
