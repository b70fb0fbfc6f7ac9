import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import mlflow.artifacts
import pytest
from mlflow import MlflowClient

from tasks import journal
from tasks.core.errors import ExpungeError
from tasks.core.files import read_json
from tasks.core.params import Tracking
from tasks.engine import weights
from tasks.tracking.deletion import Deletion, Void
from tasks.tracking.model_registry import Models
from tasks.tracking.sender import send
from tests.tracking.spooling import TRACKING, runs
from tests.tracking.test_sender import PACKAGE, free_port, server

VOID, FINE = "1" * 32, "2" * 32
INFO = weights.Info(sha256="", model="grey_cnn", options={}, channels=1, size=(28, 28), classes=("a", "b"))


def deletion(models: Models) -> Deletion:
    return Deletion(models, TRACKING.experiment, Path(models.lock.lock_file).parents[1])


@dataclass(frozen=True)
class Made:
    key: str
    sha256: str
    file: bytes


def make(root: Path, stage: str, *, seed: int, reads: str, tracking: Tracking = TRACKING) -> Made:
    """Record a stage with weights of its own and send it."""
    folder = root / "data" / stage
    weights.store(folder, weights.create(INFO, seed=seed), INFO)
    sha256 = read_json(folder / "weights.json")["sha256"]
    with journal.record(stage, tracking, root) as run:
        run.params({"seed": seed})
        run.tags({"dvc.in.data/split/images": f"{reads}.dir"})
        run.model(folder)
        run.tags({"weights.sha256": sha256})
    send(root)
    return Made(run.key, sha256, (folder / "weights.safetensors").read_bytes())


def attack(root: Path, tracking: Tracking = TRACKING) -> str:
    """Record a run that looked at void data and send it; return its key."""
    for name in ("losses.csv", "roc.csv", "verdict.json", "losses.png"):
        (root / name).write_text(f"content of {name}")
    with journal.record("mia", tracking, root) as run:
        run.tags({"dvc.out.data/mia/losses.csv": VOID})
        run.artifact(root / "losses.csv", "tables")
        run.artifact(root / "roc.csv", "tables")
        run.artifact(root / "verdict.json", "tables")
        run.artifact(root / "losses.png", "figures")
    send(root)
    return run.key


def holders(folder: Path, made: Made) -> list[Path]:
    """Files with a piece of the weights in them, wherever in the file that is."""
    piece = made.file[len(made.file) // 2 :][:64]
    assert len(set(piece)) > 16, "a piece of zeros is everywhere"
    return [path for path in folder.rglob("*") if path.is_file() and piece in path.read_bytes()]


@contextmanager
def store_at(kind: str, root: Path, folder: Path, empty_store: Path) -> Iterator[Tracking]:
    """A store whose database and artifacts lie in ``folder``: a file, or a server that passes files on."""
    port = free_port()
    shutil.copy(empty_store, folder / "mlflow.db")
    with server(port, folder) if kind == "server" else nullcontext():
        uri = f"http://127.0.0.1:{port}" if kind == "server" else f"sqlite:///{folder}/mlflow.db"
        yield Tracking(uri=uri, timeout=20)


@pytest.mark.parametrize("kind", ["file", "server"])
def test_a_models_life_from_its_run_to_its_last_byte(
    kind: str, root: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "sqlite:////gone/elsewhere.db")
    folder = root / "store"
    folder.mkdir()
    monkeypatch.chdir(folder)  # MLflow puts the artifacts of an SQLite store where it is started
    with store_at(kind, root, folder, empty_store) as tracking:
        old = make(root, "train", seed=1, reads=VOID, tracking=tracking)
        new = make(root, "retrain", seed=2, reads=FINE, tracking=tracking)
        repaired = make(root, "finetune", seed=3, reads=VOID, tracking=tracking)
        looked = attack(root, tracking)
        models = Models(tracking, "digits", root)
        assert models.production() is None
        assert models.versions() == []

        first = models.register(old.key, old.sha256, {"expunge.batch": "0"})
        second = models.register(new.key, new.sha256, {"expunge.batch": "1"})
        assert models.register(old.key, old.sha256, {"expunge.batch": "0"}) == first
        assert models.versions() == [first, second]
        assert (first.version, first.run, first.weights) == ("1", old.key, old.sha256)
        assert second.tags == {"expunge.batch": "1", "expunge.run": new.key, "weights.sha256": new.sha256}
        models.promote("1")
        assert models.production() == first
        models.promote("2")
        models.promote("2")
        assert models.production() == second

        there = deletion(models).find(inputs=[VOID], keep=[repaired.sha256])
        assert deletion(models).find(inputs=[VOID], keep=[repaired.sha256]) == there, "it is a dry run"
        (mia,) = models.runs_with("expunge.run", looked)
        assert [(each.kind, each.item) for each in there] == [
            ("registered version", "digits/1"),
            ("logged model", first.model_id),
            ("artifacts", f"{mia['run_id']}/tables/losses.csv"),
            ("artifacts", f"{mia['run_id']}/tables/verdict.json"),
        ]
        assert there[0].why == there[1].why == f"dvc.in.data/split/images is {VOID}.dir"
        assert there[2].why == f"dvc.out.data/mia/losses.csv is {VOID}"
        assert holders(folder, old)
        deletion(models).delete(there)
        deletion(models).delete(there)
        assert deletion(models).find(inputs=[VOID], keep=[repaired.sha256]) == []

        assert holders(folder, old) == []
        assert holders(folder, new)
        assert holders(folder, repaired)
        attacked = {"losses.csv", "roc.csv", "verdict.json", "losses.png"}
        left = attacked & {path.name for path in folder.rglob("*")}
        assert left == {"roc.csv", "losses.png"}
        assert models.versions() == [second]
        uri = tracking.uri
        location = MlflowClient(uri, registry_uri=uri).get_model_version_download_uri("digits", "2")
        loaded = mlflow.artifacts.download_artifacts(location, tracking_uri=uri)
        assert (Path(loaded) / "artifacts" / "weights.safetensors").read_bytes() == new.file

        (run,) = models.runs_with("expunge.run", old.key)
        assert (run["key"], run["stage"], run["status"]) == (old.key, "train", "FINISHED")
        assert run["tags"]["weights.sha256"] == old.sha256
        assert MlflowClient(uri).get_run(run["run_id"]).data.params == {"seed": "1"}
        with pytest.raises(ExpungeError, match="has no model"):
            models.register(old.key, old.sha256, {})


def test_what_is_in_production_is_not_deleted_nor_is_anything_beside_it(
    root: Path, client: MlflowClient
) -> None:
    models = Models(TRACKING, "digits", root)
    old = make(root, "train", seed=1, reads=VOID)
    new = make(root, "retrain", seed=2, reads=VOID)
    for made in (old, new):
        models.register(made.key, made.sha256, {})
    models.promote("2")
    void = deletion(models).find(inputs=[VOID], keep=[])
    assert len(void) == 4
    for dangerous in (void, [each for each in void if each.kind == "logged model"]):
        with pytest.raises(ExpungeError, match="is in production and is not deleted"):
            deletion(models).delete(dangerous)
    assert deletion(models).find(inputs=[VOID], keep=[]) == void
    assert holders(root / "mlruns", old)
    assert holders(root / "mlruns", new)


def test_weights_are_void_by_their_digest_in_whatever_registered_model_they_are(
    root: Path, client: MlflowClient
) -> None:
    made = make(root, "train", seed=1, reads=FINE)
    version = Models(TRACKING, "digits", root).register(made.key, made.sha256, {})
    models = Models(TRACKING, "others", root)
    client.create_registered_model("by-hand")
    (run,) = runs(client)
    client.create_model_version("by-hand", f"models:/{version.model_id}", run.info.run_id)
    items = {each.item for each in deletion(models).find(weights=[made.sha256], keep=[])}
    assert items == {"digits/1", "by-hand/1", version.model_id}
    assert deletion(models).find(weights=[made.sha256], keep=[made.sha256]) == []
    assert deletion(models).find(weights=["0" * 64], keep=[]) == []


@pytest.mark.parametrize("what", ["model", "run", "experiment"])
def test_what_a_user_marked_as_deleted_in_mlflow_still_has_its_files_and_is_found(
    what: str, root: Path, client: MlflowClient
) -> None:
    made = make(root, "train", seed=1, reads=VOID)
    (run,) = runs(client)
    if what == "model":
        client.delete_logged_model(run.outputs.model_outputs[0].model_id)
    elif what == "run":
        client.delete_run(run.info.run_id)
    else:
        client.delete_experiment(run.info.experiment_id)
    assert holders(root / "mlruns", made)
    models = Models(TRACKING, "digits", root)
    void = deletion(models).find(inputs=[VOID], keep=[])
    assert [each.kind for each in void] == ["logged model"]
    deletion(models).delete(void)
    assert holders(root / "mlruns", made) == []
    assert deletion(models).find(inputs=[VOID], keep=[]) == []
    assert client.get_run(run.info.run_id).data.params == {"seed": "1"}, "mlflow gc would take the run too"
    with closing(sqlite3.connect(root / "mlflow.db")) as database:
        assert database.execute("SELECT count(*) FROM logged_models").fetchone() == (0,)


def test_what_another_project_recorded_is_found_and_stays(root: Path, client: MlflowClient) -> None:
    experiment = client.create_experiment("of somebody else")
    tags = {"dvc.in.data/split/images": f"{VOID}.dir"}
    others = client.create_run(experiment, tags=tags).info
    namesake = client.create_run(experiment, tags={**tags, "expunge.run": "a" * 32}).info
    (root / "losses.csv").write_text("theirs")
    for run in (others, namesake):
        client.log_artifact(run.run_id, str(root / "losses.csv"), "tables")
    made = make(root, "train", seed=1, reads=VOID)
    models = Models(TRACKING, "digits", root)
    void = deletion(models).find(inputs=[VOID], keep=[])
    theirs = {f"{run.run_id}/tables/losses.csv" for run in (others, namesake)}
    assert {each.item for each in void if not each.ours} == theirs
    deletion(models).delete(void)
    assert {each.item for each in deletion(models).find(inputs=[VOID], keep=[])} == theirs
    assert holders(root / "mlruns", made) == []
    sent = deletion(models).runs_elsewhere(lambda _: False)
    assert set(deletion(models).files(sent)).isdisjoint(theirs)


def test_a_run_that_was_deleted_in_mlflow_is_passed_over_and_named(root: Path, client: MlflowClient) -> None:
    made = make(root, "train", seed=1, reads=FINE)
    (run,) = runs(client)
    client.delete_run(run.info.run_id)
    models = Models(TRACKING, "digits", root)
    assert not models.tag_run(made.key, {"expunge.batch": "7"})
    with pytest.raises(ExpungeError, match=f"mlflow runs restore --run-id {run.info.run_id}"):
        models.register(made.key, made.sha256, {})
    client.restore_run(run.info.run_id)
    assert models.tag_run(made.key, {"expunge.batch": "7"})


def test_a_deletion_that_was_killed_is_finished_by_the_next(
    root: Path, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(root, "train", seed=1, reads=VOID)
    models = Models(TRACKING, "digits", root)
    models.register(made.key, made.sha256, {})

    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    void = deletion(models).find(inputs=[VOID], keep=[])
    with monkeypatch.context() as patch:
        patch.setattr(models.client, "delete_logged_model", kill)
        with pytest.raises(KeyboardInterrupt):
            deletion(models).delete(void)
    left = deletion(models).find(inputs=[VOID], keep=[])
    assert [each.kind for each in left] == ["logged model"]
    deletion(models).delete(left)
    assert deletion(models).find(inputs=[VOID], keep=[]) == []
    deletion(models).delete(
        [Void("registered version", "digits/7", ""), Void("artifacts", "0" * 32 + "/tables/a", "")]
    )


REGISTER = """
import sys, time
from pathlib import Path
from tasks.core.params import Tracking
from tasks.tracking.model_registry import Models

look = Models.versions
def slow(self):
    found = look(self)
    time.sleep(1)
    return found
Models.versions = slow
models = Models(Tracking(), "digits", Path.cwd())
Path(sys.argv[3]).touch()
while not Path("go").exists():
    time.sleep(0.01)
print(models.register(sys.argv[1], sys.argv[2], {}).version)
"""


def test_two_processes_that_register_the_same_weights_make_one_version(root: Path) -> None:
    made = make(root, "train", seed=1, reads=FINE)
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    commands = [(sys.executable, "-c", REGISTER, made.key, made.sha256, ready) for ready in ("one", "two")]
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for command in commands
    ]
    deadline = time.monotonic() + 60
    while not all((root / ready).exists() for ready in ("one", "two")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (root / "go").touch()
    assert [process.communicate(timeout=60)[0] for process in processes] == ["1\n", "1\n"]
    assert [version.version for version in Models(TRACKING, "digits", root).versions()] == ["1"]


def test_a_run_that_is_not_there_or_has_other_weights_is_refused(root: Path, client: MlflowClient) -> None:
    made = make(root, "train", seed=1, reads=FINE)
    models = Models(TRACKING, "digits", root)
    with pytest.raises(ExpungeError, match=f"run {made.key} made weights {made.sha256} .* not 0000"):
        models.register(made.key, "0" * 64, {})
    for key in ("0" * 32, "no key' OR"):
        with pytest.raises(ExpungeError, match="is not in MLflow; send it first"):
            models.register(key, made.sha256, {})
    with pytest.raises(ExpungeError, match=r"^MLflow refuses: .*not found"):
        models.promote("1")
    assert models.versions() == []


def test_a_tag_of_a_run_is_set_and_found_again(root: Path, client: MlflowClient) -> None:
    made = make(root, "train", seed=1, reads=FINE)
    make(root, "retrain", seed=2, reads=FINE)
    models = Models(TRACKING, "it's digits", root)
    assert [models.register(made.key, made.sha256, {})] == models.versions()
    models.tag_run(made.key, {"expunge.batch": "it's 7"})
    assert [run["key"] for run in models.runs_with("expunge.batch", "it's 7")] == [made.key]
    assert models.runs_with("expunge.batch", "8") == []


def test_a_store_that_is_down_costs_a_line_and_no_more_than_its_time_out(
    root: Path, empty_store: Path
) -> None:
    began = time.monotonic()
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ExpungeError, match=r"^MLflow does not answer: .* within 1 s$"):
            Models(Tracking(uri=uri, timeout=1), "digits", root)
    assert time.monotonic() - began < 5
    with store_at("server", root, root, empty_store) as tracking:
        models = Models(tracking, "digits", root)
        assert models.production() is None
    began = time.monotonic()
    with pytest.raises(ExpungeError, match=r"^MLflow does not answer: http://[0-9.:]+ does not answer$"):
        models.production()
    assert time.monotonic() - began < 20
