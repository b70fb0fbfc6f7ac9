"""``python -m flows.pipeline`` as a user runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from sqlite3 import connect

import psutil
import pytest

from flows.pipeline import main
from tests.flows.project import MARKED_SLEEP, Project, alive, until

AS_IN_A_TERMINAL = (
    # Ctrl-C works, though the tests may be a shell's background job, which ignores it.
    "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "runpy.run_module('flows.pipeline', run_name='__main__', alter_sys=True)"
)


@pytest.fixture(scope="module")
def unserved(served: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """No server named. The database is a copy of the server's, which saves the time to set one up."""
    home = tmp_path_factory.mktemp("unserved")
    database = connect(Path(served["PREFECT_HOME"], "prefect.db"))
    with closing(database), closing(connect(home / "prefect.db")) as copy:
        database.backup(copy)
    without = {name: value for name, value in served.items() if name != "PREFECT_API_URL"}
    return {**without, "PREFECT_HOME": str(home)}


def call(
    checkout: Project, environment: dict[str, str], *arguments: str, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flows.pipeline", *arguments],
        cwd=cwd or checkout.root,
        env={**environment, "PYTHONPATH": str(checkout.root)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@contextmanager
def long_stage(checkout: Project, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """The command in a process group of its own, with a stage that stays."""
    (checkout.root / "pids").unlink(missing_ok=True)
    checkout.write(train=MARKED_SLEEP)
    process = subprocess.Popen(
        [sys.executable, "-c", AS_IN_A_TERMINAL, "--target", "train"],
        cwd=checkout.root,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until(lambda: len(checkout.pids()) == 2 or process.poll() is not None, seconds=180, what="the stage")
        assert all(map(alive, checkout.pids()))
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def command_line(process: psutil.Process) -> list[str]:
    """What a process was started with; nothing if it has just ended."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def test_it_runs_from_any_folder_with_a_temporary_server(
    checkout: Project, unserved: dict[str, str], tmp_path: Path
) -> None:
    checkout.write()
    done = call(checkout, unserved, "--target", "split", "--set", "unlearn.method=none", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Starting temporary server" in done.stderr
    assert "1 success, 7 skipped" in done.stderr
    assert checkout.has("split")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_pipeline_is_a_failed_command(checkout: Project, served: dict[str, str]) -> None:
    checkout.write(split="echo 'expunge split: data/images is missing'; exit 2")
    done = call(checkout, served, "--target", "split")
    assert done.returncode == 1
    assert "Failed('split: data/images is missing (exit status 2)')" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_needs_no_server(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "--set KEY=VALUE" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--set", "unlearn"], ["--target", "trian"], ["--retries", "many"]])
def test_a_wrong_command_line_is_refused_at_once(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert capsys.readouterr().err.splitlines()[-1].startswith("python -m flows.pipeline: error: ")


def test_a_server_that_does_not_answer_is_one_line(checkout: Project, unserved: dict[str, str]) -> None:
    done = call(checkout, {**unserved, "PREFECT_API_URL": "http://127.0.0.1:1/api"})
    assert done.returncode == 1
    assert done.stderr.startswith("no Prefect server answers at PREFECT_API_URL: ")
    assert len(done.stderr.splitlines()) == 1


def test_sigterm_ends_the_stage_with_its_whole_process_group(
    checkout: Project, served: dict[str, str]
) -> None:
    with long_stage(checkout, served) as process:
        process.terminate()
        assert process.wait(timeout=150) == 128 + signal.SIGTERM
        until(lambda: not any(map(alive, checkout.pids())), what="the end of the stage")


def test_ctrl_c_ends_the_stage_and_the_temporary_server(checkout: Project, unserved: dict[str, str]) -> None:
    with long_stage(checkout, unserved) as process:
        children = psutil.Process(process.pid).children(recursive=True)
        assert any("uvicorn" in command_line(child) for child in children)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the server too
        assert process.wait(timeout=150) == 128 + signal.SIGINT
        until(lambda: not any(alive(child.pid) for child in children), what="the end of stage and server")
