"""Random stories for the campaign: people ask, decide, err; machines fail; requests are carried out.

Every action goes through the doors that people and other systems use: the desk, the inbox, ``process``, Git,
DVC and the files themselves. What it means is told to the oracle's facts, without asking the code.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta

from bench.erasure_effects import Outcome
from bench.erasure_facts import Violation
from bench.erasure_mishaps import Mishaps
from bench.erasure_oracle import Oracle
from bench.erasure_people import People
from bench.erasure_scene import tell

ROUNDS = 12
"""How often ``process`` may find something to do at the end."""


class Story(People, Mishaps):
    """One project's story."""

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
            self.lose_a_key: 3,
            self.set_the_clock_back: 1,
        }

    # the end

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
