"""What the ledger keeps: one frozen class a kind of event.

A class says what its event holds, when it may happen to a request and where it leads
(:class:`~tasks.requests.states.Transition`), and how it is told in one line. The table of the ledger, the
life of a request, the trace, the certificate and ``docs/events.md`` are all derived from these classes: a
new kind of event is one class here.

An event is about a request, a batch, a standing hold, or nothing of these: its *subject*. What a batch has in
common is told once, of the batch; of a request only what is its own. So the record of a request speaks of
nobody else, and does not grow with its batch.

No event holds an id, path or file name, the text of an error, or the score of a single sample.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from tasks.requests.states import OPEN, PURGES, Status, Transition, after

S = Status

NOTHING_LEFT = "nothing left"
"""Stands for a method where other batches have erased every sample."""

NOTHING_LEARNED = "nothing learned"
"""Stands for a method where no model in production was trained on any of the samples: test and validation
images."""

EXACT = "retrain"
"""Training anew on what is kept: the exact method, and the last of every chain."""

HELD_OUT = "of its samples are test or validation images, which no model in production was trained on"

Digest = str
Digests = tuple[Mapping[str, Digest], ...]


class Code(StrEnum):
    """Why a step failed; the text of the error goes to a log, not into the record."""

    INPUT = "input"
    STAGE = "stage"
    GATE = "gate"
    REPOSITORY = "repository"
    KEY = "key"
    STORE = "store"
    SYSTEM = "system"
    UNKNOWN = "unknown"


class Fact(BaseModel):
    """What an event tells. Keys that a later version may have added are passed over when it is read."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: ClassVar[str]
    transition: ClassVar[Transition | None] = None

    def __init_subclass__(cls, *, kind: str | None = None, **options: Any) -> None:
        super().__init_subclass__(**options)
        if kind is not None:
            cls.kind = kind
            KINDS[kind] = cls

    def body(self) -> dict[str, Any]:
        """Return what the ledger keeps: JSON values, without what is not given."""
        return self.model_dump(mode="json", exclude_none=True, exclude_defaults=True)

    def told(self) -> str:
        """Say it in one line."""
        return ""

    def links(self) -> dict[str, str]:
        """Return every name by which it is found in another store."""
        return {}


KINDS: dict[str, type[Fact]] = {}
"""Every kind of event."""


class Unknown(Fact):
    """An event of a kind that this version does not know, such as one of a later version."""


class Base(BaseModel):
    """A model that is, was or becomes the one in production.

    ``version`` of the registered model, if it has one; ``weights``: SHA-256 of its tensors.
    """

    model_config = ConfigDict(frozen=True)

    version: str | None = None
    weights: str

    def links(self, prefix: str = "") -> dict[str, str]:
        """Return its names."""
        named = {f"{prefix}version": self.version or "", f"{prefix}weights": self.weights}
        return {name: value for name, value in named.items() if value}


class FlowRun(BaseModel):
    """A run of a flow in Prefect."""

    model_config = ConfigDict(frozen=True)

    id: str
    name: str = ""


def _flow_run(value: Any) -> Any:
    """Events of before had the id alone in one place."""
    return {"id": value} if isinstance(value, str) else value


Flow = Annotated[FlowRun | None, BeforeValidator(_flow_run)]


# intake


class ProblemRecord(BaseModel):
    """What was wrong with a submission, without the value."""

    model_config = ConfigDict(frozen=True)

    line: int | None = None
    where: str
    what: str


class Received(Fact, kind="received"):
    """A request has arrived; of one that cannot be read, only how."""

    transition = Transition(after(), S.RECEIVED)

    channel: str = "?"
    flow_run: Flow = None
    requester: str | None = None
    ground: str | None = None
    received_at: str | None = None
    due_at: str | None = None

    def told(self) -> str:
        """Say it in one line."""
        named = ("requester", "ground", "received_at", "due_at")
        given = [f"{name} {getattr(self, name)}" for name in named if getattr(self, name)]
        return ", ".join([f"by {self.channel}", *given])

    def links(self) -> dict[str, str]:
        """Return every name by which it is found in another store."""
        return {"Prefect flow run": self.flow_run.id} if self.flow_run else {}


class Rejected(Fact, kind="rejected"):
    """It cannot be carried out as it was submitted."""

    transition = Transition(after(S.RECEIVED), S.REJECTED, on_hold=True)

    problems: tuple[ProblemRecord, ...] = ()

    def told(self) -> str:
        """Say it in one line."""
        return "; ".join(f"{each.where}: {each.what}" for each in self.problems[:5])


class Validated(Fact, kind="validated"):
    """Every name means a sample; the samples stand here as digests under the request's key.

    Each of ``samples`` has one digest a kind of name (``id``, ``path``, ``index``). ``already_erased_by``:
    the requests that erased what else it names. ``classes``: digests of classes that it names as a whole.
    ``copies``: of how many other samples it was told that they show the same pictures. ``near_copies``: how
    many such samples it takes along. ``by_features``: how many of these only the features of the model in
    production tell. ``subjects``: digests of the people whose samples it asks for. ``shared``: how many of
    its samples show other people, too.
    """

    transition = Transition(after(S.RECEIVED), S.VALIDATED, on_hold=True)

    samples: Digests = ()
    already_erased_by: tuple[str, ...] = ()
    classes: tuple[Digest, ...] = ()
    copies: int = 0
    near_copies: int = 0
    by_features: int = 0
    subjects: tuple[Digest, ...] = ()
    shared: int = 0

    def told(self) -> str:
        """Say it in one line."""
        of = f" of {len(self.subjects)} person(s)" if self.subjects else ""
        more = {
            "other(s) show the same picture": self.copies,
            "are copies that were taken along": self.near_copies,
            "of these only the model's features tell": self.by_features,
            "show other people, too": self.shared,
        }
        told = "".join(f"; {count} {what}" for what, count in more.items() if count)
        return f"{len(self.samples)} sample(s){of}, as keyed digests{told}"

    @property
    def asks(self) -> int:
        """How many samples of other people it would erase with those of the people that it asks for."""
        return self.shared if self.subjects else 0


class Behind(Fact, kind="behind"):
    """It names the samples of an open request, and waits behind it."""

    transition = Transition(after(S.VALIDATED, S.APPROVED, S.BEHIND), S.BEHIND, on_hold=True)

    first: str

    def told(self) -> str:
        """Say it in one line."""
        return f"{self.first}, which names the same samples"

    def links(self) -> dict[str, str]:
        """Return every name by which it is found in another store."""
        return {"first": self.first}


class Advanced(Fact, kind="advanced"):
    """The request before it came to nothing, and it takes its place."""

    transition = Transition(after(S.BEHIND), S.VALIDATED, on_hold=True)

    first: str

    def told(self) -> str:
        """Say it in one line."""
        return f"takes the place of {self.first}"


class Duplicate(Fact, kind="duplicate"):
    """Another request has erased, or erases, all that it names."""

    transition = Transition(after(S.RECEIVED, S.BEHIND, S.VALIDATED), S.DUPLICATE, on_hold=True)

    first: str = ""
    already_erased_by: tuple[str, ...] = ()

    def told(self) -> str:
        """Say it in one line."""
        return f"of {self.first}" if self.first else "all that it names was erased before"

    def links(self) -> dict[str, str]:
        """Return every name by which it is found in another store."""
        return {"first": self.first}


# decisions of persons


class Decision(Fact):
    """What a person decided: who, and why."""

    by: str = ""
    reason: str | None = None

    def told(self) -> str:
        """Say it in one line."""
        return ", ".join(
            f"{name} {value}" for name, value in (("by", self.by), ("reason", self.reason)) if value
        )


_STOPPABLE = after(S.RECEIVED, S.VALIDATED, S.BEHIND, S.APPROVED, S.BATCHED, S.RUNNING, S.AUDITED, S.FAILED)


class Approved(Decision, kind="approved"):
    """It may be carried out."""

    transition = Transition(after(S.VALIDATED), S.APPROVED)


class Refused(Decision, kind="refused"):
    """It will not be carried out."""

    transition = Transition(_STOPPABLE, S.REFUSED, on_hold=True, undone=True)


class Withdrawn(Decision, kind="withdrawn"):
    """The requester has taken it back."""

    transition = Transition(_STOPPABLE, S.WITHDRAWN, on_hold=True, undone=True)


class Extended(Decision, kind="extended"):
    """The due date has moved."""

    transition = Transition(OPEN, None, on_hold=True, once=True)

    due_at: str = ""


class Held(Decision, kind="held"):
    """Nothing that cannot be undone happens to its samples.

    ``standing``: the standing hold that caught it, if a person did not hold this very request. Several holds
    can be on one request; it is said anew of those that are left when one has ended.
    """

    transition = Transition(OPEN - PURGES, None, on_hold=True, unpurged=True)

    standing: str | None = None


class Released(Decision, kind="released"):
    """The hold has ended."""

    transition = Transition(OPEN, None, on_hold=True)

    standing: str | None = None


class Retried(Decision, kind="retried"):
    """It goes on from where it failed."""

    transition = Transition(after(S.FAILED), None, back=True)


class Unkeyed(Decision, kind="unkeyed"):
    """Its key is destroyed: nobody can tell any more which samples it named."""

    transition = Transition(frozenset(Status) - OPEN, None, once=True)


# processing, of a batch


class Opened(Fact, kind="batch-opened"):
    """Requests are carried out together."""

    requests: int
    samples: int
    checkout: str | None = None

    def told(self) -> str:
        """Say it in one line."""
        return f"{self.requests} request(s), {self.samples} sample(s)"


class Attempt(Fact, kind="batch-started"):
    """A method is tried on the batch.

    ``members``: SHA-256 over the ids of its requests; an attempt counts only for these. ``lost``: how many
    of its samples are no longer in the data.
    """

    attempt: int
    method: str
    base: Base
    members: str = ""
    commit: str | None = None
    flow_run: Flow = None
    lost: int = 0

    def told(self) -> str:
        """Say it in one line."""
        return f"attempt {self.attempt}: {self.method}"

    def links(self) -> dict[str, str]:
        """Return every name by which it is found in another store."""
        found = {"commit": self.commit or ""} | self.base.links("base ")
        if self.flow_run:
            found["Prefect flow run"] = self.flow_run.id
        return {name: value for name, value in found.items() if value}


class Weights(BaseModel):
    """SHA-256 of the tensors before and after."""

    model_config = ConfigDict(frozen=True)

    original: str
    result: str


class Audit(Fact, kind="batch-audited"):
    """What the audit found on the result of an attempt, and what follows.

    ``figures`` are those of all samples of the batch together, and only if these are at least
    :data:`~tasks.core.figures.SHARED`.
    """

    attempt: int = 0
    method: str
    verdict: str
    text: str = ""
    reason: str = ""
    decision: str
    why: str
    weights: Weights
    figures: Mapping[str, float] = Field(default_factory=dict)
    pooled: Mapping[str, float] = Field(default_factory=dict)
    runs: Mapping[str, str] = Field(default_factory=dict)
    pipeline: str | None = None
    params: Mapping[str, Any] = Field(default_factory=dict)
    manifest: Mapping[str, str] = Field(default_factory=dict)
    environment: Mapping[str, Any] = Field(default_factory=dict)

    def told(self) -> str:
        """Say it in one line."""
        shown = [
            f"{name} {self.figures[name]:.3f} [{self.figures.get(f'{name}/low', float('nan')):.3f}, "
            f"{self.figures.get(f'{name}/high', float('nan')):.3f}]"
            for name in ("audit/auc", "audit/val_acc_loss")
            if name in self.figures
        ]
        return "; ".join([f"{self.method}: {self.verdict}", *shown, f"{self.decision}: {self.why}"])

    def links(self) -> dict[str, str]:
        """Return every name by which it is found in another store."""
        found = {"weights original": self.weights.original, "weights result": self.weights.result}
        found |= {f"run of {stage}": key for stage, key in self.runs.items()}
        found |= {f"SHA-256 of {name}": value for name, value in self.manifest.items()}
        return found | ({"pipeline": self.pipeline} if self.pipeline else {})


class Promotion(Fact, kind="batch-promoted"):
    """The result is in production. ``erased``: count and digest of the list that keeps its samples out."""

    method: str
    guarantee: str
    version: str | None = None
    weights: str
    commit: str | None = None
    lock: str | None = None
    erased: Mapping[str, Any] = Field(default_factory=dict)

    @property
    def base(self) -> Base:
        """The model that it puts into production."""
        return Base(version=self.version, weights=self.weights)

    def told(self) -> str:
        """Say it in one line."""
        return f"{self.method}, {self.guarantee}, version {self.version}"

    def links(self) -> dict[str, str]:
        """Return every name by which it is found in another store."""
        found = {"commit": self.commit or "", "SHA-256 of dvc.lock": self.lock or ""} | self.base.links()
        return {name: value for name, value in found.items() if value}


class ChecklistLine(BaseModel):
    """What became of the copies in one store.

    No name of a sample, only counts and the scope of the search.
    """

    model_config = ConfigDict(frozen=True)

    store: str
    scope: str = ""
    outcome: str = ""
    count: int = 0
    detail: str = ""
    item: str = ""
    result: str = ""
    how: str = ""


class Purge(Fact, kind="batch-purged"):
    """The samples have left the data and the stores; ``checklist`` says of each what was found."""

    checklist: tuple[ChecklistLine, ...] = ()
    void_weights: tuple[Digest, ...] = ()
    manifest: Mapping[str, str] = Field(default_factory=dict)
    commit: str | None = None

    def told(self) -> str:
        """Say it in one line."""
        return f"{len(self.checklist)} lines in the checklist"

    def links(self) -> dict[str, str]:
        """Return every name by which it is found in another store."""
        found = {f"SHA-256 of {name}": value for name, value in self.manifest.items()}
        return found | ({"commit": self.commit} if self.commit else {})


class Failure(Fact, kind="batch-failed"):
    """A step of a batch failed; the text stands in ``.expunge/log/<batch>.log`` of the checkout."""

    step: str = ""
    code: Code = Code.UNKNOWN

    def told(self) -> str:
        """Say it in one line."""
        return f"{self.step}: {self.code}"


# processing, of a request: which batch, and what is the request's own


class OfBatch(Fact):
    """A step of a request that its batch has taken; what the batch has in common stands in the batch's event.

    ``told_here``: what a ledger of before told of the whole batch in each request's event.
    """

    batch: str = ""
    told_here: Mapping[str, Any] = Field(default_factory=dict, exclude=True, repr=False)
    common: ClassVar[type[Fact] | None] = None

    def of_batch(self) -> Fact | None:
        """Return what a ledger of before told of the batch here, if this is such an event."""
        return (
            None if self.common is None or not self.told_here else self.common.model_validate(self.told_here)
        )

    def told(self) -> str:
        """Say it in one line."""
        whole = self.of_batch()
        return whole.told() if whole else self.batch

    def links(self) -> dict[str, str]:
        """Return every name by which it is found in another store."""
        whole = self.of_batch()
        return {"batch": self.batch} | (whole.links() if whole else {})


class Batched(OfBatch, kind="batched"):
    """It belongs to a batch."""

    transition = Transition(after(S.VALIDATED, S.APPROVED), S.BATCHED)


class Unbatched(OfBatch, kind="unbatched"):
    """Its batch was taken apart, so that one request does not stop the others."""

    transition = Transition(
        after(S.BATCHED, S.RUNNING, S.AUDITED, S.FAILED), S.VALIDATED, on_hold=True, undone=True
    )


class Started(OfBatch, kind="started"):
    """A method is tried."""

    transition = Transition(after(S.BATCHED, S.RUNNING, S.AUDITED, S.PROMOTING), S.RUNNING, on_hold=True)
    common = Attempt


class Audited(OfBatch, kind="audited"):
    """The result was attacked.

    ``content``: what the request's samples look like, as digests under its key. ``held_out``: how many of
    them are test or validation images that no model in production was trained on.
    """

    transition = Transition(after(S.RUNNING), S.AUDITED, on_hold=True)
    common = Audit

    content: Digests = ()
    held_out: int = 0

    def told(self) -> str:
        """Say it in one line."""
        if not self.held_out:
            return super().told()
        return f"{super().told()}: {self.held_out} {HELD_OUT}"


class Promoting(OfBatch, kind="promoting"):
    """The result goes into production: from here on it can be neither refused nor withdrawn."""

    transition = Transition(after(S.AUDITED), S.PROMOTING, on_hold=True)


class Promoted(OfBatch, kind="promoted"):
    """The model in production has changed."""

    transition = Transition(after(S.AUDITED, S.PROMOTING), S.PROMOTED, on_hold=True)
    common = Promotion


class Covered(OfBatch, kind="covered"):
    """Another batch has erased these of its samples."""

    transition = Transition(OPEN, None, on_hold=True)

    samples: tuple[Digest, ...] = ()
    content: Digests = ()

    def told(self) -> str:
        """Say it in one line."""
        return f"{len(self.samples)} of its samples were erased with {self.batch}"


class Purging(OfBatch, kind="purging"):
    """The purge begins: from here on nothing can be held, refused or withdrawn."""

    transition = Transition(after(S.PROMOTED), S.PURGING)


class Purged(OfBatch, kind="purged"):
    """Its samples have left the data and the stores."""

    transition = Transition(after(S.PROMOTED, S.PURGING), S.PURGED)
    common = Purge


class Closed(OfBatch, kind="closed"):
    """It is done. ``certificate``: SHA-256 of the certificate's file."""

    transition = Transition(after(S.PURGED), S.CLOSED, on_hold=True)

    certificate: str | None = None

    def told(self) -> str:
        """Say it in one line."""
        return "certificate written"

    def links(self) -> dict[str, str]:
        """Return every name by which it is found in another store."""
        return {"batch": self.batch} | ({"certificate": self.certificate} if self.certificate else {})


class Failed(OfBatch, kind="failed"):
    """A step of its batch failed."""

    transition = Transition(
        after(S.BATCHED, S.RUNNING, S.AUDITED, S.PROMOTED, S.PURGING, S.PURGED), S.FAILED, on_hold=True
    )

    code: Code = Code.UNKNOWN

    def told(self) -> str:
        """Say it in one line."""
        return f"{self.batch}: {self.code}"


# of the model in production and of the ledger itself


class Stated(BaseModel):
    """What is known of weights that were not trained here, and what a person states of them.

    ``file``: SHA-256 of the file that they came in. ``by``: who states what follows, which nobody can verify.
    ``trained_on``: ``all`` of the training samples that there were, or a ``list`` of them; ``samples``: how
    many, ``of``: how many there were. ``val``, ``test``: how many of these parts are on the list, too.
    """

    model_config = ConfigDict(frozen=True)

    file: Digest
    by: str
    trained_on: Literal["all", "list"]
    samples: int
    of: int
    val: int = 0
    test: int = 0
    note: str | None = None


class Adopted(Fact, kind="adopted"):
    """A model that no batch has made is in production: that of stage ``train``, or one of a file of weights.

    ``val_acc``: its accuracy on val samples that it has not seen. ``stated``: of a file, what is known of it.
    ``replaces``: the model that was in production before.
    """

    version: str | None = None
    weights: str
    commit: str | None = None
    val_acc: float | None = None
    stated: Stated | None = None
    replaces: Base | None = None

    @property
    def base(self) -> Base:
        """The model that it puts into production."""
        return Base(version=self.version, weights=self.weights)

    def told(self) -> str:
        """Say it in one line."""
        if self.stated is None:
            return f"version {self.version}"
        return (
            f"version {self.version}, of a file of weights, by {self.stated.by}, who states that it was "
            f"trained on {self.stated.samples} of {self.stated.of} training samples"
        )

    def links(self) -> dict[str, str]:
        """Return every name by which it is found in another store."""
        found = self.base.links() | ({"commit": self.commit} if self.commit else {})
        found |= {"SHA-256 of the file": self.stated.file} if self.stated else {}
        return found | (self.replaces.links("replaced ") if self.replaces else {})


class RolledBack(Decision, kind="rolled-back"):
    """An earlier model is in production again."""

    version: str | None = None
    weights: str

    @property
    def base(self) -> Base:
        """The model that it puts into production."""
        return Base(version=self.version, weights=self.weights)

    def links(self) -> dict[str, str]:
        """Return every name by which it is found in another store."""
        return self.base.links()


class CohortAudited(Fact, kind="cohort-audited"):
    """The model in production was audited over past requests; ``alarms`` counts what a person must see."""

    verdict: str
    count: int = 0
    alarms: Any = 0
    version: str | None = None
    weights: str = ""
    auc: tuple[float, ...] | None = None

    def told(self) -> str:
        """Say it in one line."""
        return f"{self.verdict}, {self.count} sample(s)"


class CohortPooled(Fact, kind="cohort-pooled"):
    """Sums over the placements of the members of small batches together; ``of``: SHA-256 of the batches."""

    pooled: Mapping[str, float]
    batches: int
    of: str

    def told(self) -> str:
        """Say it in one line."""
        return f"{self.pooled.get('count', 0):.0f} samples of {self.batches} batches"


class HoldPlaced(Decision, kind="hold-placed"):
    """A standing hold: requests of this requester, or for these samples, are held, whenever they come.

    ``samples``: digests of ids under the hold's own key.
    """

    requester: str | None = None
    samples: tuple[Digest, ...] = ()

    def told(self) -> str:
        """Say it in one line."""
        what = f"requester {self.requester}" if self.requester else f"{len(self.samples)} sample(s)"
        return f"{what}, {super().told()}"


class HoldLifted(Decision, kind="hold-lifted"):
    """A standing hold has ended."""


class KeyRecorded(Fact, kind="signing-key-recorded"):
    """The key that signs certificates from here on, at its first use."""

    key_id: str
    public_key: str

    def told(self) -> str:
        """Say it in one line."""
        return self.public_key


class KeyRotated(Decision, kind="signing-key-rotated"):
    """Another key signs certificates from here on.

    ``compromised``: what the old one signed is not to be trusted.
    """

    key_id: str
    public_key: str
    replaces: str
    compromised: bool = False

    def told(self) -> str:
        """Say it in one line."""
        return f"{self.public_key}, {super().told()}"


class Settled(Decision, kind="settled"):
    """Where requests of this ledger are carried out: one checkout of one project.

    ``checkout``: its own random name; ``host``: the machine's; ``commit``: the project's at that time.
    """

    checkout: str
    host: str = ""
    commit: str | None = None

    def told(self) -> str:
        """Say it in one line."""
        return f"checkout {self.checkout} on {self.host}"


BASES = ("adopted", "batch-promoted", "promoted", "rolled-back")
"""Kinds of events that put a model into production; ``promoted`` in ledgers of before."""

TRANSITIONS: dict[str, Transition] = {
    kind: fact.transition for kind, fact in KINDS.items() if fact.transition is not None
}
"""Every kind of event in a request's life."""

_COMMON: dict[str, frozenset[str]] = {
    kind: frozenset(fact.common.model_fields)
    for kind, fact in KINDS.items()
    if issubclass(fact, OfBatch) and fact.common is not None
}


def read(kind: str, body: Mapping[str, Any]) -> Fact:
    """Return what an event tells, whichever version of the program wrote it.

    Raises
    ------
    pydantic.ValidationError
        If it lacks what its kind must tell.
    """
    fact = KINDS.get(kind, Unknown)
    common = _COMMON.get(kind)
    if common and not common.isdisjoint(body):  # a ledger of before told it in each request's event
        return fact.model_validate({**body, "told_here": body})
    return fact.model_validate(body)


@functools.cache
def described() -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    """Kind, meaning and fields of every event, for the table in ``docs/events.md``."""
    return tuple(
        (
            kind,
            (fact.__doc__ or "").split("\n")[0],
            tuple(name for name in fact.model_fields if name != "told_here"),
        )
        for kind, fact in KINDS.items()
    )


Guarantee = Literal["exact", "approximate", "covered", "never-learned"]

GUARANTEES: dict[str, Guarantee] = {
    EXACT: "exact",
    NOTHING_LEFT: "covered",
    NOTHING_LEARNED: "never-learned",
}
"""What a method promises; all others are ``approximate``."""
