import math
import os
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tasks import journal
from tasks.core.params import Tracking
from tasks.journal import spool
from tasks.journal.origin import store_uri
from tasks.tracking import run_ids
from tasks.tracking.pending import waiting
from tasks.tracking.sender import send
from tests.tracking.spooling import TRACKING, disown, keep_copy, record, runs


def test_a_stage_becomes_a_run_with_all_that_it_recorded(root: Path, client: MlflowClient) -> None:
    (root / "roc.png").write_bytes(b"png")
    with journal.record("mia", TRACKING, root) as run:
        run.params({"mia.folds": 10, "long": "x" * 7000})
        run.tags({"git.commit": "abc"})
        for epoch in range(3):
            run.metrics({"val/acc": epoch / 10}, step=epoch)
        run.metrics({"val/acc": 0.9, "mia/auc": 0.57})
        run.dataset("data/train/logits.npy", "data/train/logits.npy", "d" * 32 + ".dir", "input")
        run.artifact(root / "roc.png", "figures")
    send(root)

    (sent,) = runs(client)
    assert sent.info.status == "FINISHED"
    assert sent.info.run_name == "mia"
    assert sent.data.params == {"mia.folds": "10", "long": "x" * 6000}
    assert sent.data.metrics == {"val/acc": 0.9, "mia/auc": 0.57}
    curve = client.get_metric_history(sent.info.run_id, "val/acc")
    assert sorted((point.step, point.value) for point in curve) == [(0, 0), (1, 0.1), (2, 0.2), (2, 0.9)]
    assert sent.data.tags["git.commit"] == "abc"
    assert sent.data.tags["expunge.run"] == run.key
    assert sent.data.tags["expunge.stage"] == "mia"
    (used,) = sent.inputs.dataset_inputs
    assert used.dataset.name == "data/train/logits.npy"
    assert used.dataset.digest == "d" * 32 + ".dir"
    assert [(tag.key, tag.value) for tag in used.tags] == [("mlflow.data.context", "input")]
    figure = client.download_artifacts(sent.info.run_id, "figures/roc.png", str(root))
    assert Path(figure).read_bytes() == b"png"
    assert not waiting(root)
    assert run_ids([run.key, "0" * 32], root) == {run.key: sent.info.run_id}


def test_an_mlflow_run_id_in_the_environment_has_no_effect(
    root: Path, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "0123456789abcdef0123456789abcdef")
    with journal.pipeline(TRACKING, root) as parent:
        monkeypatch.setenv("EXPUNGE_PIPELINE", parent.handle)
        record("split", root)
    send(root)
    parent_run, child = sorted(runs(client), key=lambda run: "expunge.stage" in run.data.tags)
    assert child.data.tags["mlflow.parentRunId"] == parent_run.info.run_id
    assert parent_run.data.tags["expunge.run"] == parent.key


def test_a_journal_sent_twice_makes_one_run(root: Path, client: MlflowClient) -> None:
    with journal.record("train", TRACKING, root) as run:
        run.params({"a": 1})
        run.metrics({"nan": math.nan, "loss": 0.5}, step=1)
        run.metrics({"loss": 0.25}, step=2)
        run.dataset("images", "data/split/images", "d41d8", "input")
        run.artifact(_file(root), "tables")
    copy = keep_copy(root)
    send(root)
    shutil.rmtree(root / spool.SPOOL)
    copy.rename(root / spool.SPOOL)
    send(root)
    (sent,) = runs(client)
    assert len(client.get_metric_history(sent.info.run_id, "loss")) == 2
    assert len(client.get_metric_history(sent.info.run_id, "nan")) == 1
    assert len(sent.inputs.dataset_inputs) == 1
    assert [file.path for file in client.list_artifacts(sent.info.run_id, "tables")] == ["tables/table.csv"]


def _file(root: Path) -> Path:
    path = root / "table.csv"
    path.write_text("a,b\n")
    return path


def test_a_run_that_its_store_has_lost_is_sent_again_from_the_start(root: Path, empty_store: Path) -> None:
    with journal.record("train", TRACKING, root) as run:
        run.params({"a": 1})
    (left,) = waiting(root)
    left.note(offset=left.entries[-1][0])  # a sender has sent this much, to a store that is gone
    send(root)
    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    assert runs(client)[0].data.params == {"a": "1"}


def test_more_values_than_a_batch_holds_all_arrive(root: Path, client: MlflowClient) -> None:
    with journal.record("train", TRACKING, root) as run:
        run.params({f"p{i}": i for i in range(250)})
        run.tags({f"t{i}": str(i) for i in range(250)})
        for step in range(25):
            run.metrics({f"m{i}": step for i in range(100)}, step=step)
    send(root)
    (sent,) = runs(client)
    assert len(sent.data.params) == 250
    assert sum(name.startswith("t") for name in sent.data.tags) == 250
    assert len(sent.data.metrics) == 100
    assert len(client.get_metric_history(sent.info.run_id, "m7")) == 25


def test_non_finite_metrics_arrive_as_mlflow_keeps_them(root: Path, client: MlflowClient) -> None:
    record("mia", root, a=math.nan, b=math.inf, c=-math.inf)
    send(root)
    metrics = runs(client)[0].data.metrics
    assert math.isnan(metrics["a"])
    assert (metrics["b"], metrics["c"]) == (1.7976931348623157e308, -1.7976931348623157e308)


def test_names_that_mlflow_refuses_are_changed_to_the_nearest_that_it_takes(
    root: Path, client: MlflowClient
) -> None:
    with journal.record("train", TRACKING, root) as run:
        run.metrics({"acc/T-shirt, top": 1.0, "/a//b": 2.0, "../up": 3.0, "": 4.0, "n" * 300: 5.0})
        run.params({"träin@1": 1})
        run.tags({"a=b": "c"})
    send(root)
    (sent,) = runs(client)
    assert sent.data.metrics == {"acc/T-shirt_ top": 1, "a/b": 2, "up": 3, "_": 4, "n" * 250: 5}
    assert sent.data.params == {"träin_1": "1"}
    assert sent.data.tags["a_b"] == "c"


def test_a_killed_process_is_a_killed_run_and_its_torn_last_line_is_left_out(
    root: Path, client: MlflowClient
) -> None:
    with journal.record("train", TRACKING, root) as run:
        run.metrics({"loss": 0.5}, step=1)
        run.metrics({"loss": 0.25}, step=2)
    disown(run.folder, lines=1, tail=b'{"kind": "metrics", "values": {"loss": 0.')
    os.utime(run.folder / spool.LINES, (1_800_000_000, 1_800_000_000))
    send(root)
    (sent,) = runs(client)
    assert sent.info.status == "KILLED"
    assert sent.info.end_time == 1_800_000_000_000
    assert sent.data.metrics == {"loss": 0.5}


def test_a_line_that_a_full_disk_has_torn_costs_only_itself(root: Path, client: MlflowClient) -> None:
    with journal.record("train", TRACKING, root) as run:
        run.params({"a": 1})
        with (run.folder / spool.LINES).open("ab") as file:
            file.write(b'{"kind": "metrics", "val')
    send(root)
    (sent,) = runs(client)
    assert sent.info.status == "FINISHED"
    assert sent.data.params == {"a": "1"}


def test_a_running_stage_is_sent_up_to_its_last_whole_line(root: Path, client: MlflowClient) -> None:
    from tasks.tracking.replay import replay
    from tasks.tracking.store import Store

    store = Store(f"sqlite:///{root}/mlflow.db", root)
    with journal.record("train", TRACKING, root) as run:
        run.metrics({"loss": 0.5}, step=1)
        (left,) = waiting(root)
        assert not left.is_over
        run_id, began = replay(store, left)
        assert began
        assert client.get_run(run_id).data.metrics == {"loss": 0.5}
        assert client.get_run(run_id).info.status == "RUNNING"
        run.metrics({"loss": 0.25}, step=2)
        (left,) = waiting(root)
        assert replay(store, left) == (run_id, False)
    assert client.get_run(run_id).data.metrics == {"loss": 0.25}


def test_what_the_store_refuses_stays_and_holds_nothing_else_up(root: Path, client: MlflowClient) -> None:
    with journal.record("train", TRACKING, root) as bad:
        bad.artifact(_file(root))
    shutil.rmtree(bad.folder / "files")
    record("mia", root)
    send(root)
    assert [run.info.status for run in runs(client)] == ["RUNNING", "FINISHED"]
    (left,) = waiting(root)
    assert left.key == bad.key
    assert "table.csv" in str(left.problem)


def test_a_deleted_experiment_is_named_with_the_way_to_restore_it(root: Path, client: MlflowClient) -> None:
    record("split", root)
    client.delete_experiment(client.create_experiment(TRACKING.experiment))
    send(root)
    (left,) = waiting(root)
    assert "experiment 'expunge' is deleted; restore it (mlflow experiments restore" in str(left.problem)


def test_a_run_in_a_folder_with_unusual_characters_arrives(tmp_path: Path, root: Path) -> None:
    odd = tmp_path / "a b#1 %20? é"
    odd.mkdir()
    shutil.copy(root / "mlflow.db", odd / "mlflow.db")
    with journal.record("split", Tracking(uri="sqlite:///mlflow.db"), odd) as run:
        run.artifact(_file(root))
    send(odd)
    client = MlflowClient(store_uri("sqlite:///mlflow.db", odd))
    (sent,) = runs(client)
    assert [file.path for file in client.list_artifacts(sent.info.run_id)] == ["table.csv"]
