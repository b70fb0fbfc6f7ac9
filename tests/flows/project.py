"""A small DVC project with the graph of the real one, whose stages are shell commands."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

INPUTS = {
    "split": [],
    "train": ["split"],
    "retrain": ["split"],
    "unlearn": ["train"],
    "finetune": ["unlearn"],
    "audit": ["train", "finetune"],
    "mia": ["finetune", "retrain"],
    "report": ["mia"],
}

MARKED_SLEEP = "sleep 600 & echo $$ $! > pids; echo started; wait"
"""Writes its own process id and its child's, then stays."""


class Project:
    """Each stage runs ``<stage>.sh``, which concatenates the outputs it depends on."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, **commands: str) -> None:
        """Write ``dvc.yaml``; a command given for a stage runs before the stage writes its output."""
        lines = ["stages:"]
        for stage, inputs in INPUTS.items():
            outputs = [f"data/{name}/out" for name in inputs]
            self.script(stage, commands.get(stage, ":"))
            lines += [f"  {stage}:", f"    cmd: sh {stage}.sh", f"    outs: [data/{stage}/out]"]
            lines += [f"    deps: [{', '.join([f'{stage}.sh', *outputs])}]"]
            if stage == "unlearn":
                lines += ["    params: [unlearn.method]"]
        (self.root / "dvc.yaml").write_text("\n".join(lines) + "\n")

    def script(self, stage: str, command: str) -> None:
        """Replace a stage's command."""
        sources = " ".join(f"data/{name}/out" for name in INPUTS[stage])
        (self.root / f"{stage}.sh").write_text(
            f"{command}\nmkdir -p data/{stage}\ncat /dev/null {sources} > data/{stage}/out\n"
            f"echo {stage} >> data/{stage}/out\n"
        )

    def has(self, stage: str) -> bool:
        """Whether the stage's output lies in the workspace."""
        return (self.root / "data" / stage / "out").exists()

    def pids(self) -> list[int]:
        """Processes that :data:`MARKED_SLEEP` named; empty before it started."""
        path = self.root / "pids"
        return [int(pid) for pid in path.read_text().split()] if path.exists() else []


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def until(condition: Callable[[], object], *, seconds: float = 30, what: str = "it") -> None:
    """Wait for a condition.

    Raises
    ------
    TimeoutError
        If it does not hold in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds} s for {what}")
        time.sleep(0.05)
