import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from mlflow import MlflowClient

from tasks import journal
from tasks.engine import weights
from tasks.engine.predict import logits
from tasks.journal import spool
from tasks.tracking.sender import send
from tests.tracking.spooling import TRACKING, keep_copy, runs

LOAD = """
import sys, warnings
import numpy as np
warnings.simplefilter("ignore")
import mlflow
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
np.save("answer.npy", model.predict(np.load("images.npy")))
"""


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
    away = tmp_path / "away"
    away.mkdir()
    np.save(away / "images.npy", images)
    subprocess.run(
        [sys.executable, "-c", LOAD, f"sqlite:///{root}/mlflow.db", f"runs:/{sent.info.run_id}/model"],
        cwd=away,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        check=True,
        capture_output=True,
        timeout=100,
    )
    np.testing.assert_array_equal(np.load(away / "answer.npy"), logits(network, images))
