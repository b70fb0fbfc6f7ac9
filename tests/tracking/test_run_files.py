"""Files of MLflow's runs are searched wherever they lie, whatever the address of the database is."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from mlflow import MlflowClient

from tasks import journal
from tasks.core.errors import ExpungeError
from tasks.core.params import load
from tasks.erasure.checklist import Outcome
from tasks.erasure.purge import Purge
from tasks.erasure.sought import Sought
from tasks.erasure.stores import Store
from tasks.erasure.stores.mlflow import RunFiles
from tasks.tracking.sender import send
from tests.tracking.spooling import TRACKING

PARAMS = Path(__file__).parents[2] / "params.yaml"
NAME = "train/cat/0017.png"
SOUGHT = Sought.of_samples([NAME])


def record(root: Path) -> str:
    """A run that kept a table with the name of a sample, and one without; its key."""
    (root / "tells.csv").write_text(f"{NAME},1\n")
    (root / "none.csv").write_text("other,1\n")
    with journal.record("mia", TRACKING, root) as run:
        run.artifact(root / "tells.csv", "tables")
        run.artifact(root / "none.csv", "tables")
    send(root)
    for name in ("tells.csv", "none.csv"):
        (root / name).unlink()
    return run.key


def purge_of(root: Path) -> Purge:
    desk = SimpleNamespace(ledger=SimpleNamespace(name=""))
    return Purge(root, load(PARAMS), cast("Any", desk), {"HOME": str(root)})


def files_of_runs(root: Path) -> list[Store]:
    return [store for store in purge_of(root).places.others() if store.name == RunFiles.name]


def test_files_outside_the_checkout_are_searched_and_those_in_it_are_not_searched_twice(
    root: Path,
    client: MlflowClient,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    elsewhere = tmp_path_factory.mktemp("artifacts")
    here = record(root)
    with monkeypatch.context() as patch:
        patch.delenv("EXPUNGE_TRACKING")
        assert files_of_runs(root) == []
    experiment = client.get_experiment_by_name(TRACKING.experiment)
    assert experiment is not None
    client.rename_experiment(experiment.experiment_id, "before")
    client.create_experiment(TRACKING.experiment, artifact_location=elsewhere.as_uri())
    there = record(root)
    assert here != there
    monkeypatch.delenv("EXPUNGE_TRACKING")
    (store,) = files_of_runs(root)
    (hit,) = store.search(SOUGHT)
    (run,) = client.search_runs([client.get_experiment_by_name(TRACKING.experiment).experiment_id])
    assert hit.item == f"{run.info.run_id}/tables/tells.csv"
    assert [line.outcome for line in purge_of(root).purge_store(store, SOUGHT)] == [Outcome.DELETED]
    assert {path.name for path in elsewhere.rglob("*.csv")} == {"none.csv"}
    assert len(list(root.glob("mlruns/**/tells.csv"))) == 1  # that is another store's
    assert list(store.search(SOUGHT)) == []
    (root / "mlflow.db").write_text("damaged")
    (store,) = files_of_runs(root)
    with pytest.raises(ExpungeError):
        store.search(SOUGHT)
