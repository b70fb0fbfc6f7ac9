from __future__ import annotations

import subprocess
import sys
import time

import pytest

from tasks.core import processes
from tasks.core.errors import ExpungeError
from tasks.core.processes import Place, one_voice, place

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


def started_as(monkeypatch: pytest.MonkeyPatch, *values: str | None) -> None:
    for name, value in zip(VARIABLES, values, strict=True):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((None, None, None, None), Place()),
        ((None, "4", None, None), Place()),  # some clusters set the size alone
        (("0", "1", "0", "1"), Place(launched=True)),
        (("5", "8", "1", "4"), Place(5, 8, 1, 4, launched=True)),
        (("1", "2", None, None), Place(1, 2, 1, 2, launched=True)),
    ],
)
def test_a_process_has_the_place_that_torchrun_gave_it(
    monkeypatch: pytest.MonkeyPatch, values: tuple[str | None, ...], expected: Place
) -> None:
    started_as(monkeypatch, *values)
    assert place() == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            ("x", "2", "0", "1"),
            "the environment variable RANK is 'x', not a number; torchrun sets it",
        ),
        (("0", "٣", "0", "1"), "the environment variable WORLD_SIZE is '٣', not a number"),
        (("2", "2", "0", "1"), "RANK 2 of WORLD_SIZE 2, LOCAL_RANK 0 of LOCAL_WORLD_SIZE 1 is impossible"),
        (("0", "2", "0", "3"), "LOCAL_RANK 0 of LOCAL_WORLD_SIZE 3 is impossible"),
    ],
)
def test_a_place_that_cannot_be_is_refused(
    monkeypatch: pytest.MonkeyPatch, values: tuple[str, ...], message: str
) -> None:
    started_as(monkeypatch, *values)
    with pytest.raises(ExpungeError, match=message):
        place()


@pytest.mark.parametrize(
    ("rank", "error", "waits"),
    [
        ("0", ExpungeError("wrong"), 0),
        ("0", OSError(28, "No space left on device"), 0),
        ("0", ConnectionError("another has ended"), 1),
        ("0", RuntimeError("a defect"), 1),
        ("1", ExpungeError("wrong"), 2),
    ],
)
def test_who_may_only_echo_waits_to_be_ended_before_it_speaks(
    monkeypatch: pytest.MonkeyPatch, rank: str, error: Exception, waits: int
) -> None:
    monkeypatch.setattr(processes, "GRACE", 0.2)
    started_as(monkeypatch, rank, "2", rank, "2")
    start = time.monotonic()
    with pytest.raises(type(error)), one_voice():
        raise error
    assert waits * 0.2 <= time.monotonic() - start < waits * 0.2 + 0.15


def test_one_process_alone_speaks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    started_as(monkeypatch, None, None, None, None)
    start = time.monotonic()
    with pytest.raises(RuntimeError), one_voice():
        raise RuntimeError
    assert time.monotonic() - start < 0.1


CHILD = """
import time
from tasks.core.processes import one_voice
with one_voice():
    print("at work", flush=True)
    time.sleep(60)
"""
STARTER = """
import os, subprocess, sys
second = {"RANK": "1", "WORLD_SIZE": "2"}
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], env={**os.environ, **second})
child.wait()
"""


def test_a_process_whose_starter_is_killed_ends_by_itself() -> None:
    starter = subprocess.Popen((sys.executable, "-c", STARTER, CHILD), stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    with starter:
        assert starter.stdout.readline() == "at work\n"
        starter.kill()
        start = time.monotonic()
        assert starter.stdout.read() == ""  # until nobody holds the pipe any more
        assert time.monotonic() - start < 10
