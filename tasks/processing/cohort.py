"""The model in production, audited again: whether it is the one, what is back, what the cohort says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.core.errors import ExpungeError
from tasks.core.params import Params
from tasks.metrics.intervals import Estimate
from tasks.metrics.pooled import pooled_auc
from tasks.metrics.verdict import FEWEST, place
from tasks.processing import production
from tasks.requests.desk import Desk, Request
from tasks.requests.high_water import read_checked
from tasks.requests.ledger import Event, latest
from tasks.requests.production import Production, in_production, models
from tasks.samples.manifest import SPLIT, load_samples
from tasks.samples.pictures import read_pictures

KIND = "cohort-audited"


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
    body
        Of the event that records it.
    """

    verdict: str
    text: str
    alarms: tuple[str, ...]
    body: dict[str, Any]


def audit_production(desk: Desk, params: Params, root: Path) -> CohortAudit:
    """Audit the model in production over the cohort of all requests whose result was promoted.

    The samples are gone, so what was kept of each audit counts: its members' placements among the held-out
    samples. Pooled they can support a verdict where each request alone was too small for one.

    Raises
    ------
    ExpungeError
        If nothing is in production.
    """
    events = desk.ledger.events()
    current = in_production(events)
    if current is None:
        raise ExpungeError("nothing is in production yet; there is nothing to audit")
    groups = _placements(desk.requests())
    estimate = _estimate(groups, params)
    count = sum(len(values) for values, _ in groups)
    verdict, text = _judge(estimate, count, len(groups), params.mia.margin)
    alarms = [*_other_weights(current.weights), *_alias(current, params, root), *_returned(desk, params)]
    before = next((event.body["verdict"] for event in reversed(events) if event.kind == KIND), None)
    if before is not None and before != verdict:
        alarms.append(f"the cohort's verdict was {before} and is {verdict} now")
    if verdict in {"remembers", "over-forgotten"} and before is None:
        alarms.append(f"the cohort's verdict is {verdict}")
    body = {"verdict": verdict, "text": text, "alarms": alarms, "count": count, **current.as_json()}
    if estimate:
        body["auc"] = list(estimate)
    with desk.ledger.writing() as writer:
        writer.append(KIND, **body)
    return CohortAudit(verdict, text, tuple(alarms), body)


def _placements(requests: Sequence[Request]) -> list[tuple[list[float], int]]:
    """Placements of the members of each batch that was promoted, and the number of non-members."""
    found: dict[str, Event] = {}
    for request in requests:
        kinds = [event.kind for event in request.events]
        audited = latest(request.events, "audited")
        if "promoted" in kinds and audited is not None and audited.body.get("placements"):
            found[audited.body["batch"]] = audited
    return [
        (list(event.body["placements"]), int(event.body["figures"]["audit/count"]))
        for event in found.values()
    ]


def _estimate(groups: Sequence[tuple[list[float], int]], params: Params) -> Estimate | None:
    if sum(len(values) for values, _ in groups) < 2:
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


def _alias(current: Production, params: Params, root: Path) -> list[str]:
    registry = models(params, root)
    return list(production.other_alias(registry, current)) if registry else []


def _returned(desk: Desk, params: Params) -> list[str]:
    """Whether samples that were erased are in the data again."""
    if params.split.erased is None:
        return ["params.yaml: split.erased is null, so nothing keeps erased samples out"]
    loaded = load_samples(mmap=True)
    pictures = read_pictures(SPLIT, len(loaded.samples))
    erased = read_checked(Path(params.split.erased), desk.keys)
    kept = erased.kept(loaded.samples.sample_ids, loaded.images, pictures, desk.keys)
    back = len(loaded.samples.sample_ids) - len(kept)
    return [f"{back} erased sample(s) are in data/split again; run: dvc repro split"] if back else []
