"""The model in production, audited again: whether it is the one, what is back, what the cohort says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.core.errors import ExpungeError, PlainError, plainly
from tasks.core.params import Params
from tasks.metrics.intervals import Estimate
from tasks.metrics.pooled import Moments, pooled_auc
from tasks.metrics.verdict import FEWEST, place
from tasks.processing import checkout, production
from tasks.requests import events as facts
from tasks.requests.commits import anchors_in_git
from tasks.requests.desk import Desk
from tasks.requests.events import Base
from tasks.requests.high_water import list_of, read_checked
from tasks.requests.production import in_production, models
from tasks.samples.manifest import load_samples
from tasks.samples.pictures import read_pictures
from tasks.samples.table import SPLIT


@dataclass(frozen=True, slots=True)
class CohortAudit:
    """What was found, and whether anything changed for the worse.

    Attributes
    ----------
    verdict
        ``indistinguishable``, ``remembers``, ``over-forgotten`` or ``inconclusive``.
    text
        What that rests on.
    alarms
        What a person must look at.
    """

    verdict: str
    text: str
    alarms: tuple[str, ...]


def audit_production(desk: Desk, params: Params, root: Path) -> CohortAudit:
    """Audit the model in production over the cohort of all requests whose result was promoted.

    The samples are gone, so what was kept of each audit counts: sums over its members' placements among the
    held-out samples, of batches that are large enough to tell nothing of a single one.

    Raises
    ------
    ExpungeError
        If the ledger is not what it was, its requests are carried out elsewhere, or nothing is in production.
    """
    checkout.refuse_elsewhere(desk, root)
    with plainly():
        desk.check_whole(anchors_in_git(root) or [])
    current = in_production(desk.ledger)
    if current is None:
        raise PlainError("nothing is in production yet; there is nothing to audit")
    groups = _groups(desk)
    estimate = _estimate(groups, params)
    count = sum(group.count for group in groups)
    verdict, text = _judge(estimate, count, len(groups), params.mia.margin)
    alarms = [*_other_weights(current.weights), *_alias(current, params, root), *_returned(desk, params)]
    last = desk.ledger.last((facts.CohortAudited.kind,))
    before = last.fact.verdict if last and isinstance(last.fact, facts.CohortAudited) else None
    if before is not None and before != verdict:
        alarms.append(f"the cohort's verdict was {before} and is {verdict} now")
    if verdict in {"remembers", "over-forgotten"} and before is None:
        alarms.append(f"the cohort's verdict is {verdict}")
    desk.record(
        facts.CohortAudited(
            verdict=verdict,
            count=count,
            alarms=len(alarms),
            version=current.version,
            weights=current.weights,
            auc=tuple(estimate) if estimate else None,
        )
    )
    return CohortAudit(verdict, text, tuple(alarms))


TOLD = (facts.Audit, facts.Promotion, facts.CohortPooled, facts.Audited, facts.Promoted)


def _groups(desk: Desk) -> list[Moments]:
    """What was kept of the members of each batch whose result was promoted: sums, never single scores."""
    found: dict[str, Moments] = {}
    promoted: set[str] = set()
    kinds = [fact.kind for fact in TOLD]
    for event in desk.ledger.events(kinds=kinds):
        match event.fact:
            case facts.Audit(pooled=pooled) if pooled:
                found[event.request or ""] = Moments.of_sums(pooled)
            case facts.CohortPooled(pooled=pooled):
                found[event.hash] = Moments.of_sums(pooled)
                promoted.add(event.hash)
            case facts.Audited(batch=batch, told_here=told) if told.get("placements"):  # a ledger of before
                placements = [float(value) for value in told["placements"]]
                found[batch] = Moments.of_placements(placements, int(told["figures"]["audit/count"]))
            case facts.Promotion():
                promoted.add(event.request or "")
            case facts.Promoted(batch=batch):
                promoted.add(batch)
    return [moments for batch, moments in found.items() if batch in promoted]


def _estimate(groups: Sequence[Moments], params: Params) -> Estimate | None:
    if sum(group.count for group in groups) < 2:
        return None
    return pooled_auc(groups, params.mia.confidence)


def _judge(estimate: Estimate | None, count: int, batches: int, margin: float) -> tuple[str, str]:
    if estimate is None or count < FEWEST:
        return "inconclusive", f"{count} samples of {batches} batches support no verdict; {FEWEST} are needed"
    distance = Estimate(*(end - 0.5 for end in estimate))
    found = f"AUC − 0.5 of {count} samples of {batches} batches: {distance.value:+.3f} [{distance.low:+.3f}, "
    return place(distance, margin), f"{found}{distance.high:+.3f}], margin ±{margin:g}"


def _other_weights(expected: str) -> list[str]:
    try:
        production.check_base(expected)
    except ExpungeError as error:
        return [str(error)]
    return []


def _alias(current: Base, params: Params, root: Path) -> list[str]:
    registry = models(params, root)
    return list(production.other_alias(registry, current)) if registry else []


def _returned(desk: Desk, params: Params) -> list[str]:
    """Whether samples that were erased are in the data again."""
    try:
        listed = list_of(params.split)
    except ExpungeError as error:
        return [str(error)]
    loaded = load_samples(mmap=True)
    pictures = read_pictures(SPLIT, len(loaded.samples))
    erased = read_checked(listed, desk.keys)
    kept = erased.kept(loaded.samples.sample_ids, loaded.images, pictures, desk.keys)
    back = len(loaded.samples.sample_ids) - len(kept)
    return [f"{back} erased sample(s) are in data/split again; run: dvc repro split"] if back else []
