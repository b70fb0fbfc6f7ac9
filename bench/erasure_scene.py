"""The scene of the campaign's stories: a project, a clock, and the code, run in processes of its own."""

from __future__ import annotations

import csv
import importlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench.erasure_decoders import read_images, read_split
from bench.erasure_effects import Fault, Outcome, dvc, in_child
from bench.erasure_facts import Trained, Violation
from bench.erasure_oracle import Oracle
from bench.erasure_project import Project

FROM = datetime(2026, 5, 1, 12, tzinfo=UTC)
LONGEST = 400.0
"""Seconds after which a process counts as one that hangs."""


class StageBroke(Exception):  # noqa: N818 - a defect that no code of ours knows
    """A stage that fails."""


@dataclass
class Scene:
    """A project, and what happens to it.

    Attributes
    ----------
    dvc
        Whether stages run by ``dvc repro`` in processes of their own, and requests by the command line.
    told
        What happened, a line each.
    known
        Patterns of violations that are passed over.
    """

    project: Project
    rng: random.Random
    dvc: bool = False
    known: tuple[str, ...] = ()
    time: datetime = FROM
    told: list[str] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    submitted: int = 0
    class_asked: bool = False

    def __post_init__(self) -> None:
        self.facts = self.project.facts
        self.root = self.project.root
        if self.dvc:
            self.time = datetime.now(UTC)

    # how it goes

    def look(self, found: list[Violation]) -> None:
        """Note what the oracle saw."""
        self.violations += [
            each for each in found if not any(re.search(one, str(each)) for one in self.known)
        ]

    def child(
        self, function: Callable[[], Any], fault: Fault | None = None, seconds: float | None = None
    ) -> Outcome:
        """Run something of the code in a process of its own; kill it after some seconds, if given."""
        outcome = in_child(
            function,
            root=self.root,
            home=self.project.home,
            environ=self.project.environ,
            fault=fault,
            seconds=seconds or LONGEST,
        )
        if seconds and outcome.kind == "Hung":
            outcome.kind = "Killed"
        return outcome

    # the code, as people use it

    def desk(self) -> Any:
        """Open the desk with the story's clock."""
        from tasks.requests.desk import Desk
        from tasks.requests.keys import KeyStore
        from tasks.requests.ledger import Ledger
        from tasks.requests.settings import load_settings

        at = self.time
        keys = KeyStore(Path(os.environ["EXPUNGE_KEYS"]), Path.cwd())
        url = f"sqlite:///{self.root}/data/requests/ledger.db"
        return Desk(Ledger(url, lambda: at), keys, load_settings(), lambda: at)

    def first_model(self) -> None:
        """Run the first stages, and commit what a user commits."""
        outcome = self.child(lambda: self._stages("train"))
        if outcome.kind:
            raise RuntimeError(f"the first model: {outcome.error}\n{outcome.trace}")
        self._note_training(outcome.value)
        self.project.commit("the first model")
        if self.facts.remote:
            self._dvc("push", "--quiet")
        if any(sample.row is not None for sample in self.facts.samples.values()):
            shutil.copytree(self.root / self.facts.source, self.project.home / "backup")

    def _dvc(self, *arguments: str) -> None:
        done = dvc(*arguments, cwd=self.root)
        if done.returncode != 0:
            raise RuntimeError(f"dvc {' '.join(arguments)}: {done.stderr}")

    def _stages(self, target: str, broken: str | None = None) -> list[Trained]:
        """Run stages in this process, and let DVC record what they made; return what they trained on."""
        from tasks.core.files import content_digest, write_json
        from tasks.core.params import load
        from tasks.requests.key_folder import open_keys
        from tasks.requests.settings import settings_of

        params = load()
        middle = ["retrain"] if params.audit.result == "retrain" else ["unlearn", "finetune"]
        done: list[str] = []
        trained: list[Trained] = []
        for stage in ["split", "train", *middle, "audit"]:
            if stage == broken:
                raise StageBroke(f"{stage} broke")
            function = getattr(importlib.import_module(f"tasks.{stage}"), stage)
            if stage == "split":
                function(params, open_keys(settings_of(params), os.environ, Path.cwd()))
            else:
                function(params)
            inputs = {
                f"data/split/{name}": content_digest(Path("data/split", name))
                for name in ("images", "samples.csv")
            }
            write_json(
                Path("data", stage, "run.json"), {"run": uuid.uuid4().hex, "inputs": inputs, "outputs": {}}
            )
            done.append(stage)
            if (Path("data") / stage / "weights.json").exists():
                trained.append(seen_by(stage))
            if stage == target:
                break
        said = dvc("commit", "--quiet", "--force", *done)
        if said.returncode != 0:
            raise StageBroke(f"dvc commit: {said.stderr}")
        return trained

    def _note_training(self, trained: list[Trained]) -> None:
        self.facts.trained += trained

    def _carry_out(self, broken: str | None) -> dict[str, Any]:
        """Do what ``expunge process`` does, with the story's clock; runs in the child."""
        from tasks.core.files import only_writer
        from tasks.processing.dvc_repro import run_stages
        from tasks.processing.processor import Processor

        def run(target: str, tags: Mapping[str, str]) -> str:
            if self.dvc:
                return run_stages(target, tags) or ""
            for each in self._stages(target, broken):
                with (self.project.home / "trained.jsonl").open("a") as file:
                    row = [each.weights, sorted(each.ids), [pixels.hex() for pixels in sorted(each.pixels)]]
                    file.write(json.dumps(row) + "\n")
            return uuid.uuid4().hex

        if not self.dvc:
            take_dvc_into_this_process(self._stages)
        said: list[str] = []
        told: list[str] = []
        with only_writer(Path("pipeline")):
            processor = Processor(
                root=Path.cwd(),
                desk=self.desk(),
                run=run,
                environ=os.environ,
                log=said.append,
                tell=told.append,
            )
            problems = processor.process()
        return {"problems": [*problems, *told], "said": said}

    def carry_out(
        self, fault: Fault | None = None, broken: str | None = None, seconds: float | None = None
    ) -> Outcome:
        """Process once; read what was trained on meanwhile."""
        self.time += timedelta(minutes=15) if not self.dvc else timedelta()
        if self.dvc:
            self.time = datetime.now(UTC)
        outcome = self.child(lambda: self._carry_out(broken), fault, seconds)
        if not outcome.kind:
            self.look(list(Oracle(self.facts).the_end_is_anchored()))
        notes = self.project.home / "trained.jsonl"
        if notes.exists():
            for line in notes.read_text().splitlines():
                try:
                    weights, ids, pixels = json.loads(line)
                except ValueError:  # cut short by a kill
                    continue
                self._note_training([Trained(weights, frozenset(ids), frozenset(map(bytes.fromhex, pixels)))])
            notes.unlink()
        if outcome.kind and outcome.kind not in {"Killed", "StageBroke", *EXPECTED}:
            self.look([Violation(3, f"process ended with {outcome.kind}: {outcome.error}\n{outcome.trace}")])
        return outcome

    def _open(self) -> list[str]:
        oracle = Oracle(self.facts)
        return [name for name in oracle.of_request if not oracle.ended(name)]

    def fault(self) -> Fault:
        """Draw a fault."""
        effect = self.rng.choice(["any", "any", "rename", "remove", "write", "program"])
        most = {"any": 300, "rename": 80, "remove": 60, "write": 150, "program": 25}[effect]
        what = self.rng.choice(["kill", "kill", "raise", "full"])
        return Fault(what, effect, int(most ** self.rng.random()))


EXPECTED = {
    "ExpungeError", "UnavailableError", "BusyError", "TransitionError", "OSError", "SubmissionError",
    "FileNotFoundError", "NotADirectoryError", "AtWorkError", "PlainError",
}  # fmt: skip
"""Errors that end in one line."""


def tell(outcome: Outcome) -> str:
    """How something ended, in one line."""
    if outcome.kind:
        return f"{outcome.kind}: {outcome.error[:160]}"
    if isinstance(outcome.value, dict):
        return "; ".join(outcome.value["problems"])[:200] or "done"
    return "done"


def seen_by(stage: str) -> Trained:
    """What the model of a stage was trained on, as its manifest says."""
    weights = json.loads(Path("data", stage, "weights.json").read_text())["sha256"]
    ids, _ = read_split(Path("data/split"))
    images = read_images(Path("data/split"))
    with Path("data/split/manifest.csv").open(newline="") as file:
        rows = {row["sample_id"]: row for row in csv.DictReader(file)}
    role = next(name for name in ("role", "roles") if name in next(iter(rows.values())))
    seen = {"retain", "val"} | ({"forget"} if stage == "train" else set())
    numbers = [number for number, each in enumerate(ids) if rows[each][role] in seen]
    pixels = frozenset(images[ids[number]] for number in numbers)
    return Trained(weights, frozenset(ids[number] for number in numbers), pixels)


def take_dvc_into_this_process(stages: Callable[[str], Any]) -> None:
    """Run every ``python -m dvc`` in a fork of this process, which is faster; the stage split right here."""
    run = subprocess.run

    def quick(command: Any, *arguments: Any, **options: Any) -> Any:
        if not (isinstance(command, list) and command[:3] == [sys.executable, "-m", "dvc"]):
            return run(command, *arguments, **options)
        if command[3] == "repro" and command[-1] == "split":
            stages("split")
            return subprocess.CompletedProcess(command, 0, "", "")
        return dvc(*command[3:], cwd=options.get("cwd"))

    subprocess.run = quick  # type: ignore[assignment]
