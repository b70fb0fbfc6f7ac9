"""The record of a run, written to disk first.

A stage never imports mlflow and never waits for a server. It appends JSON lines to a journal in
``.expunge/spool/<key>/``; a process of its own (``python -m tasks.tracking send``) replays journals into
MLflow while the stage runs, or later if the store was down. So one path serves both, and the seconds
that MLflow takes to import and to open its store are paid once, beside the work.

A journal is named by a random key. Its first line says which stage and process writes it and where it
is to be sent; its last line says how the run ended. A journal without that line, whose process is
gone, is a killed run. A pipeline run has a journal of its own, opened by the first stage it starts (or
by :func:`pipeline`), which becomes the parent of the stages' runs.

Environment
-----------
EXPUNGE_PIPELINE
    ``<key>:<pid>``: key (32 lower-case hex digits) and process of the pipeline run that the stage
    belongs to. Without it, the nearest ancestor process that is ``dvc`` is the pipeline run.
EXPUNGE_TAGS
    JSON object of strings: further tags of every run, e.g. ``{"prefect.flow_run_id": "..."}``.
EXPUNGE_TRACKING
    ``off``: write journals, start no sender.
DVC_ROOT
    Set by DVC for its stages: the main repository also where ``dvc exp run --temp`` runs in a copy of it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import ExpungeError
from tasks.journal import origin, spool

if TYPE_CHECKING:
    from tasks.core.params import Tracking

PRIVATE = "expunge.batch"
"""Tag of the runs of a batch."""


class Journal:
    """The record of one run, open for writing.

    Attributes
    ----------
    key
        Names the run for ever: folder in the spool, tag ``expunge.run`` in MLflow.
    pipeline
        Key of the pipeline run that it belongs to, or ``None``.
    stage
        Name of the stage; ``None`` in the journal of a pipeline run.
    folder
        Where the journal and copies of its files lie until they are sent.
    private
        Whether errors may name what is to be forgotten: then the record tells their kind alone.
    """

    def __init__(self, folder: Path, key: str, pipeline: str | None, stage: str | None) -> None:
        self.folder = folder
        self.key = key
        self.pipeline = pipeline
        self.stage = stage
        self._file = (folder / spool.LINES).open("ab")
        self.private = PRIVATE in origin.tags_of_environment()
        self._step = 0
        self._copies = 0

    @property
    def handle(self) -> str:
        """Value of EXPUNGE_PIPELINE for processes that this process starts."""
        return f"{self.key}:{os.getpid()}"

    def params(self, values: Mapping[str, object]) -> None:
        """Record parameters; a value is kept as text."""
        self._append(kind="params", values={name: str(value) for name, value in values.items()})

    def tags(self, values: Mapping[str, str]) -> None:
        """Record tags; a later value replaces an earlier one."""
        self.private = self.private or PRIVATE in values
        self._append(kind="tags", values=dict(values))

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Record metrics at a step; without one, at the last step so far.

        MLflow shows the value at the highest step as a run's result: a final value recorded at step 0
        would be hidden by the curve of the same name. NaN stays NaN; MLflow shows ±infinity as the
        largest double.
        """
        self._step = self._step if step is None else max(self._step, step)
        self._append(
            kind="metrics",
            values={name: float(value) for name, value in values.items()},
            step=self._step if step is None else step,
            time=_now(),
        )

    def artifact(self, path: Path, folder: str = "") -> None:
        """Record a file; it is copied at once, for the workspace may be a temporary one."""
        self._append(kind="artifact", file=self._copy(path), folder=folder)

    def dataset(self, name: str, source: str, digest: str, context: str) -> None:
        """Record an input with the digest that DVC has for it."""
        self._append(kind="dataset", name=name, source=source, digest=digest, context=context)

    def model(self, folder: Path, code: Path | None = None) -> None:
        """Record the model whose ``weights.safetensors`` and ``weights.json`` lie in ``folder``.

        ``code`` is the Python file that builds it, where that is one of the user's own.
        """
        weights = self._copy(folder / "weights.safetensors")
        info = self._copy(folder / "weights.json")
        own = {"code": self._copy(code)} if code else {}
        self._append(kind="model", weights=weights, info=info, **own)

    def end(self, status: str, error: str | None = None) -> None:
        """Write the last line and close: ``FINISHED``, ``FAILED`` or ``KILLED``."""
        self._file.write(b"\n")  # closes a line that a full disk has torn
        if error:
            self.tags({"error": error})
        self._append(kind="end", status=status, time=_now())
        os.fsync(self._file.fileno())
        self._file.close()

    def _append(self, **entry: object) -> None:
        try:
            self._file.write(spool.line(entry))
            self._file.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.folder / spool.LINES)) from None

    def _copy(self, path: Path) -> str:
        self._copies += 1
        target = self.folder / "files" / str(self._copies) / path.name
        target.parent.mkdir(parents=True)
        shutil.copyfile(path, target)
        return str(target.relative_to(self.folder))


@contextmanager
def record(stage: str, tracking: Tracking, workspace: Path) -> Iterator[Journal]:
    """Keep the record of a stage while the body runs, and see that it is sent.

    The run ends ``FINISHED`` when the body does; ``FAILED`` on an error; ``KILLED`` on an interrupt or
    ``SystemExit(128 + signal)``. Tag ``error`` holds the exception as one line.

    Parameters
    ----------
    stage
        Its name.
    tracking
        Where the run is recorded; a relative SQLite path starts at the main repository's root.
    workspace
        Folder in which the stage runs; ``data/*/run.json`` there name the runs that made its inputs.

    Raises
    ------
    ExpungeError
        If ``tracking.uri`` is none that MLflow could use.
    OSError
        If the journal cannot be written.
    """
    root = origin.main_root(workspace)
    header = _header(tracking, root, workspace)
    owner, process = origin.pipeline_of_this_process() or (None, None)
    if owner:
        spool.create(root, header | {"key": owner, "process": process})
    key = uuid.uuid4().hex
    own = {"key": key, "stage": stage, "pipeline": owner, "restored": origin.runs_on_disk(workspace)}
    folder = spool.create(root, header | own)
    with _recorded(Journal(folder, key, owner, stage), root) as journal:
        yield journal


@contextmanager
def pipeline(tracking: Tracking, workspace: Path) -> Iterator[Journal]:
    """Keep the record of a pipeline run while the body starts its stages.

    Give the stages' processes ``EXPUNGE_PIPELINE=<journal.handle>``. Ends as :func:`record` does.
    """
    root = origin.main_root(workspace)
    key = uuid.uuid4().hex
    folder = spool.create(root, _header(tracking, root, workspace) | {"key": key})
    with _recorded(Journal(folder, key, None, None), root) as journal:
        yield journal


@contextmanager
def _recorded(journal: Journal, root: Path) -> Iterator[Journal]:
    spool.start_sender(root)
    try:
        yield journal
    except BaseException as error:
        with contextlib.suppress(OSError):  # the body's error is the one to show
            journal.end(_status(error), _one_line(error, private=journal.private))
        raise
    else:
        journal.end("FINISHED")
    finally:
        spool.start_sender(root)


def _header(tracking: Tracking, root: Path, workspace: Path) -> dict[str, Any]:
    return {
        "kind": "start",
        "stage": None,
        "pipeline": None,
        "process": origin.process_of(os.getpid()),
        "time": _now(),
        "uri": origin.store_uri(tracking.uri, root),
        "experiment": tracking.experiment,
        "timeout": tracking.timeout,
        "workspace": str(workspace.resolve()),
        "user": origin.user(),
        "tags": origin.tags_of_environment(),
    }


def _status(error: BaseException) -> str:
    if not isinstance(error, SystemExit):
        return "FAILED" if isinstance(error, Exception) else "KILLED"
    if error.code in (None, 0):
        return "FINISHED"
    return "KILLED" if isinstance(error.code, int) and error.code > 128 else "FAILED"


def _one_line(error: BaseException, *, private: bool) -> str | None:
    if isinstance(error, SystemExit):
        return None
    if private:
        return type(error).__name__
    text = " ".join(str(error).split())[:500]
    if isinstance(error, ExpungeError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _now() -> int:
    return time.time_ns() // 1_000_000
