"""Git, called as a command."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tasks.core.errors import ExpungeError

PLAIN = ("--no-replace-objects", "-c", "log.showSignature=false", "-c", "i18n.logOutputEncoding=UTF-8")
"""Git's own options for reading a history as it was written, whatever the user has set."""


def call(
    command: str,
    *arguments: str,
    root: Path = Path(),
    options: Sequence[str] = (),
    stdin: str = "",
    variables: Mapping[str, str] | None = None,
) -> bytes:
    """Return what a command of Git prints.

    Parameters
    ----------
    command, arguments
        What Git is asked to do.
    root
        Folder that it is called in.
    options
        Git's own, which stand before the command.
    stdin
        What it reads.
    variables
        Environment variables, on top of this process's own.

    Raises
    ------
    ExpungeError
        If it fails, with what Git says.
    """
    try:
        done = subprocess.run(
            ("git", *options, command, *arguments),
            cwd=root,
            input=stdin.encode(),
            capture_output=True,
            check=False,
            env={**os.environ, "LC_ALL": "C", **(variables or {})},
        )
    except FileNotFoundError:
        reason = "there is no such folder" if not root.is_dir() else "git is not installed"
        raise ExpungeError(f"git {command} failed in {root}: {reason}") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
        raise ExpungeError(f"git {command} failed in {root}: {_reason(said)}")
    return done.stdout


def _reason(said: Sequence[str]) -> str:
    """The line that says why, and what to do where Git says that in a line of its own."""
    reasons = [line for line in said if line.startswith(("fatal:", "error:"))]
    line = (*reasons, *said, "no reason given")[0]
    advice = next((line.strip() for line in said if "--add safe.directory" in line), "")
    return f"{line}; if you trust it: {advice}" if advice else line


def ask(*arguments: str, root: Path = Path(), timeout: float = 30) -> str:
    """Return Git's answer without the line break at its end; empty if it has none, or there is no Git."""
    # without the option, a status would lock the index while the user commits
    command = ("git", "--no-optional-locks", *arguments)
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=timeout)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.rstrip("\n") if done.returncode == 0 else ""


def git_folder(root: Path) -> Path | None:
    """Return the folder in which Git keeps the repository that ``root`` lies in; None if it lies in none.

    Raises
    ------
    ExpungeError
        If there is one, and Git cannot or will not read it: it is damaged, belongs to somebody else, or
        Git is not installed.
    """
    try:
        told = call("rev-parse", "--absolute-git-dir", root=root)
    except ExpungeError:
        absolute = Path(root).absolute()
        if "GIT_DIR" in os.environ or any((each / ".git").exists() for each in (absolute, *absolute.parents)):
            raise
        return None
    return Path(told.decode(errors="surrogateescape").rstrip("\n"))
