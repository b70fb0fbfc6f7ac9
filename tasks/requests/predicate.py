"""What a certificate says: an in-toto Statement v1 about the model's weights, and our own predicate, erasure.

These classes are the only description of it: the JSON Schema and the table in the documentation are made from
them (:mod:`tasks.requests.predicate_docs`), a certificate is built as one of them, and whoever verifies one
reads it as one of them: nothing may be missing, and nothing more may stand there. ``null`` stands for what is
not recorded.

A certificate is about the samples of its requester alone. Of a batch it says what was decided, and figures
only if they are of at least :data:`SHARED` samples.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from tasks.requests.excerpt import EventRecord

StatementType = Literal["https://in-toto.io/Statement/v1"]
PredicateType = Literal["urn:uuid:c35e426e-56e2-4b97-8b10-a90af295c33c#expunge-erasure-v1"]
"""in-toto wants a URI (RFC 3986) that nobody else uses, with a version. ``urn:expunge:`` is nobody's, since
RFC 8141 has name spaces registered, and a domain can be lost; a random UUID is ours by construction. A change
of what :func:`~tasks.requests.certificate.build` makes of the same facts needs a new version."""

PAYLOAD_TYPE = "application/vnd.in-toto+json"
"""What the envelope says that its payload is."""

SHARED = 20
"""Fewest samples of which figures are given: figures of fewer are figures of persons."""

NO_FIGURES = f"Not given: figures are given only if they are of at least {SHARED} samples."
FIGURES_OF_BATCH = "Of all samples that were erased together, which are not of this request alone."

KINDS = {
    "id": "keyed digest (HMAC-SHA-256) of the sample's id",
    "path": "keyed digest (HMAC-SHA-256) of the place it was read from",
    "index": "keyed digest (HMAC-SHA-256) of its row in the source's training part",
    "pixels": "keyed digest (HMAC-SHA-256) of a digest of its pixels",
    "picture": "keyed digest (HMAC-SHA-256) of a digest of its picture, however it is stored",
    "file": "keyed digest (HMAC-SHA-256) of a digest of its file",
}
"""What the digests of a sample are digests of."""

STATEMENT = (
    "This certificate records what was done to carry out the request: the samples that it names by digest "
    "were taken out of the data set, the model in use is now the one named as the one after, and each store "
    "listed under purge was dealt with as stated there; a store that is not listed was not dealt with. It is "
    "the account of whoever signed it. It is no proof that the model has forgotten the samples."
)

GUARANTEES = {
    "exact": (
        "Exact: the model was trained from scratch on a data set without the samples; that holds by "
        "construction, if code and data are those that the digests name."
    ),
    "approximate": (
        "Approximate: the method changed the model that had been trained on the samples; only the audit's "
        "statistics speak for it, and nothing is guaranteed."
    ),
    "covered": (
        "As other batches gave it: they had erased every sample before, so this one did not change the "
        "model; what they guarantee stands in the certificates of their requests."
    ),
    "never-learned": (
        "Never learned: the samples are test or validation images, on which no model in production was "
        "trained. "
        "So nothing was unlearned, and the model stayed as it was."
    ),
}
"""What each guarantee means, as a sentence."""


STATEMENT_TYPE: StatementType = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: PredicateType = "urn:uuid:c35e426e-56e2-4b97-8b10-a90af295c33c#expunge-erasure-v1"


class Guarantee(StrEnum):
    """What a method promises."""

    EXACT = "exact"
    APPROXIMATE = "approximate"
    COVERED = "covered"
    NEVER_LEARNED = "never-learned"


class Outcome(StrEnum):
    """What became of the copies in a store."""

    DELETED = "deleted"
    NOTHING_FOUND = "nothing-found"
    MADE_AGAIN = "made-again"
    KEPT_SHARED = "kept-shared"
    KEPT_REPORTED = "kept-reported"
    LEFT_BEHIND = "left-behind"
    NAMED_ALIKE = "named-alike"
    NOT_OPENED = "not-opened"
    SEALED = "sealed"
    NOT_SEARCHED = "not-searched"
    UNREACHABLE = "unreachable"
    CANNOT_BE_REACHED = "cannot-be-reached"
    NOT_APPLICABLE = "not-applicable"


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Time = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")]
Name = Annotated[str, Field(min_length=1, max_length=256)]
Text = Annotated[str, Field(max_length=4096)]
Count = Annotated[int, Field(ge=0)]
Number = Annotated[int, Field(ge=1, lt=2**63)]
Scalar = str | int | float | bool | None
Digests = dict[Name, Sha256]


class Part(BaseModel):
    """A part of a certificate."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class RequestPart(Part):
    """What was asked, and when."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    """Id of the request."""
    requester: Text | None
    """The opaque reference that the requester was given with."""
    ground: Name | None
    """Legal ground."""
    received_at: Time | None
    """When it reached the controller."""
    due_at: Time | None
    """When it had to be done, after any extension."""
    extended: bool
    """Whether a person moved the due date."""
    purged_at: Time
    """When its samples had left the data and the stores."""


class Decision(Part):
    """What a person decided."""

    kind: Name
    """What was decided: the kind of the event."""
    at: Time
    """When."""
    by: Text | None
    """Who."""
    reason: Text | None
    """Why, in that person's words."""
    due_at: Time | None
    """The new due date, if it was moved."""


class Covered(Part):
    """Samples that another batch erased."""

    batch: Name
    """Id of that batch."""
    samples: tuple[Sha256, ...]
    """Keyed digests of their ids."""


class Samples(Part):
    """The requester's samples, by keyed digests that mean nothing without the request's key."""

    count: Count | None
    """How many."""
    digests: tuple[Digests, ...] | None
    """For each sample, digests by kind of name."""
    content: tuple[Digests, ...] | None
    """Digests of what the samples look like, by kind."""
    kinds: dict[Name, Text]
    """What each kind is a digest of."""
    already_erased_by: tuple[Name, ...]
    """Earlier requests that had erased what else was named."""
    covered_by: tuple[Covered, ...]
    """Other batches that erased some of the samples."""
    held_out: Annotated[int, Field(ge=1)] | None = None
    """How many are test or validation images that no model in production was trained on; left out if none."""


class Figure(Part):
    """A figure, and the ends of its interval if it has one."""

    value: float
    """The figure."""
    low: float | None
    """Lower end of its interval."""
    high: float | None
    """Upper end of its interval."""


class Attempt(Part):
    """A method that was tried, what was found and what was decided."""

    number: Number
    """1 for the first method of the chain."""
    method: Name
    """The method's name."""
    guarantee: Guarantee
    """What it promises."""
    started_at: Time | None
    """When it began."""
    audited_at: Time | None
    """When its result had been attacked."""
    weights: Sha256 | None
    """SHA-256 of the tensors of its result."""
    verdict: Name | None
    """What the audit found, as a word."""
    decision: Name | None
    """What followed, as a word."""
    samples: Count | None
    """How many samples the figures are of; null if none are given."""
    figures: dict[Name, Figure]
    """What the audit measured, by name."""
    note: Text
    """What the figures are of, or why there are none."""

    @model_validator(mode="after")
    def _nobody_is_told_of(self) -> Attempt:
        if self.figures and (self.samples or 0) < SHARED:
            raise ValueError(f"figures of fewer than {SHARED} samples")
        return self


class Model(Part):
    """A model that was or is in production."""

    version: Name | None
    """Version in the registry."""
    weights: Sha256 | None
    """SHA-256 of its tensors."""


class Head(Part):
    """An event that the whole ledger up to it can be checked against."""

    seq: Number
    """Its number."""
    hash: Sha256
    """Its hash."""


class TrainedOn(StrEnum):
    """What weights that were not trained here are stated to have been trained on."""

    ALL = "all"
    LIST = "list"


class Origin(Part):
    """Weights that were not trained here, and that the model before is, or was made of."""

    weights: Sha256
    """SHA-256 of their tensors."""
    file: Sha256
    """SHA-256 of the file that they were adopted from."""
    adopted_at: Time
    """When they were adopted."""
    by: Text
    """Who adopted them, and states what they were trained on."""
    trained_on: TrainedOn
    """What they were trained on, as stated: all training samples that there were, or a list of samples."""
    samples: Count
    """How many training samples that is."""
    of: Count
    """How many training samples there were."""
    val: Count
    """How many validation samples are on the list, too."""
    test: Count
    """How many test samples are on the list, too."""
    note: Text | None
    """What else is stated of them, in that person's words."""
    event: Head
    """The event of the ledger that tells of the adoption."""
    unknown: Text
    """What is not known of their training, as a sentence, and of which model that holds."""


class ModelPart(Part):
    """The model in production before and after, and what is promised of the latter."""

    before: Model
    """The model that the erasure started from."""
    after: Model
    """The model in production since."""
    method: Name
    """The method that made it."""
    guarantee: Guarantee
    """What the method promises."""
    meaning: Text
    """What that means, as a sentence."""
    origin: Origin | None = None
    """Only where the model before is, or was made of, weights that were not trained here."""


class DataPart(Part):
    """Digests of the lists of the data set."""

    before: Digests
    """SHA-256 by name of file, before."""
    after: Digests
    """SHA-256 by name of file, after."""


class CodePart(Part):
    """What it was made with."""

    started: Name | None
    """Commit at the start."""
    promoted: Name | None
    """Commit that put the model into production."""
    purged: Name | None
    """Commit of the purge."""
    lock: Sha256 | None
    """SHA-256 of dvc.lock at promotion."""
    software: Name | None
    """Version of expunge that carried out the request, as it was recorded."""
    environment: dict[Name, Scalar]
    """Versions of what ran and the processor, as the audit recorded them."""


class Line(Part):
    """What became of the copies in one store."""

    store: Name
    """The store's name."""
    outcome: Outcome | None
    """What became of them."""
    count: Count | None
    """How many things this line is about."""
    scope: Text
    """What was searched or dealt with, and how."""
    detail: Text
    """A sentence more, the same for every sample."""


class Event(Part):
    """An event of the request in the ledger."""

    seq: Number
    """Its number."""
    at: Time
    """When it was written."""
    kind: Name
    """What happened."""
    body: dict[str, JsonValue] | None
    """What it tells; null if that is not of this request alone."""
    previous: Sha256
    """Hash of the event before it."""
    hash: Sha256
    """Its hash: SHA-256 of the canonical JSON of seq, at, kind, request, body, previous."""


class LedgerPart(Part):
    """The request's events, and the one that the certificate was made at."""

    events: Annotated[tuple[Event, ...], Field(min_length=1)]
    """Oldest first; the last is the purge."""
    head: Head
    """The last of them."""


class Erasure(Part):
    """What was done to carry out a request of erasure."""

    request: RequestPart
    decisions: tuple[Decision, ...]
    samples: Samples
    attempts: tuple[Attempt, ...]
    model: ModelPart
    data: DataPart
    code: CodePart
    purge: tuple[Line, ...] | None
    ledger: LedgerPart
    statement: Text
    """What the certificate records, and that it is no proof."""

    def events(self) -> list[EventRecord]:
        """Return the events as the ledger has them."""
        return [
            EventRecord(each.seq, each.at, each.kind, self.request.id, each.body, each.previous, each.hash)
            for each in self.ledger.events
        ]


class DigestSet(Part):
    """Digests of a subject, by algorithm."""

    sha256: Sha256
    """Of ``weights``, SHA-256 over names, types, shapes and bytes of the tensors, in order of name."""


class Subject(Part):
    """What the statement is about."""

    name: Name
    """``weights``: the tensors of the model in production; ``file``: the file that held them."""
    digest: DigestSet
    uri: Name | None = None
    """Where a registry has it."""


class Statement(Part):
    """An in-toto Statement v1: the payload of the envelope."""

    model_config = ConfigDict(title="Certificate of a request of erasure")

    type: StatementType = Field(alias="_type")
    """in-toto's type of statement."""
    subject: Annotated[tuple[Subject, ...], Field(min_length=1, max_length=2)]
    """The model that resulted."""
    predicate_type: PredicateType = Field(alias="predicateType")
    """The kind and version of the predicate."""
    predicate: Erasure
    """What is said of it."""

    def as_json(self) -> dict[str, Any]:
        """Return JSON values; ``uri``, ``held_out`` and ``origin`` only if there are such."""
        value: dict[str, Any] = self.model_dump(mode="json", by_alias=True)
        if self.predicate.model.origin is None:
            del value["predicate"]["model"]["origin"]
        for subject in value["subject"]:
            if subject["uri"] is None:
                del subject["uri"]
        if value["predicate"]["samples"]["held_out"] is None:
            del value["predicate"]["samples"]["held_out"]
        return value
