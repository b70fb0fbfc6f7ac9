"""A stage's weights as an MLflow model: code, safetensors and a signature, nothing pickled.

The model is attached to the stage's run by MlflowClient alone. Torch is not imported: 0.5 s a model.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
from mlflow.entities import LoggedModelOutput, LoggedModelStatus
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from tasks.core.files import read_json
from tasks.core.temporary import temporary_folder
from tasks.tracking.store import Store

NAME = "model"
TASKS = Path(__file__).resolve().parents[1]
SERVED = ("__init__.py", "core", "engine", "models")
"""What of ``tasks/`` a logged model carries with it: all that ``tasks/serving.py`` imports."""

REQUIREMENTS = (
    *("mlflow", "torch", "torchvision", "numpy", "safetensors"),
    *("pydantic", "ruamel.yaml", "filelock", "tqdm"),
)


def log_model(store: Store, run_id: str, weights: Path, info: Path, code: Path | None = None) -> None:
    """Log weights as model ``model`` of a run, unless the run has it.

    Parameters
    ----------
    weights, info
        ``weights.safetensors`` and the ``weights.json`` that describes it.
    code
        The Python file that builds the model, where that is one of the user's own.
    """
    run = store.client.get_run(run_id)
    for output in run.outputs.model_outputs if run.outputs else ():
        if store.client.get_logged_model(output.model_id).status == LoggedModelStatus.READY:
            return
    logged = store.client.create_logged_model(run.info.experiment_id, name=NAME, source_run_id=run_id)
    with temporary_folder() as folder:
        path = folder / NAME
        model = Model(run_id=run_id, model_id=logged.model_id, model_uuid=logged.model_id)
        _save(path, weights, info, code, model)
        store.client.log_model_artifacts(logged.model_id, str(path))
    store.client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    store.client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])


def _save(path: Path, weights: Path, info: Path, own: Path | None, model: Model) -> None:
    description = read_json(info)
    images = (-1, description["channels"], *description["size"])
    signature = ModelSignature(
        Schema([TensorSpec(np.dtype(np.uint8), images)]),
        Schema([TensorSpec(np.dtype(np.float32), (-1, len(description["classes"])))]),
    )
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")  # it asks for an example of the input: the signature is explicit
        code = Path(folder)
        _copy_code(code / "tasks")
        if own:  # beside ``tasks``, where its path begins
            target = code / description["options"]["path"]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(own, target)
        mlflow.pyfunc.save_model(
            path,
            mlflow_model=model,
            python_model=str(TASKS / "serving.py"),
            artifacts={"weights": str(weights), "info": str(info)},
            code_paths=[str(part) for part in sorted(code.iterdir())],
            signature=signature,
            pip_requirements=_requirements(description),
        )


def _copy_code(target: Path) -> None:
    target.mkdir()
    for name in SERVED:
        source = TASKS / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target / name)


def _requirements(description: dict[str, Any]) -> list[str]:
    """Installed versions, without the build's label: ``2.11.0+cpu`` is on no index that pip knows."""
    names = [*REQUIREMENTS, *(["timm"] if description["model"] == "timm" else [])]
    package, _, version = description.get("package", "").partition(" ")
    offered = [f"{package}=={version}"] if package else []
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in names] + offered
