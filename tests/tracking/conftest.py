import importlib
import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.tracking import sender

with warnings.catch_warnings():  # MLflow's own modules warn as they are imported
    warnings.simplefilter("ignore")
    for name in ("mlflow.pyfunc", "mlflow.store.tracking.sqlalchemy_store"):
        importlib.import_module(name)

from mlflow import MlflowClient


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow SQLite file with its tables: making them takes seconds."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}")
    return path


@pytest.fixture
def root(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository's root with an empty store, in which no sender starts by itself."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sender, "POLL", 0.01)
    monkeypatch.setenv("EXPUNGE_TRACKING", "off")
    for name in ("EXPUNGE_PIPELINE", "EXPUNGE_TAGS", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def client(root: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{root}/mlflow.db")


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    """What a sender sets for its own process."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
