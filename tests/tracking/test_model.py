import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from tasks import journal
from tasks.engine import weights
from tasks.engine.predict import logits
from tasks.journal import spool
from tasks.models import module
from tasks.tracking.model import _requirements
from tasks.tracking.sender import send
from tests.tracking.spooling import TRACKING, keep_copy, runs

PROJECT = Path(__file__).parents[2]

LOAD = """
import sys, warnings
import numpy as np
warnings.simplefilter("ignore")
import mlflow
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
np.save("answer.npy", model.predict(np.load("images.npy")))
"""


def logits_elsewhere(root: Path, run: str, images: np.ndarray, away: Path) -> np.ndarray:
    """Logits of the logged model, loaded by a program that has nothing of the repository."""
    away.mkdir()
    np.save(away / "images.npy", images)
    subprocess.run(
        [sys.executable, "-c", LOAD, f"sqlite:///{root}/mlflow.db", f"runs:/{run}/model"],
        cwd=away,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        check=True,
        capture_output=True,
        timeout=100,
    )
    answer: np.ndarray = np.load(away / "answer.npy")
    return answer


def test_a_logged_model_gives_the_engines_logits_where_the_repository_is_not(
    root: Path, client: MlflowClient, tmp_path: Path
) -> None:
    info = weights.Info(
        sha256="", model="grey_cnn", options={}, channels=1, size=(28, 28), classes=("a", "b", "c")
    )
    network = weights.create(info, seed=0)
    weights.store(root / "data" / "train", network, info)
    with journal.record("train", TRACKING, root) as run:
        run.metrics({"loss": 0.5}, step=0)
        run.model(root / "data" / "train")
    copy = keep_copy(root)
    send(root)
    copy.rename(copy.with_name(run.key))  # sent again, as after a sender that died before it remembered
    (root / run.key / run.key).rename(root / spool.SPOOL / run.key)
    send(root)

    (sent,) = runs(client)
    (output,) = sent.outputs.model_outputs
    model = client.get_logged_model(output.model_id)
    assert (model.name, model.status.value, model.source_run_id) == ("model", "READY", sent.info.run_id)
    stored = {path.suffix for path in Path(model.artifact_location).rglob("*") if path.is_file()}
    assert not stored & {".pkl", ".pt", ".pth"}

    images = np.random.default_rng(0).integers(0, 256, (7, 1, 28, 28), dtype=np.uint8)
    answer = logits_elsewhere(root, sent.info.run_id, images, tmp_path / "away")
    np.testing.assert_array_equal(answer, logits(network, images))


@pytest.mark.parametrize("model", ["module", "torchvision"])
def test_a_logged_model_carries_your_file_as_it_was_and_needs_no_pretrained_weights(
    model: str, root: Path, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROOT", root)
    source = root / "mine/net.py"
    source.parent.mkdir()
    source.write_text((PROJECT / "docs/examples/my_model.py").read_text())
    options: dict[str, dict[str, object]] = {
        "module": {"path": "mine/net.py", "options": {"width": 4}},
        "torchvision": {"name": "squeezenet1_1", "input_size": 40, "weights": "data/pretrained/gone.pth"},
    }
    info = weights.Info(
        sha256="", model=model, options=options[model], channels=3, size=(16, 16), classes=("a", "b")
    )
    network = weights.create(info, seed=0)
    weights.store(root / "data" / "train", network, info)
    with journal.record("train", TRACKING, root) as run:
        run.model(root / "data" / "train", source if model == "module" else None)
    source.write_text("raise RuntimeError\n")  # before it is sent
    send(root)
    (sent,) = runs(client)
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 16, 16), dtype=np.uint8)
    answer = logits_elsewhere(root, sent.info.run_id, images, tmp_path / "away")
    np.testing.assert_array_equal(answer, logits(network, images))


def test_the_requirements_of_a_logged_model_name_the_package_that_its_model_is_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.0+cpu")
    assert "timm==2.0" in _requirements({"model": "timm"})
    assert not any(each.startswith("timm") for each in _requirements({"model": "torchvision"}))
    assert _requirements({"model": "tiny_net", "package": "my-nets 1.0"})[-1] == "my-nets==1.0"
