"""The journals that wait in the spool, as a sender reads them."""

from __future__ import annotations

import json
import re
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil

from tasks.core.errors import ExpungeError
from tasks.core.files import read_json, write_json
from tasks.journal.spool import LINES, SPOOL

SENT = "sent.json"
FIRST_LINE = {"stage", "pipeline", "process", "time", "uri", "experiment", "timeout", "workspace", "tags"}
CLOCK_STEP = 60.0
"""Seconds by which a process's creation time may change when the system's clock is set."""
OTHER_HOST = 86_400.0
"""Seconds without a new line after which a run on another host counts as gone."""


@dataclass(frozen=True)
class Waiting:
    """A journal that is not completely sent."""

    folder: Path
    header: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Name of the run."""
        return self.folder.name

    @property
    def is_pipeline(self) -> bool:
        """Whether it is a pipeline run's journal rather than a stage's."""
        return self.header["stage"] is None

    @property
    def name(self) -> str:
        """What a user calls the run."""
        return str(self.header["stage"] or "pipeline")

    @property
    def pipeline(self) -> str | None:
        """Key of the pipeline run that a stage belongs to."""
        owner: str | None = self.header["pipeline"]
        return owner

    @property
    def uri(self) -> str:
        """Address of the store."""
        return str(self.header["uri"])

    @property
    def timeout(self) -> int:
        """Seconds that the store may take to answer."""
        return int(self.header["timeout"])

    @property
    def is_elsewhere(self) -> bool:
        """Whether another host, which shares the folder, writes it."""
        return bool(self.header["process"]["host"] != socket.gethostname())

    @cached_property
    def is_over(self) -> bool:
        """Whether no line will follow: the run ended, or its process is gone."""
        alive = self._is_alive()  # asked before the lines are read: it may write its last one meanwhile
        return self.end is not None or not alive

    @property
    def end(self) -> dict[str, Any] | None:
        """The line that says how the run ended."""
        last = self.entries[-1][1] if self.entries else None
        return last if last and last["kind"] == "end" else None

    def _is_alive(self) -> bool:
        process = self.header["process"]
        if self.is_elsewhere:
            return time.time() - self.touched < OTHER_HOST
        try:
            found = psutil.Process(process["pid"])
            same = abs(found.create_time() - process["created"]) < CLOCK_STEP
            return same and found.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    @property
    def touched(self) -> float:
        """When the last line was written, in seconds since 1970."""
        return (self.folder / LINES).stat().st_mtime

    @cached_property
    def entries(self) -> list[tuple[int, dict[str, Any]]]:
        """Whole lines after the first, each with the offset of its end.

        What follows the last line break is being written, or was torn by a kill: it is left alone. So
        is a line that does not parse, torn by a full disk.
        """
        found = []
        offset = 0
        try:
            lines = (self.folder / LINES).read_bytes().splitlines(keepends=True)
        except FileNotFoundError:  # sent and removed meanwhile
            lines = []
        for line in lines:
            offset += len(line)
            entry = _parsed(line) if line.endswith(b"\n") else None
            if entry is not None and entry.get("kind", "start") != "start":
                found.append((offset, entry))
        return found

    @property
    def offset(self) -> int:
        """Up to where the lines are sent."""
        return int(self._progress.get("offset", 0))

    @property
    def problem(self) -> str | None:
        """Why the last try to send it failed."""
        return self._progress.get("problem")

    @property
    def _progress(self) -> dict[str, Any]:
        try:
            value = read_json(self.folder / SENT)
        except ExpungeError:
            return {}
        return value if isinstance(value, dict) else {}

    def note(self, *, offset: int | None = None, problem: str | None = None) -> None:
        """Remember how far it is sent, or why not."""
        write_json(
            self.folder / SENT, {"offset": self.offset if offset is None else offset, "problem": problem}
        )

    def upstream(self) -> dict[str, str]:
        """Keys of the runs that made this stage's inputs, and the inputs of those, by stage."""
        restored = self.header.get("restored", {})
        reads = [stage_of(entry["source"]) for _, entry in self.entries if entry["kind"] == "dataset"]
        found: dict[str, str] = {}
        while reads:
            stage = reads.pop()
            if stage in restored and stage not in found:
                found[stage] = restored[stage]["run"]
                reads.extend(stage_of(path) for path in restored[stage]["inputs"])
        return found

    def remove(self) -> None:
        """Drop it from the spool."""
        (self.folder / LINES).unlink(missing_ok=True)  # first: what is left is recognised as rubbish
        shutil.rmtree(self.folder, ignore_errors=True)


def waiting(root: Path) -> list[Waiting]:
    """All journals in the spool, pipeline runs first, then in the order in which they began."""
    found = list(_journals(root))
    return sorted(found, key=lambda journal: (not journal.is_pipeline, journal.header["time"]))


def _journals(root: Path) -> Iterator[Waiting]:
    for folder in (root / SPOOL).glob("*"):
        if not re.fullmatch("[0-9a-f]{32}", folder.name) or not folder.is_dir():
            continue
        try:
            with (folder / LINES).open("rb") as file:
                header = _parsed(file.readline())
        except FileNotFoundError:  # removed by now, or a removal that was interrupted
            shutil.rmtree(folder, ignore_errors=True)
            continue
        if header is not None and header.keys() >= FIRST_LINE:
            yield Waiting(folder, header)
        else:
            folder.rename(folder.with_name(f"{folder.name}.unreadable"))


def unreadable(root: Path) -> list[Path]:
    """Journals without a first line, set aside."""
    return sorted((root / SPOOL).glob("*.unreadable"))


def stage_of(path: str) -> str:
    """``data/train/weights.safetensors`` belongs to ``train``; what is not below ``data/``, to none."""
    top, _, rest = path.partition("/")
    return rest.split("/")[0] if top == "data" else ""


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
