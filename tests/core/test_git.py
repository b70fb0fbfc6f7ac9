from __future__ import annotations

from pathlib import Path

import pytest

from tasks.core import git
from tasks.core.errors import ExpungeError


def test_a_question_without_an_answer_is_empty_and_a_command_says_what_git_says(tmp_path: Path) -> None:
    assert git.ask("rev-parse", "HEAD", root=tmp_path) == ""
    with pytest.raises(ExpungeError, match=r"^git rev-parse failed in .*: fatal: not a git repository"):
        git.call("rev-parse", "HEAD", root=tmp_path)


def test_without_git_there_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git.ask("version") == ""


def test_a_command_reads_what_it_is_given_and_takes_options_of_git_itself(tmp_path: Path) -> None:
    git.call("init", "--quiet", root=tmp_path)
    blob = git.call("hash-object", "--stdin", root=tmp_path, stdin="what is up, doc?").decode().strip()
    assert blob == "bd9dbf5aae1a3862dd1526723246b20206e5fc37"  # Pro Git, chapter 10.2
    options = ["-c", "user.name=a", "-c", "user.email=a@b"]
    git.call("commit", "--quiet", "--allow-empty", "--message", "first", root=tmp_path, options=options)
    assert git.ask("log", "--format=%an %s", root=tmp_path) == "a first"
