"""What all stages share: parameters, the lock, the record of the run, errors as one line.

A stage is a plain function from parameters to metrics, which reads and writes files below ``data/``.
:class:`Stage` turns it into a command: ``python -m tasks.<stage>``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import logging
import platform
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from tasks import journal
from tasks.core import checked, git, processes
from tasks.core.dvc_failure import BUSY
from tasks.core.errors import BusyError, ExpungeError
from tasks.core.files import clear_parts, content_digest, only_writer, write_json
from tasks.core.params import Params, Runtime, in_use, load

BAD_INPUT = 2
"""Exit status when the user has to mend something; running the stage again would not help."""

OnEpoch = Callable[[int, dict[str, float]], None]

LIBRARIES = (
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "scikit-learn",
    "dvc",
    "mlflow",
    "prefect",
    "safetensors",
)


@dataclass(frozen=True)
class Stage:
    """One stage of ``dvc.yaml``.

    Attributes
    ----------
    name
        Of the stage, and of its folder below ``data/``.
    function
        The work: ``function(params, on_epoch)`` returns the stage's final metrics.
    reads
        The inputs below ``data/``, as in ``dvc.yaml``; a function where parameters name them.
    sections
        Sections of ``params.yaml`` that the record shows.
    expensive
        Whether a wrong option of a *later* stage should end this one early; see :mod:`tasks.check`.
    launch
        How the stage starts itself in ``runtime.processes`` processes; it returns their exit status. None for
        a stage that works in one alone.
    """

    name: str
    function: Callable[[Params, OnEpoch], Mapping[str, float]]
    reads: tuple[str, ...] | Callable[[Params], tuple[str, ...]]
    sections: tuple[str, ...]
    expensive: bool = False
    launch: Callable[[str, Runtime], int] | None = None

    @property
    def folder(self) -> Path:
        """Where the outputs lie."""
        return Path("data") / self.name

    def main(self, argv: Sequence[str] | None = None) -> NoReturn:
        """Run the stage as a command and exit with its status; see :func:`run_as_command`."""
        doc = sys.modules[self.function.__module__].__doc__ or ""
        run_as_command(self.name, doc, lambda: self._begin(load()), argv)

    def _begin(self, params: Params) -> None:
        """Do the work in this process, or leave it to several; of these the main one keeps the record."""
        here = processes.place()
        if here.world > 1 and not self.launch:
            alone = f"python -m tasks.{self.name}"
            raise ExpungeError(f"this stage works in one process; start it without torchrun: {alone}")
        if self.launch and not here.launched and params.runtime.processes > 1:
            sys.exit(self.launch(self.name, params.runtime))
        if here.is_main:
            self._run(params, here.world)
        else:
            self.function(params, lambda _epoch, _metrics: None)

    def _run(self, params: Params, world: int) -> None:
        check = _start_check() if self.expensive else None
        with only_writer(self.folder), journal.record(self.name, params.tracking, Path.cwd()) as run:
            clear_parts(self.folder)
            started = datetime.now(UTC)
            clock = time.perf_counter()
            state = git_state()
            values = in_use(params)
            values["runtime"]["processes"] = world  # torchrun may have been told otherwise
            run.params(flatten({name: values[name] for name in self.sections}))
            run.tags(state | {"mlflow.source.git.commit": state["git.commit"]} if state else {})

            def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
                run.metrics(metrics, step=epoch)
                _finish_check(check, wait=False)

            metrics = dict(self.function(params, on_epoch))
            _finish_check(check, wait=True)
            run.metrics(metrics)
            reads = self.reads(params) if callable(self.reads) else self.reads
            inputs = {path: content_digest(Path(path)) for path in reads if Path(path).exists()}
            for path, md5 in inputs.items():
                run.dataset(path, path, md5, "input")
            outputs = {str(path): content_digest(path) for path in self._outputs()}
            run.tags({f"dvc.out.{path}": md5 for path, md5 in outputs.items()})
            run.tags({f"dvc.in.{path}": md5 for path, md5 in inputs.items()})
            self._record_files(run)
            write_json(
                self.folder / "run.json",
                {
                    "run": run.key,
                    "pipeline": run.pipeline,
                    "stage": self.name,
                    "started": started.isoformat(timespec="seconds"),
                    "seconds": round(time.perf_counter() - clock, 3),
                    "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
                    **state,
                    "environment": environment(params.runtime),
                    "inputs": inputs,
                    "outputs": outputs,
                },
            )

    def _outputs(self) -> list[Path]:
        """Files and folders that the stage wrote; DVC keeps a ``.gitignore`` beside them."""
        return sorted(
            path for path in self.folder.iterdir() if path.name[0] != "." and path.name != "run.json"
        )

    def _record_files(self, run: journal.Journal) -> None:
        for path in self._outputs():
            if path.suffix in {".png", ".html"}:
                run.artifact(path, "figures" if path.suffix == ".png" else "")
            elif path.suffix == ".json" or (path.suffix == ".csv" and not _names_samples(path)):
                run.artifact(path, "tables")
        if (self.folder / "weights.json").exists():
            described = json.loads((self.folder / "weights.json").read_text())
            own = Path(described["options"]["path"]) if described["model"] == "module" else None
            run.model(self.folder, own)
            run.tags({"weights.sha256": described["sha256"]})


def _names_samples(table: Path) -> bool:
    """Whether a CSV file has a column of ids: no such table leaves this machine by its record."""
    with table.open(encoding="utf-8") as file:
        return "sample_id" in file.readline().rstrip().split(",")


def run_as_command(
    name: str, doc: str, work: Callable[[], None], argv: Sequence[str] | None = None
) -> NoReturn:
    """Do a stage's work as ``python -m tasks.<name>`` and exit with its status.

    0: done. 1: a defect, with its traceback. 2: bad input, one line on standard error. 74: the
    operating system refused to read or write, e.g. a full disk. 75: another process is at work on the same
    files. 130, 143: interrupted, ended.

    Parameters
    ----------
    name
        The stage's, which is also that of its folder below ``data/``.
    doc
        What it does, for ``--help``.
    work
        Is called without arguments.
    argv
        Its command line, by default the process's.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m tasks.{name}",
        description=f"{doc.strip()} Reads params.yaml and data/, writes data/{name}/. "
        f"Usually started by: dvc repro {name}",
    )
    parser.parse_args(argv)
    level = logging.INFO if processes.place().is_main else logging.ERROR
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stdout, force=True)
    logging.captureWarnings(True)
    signal.signal(signal.SIGTERM, _end)
    try:
        with processes.one_voice():
            work()
    except BusyError as error:
        sys.exit(_complain(name, str(error), BUSY))
    except ExpungeError as error:
        sys.exit(_complain(name, str(error), BAD_INPUT))
    except KeyboardInterrupt:
        sys.exit(_complain(name, "interrupted; run it again to resume after the last epoch", 130))
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        what = error.strerror or f"reading or writing failed: {error}"  # numpy's errors have no strerror
        sys.exit(_complain(name, f"{what}{where}", 74))
    sys.exit(0)


def environment(runtime: Runtime) -> dict[str, Any]:
    """Python, libraries and processor: what decides the bits of a result beside the seed."""
    found: dict[str, Any] = {"python": platform.python_version(), "platform": platform.platform()}
    for name in ("expunge", *LIBRARIES):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if "tasks.engine.device" in sys.modules:  # only stages that compute have a device
        devices = sys.modules["tasks.engine.device"]
        found |= devices.describe(devices.resolve(runtime))
    return found


def git_state() -> dict[str, str]:
    """Commit of the checkout and whether tracked files differ from it; empty outside Git, or without Git.

    ``dvc.lock`` does not count: DVC rewrites it after every stage, so all but the first would be dirty.

    Raises
    ------
    ExpungeError
        If Git will not read the repository, such as one that belongs to somebody else.
    """
    commit = git.ask("rev-parse", "HEAD")
    if not commit:
        if shutil.which("git"):
            git.git_folder(Path())
        return {}
    what = ("--porcelain", "-uno", "--", ":/", ":(exclude)dvc.lock")
    changes = git.call("status", *what, options=["--no-optional-locks"])
    return {"git.commit": commit, "git.dirty": str(bool(changes)).lower()}


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` to ``{"a.b": 1}``, the way DVC names parameters."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _start_check() -> subprocess.Popen[str] | None:
    """Validate the options of all stages, unless they passed before, in a process of its own beside the work.

    This stage's outputs cannot depend on other stages' options or code, so it must not import them.
    """
    if checked.passed():
        return None
    return subprocess.Popen(
        (sys.executable, "-m", "tasks.check"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def _finish_check(check: subprocess.Popen[str] | None, *, wait: bool) -> None:
    if check is None or check.stderr is None or check.stderr.closed or (not wait and check.poll() is None):
        return
    _, complaint = check.communicate()
    if check.returncode == BAD_INPUT:
        line = complaint.strip().splitlines()[-1]  # libraries may have warned before it
        raise ExpungeError(line.removeprefix("expunge check: "))


def _complain(name: str, message: str, status: int) -> int:
    line = " ".join(part.strip() for part in message.splitlines())  # a file's name may hold a line break
    rank = processes.place().rank
    print(f"expunge {name}: {f'process {rank}: ' if rank else ''}{line}", file=sys.stderr)
    return status


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)
