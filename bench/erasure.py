"""What erasure costs: ledger, intake, idle runs, and a purge of many requests, each at three sizes.

A reader runs ``python -m bench.erasure``; ``--quick`` takes a tenth of the sizes, ``--only purge`` one
part. All is done in temporary folders, on synthetic images, with a DVC remote in a folder beside the
project. Times of commands are CPU seconds of whole processes; that of the purge is by the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from rich.console import Console
from rich.table import Table

from tasks.core.params import load
from tasks.overrides import override
from tasks.requests import events as facts
from tasks.requests.chain import stamp
from tasks.requests.desk import Desk, new_id
from tasks.requests.keys import KeyStore, reference
from tasks.requests.ledger import Ledger, Writer
from tasks.requests.settings import Settings

PROJECT = Path(__file__).resolve().parents[1]
CLASSES = 10


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: what was done at which size, and what it took."""

    what: str
    size: int
    seconds: float
    memory_mib: float | None = None
    note: str = ""


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.erasure", description=__doc__)
    parser.add_argument("--only", choices=("ledger", "names", "purge"), help="one part")
    parser.add_argument("--quick", action="store_true", help="a tenth of the sizes")
    arguments = parser.parse_args()
    scale = 10 if arguments.quick else 1
    parts: dict[str, Callable[[Path], Iterator[Row]]] = {
        "ledger": lambda folder: ledger(folder, [size // scale for size in (2_500, 5_000, 10_000)]),
        "names": lambda folder: names(folder, [size // scale for size in (25_000, 50_000, 100_000)]),
        "purge": lambda folder: purge(folder, [(size // scale, 50_000 // scale) for size in (125, 250, 500)]),
    }
    table = Table(title="What erasure costs", box=None)
    for column in ("what", "size", "seconds", "peak memory", "note"):
        table.add_column(column)
    for name, part in parts.items():
        if arguments.only in (None, name):
            with tempfile.TemporaryDirectory(prefix="expunge-bench-") as folder:
                for row in part(Path(folder)):
                    memory = "" if row.memory_mib is None else f"{row.memory_mib:.0f} MiB"
                    table.add_row(row.what, f"{row.size:,}", f"{row.seconds:.2f}", memory, row.note)
                    print(row, file=sys.stderr, flush=True)
    Console(width=120).print(table)


def command(root: Path, *arguments: str, **variables: str) -> tuple[float, float, int]:
    """Run a command; return its CPU seconds, peak memory in MiB, and exit status.

    CPU seconds (of all its threads, by ``wait4``) are what a busy machine does not stretch.
    """
    with (root / "bench.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=root,
            env={**environment(root), **variables},
            stdout=log,
            stderr=log,
        )
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 3):
        print((root / "bench.log").read_text(errors="replace")[-2000:], file=sys.stderr)
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, process.returncode


def environment(root: Path) -> dict[str, str]:
    """Variables of every process: keys beside the project, nothing sent anywhere."""
    return {
        **{
            name: value for name, value in os.environ.items() if not name.startswith(("EXPUNGE_", "PREFECT_"))
        },
        "PYTHONPATH": str(root),
        "EXPUNGE_KEYS": str(root.parent / "keys"),
        "EXPUNGE_TRACKING": "off",
        "DVC_NO_ANALYTICS": "1",
        "GIT_AUTHOR_NAME": "bench",
        "GIT_AUTHOR_EMAIL": "bench@localhost",
        "GIT_COMMITTER_NAME": "bench",
        "GIT_COMMITTER_EMAIL": "bench@localhost",
    }


def imports(root: Path, *modules: str) -> float:
    """CPU seconds that importing what a command needs takes, in a process of its own."""
    return min(command(root, "-c", f"import {', '.join(modules)}")[0] for _ in range(3))


# the ledger


def ledger(folder: Path, sizes: Sequence[int]) -> Iterator[Row]:
    """Idle ``process``, ``submit`` and ``status`` with many closed requests, and the bytes of each."""
    root = project(folder, images=1_000)
    start = imports(root, "tasks.cli", "tasks.requests.desk", "tasks.requests.catalogue")
    heavy = {
        "process": imports(root, "tasks.cli", "tasks.processing.processor"),
        "status": imports(root, "tasks.cli", "tasks.processing.attention"),
    }
    closed = 0
    for size in sizes:
        fill(root, size - closed)
        closed = size
        for what, arguments in (("process", ()), ("status", ("--no-reconcile",))):
            seconds, memory, _ = command(root, "-m", "tasks.cli", what, *arguments)
            spent = heavy[what]
            yield Row(
                f"idle {what}, closed requests", size, seconds - spent, memory, f"imports {spent:.1f} s"
            )
        request = folder / "request.json"
        request.write_text(json.dumps(submission([f"train-0.parquet#{closed % 900}"])))
        seconds, memory, _ = command(root, "-m", "tasks.cli", "submit", str(request))
        yield Row("submit, closed requests", size, seconds - start, memory, f"imports {start:.1f} s")
        desk = open_desk(root)
        for row in desk.rows(only_open=True):
            desk.decide(facts.Withdrawn(by="bench", reason="the next size"), row.request)
        seconds, memory, _ = command(root, "-m", "tasks.cli", "verify", "ledger")
        yield Row("verify ledger, closed requests", size, seconds - start, memory)
        note = f"{bytes_a_request(root):,.0f} bytes a request beside its samples, ten to a batch"
        yield Row("ledger", size, 0.0, None, note)


def submission(paths: Sequence[str]) -> Mapping[str, object]:
    """A request for samples by their place in the source."""
    return {
        "requester": f"crm:{secrets.randbelow(10**9)}",
        "received_at": (datetime.now(UTC) - timedelta(hours=1)).isoformat(),
        "ground": "consent-withdrawn",
        "samples": {"path": list(paths)},
    }


def fill(root: Path, count: int) -> None:
    """Append the lives of closed requests, one sample each and ten to a batch, as processing writes them."""
    desk = open_desk(root)
    for begin in range(0, count, 500):
        with desk.writing() as writer:
            for _ in range(begin, min(begin + 500, count), 10):
                batch = f"batch-{new_id(datetime.now(UTC))}"
                names = [new_id(datetime.now(UTC)) for _ in range(10)]
                for name in names:
                    sample = reference(desk.keys.create(name), "id", name)
                    for fact in intake(sample):
                        writer.append(fact, name)
                life(writer, names, batch)


def intake(sample: str) -> tuple[facts.Fact, ...]:
    """Return the events of a request before its batch."""
    at = datetime.now(UTC) - timedelta(days=30)
    dates = {"received_at": stamp(at), "due_at": stamp(at + timedelta(days=30))}
    return (
        facts.Received(channel="cli", requester="crm:1", ground="objection", **dates),
        facts.Validated(samples=({"id": sample, "path": sample, "index": sample},)),
    )


def life(writer: Writer, names: Sequence[str], batch: str) -> None:
    """Append the events of a batch and its requests, from its opening to the certificates."""
    digest = "0" * 64
    base = facts.Base(version="1", weights=digest)
    audit = facts.Audit(
        method="retrain",
        verdict="inconclusive",
        decision="promote",
        why="retrained without the samples",
        weights=facts.Weights(original=digest, result=digest),
        runs={"train": digest[:32]},
        params={"train": {"model": "grey_cnn", "recipe": {"epochs": 20, "lr": 0.1}}, "split": {"seed": 0}},
        environment={"python": "3.11", "torch": "2", "threads": 2, "platform": "Linux"},
    )
    line = facts.ChecklistLine(store="DVC cache", outcome="nothing-found", how="every object's content")
    steps: list[tuple[facts.Fact | None, facts.Fact]] = [
        (facts.Opened(requests=len(names), samples=len(names)), facts.Batched(batch=batch)),
        (
            facts.Attempt(attempt=1, method="retrain", base=base, commit=digest[:40]),
            facts.Started(batch=batch),
        ),
        (audit, facts.Audited(batch=batch, content=({"pixels": digest, "file": digest},))),
        (
            facts.Promotion(method="retrain", guarantee="exact", weights=digest, commit=digest[:40]),
            facts.Promoted(batch=batch),
        ),
        (None, facts.Purging(batch=batch)),
        (facts.Purge(checklist=(line,) * 12, commit=digest[:40]), facts.Purged(batch=batch)),
        (None, facts.Closed(batch=batch, certificate=digest)),
    ]
    for common, own in steps:
        if common is not None:
            writer.append(common, batch)
        for name in names:
            writer.append(own, name)


def bytes_a_request(root: Path) -> float:
    """Bytes of the events of a request and of a batch of its own, without the digests of its samples."""
    events = open_desk(root).ledger.events()
    own = [event for event in events if event.request]
    requests = {event.request for event in own if event.kind == "validated"}
    size = sum(len(event.text) + 200 for event in own if event.kind not in {"validated", "audited"})
    return size / max(1, len(requests))


def open_desk(root: Path) -> Desk:
    """Open the desk of a project for appending many events."""
    keys = KeyStore(root.parent / "keys", root)
    return Desk(Ledger(f"sqlite:///{root}/data/requests/ledger.db"), keys, Settings())


# names


def names(folder: Path, sizes: Sequence[int]) -> Iterator[Row]:
    """A request that names very many samples."""
    root = project(folder, images=max(sizes) * 5 // 4)  # a tenth of them are test images
    start = imports(root, "tasks.cli", "tasks.requests.desk", "tasks.requests.catalogue")
    for size in sizes:
        request = folder / "request.json"
        request.write_text(json.dumps(submission([f"train-0.parquet#{row}" for row in range(size)])))
        seconds, memory, status = command(root, "-m", "tasks.cli", "submit", str(request))
        note = f"imports {start:.1f} s" if status == 0 else f"exit status {status}"
        yield Row("submit, samples named", size, seconds - start, memory, note)
        shutil.rmtree(folder / "keys")
        (root / "data/requests/ledger.db").unlink()


# the purge


def purge(folder: Path, sizes: Sequence[tuple[int, int]]) -> Iterator[Row]:
    """The purge of a batch of one-sample requests, with a remote."""
    for number, (requests, images) in enumerate(sizes):
        root = project(folder / str(number), images=images, remote=True)
        chosen = np.random.default_rng(0).choice(images - images // 10, requests, replace=False).tolist()
        inbox = root / "data/requests/inbox"
        inbox.mkdir(parents=True, exist_ok=True)
        for row in chosen:
            (inbox / f"{row}.json").write_text(json.dumps(submission([f"train-0.parquet#{row}"])))
        time.sleep(2.5)  # files that changed a moment ago are left for the next time
        seconds, memory, status = command(root, "-m", "tasks.cli", "process")
        took = purge_seconds(root)
        closed = sum(row.status == "closed" for row in open_desk(root).rows())
        note = f"{images:,} images, {closed} closed, {seconds:.0f} CPU seconds in all, exit {status}"
        yield Row("purge, requests of one sample", requests, took, memory, note)
        shutil.rmtree(folder / str(number))


def purge_seconds(root: Path) -> float:
    """Seconds between the events that begin and end the purge."""
    events = open_desk(root).ledger.events(kinds=("purging", "batch-purged"))
    at = [datetime.fromisoformat(event.at) for event in events]
    return (max(at) - min(at)).total_seconds() if at else float("nan")


# a project


def project(folder: Path, *, images: int, remote: bool = False) -> Path:
    """Make a project with synthetic images and a small model that was trained on them for one epoch."""
    root = folder / "project"
    root.mkdir(parents=True)
    for name in ("tasks", "dvc.yaml", "params.yaml", "data", "docs/examples"):
        source = PROJECT / name
        tracked = subprocess.run(
            ["git", "ls-files", "--", name], cwd=PROJECT, capture_output=True, text=True, check=True
        ).stdout.split()
        for file in tracked if source.exists() else ():
            target = root / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / file, target)
    write_parquet(root / "data/bench", images)
    values: dict[str, str | int | float | bool | list[Any] | None] = {
        "split.source": "parquet", "split.path": "data/bench", "train.recipe.epochs": 1,
        "finetune.recipe.epochs": 1, "requests.chain": [], "requests.batch_size": 1,
        "requests.val_acc_loss": 0.99,
    }  # fmt: skip
    override(root / "params.yaml", values)
    load(root / "params.yaml")
    (root / ".gitignore").write_text("__pycache__/\n/.expunge/\n/data/bench/\n/bench.log\n/mlflow.db*\n")
    run = environment(root)
    for line in (["git", "init", "--quiet"], [sys.executable, "-m", "dvc", "init", "--quiet"]):
        subprocess.run(line, cwd=root, env=run, check=True, capture_output=True)
    if remote:
        place = str(folder / "remote")
        subprocess.run([sys.executable, "-m", "dvc", "remote", "add", "--default", "storage", place],
                       cwd=root, env=run, check=True, capture_output=True)  # fmt: skip
    done = command(root, "-m", "dvc", "repro", "--quiet", "train")
    if done[-1] != 0:
        raise SystemExit("dvc repro train failed")
    if remote:
        command(root, "-m", "dvc", "push", "--quiet", "--run-cache")
    for line in (["git", "add", "--all"], ["git", "commit", "--quiet", "--message", "first run"]):
        subprocess.run(line, cwd=root, env=run, check=True, capture_output=True)
    return root


def write_parquet(folder: Path, images: int) -> None:
    """Write grey images of 16 × 16 pixels, a tenth of them test images, all different."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    test = max(CLASSES, images // 10)
    for part, count in (("train", images - test), ("test", test)):
        rows = []
        for number in range(count):
            file = BytesIO()
            pixels = generator.integers(0, 256, (16, 16), dtype=np.uint8)
            Image.fromarray(pixels).save(file, "PNG", compress_level=1)
            rows.append({"bytes": file.getvalue(), "path": f"{part}-{number:06}.png"})
        table = pa.table({"image": rows, "label": [number % CLASSES for number in range(count)]})
        pq.write_table(table, folder / f"{part}-0.parquet", row_group_size=1000)


if __name__ == "__main__":
    main()
