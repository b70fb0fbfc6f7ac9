"""Carries out requests: batch, unlearn, audit, promote, purge, certify.

Each step is an effect that can be repeated, and after it its event in the ledger. So whatever ends the
process, the next call goes on from where the ledger stands. Who runs the stages of ``dvc.yaml`` is
handed in: a Prefect flow, or plain ``dvc repro``.
"""

from __future__ import annotations

import secrets
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from tasks.audit import moments
from tasks.core.errors import BusyError, ExpungeError, UnavailableError, plainly
from tasks.core.figures import SHARED
from tasks.core.files import clear_parts, digest, read_json, write_text
from tasks.core.params import Params, in_use, load
from tasks.erasure.again import search_again
from tasks.erasure.checklist import Checklist
from tasks.erasure.fingerprints import Contents
from tasks.erasure.pointer import why_it_comes_back
from tasks.erasure.purge import DUE, Purge, purgeable
from tasks.metrics.pooled import Moments
from tasks.processing import attention, checkout, left, lockfile, parameters, pooling, production, steplog
from tasks.processing.batches import Batch, choose, in_progress, open_batch
from tasks.processing.certifying import certify
from tasks.processing.dvc_repro import StageFailedError
from tasks.processing.gate import Decision, Losses, decide, first_method, following, worn_out
from tasks.processing.repository import OURS, Repository, why_not_in_git
from tasks.requests import events as facts
from tasks.requests import inbox
from tasks.requests.catalogue import Catalogue
from tasks.requests.chain import Head, check_chain
from tasks.requests.desk import Desk
from tasks.requests.events import EXACT, GUARANTEES, NOTHING_LEARNED, NOTHING_LEFT, Code
from tasks.requests.heldout import listed, never_learned
from tasks.requests.high_water import check, extend, list_of
from tasks.requests.naming import meant
from tasks.requests.production import BASE, in_production, models
from tasks.requests.request import Recognition, Request
from tasks.requests.states import OPEN, UNDONE, Status
from tasks.samples.ids import HELD_OUT
from tasks.samples.manifest import load_samples
from tasks.samples.table import SPLIT
from tasks.stage import environment

IDS_FILE = Path("data/requests/batch.txt")
CERTIFICATES = Path("data/requests/certificates")

BY = "process-requests"

OF_ALL = ("audit/val_acc_loss", "audit/count")
"""Figures that tell of no member: they are recorded however few these are."""

UNREADABLE = "data/split cannot be read; make it again: dvc repro split"

ASIDE = "process"
"""Names the log of what went wrong in the last run, beside the logs of batches."""

NO_MEMBERS = Moments.of_placements([], 0)

UNCHANGED = {
    NOTHING_LEFT: ("Nothing was left to unlearn.", "Other batches had erased every sample."),
    NOTHING_LEARNED: (
        "Nothing was to be unlearned.",
        "No model in production was trained on the samples: test and validation images.",
    ),
}
"""What stands for a method where the model in production stays as it is, and what its audit says."""

RunStages = Callable[[str, Mapping[str, str]], str | None]
"""``run(target, tags)``: bring the stages up to ``target`` up to date; return the pipeline run's key."""


class GateError(ExpungeError):
    """The gate refuses even the exact method."""


@dataclass
class Processor:
    """Carries out what the ledger holds, in the checkout at ``root`` (the working directory).

    Attributes
    ----------
    run
        Runs the stages.
    flow_run
        Prefect's id and name of the run that does it, for the record.
    log
        Told what happens, a line each, without the name of any sample.
    tell
        Told the texts of errors, which may name samples: only a terminal may show them.
    searched
        Batches whose purge or further search this run has ended, with a request of each.
    """

    root: Path
    desk: Desk
    run: RunStages
    environ: Mapping[str, str]
    flow_run: Mapping[str, str] | None = None
    log: Callable[[str], None] = print
    tell: Callable[[str], None] = lambda _: None
    params: Params = field(init=False)
    searched: dict[str, str] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        parameters.restore()
        self.params = load()
        self.repository = Repository(self.root)
        self.steps: dict[Status, Callable[[Batch], Batch | None]] = {
            Status.BATCHED: self._start,
            Status.RUNNING: self._run,
            Status.AUDITED: self._decide,
            Status.PROMOTING: self._promote,
            Status.PROMOTED: self._purge,
            Status.PURGING: self._purge,
            Status.PURGED: self._close,
            Status.FAILED: self._retry,
        }

    def process(self) -> list[str]:
        """Take the inbox, bring every batch as far as it gets, open the next; return what a person must see.

        Raises
        ------
        ExpungeError
            If the checkout has changes that are not committed, the ledger or the list of what was erased is
            not what it was, or requests are carried out elsewhere; nothing is begun then.
        """
        steplog.delete(ASIDE)
        clear_parts(self.desk.keys.folder)
        checkout.refuse_elsewhere(self.desk, self.root)
        if inbox.waits() or self.desk.ledger.rows(only_open=True):
            self._check_record()
            if lockfile.mend(self.root):
                self.log("dvc.lock was damaged; it is again as in the last commit")
        else:
            self._check_tail()
        try:
            problems = list(self._mend_split())
        except BusyError as error:  # nothing can be carried out without it, and nothing is wrong
            return [f"data/split is incomplete and waits to be made again: {error}", *self._take_in()]
        problems += self._take_in()
        if not self.desk.ledger.rows(only_open=True):
            erased = self.params.split.erased
            with plainly():
                check(Path(erased) if erased else None, self.desk.keys)
            return [*problems, *self._search_again(), *self._left()]
        self._admit()
        try:
            self.purge().delete_flow_runs_of_duplicates()
        except ExpungeError as error:
            problems.append(self._apart("what Prefect keeps of duplicates is not deleted", error))
        begun: set[tuple[str, Status]] = set()
        while waiting := [each for each in in_progress(self.desk) if (each.id, each.status) not in begun]:
            begun.add((waiting[0].id, waiting[0].status))
            problems += self._carry_on(waiting[0])
        problems += self._next_batch()
        problems += self._search_again()
        problems += self._waiting_for_a_person(problems)
        problems += self._anchor_tail()
        return [*problems, *self._left()]

    def purge_now(self, request: str) -> list[str]:
        """Purge a promoted request with its batch, or search again what was down, or had to be mended.

        Returns
        -------
        list of str
            What a person must see, as of :meth:`process`.

        Raises
        ------
        ExpungeError
            If there is nothing to purge, or as of :meth:`process`.
        """
        self._check_record()
        self._admit()
        status = self.desk.show(request).state.status
        if status in {Status.PROMOTED, Status.PURGING, Status.PURGED}:
            (batch,) = (each for each in in_progress(self.desk) if request in each.names)
            problems = self._carry_on(batch)
        elif names := self._to_search_again(request):
            problems = [*self._search_again(names)]
        elif status is Status.CLOSED:
            raise ExpungeError(f"request {request} is closed, and no store is left to be searched")
        else:
            raise ExpungeError(
                f"request {request} is {status}; its purge follows its promotion: expunge process"
            )
        return [*problems, *self._anchor_tail(), *self._left()]

    def _to_search_again(self, request: str) -> list[str]:
        """Return the requests to search for with a purged one: all that a purge has left a fault of."""
        names = self.purge().open_requests()
        for batch in left.faults(self.desk):
            names += [row.request for row in left.searchable(self.desk, batch)]
        return list(dict.fromkeys(names)) if request in names else []

    # before anything is decided

    def _admit(self) -> None:
        """See that the checkout and the list of what was erased are what they have to be."""
        self.repository.refuse_changes(self.purge().own_changes())
        checkout.ensure(self.desk, self.root, BY)
        with plainly():
            check(list_of(self.params.split), self.desk.keys)

    def _mend_split(self) -> Iterator[str]:
        """Run stage ``split`` again where a batch was cut short while DVC had its outputs half away.

        What keeps requests from being carried out at all is told by the steps that follow.
        """
        if not in_progress(self.desk) or all(path.exists() for path in production.SPLIT_OUTPUTS):
            return
        try:
            self._admit()
        except ExpungeError:
            return
        self.log("data/split is incomplete; its stage is run again")
        try:
            self.run("split", {})
        except BusyError:
            raise
        except ExpungeError as error:  # its text may name files
            (batch, *_) = in_progress(self.desk)
            self._set_aside(batch, str(error))
            why = f"expunge show {batch.names[0]} tells why"
            yield f"data/split is incomplete and cannot be made again; {why}"

    def _take_in(self) -> Iterator[str]:
        """Take what lies in the inbox, and resolve what was received while the data could not be read."""
        wait = any(row.status is Status.RECEIVED for row in self.desk.rows(only_open=True))
        if not wait and not inbox.waits():
            return
        catalogue, reason = Catalogue.load_or_none(patience=0)
        if catalogue is None:
            self.tell(reason)  # it may quote the table of samples
            yield f"requests are received and wait to be resolved: {UNREADABLE}"
        if inbox.waits():
            stuck = 0
            for name, receipt in inbox.take(self.desk, catalogue):
                if isinstance(receipt, str):
                    stuck += 1
                    self.tell(f"inbox: {name}: {receipt}")
                else:
                    self.log(f"inbox: {receipt.told()}")
            if stuck:
                yield f"inbox: {stuck} file(s) can neither be taken nor rejected; expunge inbox names them"
        if catalogue is not None:
            for receipt in self.desk.resolve(catalogue):
                self.log(receipt.told())

    def _check_record(self) -> None:
        """See that the ledger is whole and on every anchor, before anything is decided by it."""
        with plainly():
            self.desk.check_whole(self.repository.anchors())

    def _check_tail(self) -> None:
        """Check what was written since the last mark; nothing else is decided by it now."""
        with plainly():
            marks = self.desk.marks()
            marked = marks[0].head.seq if marks else 1
            tail = self.desk.ledger.after(marked - 1)
            check_chain(tail, marks, Head(marked - 1, tail[0].previous) if tail and marked > 1 else None)

    def _anchor_tail(self) -> Iterator[str]:
        """Anchor the head in a commit, if anything was written since the last one."""
        try:
            head = self.desk.ledger.head()
            anchored = self.repository.last_anchor()
            if head.seq and anchored != head:
                trailers = {"Expunge-Step": "recorded", "Expunge-Ledger": str(head)}
                self.repository.commit(f"Record of requests up to event {head.seq}", OURS, trailers)
        except (ExpungeError, OSError) as error:
            yield self._apart("the end of the ledger is not anchored in Git", error)

    def _waiting_for_a_person(self, told: Sequence[str]) -> Iterator[str]:
        """Tell from the first minute of what nothing but a person can bring on, unless it was told before."""
        yield from attention.lost_holds(self.desk)
        for row in self.desk.rows(only_open=True):
            if row.status in DUE and not row.held and not self.desk.keys.can_name(row.request):
                yield attention.lost_key(row)
            if row.status is Status.FAILED and not any((row.batch or row.request) in line for line in told):
                yield f"request {row.request} failed and waits for a person: expunge show {row.request}"

    def _left(self) -> Iterator[str]:
        """Tell what the purges that this run has ended have left for a person, as the record has it now."""
        found = left.last_told(self.desk) if self.searched else {}
        for batch, request in self.searched.items():
            yield from left.alarms(batch, request, found.get(batch, ()))

    def _next_batch(self) -> list[str]:
        """Open the next batch, unless one is between its beginning and its promotion."""
        for batch in in_progress(self.desk):
            if batch.status in UNDONE | {Status.PROMOTING}:
                self.log(f"no further batch while {batch.id} is {batch.status}")
                return []
        found = [(row, self.desk.keys.exists(row.request)) for row in self.desk.ready()]
        ready = [row for row, has_key in found if has_key]
        problems = [attention.lost_key(row) for row, has_key in found if not has_key]
        chosen = choose(ready, self.desk.settings, self.desk.clock())
        if chosen and (refusal := self._why_not_to_be_erased()):
            return [*problems, self._apart("the next batch waits", ExpungeError(refusal))]
        if chosen:
            try:
                self._adopt()
            except UnavailableError as error:
                return [*problems, f"the next batch waits: {error}"]
            names = [row.request for row in chosen]
            problems += self._carry_on(open_batch(self.desk, names, checkout.name_of(self.root)))
        return problems

    def _why_not_to_be_erased(self) -> str | None:
        """Return why originals could not be erased from the source for good, or ``None`` if they can."""
        section = self.params.split
        return why_not_in_git(self.root, section.source, section.path) or why_it_comes_back(
            self.root, section.path
        )

    # step after step

    def _carry_on(self, batch: Batch) -> list[str]:
        """Take step after step until the batch is closed, waits, or fails."""
        following_step: Batch | None = batch
        while following_step is not None and (step := self.steps.get(following_step.status)):
            batch = following_step
            self.log(f"{batch.id}: {', '.join(batch.names)} {batch.status}")
            try:
                following_step = step(batch)
            except (UnavailableError, BusyError) as error:  # an outage is no failure, however long it takes
                self.log(f"{batch.id} stays {batch.status}: {error}")
                return [f"{batch.id} waits: {error}"]
            except Exception as error:  # a defect in one batch must not stop the others
                return [self._fail(batch, error)]
        return []

    def _set_aside(self, batch: Batch, text: str) -> None:
        """Keep a text that may name files out of every record: in a log of this checkout, and told here."""
        steplog.write(batch.id, text)
        self.tell(f"{batch.id}: {text}")

    def _apart(self, problem: str, error: Exception) -> str:
        """Return a problem without the text of its error, which may name files: that is kept apart."""
        steplog.write(ASIDE, f"{problem}: {error}")
        self.tell(f"{problem}: {error}")
        return f"{problem} ({code_of(error)}); {steplog.path_of(ASIDE)} tells why"

    def _fail(self, batch: Batch, error: Exception) -> str:
        """Record that a step failed: a code in the ledger, the text in a log of this checkout."""
        known = isinstance(error, ExpungeError | OSError)
        self._set_aside(batch, str(error) if known else traceback.format_exc())
        code, step = code_of(error), str(batch.status)
        if batch.status in UNDONE:  # later there is no way but on, and every run tries again
            own = {name: {"code": code} for name in batch.names}
            batch.record(self.desk, facts.Failure(step=step, code=code), facts.Failed, own)
        problem = f"{batch.id}, {step}, failed ({code}); expunge show {batch.names[0]} tells why"
        self.log(problem)
        return problem

    def _retry(self, batch: Batch) -> Batch | None:
        """Try a failed batch again, but for what is on hold.

        Once it has failed too often, take it apart, or wait for a person.
        """
        free = batch.free()
        if not free.requests:
            self.log(f"{batch.id} failed and is on legal hold; another try waits for its release")
            return None
        if free.count(facts.Failed) <= self.desk.settings.retries:
            return free.record(self.desk, None, facts.Retried, {name: {"by": BY} for name in free.names})
        if len(batch.requests) > 1 and batch.requests[0].state.before in UNDONE:
            self._take_apart(batch)
        else:
            self.log(
                f"{batch.id} failed {batch.count(facts.Failed)} times and waits for a person: expunge retry"
            )
        return None

    def _take_apart(self, batch: Batch) -> None:
        """Carry out the halves of a batch apart from each other: one request does not stop the others.

        What is on hold is of no batch from then on, and of the next one once it is released.
        """
        self.log(f"{batch.id} failed {batch.count(facts.Failed)} times; its halves are carried out apart")
        batch.record(self.desk, None, facts.Unbatched)
        names = batch.free().names
        middle = len(names) // 2
        for half in filter(None, (names[:middle], names[middle:])):
            open_batch(self.desk, half, checkout.name_of(self.root))

    # running

    def _adopt(self) -> facts.Base:
        """Return what is in production; the first time, that is the model of stage ``train``."""
        current = in_production(self.desk.ledger)
        if current is None:
            weights = production.adoptable()
            registry = models(self.params, self.root)
            run = production.run_of("train")
            version = production.register(registry, run, weights, self.root, {}, production.TRAINED)
            production.take_over(production.TRAINED, production.heldout_of_split())
            if registry and version:
                registry.promote(version)
            current = facts.Base(version=version, weights=weights)
            self.desk.record(
                facts.Adopted(
                    version=version,
                    weights=weights,
                    commit=self.repository.head,
                    val_acc=production.val_accuracy(production.TRAINED),
                )
            )
            self.log(f"in production: version {version}, weights {weights[:12]}")
        production.check_base(current.weights)
        return current

    def _start(self, batch: Batch) -> Batch:
        return self._begin(batch)

    def _begin(self, batch: Batch, method: str | None = None) -> Batch:
        """Record that a method is tried: the one given, or the first."""
        base = self._adopt()
        learned, held_out, lost = self._told_apart(batch)
        if lost:
            method = EXACT  # what is gone from the data can only be left out, not unlearned
        elif not learned:
            method = NOTHING_LEARNED if held_out else NOTHING_LEFT
        elif method is None:
            method = first_method(len(learned), self.params, self.desk.settings)
        attempt = facts.Attempt(
            method=method,
            attempt=batch.count(facts.Started) + 1,
            base=base,
            members=batch.members,
            flow_run=self.flow_run,
            commit=self.repository.head,
            lost=lost,
        )
        return batch.record(self.desk, attempt, facts.Started)

    def _samples(self, batch: Batch, catalogue: Catalogue | None = None) -> tuple[list[str], int]:
        """Ids of the batch's samples that are in the data, and how many others should be and are not."""
        known = (catalogue or Catalogue.load()).sources
        ids: set[str] = set()
        lost = 0
        for request in batch.requests:
            own = meant(request, self.desk.keys, known)
            ids.update(own)
            lost += len(request.remaining) - len(own)
        return sorted(ids), lost

    def _told_apart(self, batch: Batch) -> tuple[list[str], list[str], int]:
        """Ids that the model in production may have learned, those it never has, and how many are lost."""
        catalogue = Catalogue.load()
        ids, lost = self._samples(batch, catalogue)
        unseen = never_learned(ids, catalogue)
        learned = [name for name in ids if name not in unseen]
        return learned, [name for name in ids if name in unseen], lost

    def _attempt(self, batch: Batch) -> facts.Attempt:
        attempt = batch.common(facts.Attempt)
        assert attempt is not None  # noqa: S101
        return attempt

    def _left_by_some(self, batch: Batch) -> bool:
        """Whether a request has left the batch since its attempt began: refused, withdrawn."""
        members = self._attempt(batch).members
        return bool(members) and members != batch.members

    def _run(self, batch: Batch) -> Batch:
        attempt = self._attempt(batch)
        method = attempt.method
        base = self._adopt()
        if self._left_by_some(batch):
            return self._start(batch)
        if method == NOTHING_LEFT:
            return self._leave_model(batch, base, method)
        learned, held_out, lost = self._told_apart(batch)
        if (method == NOTHING_LEARNED) != (not learned and not lost):  # it is not as it was
            return self._start(batch)
        if method == NOTHING_LEARNED:
            return self._leave_model(batch, base, method, self._own(batch, [], held_out))
        if not learned:
            return self._train_anew(batch, lost, held_out)
        with parameters.overridden(self._values(learned, held_out, method)):
            pipeline = self.run("audit", self._tags(batch, method))
            params = load()
            members = moments(params)
        verdict = read_json(Path("data/audit/verdict.json"))
        figures = read_json(Path("data/audit/metrics.json"))
        stages = ("split", "train", *(("retrain",) if method == EXACT else ("unlearn", "finetune")), "audit")
        return self._audited(
            batch,
            method,
            verdict,
            figures,
            stages=stages,
            pipeline=pipeline,
            params=in_use(params),
            own=self._own(batch, learned, held_out),
            members=members,
        )

    def _leave_model(
        self,
        batch: Batch,
        base: facts.Base,
        method: str,
        own: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    ) -> Batch:
        """Record that there is nothing to unlearn."""
        text, reason = UNCHANGED[method]
        weights = {"original": base.weights, "result": base.weights}
        verdict = {"verdict": "not needed", "text": text, "reason": reason, "weights": weights}
        decision = (Decision.PROMOTE, "the model in production is derived from none of the samples")
        return self._record_audit(batch, method, verdict, decision, own=own)

    def _own(self, batch: Batch, learned: list[str], held_out: list[str]) -> dict[str, dict[str, Any]]:
        """What an audit tells of each request alone."""
        contents = Contents(self.desk.keys, self.params.split, sorted([*learned, *held_out]))
        return {
            request.id: {
                "content": contents.of(request),
                "held_out": len(set(held_out).intersection(contents.names(request))),
            }
            for request in batch.requests
        }

    def _train_anew(self, batch: Batch, lost: int, held_out: list[str]) -> Batch:
        """Train on all that is there: what the batch names was gone before it could be unlearned.

        What else it names no model was trained on, and none is now.
        """
        accuracy, pipeline, params = [], None, {}
        values = self._values([], held_out, EXACT) if held_out else {}
        for start in ("base", "scratch"):
            with parameters.overridden({**values, "train.start": start}):
                pipeline = self.run("train", self._tags(batch, EXACT))
                params = in_use(load())
            accuracy.append(float(read_json(Path("data/train/metrics.json"))["val/acc"]))
        verdict = {
            "verdict": "inconclusive",
            "text": "The samples are no longer in the data.",
            "reason": f"{lost} samples were gone before the batch began; nothing can be attacked.",
            "weights": {
                "original": production.digest_of(BASE),
                "result": production.digest_of(production.TRAINED),
            },
        }
        figures = {"audit/val_acc_loss": accuracy[0] - accuracy[1], "audit/count": 0.0}
        stages = ("split", "train")
        own = self._own(batch, [], held_out)
        return self._audited(
            batch, EXACT, verdict, figures, stages=stages, pipeline=pipeline, params=params, own=own
        )

    def _values(self, ids: list[str], held_out: list[str], method: str) -> dict[str, Any]:
        """Parameters of the batch's stages."""
        write_ids(ids, held_out)
        classes = self._emptied(ids, held_out)
        forget = {"kind": "ids", "ids_file": str(IDS_FILE), "classes": classes, "fraction": None}
        return {
            **{f"split.forget.{key}": value for key, value in forget.items()},
            "train.start": "base",
            "audit.result": "retrain" if method == EXACT else "finetune",
            **({"unlearn.method": method} if method != EXACT else {}),
        }

    def _emptied(self, ids: list[str], held_out: list[str]) -> list[int]:
        """Classes of which every sample is to be forgotten, or leaves with them."""
        samples = load_samples(mmap=True).samples
        named, leaving = set(ids), {*ids, *held_out}
        asked = np.array([name in named for name in samples.sample_ids])
        leaves = np.array([name in leaving for name in samples.sample_ids])
        own = samples.parts != "test"
        return [
            int(label)
            for label in np.unique(samples.labels[asked])
            if leaves[own & (samples.labels == label)].all()
        ]

    def _audited(
        self,
        batch: Batch,
        method: str,
        verdict: Mapping[str, Any],
        figures: Mapping[str, float],
        *,
        stages: tuple[str, ...],
        pipeline: str | None,
        params: Mapping[str, Any],
        own: Mapping[str, Mapping[str, Any]],
        members: Moments = NO_MEMBERS,
    ) -> Batch:
        losses = self._losses(figures, stages)
        decision, why = decide(method, verdict["verdict"], losses, self.desk.settings)
        self.log(f"{batch.id}: {method}: {verdict['verdict']}{_shown(losses)} → {decision}: {why}")
        return self._record_audit(
            batch,
            method,
            verdict,
            (decision, why),
            own=own,
            figures=figures,
            members=members,
            runs={stage: production.run_of(stage) for stage in stages},
            pipeline=pipeline,
            params=params,
        )

    def _losses(self, figures: Mapping[str, float], stages: Sequence[str]) -> Losses:
        """Return what the result costs in accuracy on val, beside the model before it and the very first."""
        value = figures.get("audit/val_acc_loss")
        adopted = self.desk.ledger.last((facts.Adopted.kind,))
        first = adopted.fact.val_acc if adopted and isinstance(adopted.fact, facts.Adopted) else None
        result = production.val_accuracy(Path("data") / _result(stages))
        total = None if first is None or result is None else first - result
        return Losses(value, figures.get("audit/val_acc_loss/low", value), total)

    def _record_audit(
        self,
        batch: Batch,
        method: str,
        verdict: Mapping[str, Any],
        decision: tuple[Decision, str],
        *,
        own: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
        figures: Mapping[str, float] = MappingProxyType({}),
        members: Moments = NO_MEMBERS,
        runs: Mapping[str, str] = MappingProxyType({}),
        pipeline: str | None = None,
        params: Mapping[str, Any] = MappingProxyType({}),
    ) -> Batch:
        shared = figures.get("audit/count", 0) >= SHARED
        if not shared:
            pooling.keep(self.desk, batch.id, members)
        audit = facts.Audit(
            attempt=self._attempt(batch).attempt,
            method=method,
            verdict=verdict["verdict"],
            text=verdict["text"] if shared or not figures.get("audit/count") else "",
            reason=verdict["reason"],
            weights=verdict["weights"],
            decision=str(decision[0]),
            why=decision[1],
            figures={name: value for name, value in figures.items() if shared or name.startswith(OF_ALL)},
            pooled=members.as_sums() if shared else {},
            runs=dict(runs),
            pipeline=pipeline,
            params=dict(params),
            manifest=_manifest(),
            environment=environment(self.params.runtime),
        )
        return batch.record(self.desk, audit, facts.Audited, own)

    # the gate

    def _decide(self, batch: Batch) -> Batch:
        audit = batch.common(facts.Audit)
        assert audit is not None  # noqa: S101
        if self._left_by_some(batch):
            return self._start(batch)
        decision = Decision(audit.decision)
        if decision is Decision.PROMOTE:
            self._samples(batch)  # that it can still be told which they are: later there is no way but on
            self._register(batch, audit)  # while it can still be taken back, for MLflow may be down
            return batch.record(self.desk, None, facts.Promoting)
        if decision is not Decision.FAIL:
            return self._begin(batch, following(audit.method, decision, self.desk.settings))
        if self._retried_by_a_person(batch):
            return self._start(batch)
        raise GateError(f"the gate refuses even the exact method: {audit.why}")

    def _retried_by_a_person(self, batch: Batch) -> bool:
        """Whether a person has asked for another try since the last audit."""
        for event in reversed(batch.requests[0].events):
            if isinstance(event.fact, facts.Audited):
                return False
            if isinstance(event.fact, facts.Retried) and event.fact.by != BY:
                return True
        return False

    def _promote(self, batch: Batch) -> Batch:
        """Register the result, keep its samples out for ever, put it into production, commit, record."""
        audit = batch.common(facts.Audit)
        assert audit is not None  # noqa: S101
        method, weights = audit.method, audit.weights.result
        current = in_production(self.desk.ledger)
        version = current.version if current else None
        covered: dict[str, dict[str, Any]] = {}
        if method == NOTHING_LEARNED:
            covered = self._keep_out(batch)
            production.write_heldout(listed() - set(self._samples(batch)[0]))
        if method not in UNCHANGED:
            stage = _result(audit.runs)
            made = Path("data") / stage
            taken = production.digest_of(BASE) == weights  # by a promotion that was cut short
            if not taken and production.digest_of(made) != weights:
                self.log(f"{batch.id}: data/{stage} was made again since the audit; the batch starts anew")
                return self._start(batch)
            registry = models(self.params, self.root)
            version = self._register(batch, audit)
            covered = self._keep_out(batch)
            if not taken:
                heldout = production.heldout_after(exact=method == EXACT) - set(self._samples(batch)[0])
                production.take_over(made, heldout)
            if registry and version:
                registry.promote(version)
        links = {
            "Expunge-Model": f"{self.desk.settings.model}/{version}" if version else None,
            "Expunge-Weights": weights,
            "Expunge-Pipeline": audit.pipeline,
            "Expunge-Flow-Run": (self.flow_run or {}).get("id"),
        }
        commit = self._commit(
            batch,
            "promoted",
            f"Forget {len(batch.requests)} request(s), {batch.id}",
            trailers={name: str(value) for name, value in links.items() if value},
        )
        self._link(audit, {"expunge.commit": commit, "expunge.version": str(version)})
        promotion = facts.Promotion(
            method=method,
            version=version,
            weights=weights,
            guarantee=GUARANTEES.get(method, "approximate"),
            commit=commit,
            lock=digest(Path("dvc.lock"), "sha256"),
        )
        with self.desk.writing() as writer:
            writer.append(promotion, batch.id)
            for name in batch.names:
                writer.append(facts.Promoted(batch=batch.id), name)
            for name, told in covered.items():
                if writer.state(name).status in OPEN:
                    writer.append(facts.Covered(batch=batch.id, **told), name)
        pooling.pool(self.desk)
        IDS_FILE.unlink(missing_ok=True)
        if alarm := worn_out(self._losses({}, tuple(audit.runs)), self.desk.settings) if audit.runs else None:
            self.log(f"{batch.id}: {alarm}")
        return Batch(batch.id, tuple(self.desk.show(name) for name in batch.names))

    def _register(self, batch: Batch, audit: facts.Audit) -> str | None:
        """Make the result a version of the registered model, unless it is one; return the version."""
        if audit.method in UNCHANGED:
            return None
        stage = _result(audit.runs)
        taken = production.digest_of(BASE) == audit.weights.result
        made = BASE if taken else Path("data") / stage
        registry = models(self.params, self.root)
        tags = self._tags(batch, audit.method)
        return production.register(registry, audit.runs[stage], audit.weights.result, self.root, tags, made)

    def _keep_out(self, batch: Batch) -> dict[str, dict[str, Any]]:
        """Enter the samples into the list of what was erased.

        Returns
        -------
        dict
            For other open requests, keyed digests of those of their samples that are erased with this batch.
        """
        ids, _ = self._samples(batch)
        contents = Contents(self.desk.keys, self.params.split, ids)
        extend(list_of(self.params.split), self.desk.keys, contents.lines)
        found: dict[str, dict[str, Any]] = {}
        for row in self.desk.ledger.rows(only_open=True):
            if row.request in batch.names or not row.samples or not self.desk.keys.exists(row.request):
                continue
            other = self.desk.show(row.request)
            mine = Recognition.of_remaining(other, self._key(other))
            if names := mine.among(ids):
                found[other.id] = {
                    "samples": tuple(sorted(map(mine.digest, names))),
                    "content": contents.of(other),
                }
        return found

    # purge and certificate

    def _purge(self, batch: Batch) -> Batch | None:
        """Purge those of a batch that can be purged now."""
        if refusal := self._why_not_to_be_erased():
            raise ExpungeError(refusal)
        purge = self.purge()
        ready = purgeable(batch.requests)
        waiting = purge.waiting_for_release(ready)
        for name, holder in waiting.items():
            self.log(f"request {name} may share samples with {holder}, a legal hold; its purge waits")
        named = [request for request in ready if self.desk.keys.can_name(request.id)]
        part = Batch(batch.id, tuple(request for request in named if request.id not in waiting))
        if not part.requests:
            return None
        if part.status is Status.PROMOTED:  # from here on nobody can hold them
            part = part.record(self.desk, None, facts.Purging)
        checklist = purge.carry_out(part.requests)
        subject = f"Purge {len(part.requests)} request(s), {batch.id}"
        commit = self._commit(part, "purged", subject, purge.own_changes())
        steplog.delete(batch.id)
        return part.record(self.desk, _told(checklist, commit), facts.Purged)

    def purge(self) -> Purge:
        """Return what purges."""
        return Purge(self.root, self.params, self.desk, self.environ)

    def _search_again(self, wanted: Sequence[str] = ()) -> Iterator[str]:
        """Finish what stores that did not answer have left open, and tell of what still is.

        Parameters
        ----------
        wanted
            Requests to search for; without any, those whose purge was left open.
        """
        purge = self.purge()
        names = wanted or purge.open_requests()
        if not names:
            return
        requests = [self.desk.show(name) for name in names]
        try:
            checklist = purge.carry_out(requests) if wanted else search_again(purge, requests)
        except (ExpungeError, OSError) as error:
            yield self._apart("stores that were left open could not be searched", error)
            return
        if not checklist.open:
            told = _told(checklist, self.repository.head)
            with self.desk.writing() as writer:
                for batch in dict.fromkeys(request.batch for request in requests):
                    writer.append(told, batch)
            if not {request.batch for request in requests} & self.searched.keys():
                self.searched[str(requests[-1].batch)] = requests[-1].id
        for store in checklist.open:
            yield f"{store} could not be searched for what was erased; it is tried again in every run"

    def _close(self, batch: Batch) -> Batch:
        """Write the certificates, tell the runs, and close the requests and those that wait behind."""
        attested: dict[str, str] = {}
        for request in batch.requests:
            self.desk.keys.forget_names(request.id)
            path = certify(self.desk, request, CERTIFICATES)
            attested[request.id] = digest(path, "sha256")
            self.log(f"request {request.id}: certificate {path}")
        self.searched[batch.id] = batch.names[0]
        audit = batch.common(facts.Audit)
        if audit is not None:
            self._link(audit, {f"expunge.certificate.{name}": value for name, value in attested.items()})
        ended = set(batch.names)
        with self.desk.writing() as writer:
            for name, value in attested.items():
                writer.append(facts.Closed(batch=batch.id, certificate=value), name)
            for row in writer.rows(only_open=True):
                if row.status is Status.BEHIND and row.first in ended:
                    writer.append(facts.Duplicate(first=row.first or ""), row.request)
                    self.desk.keys.forget_names(row.request)
        return Batch(batch.id, tuple(self.desk.show(name) for name in batch.names))

    # shared

    def _tags(self, batch: Batch, method: str) -> dict[str, str]:
        """What MLflow is told of a batch's runs and of the version that comes of them."""
        return {
            "expunge.batch": batch.id,
            "expunge.requests": ",".join(batch.names),
            "expunge.method": method,
            "expunge.ledger": str(self.desk.ledger.head()),
        }

    def _link(self, audit: facts.Audit, tags: Mapping[str, str]) -> None:
        """Tell the runs of a batch what became of them; what MLflow has lost is no reason to stop."""
        try:
            registry = models(self.params, self.root)
        except ExpungeError as error:
            self.log(f"the runs in MLflow do not carry {len(tags)} tag(s): {error}")
            return
        for key in {*audit.runs.values(), audit.pipeline} - {None} if registry else ():
            try:
                registry.tag_run(key, tags)  # type: ignore[union-attr, arg-type]
            except ExpungeError as error:
                self.log(f"run {key} in MLflow does not carry {len(tags)} tag(s): {error}")

    def _commit(
        self,
        batch: Batch,
        step: str,
        subject: str,
        paths: Sequence[str] = (),
        trailers: Mapping[str, str] = MappingProxyType({}),
    ) -> str:
        """Commit what a step changed, with the names by which the other stores know it."""
        requests = ", ".join(batch.names)
        done = self.repository.find(batch.id, step, requests) if step == "promoted" else None
        return done or self.repository.commit(
            subject,
            [*OURS, *paths],
            {
                "Expunge-Batch": batch.id,
                "Expunge-Step": step,
                "Expunge-Requests": requests,
                **trailers,
                "Expunge-Ledger": str(self.desk.ledger.head()),
            },
        )

    def _key(self, request: Request) -> bytes:
        return self.desk.keys.load(request.id)


def write_ids(ids: list[str], held_out: Sequence[str] = ()) -> None:
    """Write the list of what is to be forgotten, and what is to be held out of it, unless it is there.

    ``dvc.lock`` keeps its MD5, from which a short list of ids could be guessed; so it begins with a random
    line.
    """
    lines = [*ids, *(f"{HELD_OUT}{name}" for name in held_out), ""]
    if IDS_FILE.exists() and IDS_FILE.read_text(encoding="utf-8").split("\n")[1:] == lines:
        return
    write_text(IDS_FILE, "\n".join([f"# {secrets.token_hex(16)}", *lines]))


def _result(stages: Mapping[str, str] | Sequence[str]) -> str:
    """The stage that made the weights which were audited."""
    return next(stage for stage in ("retrain", "finetune", "train") if stage in stages)


def _manifest() -> dict[str, str]:
    return {name: digest(SPLIT / name, "sha256") for name in ("samples.csv", "manifest.csv")}


def _told(checklist: Checklist, commit: str) -> facts.Purge:
    """What the record tells of a purge."""
    lines = tuple(facts.ChecklistLine.model_validate(line.as_json()) for line in checklist)
    return facts.Purge(
        checklist=lines, void_weights=tuple(checklist.weights), manifest=_manifest(), commit=commit
    )


def _shown(losses: Losses) -> str:
    return "" if losses.value is None else f", accuracy on val {-losses.value:+.3f}"


def code_of(error: Exception) -> Code:
    """Which kind of error it was: all that the record tells of it."""
    if isinstance(error, GateError):
        return Code.GATE
    if isinstance(error, StageFailedError):
        return Code.STAGE
    if isinstance(error, OSError):
        return Code.SYSTEM
    return Code.INPUT if isinstance(error, ExpungeError) else Code.UNKNOWN
