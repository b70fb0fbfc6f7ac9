"""Random stories for the campaign: people ask, decide, err; machines fail; requests are carried out.

Every action goes through the doors that people and other systems use: the desk, the inbox, ``process``, Git,
DVC and the files themselves. What it means is told to the oracle's facts, without asking the code.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from bench.erasure_decoders import read_split
from bench.erasure_effects import Fault, Outcome, dvc, in_child
from bench.erasure_facts import Sample, Trained, Violation
from bench.erasure_oracle import Oracle
from bench.erasure_project import Project, encoded

FROM = datetime(2026, 5, 1, 12, tzinfo=UTC)
GROUNDS = ("consent-withdrawn", "objection", "no-longer-necessary", "data-quality")

LONGEST = 400.0
"""Seconds after which a process counts as one that hangs."""

ROUNDS = 12
"""How often ``process`` may find something to do at the end."""


class StageBroke(Exception):  # noqa: N818 - a defect that no code of ours knows
    """A stage that fails."""


@dataclass
class Story:
    """One project's story.

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

    def run(self, actions: int) -> None:
        """Train the first model, live through random actions, then bring everything to its end."""
        self.first_model()
        self.submit()
        menu = self.menu()
        for _ in range(actions):
            (action,) = self.rng.choices(list(menu), list(menu.values()))
            self.time += (
                timedelta(minutes=self.rng.choice([1, 20, 300, 3000])) if not self.dvc else timedelta()
            )
            told = action()
            if told:
                self.told.append(told)
                self.look(Oracle(self.facts).always())
            if self.violations:
                return
        self.finish()

    def menu(self) -> dict[Callable[[], str], int]:
        """Actions, and how often each happens beside the others."""
        return {
            self.submit: 10,
            self.submit_badly: 2,
            self.process: 18,
            self.process_with_a_fault: 10,
            self.process_twice_at_once: 1,
            self.process_elsewhere: 1,
            self.process_with_a_hook: 2,
            self.process_without_remote: 2,
            self.approve: 4,
            self.hold: 3,
            self.hold_samples: 2,
            self.ask_for_what_is_held: 4,
            self.release: 3,
            self.stop_one: 2,
            self.extend: 1,
            self.retry: 2,
            self.put_back: 6,
            self.visit_the_past: 2,
            self.edit_params: 2,
            self.push: 2,
            self.split_again: 2,
            self.lose_a_key: 1,
        }

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
        import importlib

        from tasks.core.files import content_digest, write_json
        from tasks.core.params import load
        from tasks.requests.keys import KeyStore
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
                function(params, KeyStore.of(settings_of(params), os.environ, Path.cwd()))
            else:
                function(params)
            inputs = {
                f"data/split/{name}": content_digest(Path("data/split", name))
                for name in ("images.npy", "samples.csv")
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
        with only_writer(Path("pipeline")):
            processor = Processor(
                root=Path.cwd(), desk=self.desk(), run=run, environ=os.environ, log=said.append
            )
            problems = processor.process()
        return {"problems": problems, "said": said}

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

    # requests

    def _ids(self) -> list[str]:
        return [sample.id for sample in self.facts.samples.values() if sample.part == "train"]

    def submit(self) -> str:
        """Somebody asks: for a few images, for some that others ask for too, or for the same again."""
        ids = self._ids()
        earlier = list(self.facts.asked.values())
        way = self.rng.random()
        named: dict[str, list[Any]] = {}
        if way < 0.06 and not self.class_asked:
            self.class_asked = True
            label = self.rng.randrange(3)
            wanted = {each for each in ids if self.facts.samples[each].label == label}
            named = {"class": [str(label)]}
        elif way < 0.2 and earlier:
            wanted = set(self.rng.choice(earlier))
        elif way < 0.4 and earlier:
            mine = sorted(self.rng.choice(earlier))
            wanted = set(self.rng.sample(mine, self.rng.randint(1, min(2, len(mine))))) | {
                self.rng.choice(ids)
            }
        elif way < 0.5 and (twins := self._twins()):
            wanted = {self.rng.choice(twins)}
        else:
            wanted = set(self.rng.sample(ids, self.rng.choice([1, 1, 2, 3])))
        if len(wanted | {each for own in earlier for each in own}) > 0.55 * len(ids):
            return ""
        named = named or self._names(sorted(wanted))
        requester = self._requester()
        self.facts.asked[requester] = frozenset(wanted)
        done = self._hand_in(requester, named)
        return f"{requester} asks for {len(wanted)} by {', '.join(named)}{done}"

    def _twins(self) -> list[str]:
        pictures: dict[bytes, list[str]] = {}
        for sample in self.facts.samples.values():
            pictures.setdefault(sample.pixels, []).append(sample.id)
        trained = set(self._ids())
        return [each for found in pictures.values() if len(found) > 1 for each in found if each in trained]

    def _names(self, ids: list[str]) -> dict[str, list[Any]]:
        named: dict[str, list[Any]] = {}
        rows = Counter(self.facts.samples[each].file for each in self._ids())
        for each in ids:
            sample = self.facts.samples[each]
            kind = self.rng.choice(["id", "id", "path"] if sample.row is None else ["id", "path", "index"])
            below = sample.file.removeprefix(f"{self.facts.source}/")
            path = below if sample.row is None else f"{below}#{sample.row}"
            before = sum(count for file, count in rows.items() if file < sample.file)
            index = before + (sample.row or 0)  # through all files of the training part
            named.setdefault(kind, []).append({"id": each, "path": path, "index": index}[kind])
        return named

    def _requester(self) -> str:
        self.submitted += 1
        return f"crm:{self.submitted}"

    def _hand_in(self, requester: str, named: Mapping[str, list[Any]]) -> str:
        own = {
            "requester": requester,
            "received_at": (self.time - timedelta(minutes=self.rng.choice([1, 600, 20000]))).isoformat(),
            "ground": self.rng.choice(GROUNDS),
        }
        if self.rng.random() < 0.5:
            suffix, text = ".json", json.dumps({**own, "samples": named})
        else:
            rows = [
                ",".join([*own.values(), kind, str(each)]) for kind, names in named.items() for each in names
            ]
            suffix, text = ".csv", "\n".join(["requester,received_at,ground,kind,value", *rows, ""])
        return self._send(text.encode(), f"{requester.replace(':', '-')}{suffix}")

    def _send(self, content: bytes, name: str) -> str:
        if self.rng.random() < 0.4:
            place = self.root / "data/requests/inbox" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
            os.utime(place, (1, 1))  # long ago: it is not being written any more
            return ", through the inbox"
        fault = self.fault() if self.rng.random() < 0.15 and name.startswith("crm") else None
        outcome = self.child(lambda: self._submit(content, name), fault)
        if fault and outcome.kind:  # whoever was told nothing asks again
            outcome = self.child(lambda: self._submit(content, name))
        if outcome.kind:
            self.look(
                [Violation(3, f"a submission ended with {outcome.kind}: {outcome.error}\n{outcome.trace}")]
            )
        return f", at the desk{f', {fault}' if fault else ''}"

    def _submit(self, content: bytes, name: str) -> str:
        from tasks.requests.catalogue import Catalogue

        try:
            catalogue: Any = Catalogue.load(patience=0)
        except Exception as error:
            if type(error).__name__ not in EXPECTED:
                raise
            catalogue = None
        return str(self.desk().submit(content, name, catalogue, channel="cli").request.id)

    def submit_badly(self) -> str:
        """Somebody sends what cannot be a request."""
        requester = self._requester()
        self.facts.bad.add(requester)
        test = next(each.id for each in self.facts.samples.values() if each.part == "test")
        good = {"requester": requester, "received_at": self.time.isoformat(), "ground": "objection"}
        value, name = self.rng.choice(
            [
                ({**good, "samples": {"id": ["train/0/nobody.png"]}}, "a.json"),
                ({**good, "samples": {"id": [test]}}, "b.json"),
                ({**good, "received_at": "9999-12-31T23:59:59-12:00", "samples": {"id": [test]}}, "c.json"),
                ({**good, "samples": {"id": [self._ids()[0]] * 2}}, "d.json"),
                ({**good, "samples": {"index": [-1]}}, "e.json"),
                ({**good, "samples": {}}, "f" * 225 + ".json"),
                ({**good, "samples": {"class": ["none"]}}, "g.JSON"),
                ([], "erased.key.json"),
            ]
        )
        text = json.dumps(value).encode()
        done = self._send(text[: self.rng.choice([len(text), 20])], name)
        return f"{requester} sends {name[:20]}{done}"

    # decisions

    def _decide(self, kind: str, request: str) -> str:
        def decide() -> None:
            from tasks.requests import events

            self.desk().decide(getattr(events, kind)(by="someone", reason="the campaign"), request)

        outcome = self.child(decide)
        if outcome.kind and outcome.kind not in EXPECTED:
            self.look([Violation(3, f"{kind} ended with {outcome.kind}: {outcome.error}\n{outcome.trace}")])
        return f"{kind} {request}{f': {outcome.error[:90]}' if outcome.kind else ''}"

    def _open(self) -> list[str]:
        oracle = Oracle(self.facts)
        return [name for name in oracle.of_request if not oracle.ended(name)]

    def _some(self, kind: str) -> str:
        found = self._open()
        return self._decide(kind, self.rng.choice(found)) if found else ""

    def approve(self) -> str:
        """Somebody approves all that waits."""
        return "; ".join(self._decide("Approved", each) for each in self._open())

    def hold(self) -> str:
        """Somebody holds a request."""
        return self._some("Held")

    def stop_one(self) -> str:
        """Somebody refuses a request, or its requester withdraws it."""
        return self._some(self.rng.choice(["Refused", "Withdrawn"]))

    def extend(self) -> str:
        """Somebody extends a due date."""
        return self._some("Extended")

    def retry(self) -> str:
        """Somebody looks at what failed."""
        oracle = Oracle(self.facts)
        failed = [name for name in self._open() if oracle.kinds(name)[-1] == "failed"]
        return "; ".join(self._decide("Retried", each) for each in failed)

    def ask_for_what_is_held(self) -> str:
        """Somebody asks for an image of another's request, which is on hold by then."""
        oracle = Oracle(self.facts)
        found = [name for name in self._open() if oracle.ids_of[name]]
        if not found:
            return ""
        request = self.rng.choice(found)
        told = "" if oracle.held(request) else self._decide("Held", request) + "; "
        wanted = {min(oracle.ids_of[request]), self.rng.choice(self._ids())}
        requester = self._requester()
        self.facts.asked[requester] = frozenset(wanted)
        return (
            f"{told}{requester} asks for what it holds{self._hand_in(requester, self._names(sorted(wanted)))}"
        )

    def hold_samples(self) -> str:
        """Somebody holds images, whoever asks for them, or all that one requester asks for, now or later."""
        if self.rng.random() < 0.5:
            return self._hold_requester(f"crm:{self.rng.randint(1, self.submitted + 1)}")
        ids = self.rng.sample(self._ids(), 2)
        outcome = self.child(lambda: self.desk().place_hold(by="legal", reason="a case", ids=ids))
        if outcome.kind:
            self.look([Violation(3, f"a hold ended with {outcome.kind}: {outcome.error}\n{outcome.trace}")])
        else:
            self.facts.holds[str(outcome.value)] = frozenset(ids)
        return f"{outcome.value} holds {len(ids)} images"

    def _hold_requester(self, requester: str) -> str:
        outcome = self.child(lambda: self.desk().place_hold(by="legal", reason="a case", requester=requester))
        if outcome.kind:
            self.look([Violation(3, f"a hold ended with {outcome.kind}: {outcome.error}\n{outcome.trace}")])
        else:
            self.facts.holds[str(outcome.value)] = frozenset()  # the ledger tells which requests it holds
        return f"{outcome.value} holds {requester}"

    def release(self) -> str:
        """Somebody ends all holds, or one."""
        oracle = Oracle(self.facts)
        told = [self._lift(each) for each in list(self.facts.holds)]
        told += [self._decide("Released", each) for each in self._open() if oracle.held(each)]
        return "; ".join(told)

    def _lift(self, hold: str) -> str:
        outcome = self.child(lambda: self.desk().lift_hold(hold, by="legal", reason="over"))
        if outcome.kind:
            self.look([Violation(3, f"lifting ended with {outcome.kind}: {outcome.error}\n{outcome.trace}")])
        self.facts.holds.pop(hold)
        return f"{hold} lifted"

    # carrying out

    def fault(self) -> Fault:
        """Draw a fault."""
        effect = self.rng.choice(["any", "any", "rename", "remove", "write", "program"])
        most = {"any": 300, "rename": 80, "remove": 60, "write": 150, "program": 25}[effect]
        what = self.rng.choice(["kill", "kill", "raise", "full"])
        return Fault(what, effect, int(most ** self.rng.random()))

    def process(self) -> str:
        """Requests are carried out."""
        return f"process: {tell(self.carry_out())}"

    def process_with_a_fault(self) -> str:
        """They are carried out until something goes wrong."""
        if self.rng.random() < 0.25 and not self.dvc:
            stage = self.rng.choice(["split", "train", "retrain", "audit"])
            return f"process, {stage} breaks: {tell(self.carry_out(broken=stage))}"
        if self.dvc or self.rng.random() < 0.2:  # a moment that no effect marks: within Git, DVC, a training
            seconds = self.rng.uniform(1, 30 if self.dvc else 8)
            return f"process, kill after {seconds:.1f} s: {tell(self.carry_out(seconds=seconds))}"
        fault = self.fault()
        return f"process, {fault}: {tell(self.carry_out(fault))}"

    def process_twice_at_once(self) -> str:
        """Two schedulers start at the same moment."""
        pid = os.fork()
        if pid == 0:
            self.child(lambda: self._carry_out(None))
            os._exit(0)
        outcome = self.carry_out()
        os.waitpid(pid, 0)
        return f"process, twice at once: {tell(outcome)}"

    def process_elsewhere(self) -> str:
        """A copy of the checkout carries out the requests of the same ledger."""
        before = len(Oracle(self.facts).rows)
        if all(row.kind != "settled" for row in Oracle(self.facts).rows):
            return ""  # who carries them out first may do so
        copy = self.project.home / "copy"
        shutil.copytree(self.root, copy, symlinks=True)

        def elsewhere() -> Any:
            os.chdir(copy)
            return self._carry_out(None)

        outcome = self.child(elsewhere)
        shutil.rmtree(copy)
        rows = Oracle(self.facts).rows[before:]
        if any(row.kind in {"batch-opened", "batch-started", "purged", "closed"} for row in rows):
            self.look([Violation(6, f"a copy of the checkout carried out requests: {rows[-1].kind}")])
        return f"process in a copy: {tell(outcome)}"

    def process_with_a_hook(self) -> str:
        """The user's Git has a hook that refuses, or wants signatures that nobody can make."""
        hook = self.root / ".git/hooks/pre-commit"
        if self.rng.random() < 0.5:
            hook.parent.mkdir(exist_ok=True)
            hook.write_text("#!/bin/sh\nexit 1\n")
            hook.chmod(0o755)
        else:
            self.project.git("config", "commit.gpgsign", "true")
            self.project.git("config", "gpg.program", "/bin/false")
        told = f"process, Git refuses to commit: {tell(self.carry_out())}"
        self.mend()
        return told

    def process_without_remote(self) -> str:
        """The remote cannot be reached."""
        if self.facts.remote is None:
            return ""
        away = self.facts.remote.with_name("away")
        self.facts.remote.rename(away)
        if self.rng.random() < 0.5:
            self.facts.remote.write_text("no folder")
        told = f"process, the remote is away: {tell(self.carry_out())}"
        if self.facts.remote.is_dir():
            told += "; the remote was made anew"
            shutil.copytree(self.facts.remote, away, dirs_exist_ok=True)
            shutil.rmtree(self.facts.remote)
        self.facts.remote.unlink(missing_ok=True)
        away.rename(self.facts.remote)
        return told

    # what people do beside

    def put_back(self) -> str:
        """Somebody puts erased images back: as they were, under another name, or another under their name."""
        oracle = Oracle(self.facts)
        gone = [self.facts.samples[each] for each in sorted(oracle.gone)]
        gone = [each for each in gone if each.row is not None or not (self.root / each.file).exists()]
        if not gone or (self.facts.tracked_by == "git" and self.project.pointer is None):
            return ""
        sample = self.rng.choice(gone)
        told = self._put_file_back(sample, oracle) if sample.row is None else self._put_table_back(sample)
        if self.project.pointer:
            self._dvc("add", "--quiet", self.project.pointer)
        self.project.git("add", "--all")
        self.project.git("commit", "--quiet", "--no-verify", "--allow-empty", "--message", "more images")
        if self.rng.random() < 0.7:
            told += f"; {self.split_again()}"
        return told

    def _put_file_back(self, sample: Sample, oracle: Oracle) -> str:
        place, content = self.root / sample.file, sample.content
        way = self.rng.choice(
            ["as it was", "under another name", "as another file", "another under its name"]
        )
        if way == "under another name":
            place = place.with_name(f"z{self.rng.getrandbits(40):x}.png")
        elif way == "as another file":
            place = place.with_name(f"z{self.rng.getrandbits(40):x}.bmp")
            content = encoded(np.frombuffer(sample.pixels, np.uint8).reshape(8, 8), "BMP")
        elif way == "another under its name":
            content = self.rng.choice(oracle.kept).content
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        self.facts.returned |= {
            each.id for each in self.facts.samples.values() if each.pixels == sample.pixels
        }
        return f"an erased image is put back {way}"

    def _put_table_back(self, sample: Sample) -> str:
        shutil.copy(self.project.home / "backup" / Path(sample.file).name, self.root / sample.file)
        gone = map(self.facts.samples.__getitem__, Oracle(self.facts).gone)
        self.facts.returned |= {each.id for each in gone if each.file == sample.file}
        return "an older version of a Parquet file is put back"

    def split_again(self) -> str:
        """Somebody splits the data again."""
        outcome = self.child(lambda: self._stages("split"))
        return f"split: {tell(outcome)}"

    def visit_the_past(self) -> str:
        """Somebody checks an older commit out, splits and processes there, comes back, and merges."""
        commits = self.project.git("log", "--format=%H", "main").split()
        if self.project.git("status", "--porcelain", "-uno"):
            return ""
        old = self.rng.choice(commits[:-1] or commits)
        how = self.rng.choice([["--detach"], ["-C", "past"]])
        self.project.git("switch", "--quiet", *how, old)
        told = f"at an older commit: {self.split_again()}"
        refused = "lacks" in told
        self.look(Oracle(self.facts).always())
        if self.rng.random() < 0.5:
            outcome = self.carry_out()
            told += f"; process: {tell(outcome)}"
            if refused and tell(outcome) == "done":
                self.look([Violation(2, "split refuses the older list, and process does not")])
        if dirty := self.project.git("status", "--porcelain", "-uno"):
            told += f"; left behind: {', '.join(dirty.split()[1::2])}"
        there = self.project.git("rev-parse", "HEAD").strip()
        self.project.git("switch", "--quiet", "--force", "main")
        if there != old:
            told += "; what was committed there is merged"
            self.project.git("merge", "--quiet", "--no-edit", "-X", "theirs", there, quiet=False)
            if self.project.git("diff", "--name-only", "--diff-filter=U"):
                self.project.git("merge", "--abort")
                told += ", in vain"
        self.child(lambda: self._stages("split"))
        return told

    def edit_params(self) -> str:
        """Somebody changes a setting, and commits it or not."""
        values: dict[str, Any] = self.rng.choice(
            [
                {"requests.batch_size": self.rng.choice([1, 2, 5])},
                {"finetune.recipe.lr": self.rng.choice([0.05, 0.1])},
                {"requests.approval": self.rng.random() < 0.2},
                {"report.title": f"Report {self.rng.randrange(100)}"},
            ]
        )
        self.project.change(values)
        committed = self.rng.random() < 0.7
        if committed:
            self.project.git(
                "commit", "--quiet", "--no-verify", "--allow-empty", "-m", "settings", "--", "params.yaml"
            )
        return f"{next(iter(values))} is changed{'' if committed else ', and not committed'}"

    def push(self) -> str:
        """Somebody pushes what is in the cache."""
        if self.facts.remote is None:
            return ""
        dvc("push", "--quiet", cwd=self.root)
        return "dvc push"

    def lose_a_key(self) -> str:
        """The key of an open request is lost while requests are carried out, then restored."""
        found = [self.project.home / f"keys/{each}.key" for each in self._open()]
        found = [path for path in found if path.exists()]
        if not found:
            return ""
        path = self.rng.choice(found)
        path.rename(path.with_suffix(".away"))
        told = f"process, a key is lost: {tell(self.carry_out())}"
        path.with_suffix(".away").rename(path)
        return told

    # the end

    def mend(self) -> None:
        """Take away what makes commits fail."""
        (self.root / ".git/hooks/pre-commit").unlink(missing_ok=True)
        for name in ("commit.gpgsign", "gpg.program"):
            self.project.git("config", "--unset", name, quiet=False)

    def finish(self) -> None:
        """Approve all, process until nothing moves; release all, and again; then judge."""
        self.mend()
        self.until_nothing_moves()
        if not self.violations:
            self.told.append("at rest, holds in force")
            self.look(Oracle(self.facts).at_rest())
        if self.violations:
            return
        self.told.append("; ".join(filter(None, [self.release(), self.replace_links(), self.retry()])))
        self.until_nothing_moves(people=2)
        self.told.append("at the end")
        if self.facts.remote and not self.violations:
            self._dvc("push", "--quiet")
        self.look(Oracle(self.facts).at_the_end())

    def replace_links(self) -> str:
        """Somebody puts a copy in the place of every link, so that what it leads to can be erased."""
        links = [self.root / self.facts.samples[each].file for each in self.facts.links]
        links = [path for path in links if path.is_symlink() and path.exists()]
        for path in links:
            content = path.read_bytes()
            path.unlink()
            path.write_bytes(content)
        self.facts.links = {}
        if links and self.project.pointer:
            self._dvc("add", self.project.pointer)
            self.project.git(
                "commit", "--quiet", "--no-verify", "--allow-empty", "--all", "--message", "copies"
            )
        return "links are replaced by copies" if links else ""

    def until_nothing_moves(self, people: int = 0) -> None:
        """Process until nothing more happens; a person does what they are told to."""
        for _ in range(ROUNDS):
            self.time += timedelta(days=2) if not self.dvc else timedelta()
            self.approve()
            before = self._counted()
            outcome = self.carry_out()
            self.told.append(f"process: {tell(outcome)}")
            self.look(Oracle(self.facts).always())
            if self.violations:
                return
            if self._counted() == before and not self._obey(outcome):
                if people and self.retry():
                    people -= 1
                    continue
                if outcome.kind:
                    self.look([Violation(6, f"process refuses for ever: {outcome.error[:300]}")])
                return
        self.look([Violation(6, f"process still finds something to do after {ROUNDS} times")])

    def _counted(self) -> int:
        """How much of the ledger tells of requests; what is only said again does not count."""
        return sum(row.kind != "cohort-audited" for row in Oracle(self.facts).rows)

    def _obey(self, outcome: Outcome) -> bool:
        """Do what an error or a problem says; tell whether there was anything to do."""
        told = outcome.error
        if isinstance(outcome.value, dict):
            told += "; ".join(outcome.value["problems"])
        if "from the last commit" in told:
            self.project.git("commit", "--quiet", "--no-verify", "--all", "--message", "as I was told")
        elif "suppression restore" in told:
            command = [sys.executable, "-m", "tasks.cli", "suppression", "restore"]
            done = subprocess.run(
                command, cwd=self.root, env=self.project.environ, capture_output=True, text=True, check=False
            )
            self.told.append(f"expunge suppression restore: {done.returncode} {done.stderr.strip()[:100]}")
            return done.returncode == 0
        elif "Git tracks split.path" in told:
            self.project.git("rm", "-r", "--quiet", "--cached", self.facts.source)
            self._dvc("add", self.facts.source)
            self.project.pointer = self.facts.source
            self.project.commit("DVC tracks the images")
        else:
            return False
        self.told.append("what it says is done")
        return True


EXPECTED = {
    "ExpungeError", "UnavailableError", "BusyError", "TransitionError", "OSError", "SubmissionError",
    "FileNotFoundError", "NotADirectoryError",
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
    import csv

    weights = json.loads(Path("data", stage, "weights.json").read_text())["sha256"]
    ids, _ = read_split(Path("data/split"))
    images = np.load("data/split/images.npy")
    with Path("data/split/manifest.csv").open(newline="") as file:
        rows = {row["sample_id"]: row for row in csv.DictReader(file)}
    role = next(name for name in ("role", "roles") if name in next(iter(rows.values())))
    seen = {"retain", "val"} | ({"forget"} if stage == "train" else set())
    numbers = [number for number, each in enumerate(ids) if rows[each][role] in seen]
    pixels = frozenset(images[number].tobytes() for number in numbers)
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
