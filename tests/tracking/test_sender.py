import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tasks import journal
from tasks.core.params import Tracking
from tasks.journal import spool
from tasks.tracking import run_ids
from tasks.tracking.__main__ import WAITS, flush
from tasks.tracking.pending import OTHER_HOST, unreadable, waiting
from tasks.tracking.sender import send
from tasks.tracking.store import Store
from tests.tracking.spooling import TRACKING, disown, record, runs

PACKAGE = Path(__file__).resolve().parents[2]


def command(*arguments: str, root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tasks.tracking", *arguments],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(port: int, folder: Path) -> Iterator[MlflowClient]:
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)),
            *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder)),
        ],
        cwd=folder,
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 90
        while not answers(port):
            assert process.poll() is None, "the server has ended"
            assert time.monotonic() < deadline, "the server does not start"
            time.sleep(0.05)
        yield MlflowClient(f"http://127.0.0.1:{port}")
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
            return True
    except OSError:
        return False


def test_a_server_that_is_down_costs_no_time_and_gets_everything_later(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    tracking = Tracking(uri=f"http://127.0.0.1:{port}", timeout=5)
    (root / "table.csv").write_text("a,b\n")
    began = time.monotonic()
    with journal.record("train", tracking, root) as run:
        run.params({"a": 1})
        run.metrics({"loss": 0.5, "nan": float("nan")}, step=1)
        run.dataset("images", "data/split/images", "d41d8", "input")
        run.artifact(root / "table.csv", "tables")
    assert time.monotonic() - began < tracking.timeout
    assert flush(root, timeout=60) == WAITS
    assert capsys.readouterr().err == (
        f"1 run waits in .expunge/spool: http://127.0.0.1:{port} does not answer; "
        "sent with the next run, or by: python -m tasks.tracking flush\n"
    )
    with server(port, root) as client:
        assert flush(root, timeout=60) == 0
        (sent,) = runs(client)
        assert sent.info.status == "FINISHED"
        assert sent.data.metrics["loss"] == 0.5
        assert sent.data.metrics["nan"] != sent.data.metrics["nan"]
        assert [file.path for file in client.list_artifacts(sent.info.run_id, "tables")] == [
            "tables/table.csv"
        ]
        assert run_ids([run.key], root) == {run.key: sent.info.run_id}
    assert not waiting(root)


def test_a_server_that_accepts_and_says_nothing_is_given_up_after_the_time_out(root: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        port = silent.getsockname()[1]
        with journal.record("train", Tracking(uri=f"http://127.0.0.1:{port}", timeout=1), root):
            pass
        began = time.monotonic()
        send(root)
        assert time.monotonic() - began < 10
    (left,) = waiting(root)
    assert left.problem == f"http://127.0.0.1:{port} does not answer within 1 s"


def test_a_password_in_the_address_does_not_reach_the_message(root: Path) -> None:
    address = f"http://me:secret@127.0.0.1:{free_port()}"
    with journal.record("train", Tracking(uri=address, timeout=1), root):
        pass
    send(root)
    assert "secret" not in str(waiting(root)[0].problem)


def test_one_store_that_is_down_does_not_hold_up_another(root: Path, client: MlflowClient) -> None:
    with journal.record("split", Tracking(uri=f"http://127.0.0.1:{free_port()}", timeout=1), root):
        pass
    record("train", root)
    send(root)
    assert [run.info.run_name for run in runs(client)] == ["train"]
    assert [left.name for left in waiting(root)] == ["split"]


def test_a_locked_file_is_named_and_gets_the_run_later(root: Path, client: MlflowClient) -> None:
    with journal.record("train", Tracking(timeout=1), root):
        pass
    with closing(sqlite3.connect(root / "mlflow.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        send(root)
    assert waiting(root)[0].problem == f"{root}/mlflow.db cannot be written (database is locked)"
    send(root)
    assert [run.info.status for run in runs(client)] == ["FINISHED"]


def test_a_folder_that_is_not_there_is_named(root: Path) -> None:
    with journal.record("train", Tracking(uri="sqlite:///gone/mlflow.db", timeout=1), root):
        pass
    send(root)
    assert "gone/mlflow.db cannot be written" in str(waiting(root)[0].problem)


STAGE = """
import sys, time
from pathlib import Path
from tasks import journal
from tasks.core.params import Tracking

with journal.record("train", Tracking(), Path.cwd()) as run:
    run.metrics({"loss": 0.5}, step=1)
    print(run.key, flush=True)
    sys.stdin.read()
"""


def test_a_stage_is_followed_while_it_runs_and_killed_when_its_process_is(
    root: Path, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXPUNGE_TRACKING", "on")
    monkeypatch.setenv("MLFLOW_RUN_ID", "0123456789abcdef0123456789abcdef")
    monkeypatch.setenv("PYTHONPATH", str(PACKAGE))
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", STAGE], stdin=pipe, stdout=pipe, text=True) as stage:
        assert stage.stdout is not None
        key = stage.stdout.readline().strip()
        deadline = time.monotonic() + 60
        while not run_ids([key], root):  # the stage has started its sender itself
            assert time.monotonic() < deadline, (root / spool.SENDER_LOG).read_text()
            time.sleep(0.05)
        (followed,) = runs(client)
        assert followed.info.status == "RUNNING"
        stage.kill()
    assert flush(root, timeout=60) == 0
    (sent,) = runs(client)
    assert sent.info.run_id == run_ids([key], root)[key]
    assert sent.info.status == "KILLED"
    assert sent.data.metrics == {"loss": 0.5}
    assert command("find", key, root=root).stdout == f"{sent.info.run_id}\n"


def test_senders_that_start_together_make_one_run_each_in_a_fresh_store(tmp_path: Path) -> None:
    fresh = f"sqlite:///{tmp_path}/fresh.db"
    roots = [tmp_path / "one", tmp_path / "two"]
    os.environ["EXPUNGE_TRACKING"] = "off"
    for root in roots:
        root.mkdir()
        for stage in ("split", "train"):
            with journal.record(stage, Tracking(uri=fresh), root):
                pass
    senders = [
        subprocess.Popen(
            [sys.executable, "-m", "tasks.tracking", "send"],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(PACKAGE)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for root in roots * 2
    ]
    said = [sender.communicate(timeout=100)[0] for sender in senders]
    assert [sender.returncode for sender in senders] == [0, 0, 0, 0], said
    assert [waiting(root) for root in roots] == [[], []], said
    assert sorted(run.info.run_name for run in runs(MlflowClient(fresh))) == [
        "split",
        "split",
        "train",
        "train",
    ]


DYING = """
import os, signal
from pathlib import Path
from alembic.runtime.migration import HeadMaintainer
from alembic.script import ScriptDirectory
from mlflow.store.db.utils import _get_alembic_config
from tasks.tracking.store import Store

last = ScriptDirectory.from_config(_get_alembic_config("sqlite://")).get_revision("head").revision
real = HeadMaintainer.update_to_step

def step(self, step):
    if step.to_revisions == (last,):
        os.kill(os.getpid(), signal.SIGKILL)
    real(self, step)

HeadMaintainer.update_to_step = step
Store("sqlite:///mlflow.db", Path())
"""


def test_a_store_whose_maker_was_killed_is_made_by_the_next(tmp_path: Path) -> None:
    """MLflow refuses for ever a file that has all tables and not the last version."""
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    killed = subprocess.run((sys.executable, "-c", DYING), cwd=tmp_path, env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    client = Store(f"sqlite:///{tmp_path}/mlflow.db", tmp_path).client
    assert [found.name for found in client.search_experiments()] == ["Default"]


def test_an_empty_spool_is_flushed_without_importing_mlflow_or_requests(root: Path) -> None:
    code = (
        "import sys; from tasks.tracking.__main__ import main; sys.argv = ['tasks.tracking', 'flush']\n"
        "assert main() == 0; print([m for m in ('mlflow', 'requests', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == "[]"


def test_flush_does_not_wait_for_a_stage_that_is_still_at_work(root: Path) -> None:
    with journal.record("train", TRACKING, root):
        assert flush(root, timeout=0) == 0


def test_an_unknown_key_is_not_found(root: Path) -> None:
    done = command("find", "0" * 32, root=root)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "flush" in done.stderr


def test_a_journal_that_cannot_be_read_is_set_aside_and_reported(
    root: Path, client: MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    with journal.record("split", TRACKING, root) as damaged:
        pass
    (damaged.folder / spool.LINES).write_bytes(b"\x00\xff\n")
    with journal.record("train", TRACKING, root) as good:
        pass
    send(root)
    assert [run.data.tags["expunge.run"] for run in runs(client)] == [good.key]
    assert [folder.name for folder in unreadable(root)] == [f"{damaged.key}.unreadable"]
    assert flush(root, timeout=0) == 0
    assert "cannot be read" in capsys.readouterr().err


def test_a_run_on_another_host_is_left_to_it_until_it_has_been_silent_for_a_day(
    root: Path, client: MlflowClient
) -> None:
    with journal.record("train", TRACKING, root) as run:
        pass
    disown(run.folder)
    path = run.folder / spool.LINES
    header, *rest = path.read_bytes().splitlines(keepends=True)
    value = json.loads(header)
    value["process"]["host"] = "elsewhere"
    path.write_bytes(spool.line(value) + b"".join(rest))
    send(root)
    assert [sent.info.status for sent in runs(client)] == ["RUNNING"]
    long_ago = time.time() - OTHER_HOST - 1
    os.utime(path, (long_ago, long_ago))
    send(root)
    assert [sent.info.status for sent in runs(client)] == ["KILLED"]


def test_a_removal_that_was_interrupted_is_finished(root: Path) -> None:
    with journal.record("train", TRACKING, root) as run:
        run.params({"a": 1})
    (run.folder / spool.LINES).unlink()
    (run.folder / "files").mkdir()
    assert not waiting(root)
    assert not run.folder.exists()


def test_the_log_of_the_sender_does_not_grow_without_end(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = root / spool.SENDER_LOG
    log.parent.mkdir()
    log.write_bytes(b"x" * (spool.LOG_LIMIT + 1))
    sender = spool.start_sender(root, forced=True)
    assert sender is not None
    assert sender.wait(60) == 0
    assert log.stat().st_size < spool.LOG_LIMIT
