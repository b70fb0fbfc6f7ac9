import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from tasks import journal
from tasks.core.params import Tracking
from tasks.journal import spool
from tasks.tracking.pending import waiting
from tasks.tracking.pipeline_run import refresh
from tasks.tracking.replay import replay
from tasks.tracking.sender import send
from tasks.tracking.store import Store
from tests.tracking.spooling import TRACKING, change_output, disown, record, runs


@contextmanager
def pipeline(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with journal.pipeline(TRACKING, root) as parent:
        monkeypatch.setenv("EXPUNGE_PIPELINE", parent.handle)
        yield parent.key
    monkeypatch.delenv("EXPUNGE_PIPELINE")


def parent_of(client: MlflowClient, key: str) -> Run:
    (found,) = [run for run in runs(client) if run.data.tags["expunge.run"] == key]
    return found


def stages(parent: Run) -> dict[str, str]:
    return {name.split(".")[2]: value for name, value in parent.data.tags.items() if name.endswith(".status")}


def all_stages(root: Path) -> dict[str, str]:
    return {
        "split": record("split", root),
        "train": record("train", root, reads=("split",)),
        "mia": record("mia", root, reads=("train",), **{"mia/auc": 0.57, "retain/acc": 0.99}),
        "report": record("report", root, reads=("mia",)),
    }


def test_a_pipeline_run_is_the_parent_of_its_stages_and_shows_the_attack(
    root: Path, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pipeline(root, monkeypatch) as key:
        all_stages(root)
    send(root)
    parent = parent_of(client, key)
    children = [run for run in runs(client) if run.info.run_id != parent.info.run_id]
    assert parent.info.status == "FINISHED"
    assert parent.info.run_name.startswith("pipeline 20")
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert stages(parent) == dict.fromkeys(("split", "train", "mia", "report"), "executed")
    assert parent.data.metrics == {"mia/auc": 0.57, "retain/acc": 0.99}
    assert parent.data.params == {f"{stage}.seed": "1" for stage in ("split", "train", "mia", "report")}
    note = parent.data.tags["mlflow.note.content"]
    for run in children:
        assert parent.data.tags[f"expunge.stage.{run.info.run_name}"] == run.info.run_id
        assert f"(#/experiments/{run.info.experiment_id}/runs/{run.info.run_id})" in note


def test_stages_that_dvc_restored_are_linked_with_their_parameters_and_figures(
    root: Path, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pipeline(root, monkeypatch) as first:
        all_stages(root)
    with pipeline(root, monkeypatch) as second:
        record("report", root, reads=("mia",))
    send(root)
    one, two = parent_of(client, first), parent_of(client, second)
    assert stages(two) == {"split": "cached", "train": "cached", "mia": "cached", "report": "executed"}
    for stage in ("split", "train", "mia"):
        assert two.data.tags[f"expunge.stage.{stage}"] == one.data.tags[f"expunge.stage.{stage}"]
    assert two.data.metrics == one.data.metrics
    assert two.data.params == one.data.params


def test_a_stage_behind_an_unchanged_output_is_linked_and_one_behind_a_changed_output_is_not(
    root: Path, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_stages(root)
    with pipeline(root, monkeypatch) as same:
        record("train", root, reads=("split",))
    send(root)
    assert stages(parent_of(client, same)) == {
        "split": "cached",
        "train": "executed",
        "mia": "cached",
        "report": "cached",
    }
    with pipeline(root, monkeypatch) as other:
        record("train", root, reads=("split",))
        change_output(root, "train")
    send(root)
    assert stages(parent_of(client, other)) == {"split": "cached", "train": "executed"}
    assert parent_of(client, other).data.metrics == {}


def test_a_pipeline_in_which_nothing_ran_links_everything(
    root: Path, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_stages(root)
    with pipeline(root, monkeypatch) as key:
        pass
    send(root)
    assert stages(parent_of(client, key)) == dict.fromkeys(("split", "train", "mia", "report"), "cached")


def test_after_a_failed_stage_what_lies_behind_it_is_not_taken_for_cached(
    root: Path, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_stages(root)

    def fail() -> None:
        with journal.record("train", TRACKING, root) as run:
            run.dataset("data/split/out", "data/split/out", "digest of split", "input")
            raise ValueError("loss is NaN")

    with pipeline(root, monkeypatch) as key, pytest.raises(ValueError, match="NaN"):
        fail()
    send(root)
    parent = parent_of(client, key)
    assert parent.info.status == "FAILED"
    assert stages(parent) == {"split": "cached", "train": "executed"}
    assert "(failed)" in parent.data.tags["mlflow.note.content"]


def test_while_a_pipeline_runs_only_what_an_executed_stage_has_read_is_linked(
    root: Path, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_stages(root)
    send(root)
    store = Store(f"sqlite:///{root}/mlflow.db", root)
    with pipeline(root, monkeypatch) as key:
        record("train", root, reads=("split",))
        for journal_ in waiting(root):
            replay(store, journal_)
        refresh(store, waiting(root)[0])
        parent = parent_of(client, key)
        assert parent.info.status == "RUNNING"
        assert stages(parent) == {"split": "cached", "train": "executed"}


def test_a_workspace_that_has_moved_on_tells_nothing_about_an_earlier_pipeline(
    root: Path, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_stages(root)
    with pipeline(root, monkeypatch) as key:
        record("train", root, reads=("split",))
    record("train", root, reads=("split",))
    send(root)
    assert stages(parent_of(client, key)) == {"split": "cached", "train": "executed"}


def test_a_stage_that_was_tried_again_counts_as_its_last_try(
    root: Path, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        with journal.record("split", TRACKING, root):
            raise OSError("the disk is away")

    with pipeline(root, monkeypatch) as key:
        with pytest.raises(OSError, match="away"):
            fail()
        record("split", root)
    send(root)
    parent = parent_of(client, key)
    assert parent.info.status == "FINISHED"
    last = max(runs(client, "split"), key=lambda run: run.info.start_time)
    assert parent.data.tags["expunge.stage.split"] == last.info.run_id


def test_a_restored_stage_whose_run_the_store_does_not_know_is_marked_unknown(
    root: Path, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    record("split", root)
    shutil.rmtree(root / spool.SPOOL)
    with pipeline(root, monkeypatch) as key:
        record("train", root, reads=("split",))
    send(root)
    parent = parent_of(client, key)
    assert parent.data.tags["expunge.stage.split"] == "unknown"
    assert stages(parent) == {"split": "cached", "train": "executed"}


def test_a_restored_run_is_found_in_another_experiment(
    root: Path, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    record("split", root)
    for module in ("tests.tracking.spooling", __name__):
        monkeypatch.setattr(f"{module}.TRACKING", Tracking(experiment="second"))
    with pipeline(root, monkeypatch) as key:
        record("train", root, reads=("split",))
    send(root)
    (split,) = runs(client, "split")
    parent = parent_of(client, key)
    assert parent.data.tags["expunge.stage.split"] == split.info.run_id
    assert parent.info.experiment_id != split.info.experiment_id


def test_a_pipeline_whose_process_is_gone_takes_its_status_from_its_stages(
    root: Path, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = []
    for killed in (False, True):
        with pipeline(root, monkeypatch) as key:
            record("split", root)
            with journal.record("train", TRACKING, root) as train:
                pass
        disown(root / spool.SPOOL / key)
        if killed:
            disown(train.folder)
        keys.append(key)
    send(root)
    assert [parent_of(client, key).info.status for key in keys] == ["FINISHED", "KILLED"]


def test_a_pipeline_waits_for_a_stage_that_could_not_be_sent(
    root: Path, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "a.csv").write_text("a\n")
    with pipeline(root, monkeypatch) as key:
        with journal.record("split", TRACKING, root) as bad:
            bad.artifact(root / "a.csv")
        record("train", root)
    shutil.rmtree(bad.folder / "files")
    send(root)
    assert {left.name: left.problem for left in waiting(root)}["pipeline"] == "waits for split"
    assert parent_of(client, key).info.status == "RUNNING"
    shutil.rmtree(bad.folder)
    send(root)
    assert not waiting(root)
    assert parent_of(client, key).info.status == "FINISHED"
