"""Git, called as a command."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from tasks.core.errors import ExpungeError


def call(
    command: str, *arguments: str, root: Path = Path(), options: Sequence[str] = (), stdin: str = ""
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

    Raises
    ------
    ExpungeError
        If it fails, with what Git says.
    """
    done = subprocess.run(
        ("git", *options, command, *arguments),
        cwd=root,
        input=stdin.encode(),
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
        raise ExpungeError(f"git {command} failed in {root}: {(said or ['no reason given'])[0]}")
    return done.stdout


def ask(*arguments: str, root: Path = Path(), timeout: float = 30) -> str:
    """Return Git's answer without the line break at its end; empty if it has none, or there is no Git."""
    # without the option, a status would lock the index while the user commits
    command = ("git", "--no-optional-locks", *arguments)
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=timeout)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.rstrip("\n") if done.returncode == 0 else ""
