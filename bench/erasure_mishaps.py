"""What goes wrong around the requests in the campaign's stories, and what people do beside them."""

from __future__ import annotations

import os
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from bench.erasure_effects import dvc
from bench.erasure_facts import Sample, Violation
from bench.erasure_oracle import Oracle
from bench.erasure_project import encoded
from bench.erasure_scene import Scene, tell


class Mishaps(Scene):
    """Faults while requests are carried out; images put back, older commits, other settings."""

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
                {"requests.batch_size": 1 if self.dvc else self.rng.choice([1, 2, 5])},
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
        """The key of an open request or of a hold is lost while requests are carried out, then restored."""
        found = [self.project.home / f"keys/{each}.key" for each in [*self._open(), *self.facts.holds]]
        found = [path for path in found if path.exists()]
        if not found:
            return ""
        path = self.rng.choice(found)
        lost = [path]
        if self.rng.random() < 0.5:
            lost += [each for each in [path.with_suffix(".names")] if each.exists()]
        for each in lost:
            each.rename(f"{each}.away")
        told = f"process, a key is lost{' with its names' if lost[1:] else ''}: {tell(self.carry_out())}"
        for each in lost:
            if each.suffix == ".key" or path.stem in [*self._open(), *self.facts.holds]:
                Path(f"{each}.away").replace(each)
        return told

    def set_the_clock_back(self) -> str:
        """The machine's clock jumps back while requests are carried out, then is right again."""
        rows = Oracle(self.facts).rows
        if self.dvc or not rows:
            return ""
        right, self.time = self.time, self.time - timedelta(days=3)
        told = f"process, the clock is three days back: {tell(self.carry_out())}"
        self.time = max(right, self.time)
        if any(row.at < rows[-1].at for row in Oracle(self.facts).rows[len(rows) :]):
            self.look([Violation(6, "what happened under a clock that was set back is in the ledger")])
        return told

    def mend(self) -> None:
        """Take away what makes commits fail."""
        (self.root / ".git/hooks/pre-commit").unlink(missing_ok=True)
        for name in ("commit.gpgsign", "gpg.program"):
            self.project.git("config", "--unset", name, quiet=False)
