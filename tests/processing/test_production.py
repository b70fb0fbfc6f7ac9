"""A result that goes into production although MLflow has lost its run."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from tasks import journal
from tasks.core.errors import UnavailableError
from tasks.core.params import load
from tasks.journal.origin import store_uri
from tasks.processing import processor as processing
from tasks.processing import production
from tasks.requests.production import BASE, in_production, models
from tasks.tracking import sender
from tasks.tracking.model_registry import Models
from tests.processing.conftest import Checkout, names
from tests.processing.quick import quick
from tests.tracking.conftest import empty_store

__all__ = ["empty_store", "quick"]


@pytest.fixture
def recorded(checkout: Checkout, quick: Any, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The stages run in this process, and MLflow has the run of each that made weights."""
    shutil.copy(empty_store, "mlflow.db")
    monkeypatch.setenv("EXPUNGE_TRACKING", "on")
    monkeypatch.setattr("tasks.journal.spool.start_sender", lambda *_, **__: None)
    monkeypatch.setattr("tasks.tracking.__main__.flush", lambda root, timeout: send(root))

    def run(target: str, tags: Mapping[str, str]) -> str:
        key: str = quick(target, tags)
        record(checkout.root, "retrain")
        return key

    record(checkout.root, "train")
    checkout.processor()._adopt()
    return run


def send(root: Path) -> None:
    with warnings.catch_warnings():  # MLflow warns of itself the first time that it stores a model
        warnings.simplefilter("ignore")
        sender.send(root)
    assert not list(Path(".expunge/spool").glob("*/journal.jsonl"))


def record(root: Path, stage: str) -> None:
    with journal.record(stage, load().tracking, root) as made:
        made.model(Path("data", stage))
        made.tags({"weights.sha256": production.digest_of(Path("data", stage))})
    path = Path("data", stage, "run.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"run": made.key}))
    send(root)


def client() -> MlflowClient:
    return MlflowClient(store_uri(load().tracking.uri, Path.cwd()))


def delete_the_run(*_: object) -> None:
    experiments = [each.experiment_id for each in client().search_experiments()]
    (run,) = client().search_runs(experiments, "tags.`expunge.stage` = 'retrain'")
    client().delete_run(run.info.run_id)


def lose_the_store(checkout: Checkout, empty: Path) -> None:
    """What it held is gone; a new one takes its place."""
    shutil.rmtree("mlruns", ignore_errors=True)
    Path("mlflow.db").unlink()
    shutil.copy(empty, "new.db")
    checkout.repository.change({"tracking.uri": "sqlite:///new.db"})
    checkout.repository.git("commit", "--quiet", "--message", "a new store", "--", "params.yaml")


def down(*_: Any, **__: Any) -> None:
    raise UnavailableError("MLflow does not answer")


@pytest.mark.parametrize("lose", [delete_the_run, lose_the_store])
@pytest.mark.parametrize(
    ("where", "name", "status"),
    [(processing.Processor, "_decide", "audited"), (Models, "promote", "promoting")],
)
def test_what_mlflow_has_lost_between_audit_and_promotion_is_recorded_anew(
    checkout: Checkout, recorded: Any, empty_store: Path, monkeypatch: pytest.MonkeyPatch,
    where: Any, name: str, status: str, lose: Any,
) -> None:  # fmt: skip
    """Base and alias move in one run, from where the batch stands: also if the base was moved already."""
    request = checkout.submit(*names(0, 1)).id
    with monkeypatch.context() as patch:
        patch.setattr(where, name, down)
        assert checkout.process(recorded) != []
    assert checkout.status(request) == status
    lose(checkout, empty_store)
    assert checkout.process(recorded) == []
    assert checkout.status(request) == "closed"
    assert checkout.kinds(request).count("started") == 1
    assert "failed" not in checkout.kinds(request)
    current, registry = in_production(checkout.desk.ledger), models(load(), checkout.root)
    assert current is not None
    assert registry is not None
    alias = registry.production()
    assert alias is not None
    assert (alias.version, alias.weights) == (current.version, current.weights)
    assert production.digest_of(BASE) == current.weights
    assert client().get_run(alias.run_id).info.lifecycle_stage == "active"
    recovered = [each for each in registry.versions() if "expunge.recovered" in each.tags]
    assert [each.version for each in recovered] == [alias.version]  # once, however often it is asked


def test_a_deleted_experiment_lets_a_batch_wait_and_nothing_pile_up(
    checkout: Checkout, recorded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = checkout.submit(*names(0, 1)).id
    with monkeypatch.context() as patch:
        patch.setattr(processing.Processor, "_decide", down)
        checkout.process(recorded)
    experiment = client().get_experiment_by_name(load().tracking.experiment)
    assert experiment is not None
    client().delete_experiment(experiment.experiment_id)
    base = production.digest_of(BASE)
    for _ in range(2):
        (problem,) = checkout.process(recorded)
        assert "waits: MLflow has lost a run and takes no other: experiment 'expunge' is deleted" in problem
    assert list(Path(".expunge/spool").glob("*/journal.jsonl")) == []
    assert (checkout.status(request), production.digest_of(BASE)) == ("audited", base)
    client().restore_experiment(experiment.experiment_id)
    assert checkout.process(recorded) == []
    assert checkout.status(request) == "closed"


def test_a_request_for_test_images_leaves_version_alias_and_model_as_they_are(
    checkout: Checkout, recorded: Any
) -> None:
    registry = models(load(), checkout.root)
    assert registry is not None
    before = registry.production()
    assert before is not None
    request = checkout.submit("test/0/001.png").id
    assert checkout.process(recorded) == []
    assert checkout.status(request) == "closed"
    assert registry.production() == before
    assert [each.version for each in registry.versions()] == [before.version]
    assert client().get_run(before.run_id).info.lifecycle_stage == "active"
    assert production.digest_of(BASE) == before.weights
