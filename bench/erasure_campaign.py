"""Attack the seven guarantees of an erasure with random projects and stories, seed by seed.

A line a run: its seed, what the project was, and ok or what did not hold. A seed makes the same project and
the same story again, so a fault is looked at with::

    python -m bench.erasure_campaign --only 17 --keep /tmp/seventeen --story
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.erasure_effects import in_child
from bench.erasure_project import build, draw
from bench.erasure_story import Story

RESULTS = Path(__file__).with_name("results") / "erasure_campaign.jsonl"

REAL = 12
"""Every so many runs one has its stages run by ``dvc repro``, in processes of their own."""


@dataclass
class Run:
    """What became of one seed."""

    seed: int
    shape: str = ""
    story: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    seconds: float = 0.0
    defect: str = ""
    """Of the campaign itself."""


def one(seed: int, folder: Path, *, real: bool, actions: int | None = None, known: Sequence[str] = ()) -> Run:
    """Make a project, live its story, judge; in a process of its own."""
    started = time.monotonic()
    place = folder / f"{seed}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    progress = place / "story.pickle"

    def live() -> Run:
        rng = random.Random(seed)  # noqa: S311 - nothing here is a secret
        run = Run(seed)
        try:
            shape = draw(rng)
            if real:  # by the real clock: nothing can wait for a batch to fill
                settings = shape.settings | {"requests.batch_size": 1}
                shape = replace(shape, tracked=rng.random() < 0.5, settings=settings)
            run.shape = str(shape) + (", dvc repro" if real else "")
            progress.write_bytes(pickle.dumps(run))
            project = build(place, shape, rng)
            os.environ.clear()
            os.environ.update(project.environ)
            story = Story(project, rng, dvc=real, known=tuple(known))
            run.story = story.told
            story.run(rng.randint(5, 15) if actions is None else actions)
            run.violations = [str(each) for each in dict.fromkeys(story.violations)]
        except Exception:
            run.defect = traceback.format_exc()
        return run

    outcome = in_child(live, root=place, home=place, environ=dict(os.environ), seconds=1200 if real else 420)
    run = outcome.value or Run(seed, defect=f"{outcome.kind}: {outcome.error}\n{outcome.trace}")
    run.seconds = time.monotonic() - started
    return run


def preload() -> None:
    """Import once what every run needs: each is a fork of this process."""
    import importlib

    for name in (
        "sklearn.datasets", "pyarrow.parquet", "torch", "dvc.cli", "dvc.repo", "dvc.commands.add",
        "dvc.commands.commit", "dvc.commands.data_sync", "dvc.commands.repro",
        "tasks.processing.processor", "tasks.processing.dvc_repro", "tasks.split", "tasks.train",
        "tasks.retrain", "tasks.unlearn", "tasks.finetune", "tasks.audit",
    ):  # fmt: skip
        importlib.import_module(name)
    from bench.erasure_project import _digits

    _digits()


def campaign(
    seeds: Sequence[int],
    folder: Path,
    minutes: float,
    *,
    keep: bool,
    real: bool | None,
    known: Sequence[str] = (),
) -> Iterator[Run]:
    """Run seeds until the time is over."""
    deadline = time.monotonic() + 60 * minutes
    for seed in seeds:
        if time.monotonic() > deadline:
            return
        by_dvc = seed % REAL == REAL - 1 if real is None else real
        run = one(seed, folder, real=by_dvc, known=known)
        if not keep:
            shutil.rmtree(folder / f"{seed}", ignore_errors=True)
        yield run


def show(run: Run, *, whole: bool) -> None:
    """Print a run."""
    verdict = "DEFECT" if run.defect else "; ".join(run.violations) if run.violations else "ok"
    print(f"{run.seed:5} {run.seconds:5.0f} s  [{run.shape}] {len(run.story)} steps: {verdict}", flush=True)
    if whole or run.violations or run.defect:
        for number, step in enumerate(run.story, start=1):
            print(f"        {number:2} {step}", flush=True)
    if run.defect:
        print(run.defect, flush=True)


def main() -> int:
    """Read the command line, run, and sum up; exit status 1 if anything did not hold."""
    parser = argparse.ArgumentParser(prog="python -m bench.erasure_campaign", description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="the first")
    parser.add_argument("--only", type=int, action="append", help="these seeds alone")
    parser.add_argument("--minutes", type=float, default=24 * 60, help="after which no further run is begun")
    parser.add_argument("--keep", type=Path, help="folder in which the projects stay")
    parser.add_argument("--record", action="store_true", help=f"append a line a run to {RESULTS}")
    parser.add_argument("--dvc", action=argparse.BooleanOptionalAction, help="all by dvc repro, or none")
    parser.add_argument(
        "--known", action="append", default=[], metavar="REGEX", help="pass over what is known not to hold"
    )
    parser.add_argument("--story", action="store_true", help="print every story")
    arguments = parser.parse_args()
    preload()
    seeds = arguments.only or range(arguments.seed, arguments.seed + arguments.runs)
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="campaign-"))
    runs: list[Run] = []
    for run in campaign(
        seeds,
        folder,
        arguments.minutes,
        keep=bool(arguments.keep),
        real=arguments.dvc,
        known=arguments.known,
    ):
        show(run, whole=arguments.story)
        runs.append(run)
        if arguments.record:
            with RESULTS.open("a") as file:
                file.write(json.dumps(vars(run)) + "\n")
    if not arguments.keep:
        shutil.rmtree(folder, ignore_errors=True)
    wrong = [run.seed for run in runs if run.violations or run.defect]
    print(
        f"{len(runs)} runs, {len(wrong)} with violations{': ' if wrong else ''}{', '.join(map(str, wrong))}"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
