"""Carries out requests: batch, unlearn, audit, promote, purge, certify.

Each step is an effect that can be repeated, and after it its event in the ledger. So whatever ends the
process, the next call goes on from where the ledger stands. Who runs the stages of ``dvc.yaml`` is
handed in: a Prefect flow, or plain ``dvc repro``.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from tasks.core.errors import ExpungeError, UnavailableError
from tasks.core.files import STATE, digest, read_json, write_text
from tasks.core.params import Params, in_use, load
from tasks.erasure.fingerprints import Contents
from tasks.erasure.purge import Purge, purgeable
from tasks.overrides import override
from tasks.processing import production
from tasks.processing.batches import Batch, choose, in_progress, open_batch
from tasks.processing.gate import EXACT, Decision, decide, following
from tasks.processing.repository import OURS, Repository
from tasks.requests import certificate
from tasks.requests.catalogue import Catalogue
from tasks.requests.desk import Desk, Request
from tasks.requests.keys import reference
from tasks.requests.ledger import latest
from tasks.requests.production import BASE, Production, in_production, models
from tasks.requests.states import NOTHING_LEFT, Status
from tasks.requests.suppression import KEY, Erased
from tasks.samples.manifest import load_samples
from tasks.samples.table import SPLIT
from tasks.stage import environment

IDS_FILE = Path("data/requests/batch.txt")
SAVED = STATE / "params.yaml"
"""The user's ``params.yaml`` while a batch has put its own values there."""
CERTIFICATES = Path("data/requests/certificates")

BY = "process-requests"
GUARANTEES = {EXACT: "exact", NOTHING_LEFT: "covered"}
"""What a method promises; all others are ``approximate``."""

RunStages = Callable[[str, Mapping[str, str]], str | None]
"""``run(target, tags)``: bring the stages up to ``target`` up to date; return the pipeline run's key."""


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
        Told what happens, a line each.
    """

    root: Path
    desk: Desk
    run: RunStages
    environ: Mapping[str, str]
    flow_run: Mapping[str, str] | None = None
    log: Callable[[str], None] = print
    params: Params = field(init=False)

    def __post_init__(self) -> None:
        restore_params()
        self.params = load()
        self.repository = Repository(self.root)
        self.steps: dict[Status, Callable[[Batch], Batch | None]] = {
            Status.BATCHED: self._start,
            Status.RUNNING: self._run,
            Status.AUDITED: self._decide,
            Status.PROMOTED: self._purge,
            Status.PURGED: self._close,
            Status.FAILED: self._retry,
        }

    def process(self) -> list[str]:
        """Bring every batch as far as it gets, then open the next; return what went wrong.

        Raises
        ------
        ExpungeError
            If the checkout has changes that are not committed; nothing is begun then.
        """
        problems = []
        self.repository.refuse_changes()
        try:
            self.purge().late_duplicates()
        except UnavailableError as error:
            problems.append(str(error))
        for batch in in_progress(self.desk.requests()):
            problems += self._carry_on(batch)
        unfinished = [
            batch for batch in in_progress(self.desk.requests()) if batch.status is not Status.PROMOTED
        ]
        if unfinished:
            self.log(f"no further batch while {unfinished[0].id} is {unfinished[0].status}")
            return problems
        chosen = choose(self.desk.ready(), self.desk.settings, self.desk.clock())
        if chosen:
            self._adopt()
            problems += self._carry_on(open_batch(self.desk, chosen))
        return problems

    def _carry_on(self, batch: Batch) -> list[str]:
        """Take step after step until the batch is closed, waits, or fails."""
        following_step: Batch | None = batch
        while following_step is not None and (step := self.steps.get(following_step.status)):
            batch = following_step
            self.log(f"{batch.id}: {', '.join(batch.names)} {batch.status}")
            try:
                following_step = step(batch)
            except UnavailableError as error:  # an outage is no failure of the request, however long it takes
                self.log(f"{batch.id} stays {batch.status}: {error}")
                return [f"{batch.id} waits: {error}"]
            except (ExpungeError, OSError) as error:
                self._fail(batch, str(error))
                return [f"{batch.id}: {error}"]
        return []

    def _fail(self, batch: Batch, error: str) -> None:
        self.log(f"{batch.id} failed: {error}")
        if batch.status is not Status.FAILED:
            batch.record(self.desk, "failed", error=error)

    def _retry(self, batch: Batch) -> Batch | None:
        if batch.count("failed") > self.desk.settings.retries:
            self.log(f"{batch.id} failed {batch.count('failed')} times and waits for a person: expunge retry")
            return None
        return batch.record(self.desk, "retried", by=BY)

    # running

    def _adopt(self) -> Production:
        """Return what is in production; the first time, that is the model of stage ``train``."""
        current = in_production(self.desk.ledger.events())
        if current is None:
            weights = production.adoptable()
            registry = models(self.params, self.root)
            version = production.register(registry, production.run_of("train"), weights, self.root, {})
            production.take_over(production.TRAINED, production.heldout_of_split())
            if registry and version:
                registry.promote(version)
            current = Production(version, weights)
            with self.desk.ledger.writing() as writer:
                writer.append("adopted", **current.as_json(), commit=self.repository.head)
            self.log(f"in production: version {version}, weights {weights[:12]}")
        production.check_base(current.weights)
        return current

    def _start(self, batch: Batch) -> Batch:
        return self._begin(batch, self.desk.settings.chain[0] if self.desk.settings.chain else EXACT)

    def _begin(self, batch: Batch, method: str) -> Batch:
        ids, lost = self._samples(batch)
        if lost:
            method = EXACT  # what is gone from the data can only be left out, not unlearned
        if not ids and not lost:
            method = NOTHING_LEFT
        base = self._adopt()
        return batch.record(
            self.desk,
            "started",
            method=method,
            attempt=batch.count("started") + 1,
            base=base.as_json(),
            flow_run=self.flow_run,
            commit=self.repository.head,
            lost=lost,
        )

    def _samples(self, batch: Batch) -> tuple[list[str], int]:
        """Ids of the batch's samples that are in the data, and how many others should be and are not."""
        known = Catalogue.load().sources
        ids: set[str] = set()
        lost = 0
        for request in batch.requests:
            own = {name for name in known if reference(self._key(request), "id", name) in request.remaining}
            ids |= own
            lost += len(request.remaining) - len(own)
        return sorted(ids), lost

    def _run(self, batch: Batch) -> Batch:
        started = batch.latest("started")
        assert started is not None  # noqa: S101
        method: str = started.body["method"]
        base = self._adopt()
        if method == NOTHING_LEFT:
            return self._record_audit(
                batch,
                method,
                {
                    "verdict": "not needed",
                    "text": "Nothing was left to unlearn.",
                    "reason": "Other batches had erased every sample.",
                    "weights": {"original": base.weights, "result": base.weights},
                    "placements": [],
                },
                (Decision.PROMOTE, "the model in production is derived from none of the samples"),
            )
        ids, lost = self._samples(batch)
        if not ids:
            return self._train_anew(batch, lost)
        with self._overridden(self._values(ids, method)):
            pipeline = self.run("audit", self._tags(batch, method))
            params = in_use(load())
        verdict = read_json(Path("data/audit/verdict.json"))
        figures = read_json(Path("data/audit/metrics.json"))
        stages = ("split", "train", *(("retrain",) if method == EXACT else ("unlearn", "finetune")), "audit")
        return self._audited(
            batch, method, verdict, figures, stages=stages, pipeline=pipeline, params=params, ids=ids
        )

    def _train_anew(self, batch: Batch, lost: int) -> Batch:
        """Train on all that is there: what the batch names was gone before it could be unlearned."""
        accuracy, pipeline, params = [], None, {}
        for start in ("base", "scratch"):
            with self._overridden({"train.start": start}):
                pipeline = self.run("train", self._tags(batch, EXACT))
                params = in_use(load())
            accuracy.append(float(read_json(Path("data/train/metrics.json"))["val/acc"]))
        verdict = {
            "verdict": "inconclusive",
            "text": "The samples are no longer in the data.",
            "reason": f"{lost} samples were gone before the batch began; nothing can be attacked.",
            "placements": [],
            "weights": {
                "original": production.digest_of(BASE),
                "result": production.digest_of(production.TRAINED),
            },
        }
        figures = {"audit/val_acc_loss": accuracy[0] - accuracy[1], "audit/count": 0.0}
        stages = ("split", "train")
        return self._audited(batch, EXACT, verdict, figures, stages=stages, pipeline=pipeline, params=params)

    def _values(self, ids: list[str], method: str) -> dict[str, Any]:
        """Parameters of the batch's stages."""
        write_ids(ids)
        forget = {"kind": "ids", "ids_file": str(IDS_FILE), "classes": self._emptied(ids), "fraction": None}
        return {
            **{f"split.forget.{key}": value for key, value in forget.items()},
            "train.start": "base",
            "audit.result": "retrain" if method == EXACT else "finetune",
            **({"unlearn.method": method} if method != EXACT else {}),
        }

    @contextmanager
    def _overridden(self, values: Mapping[str, Any]) -> Iterator[None]:
        """Put values into ``params.yaml`` for the time of a batch's stages."""
        path = Path("params.yaml")
        write_text(SAVED, path.read_text(encoding="utf-8"))
        try:
            override(path, values)
            yield
        finally:
            restore_params()

    def _emptied(self, ids: list[str]) -> list[int]:
        """Classes of which every sample is to be forgotten."""
        samples = load_samples(mmap=True).samples
        named = set(ids)
        asked = np.array([name in named for name in samples.sample_ids])
        own = samples.parts != "test"
        return [
            int(label)
            for label in np.unique(samples.labels[asked])
            if asked[own & (samples.labels == label)].all()
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
        ids: Sequence[str] = (),
    ) -> Batch:
        contents = Contents(self.desk.keys, self.params.split, ids)
        loss = figures["audit/val_acc_loss"]
        lowest = figures.get("audit/val_acc_loss/low", loss)
        decision, why = decide(method, verdict["verdict"], loss, lowest, self.desk.settings)
        self.log(
            f"{batch.id}: {method}: {verdict['verdict']}, accuracy on val {-loss:+.3f} → {decision}: {why}"
        )
        return self._record_audit(
            batch,
            method,
            verdict,
            (decision, why),
            own={request.id: {"content": contents.of(request)} for request in batch.requests},
            figures=figures,
            runs={stage: production.run_of(stage) for stage in stages},
            pipeline=pipeline,
            params=params,
        )

    def _record_audit(
        self,
        batch: Batch,
        method: str,
        verdict: Mapping[str, Any],
        decision: tuple[Decision, str],
        *,
        own: Mapping[str, Mapping[str, Any]] | None = None,
        figures: Mapping[str, float] = MappingProxyType({}),
        runs: Mapping[str, str] = MappingProxyType({}),
        pipeline: str | None = None,
        params: Mapping[str, Any] = MappingProxyType({}),
    ) -> Batch:
        told = {key: verdict[key] for key in ("verdict", "text", "reason", "placements", "weights")}
        return batch.record(
            self.desk,
            "audited",
            own=own,
            method=method,
            **told,
            decision=str(decision[0]),
            why=decision[1],
            figures=dict(figures),
            runs=dict(runs),
            pipeline=pipeline,
            params=dict(params),
            manifest=_manifest(),
            environment=environment(self.params.runtime),
        )

    # the gate

    def _decide(self, batch: Batch) -> Batch:
        audited, retried = batch.latest("audited"), batch.latest("retried")
        assert audited is not None  # noqa: S101
        decision, method = Decision(audited.body["decision"]), str(audited.body["method"])
        if decision is Decision.PROMOTE:
            return self._promote(batch, audited.body)
        if decision is not Decision.FAIL:
            return self._begin(batch, following(method, decision, self.desk.settings))
        if retried is not None and retried.seq > audited.seq and retried.body["by"] != BY:
            return self._start(batch)
        raise ExpungeError(f"the gate refuses even the exact method: {audited.body['why']}")

    def _promote(self, batch: Batch, audited: Mapping[str, Any]) -> Batch:
        """Register the result, keep its samples out for ever, put it into production, commit, record."""
        method, weights = str(audited["method"]), str(audited["weights"]["result"])
        current = in_production(self.desk.ledger.events())
        version = current.version if current else None
        covered: dict[str, dict[str, Any]] = {}
        if method != NOTHING_LEFT:
            stage = _result(audited)
            taken = production.digest_of(BASE) == weights  # by a promotion that was cut short
            if not taken and production.digest_of(Path("data") / stage) != weights:
                self.log(f"{batch.id}: data/{stage} was made again since the audit; the batch starts anew")
                return self._start(batch)
            registry = models(self.params, self.root)
            tags = self._tags(batch, method)
            version = production.register(registry, audited["runs"][stage], weights, self.root, tags)
            covered = self._keep_out(batch)
            if not taken:
                production.take_over(Path("data") / stage, production.heldout_after(exact=method == EXACT))
            if registry and version:
                registry.promote(version)
        links = {
            "Expunge-Model": f"{self.desk.settings.model}/{version}" if version else None,
            "Expunge-Weights": weights,
            "Expunge-Pipeline": audited["pipeline"],
            "Expunge-Flow-Run": (self.flow_run or {}).get("id"),
        }
        commit = self._commit(
            batch,
            "promoted",
            f"Forget {len(batch.requests)} request(s), {batch.id}",
            trailers={name: str(value) for name, value in links.items() if value},
        )
        self._link(audited, {"expunge.commit": commit, "expunge.version": str(version)})
        with self.desk.ledger.writing() as writer:
            for request in batch.requests:
                writer.append(
                    "promoted",
                    request.id,
                    batch=batch.id,
                    method=method,
                    version=version,
                    weights=weights,
                    guarantee=GUARANTEES.get(method, "approximate"),
                    commit=commit,
                    lock=digest(Path("dvc.lock"), "sha256"),
                    content=request.content,
                )
            for name, body in covered.items():
                writer.append("covered", name, batch=batch.id, **body)
        IDS_FILE.unlink(missing_ok=True)
        return Batch(batch.id, tuple(self.desk.show(name) for name in batch.names))

    def _keep_out(self, batch: Batch) -> dict[str, dict[str, Any]]:
        """Enter the samples into the list of what was erased.

        Returns
        -------
        dict
            For other open requests, keyed digests of those of their samples that are erased with this batch.
        """
        ids, _ = self._samples(batch)
        contents = Contents(self.desk.keys, self.params.split, ids)
        path = Path(self._erased_list())
        key = self.desk.keys.load(KEY) if self.desk.keys.exists(KEY) else self.desk.keys.create(KEY)
        Erased.read(path).having(contents.lines(key)).write(path)
        others = [each for each in self.desk.requests() if each.open and each.id not in batch.names]
        found = {
            other.id: {
                "samples": sorted(reference(self._key(other), "id", name) for name in contents.names(other)),
                "content": contents.of(other),
            }
            for other in others
            if other.remaining
        }
        return {name: body for name, body in found.items() if body["samples"]}

    def _erased_list(self) -> str:
        if self.params.split.erased is None:
            raise ExpungeError(
                "params.yaml: split.erased is null; name the list that keeps erased samples out"
            )
        return self.params.split.erased

    # purge and certificate

    def _purge(self, batch: Batch) -> Batch | None:
        """Purge those of a batch that can be purged now."""
        purge = self.purge()
        ready = purgeable(batch.requests)
        waiting = purge.waiting_for_release(ready)
        for name, holder in waiting.items():
            self.log(f"request {name} shares samples with {holder}, which is on legal hold; its purge waits")
        ready = [request for request in ready if request.id not in waiting]
        if not ready:
            return None
        checklist = purge.carry_out(ready)
        part = Batch(batch.id, tuple(ready))
        paths = [self.params.split.path, f"{self.params.split.path}.dvc"]
        commit = self._commit(part, "purged", f"Purge {len(ready)} request(s), {batch.id}", paths)
        return part.record(
            self.desk,
            "purged",
            checklist=[item.as_json() for item in checklist],
            manifest=_manifest(),
            commit=commit,
        )

    def purge(self) -> Purge:
        """Return what purges."""
        return Purge(self.root, self.params, self.desk, self.environ)

    def _close(self, batch: Batch) -> Batch:
        key = certificate.signing_key(self.desk.keys)
        for request in batch.requests:
            document = certificate.build(
                request.id,
                request.events,
                environment=environment(self.params.runtime),
                digests={
                    path: digest(Path(path), "sha256")
                    for path in ("dvc.lock", "requirements.lock", "params.yaml")
                    if Path(path).exists()
                },
            )
            path = certificate.write(certificate.sign(document, key), CERTIFICATES)
            attested = digest(path, "sha256")
            audited = latest(request.events, "audited")
            assert audited is not None  # noqa: S101
            try:
                self._link(audited.body, {f"expunge.certificate.{request.id}": attested})
            except UnavailableError:
                raise
            except (
                ExpungeError
            ) as error:  # MLflow's database may have been lost; the ledger closes without it
                self.log(f"the runs of request {request.id} do not carry its certificate: {error}")
            with self.desk.ledger.writing() as writer:
                writer.append("closed", request.id, batch=batch.id, certificate=attested)
            self.log(f"request {request.id} closed; certificate {path}")
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

    def _link(self, audited: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Tell the runs of a batch what became of them."""
        registry = models(self.params, self.root)
        if registry is not None:
            for key in {*audited["runs"].values(), audited["pipeline"]} - {None}:
                registry.tag_run(key, tags)

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
            [
                *OURS,
                *(
                    path
                    for path in paths
                    if path == f"{self.params.split.path}.dvc" or self.repository.tracked(Path(path))
                ),
            ],
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


def write_ids(ids: list[str]) -> None:
    """Write the list of what is to be forgotten, unless it is there.

    ``dvc.lock`` keeps its MD5, from which a short list of ids could be guessed; so it begins with a random
    line.
    """
    if IDS_FILE.exists() and IDS_FILE.read_text(encoding="utf-8").split("\n")[1:] == [*ids, ""]:
        return
    write_text(IDS_FILE, "\n".join([f"# {secrets.token_hex(16)}", *ids, ""]))


def restore_params() -> None:
    """Put the user's ``params.yaml`` back, if a batch that was ended has left its own."""
    if SAVED.exists():
        write_text(Path("params.yaml"), SAVED.read_text(encoding="utf-8"))
        SAVED.unlink()


def _result(audited: Mapping[str, Any]) -> str:
    """The stage that made the weights which were audited."""
    return next(stage for stage in ("retrain", "finetune", "train") if stage in audited["runs"])


def _manifest() -> dict[str, str]:
    return {name: digest(SPLIT / name, "sha256") for name in ("samples.csv", "manifest.csv")}
