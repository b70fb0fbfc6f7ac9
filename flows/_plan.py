"""What a pipeline run is about to ask DVC for, and how DVC is called."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

from tasks.core.dvc_failure import who_is_busy
from tasks.core.errors import BusyError, ExpungeError

DVC = (sys.executable, "-m", "dvc")

_QUIET = {
    "DO_NOT_TRACK": "true",
    "DVC_NO_ANALYTICS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PYTHONUNBUFFERED": "1",
}
_NODE = re.compile(r'^"(?P<name>[^"]+)";$')
_EDGE = re.compile(r'^"(?P<upstream>[^"]+)" -> "(?P<name>[^"]+)";$')


class Plan(NamedTuple):
    """What a pipeline run is about to ask DVC for."""

    sources: list[str]
    """``.dvc`` files that the stages read; DVC checks them first."""
    stages: list[str]
    """Stages to evaluate, each after the stages it depends on."""
    others: list[str]
    """Stages of ``dvc.yaml`` that were not selected."""


def plan(root: Path, target: str | None) -> Plan:
    """Ask DVC for the graph and put the stages up to ``target`` (default: all) in its order.

    Raises
    ------
    BusyError
        If another command of DVC is at work.
    ExpungeError
        If DVC cannot read the repository, or has no stage of that name.
    """
    answer = subprocess.run(
        [*DVC, "dag", "--dot"], cwd=root, env=environment({}), capture_output=True, text=True, check=False
    )
    if answer.returncode != 0:
        error = _first_error(answer.stderr.splitlines())
        if busy := who_is_busy(error):
            raise BusyError(busy)
        raise ExpungeError(f"dvc dag failed: {error}")
    graph: dict[str, set[str]] = {}
    for line in answer.stdout.splitlines():
        if node := _NODE.match(line):
            graph.setdefault(node["name"], set())
        elif edge := _EDGE.match(line):
            graph.setdefault(edge["name"], set()).add(edge["upstream"])
    own = [name for name in graph if not name.endswith(".dvc") and ":" not in name]
    if target is not None and target not in own:
        raise ExpungeError(f"dvc.yaml has no stage {target!r}; it has: {', '.join(own) or 'none'}")
    if not own:
        raise ExpungeError("dvc.yaml has no stages")
    needed = _ancestors(graph, own if target is None else [target])
    order = [name for name in TopologicalSorter(graph).static_order() if name in needed]
    return Plan(
        sources=[name for name in order if name.endswith(".dvc")],
        stages=[name for name in order if not name.endswith(".dvc")],
        others=[name for name in own if name not in needed],
    )


def _ancestors(graph: Mapping[str, set[str]], names: Sequence[str]) -> set[str]:
    found: set[str] = set()
    open_ = list(names)
    while open_:
        name = open_.pop()
        if name not in found:
            found.add(name)
            open_.extend(graph.get(name, ()))
    return found


def _first_error(lines: Sequence[str]) -> str:
    errors = [line for line in lines if line.startswith("ERROR: ")]
    return (errors or list(lines) or ["it gave no reason"])[0].removeprefix("ERROR: ")


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Environment of this process, in which ``python`` and ``dvc`` are the ones that run the flow."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {**os.environ, **_QUIET, **extra, "PATH": path}
