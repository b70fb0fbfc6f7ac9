"""Stage ``audit``: attack the result without a reference, to decide whether it may go into use.

Whoever acts on a request cannot wait for a model that is retrained for comparison, and must not look at
the test set. So the attack compares forget samples with validation samples, which no step of training
or unlearning has seen, and its AUC with one half. ``data/audit/metrics.json`` is flat:

======================  ================================================================================
``audit/auc``           the loss attack's AUC on the result, forget against val
``audit/original_auc``  the same on the model before unlearning
``audit/val_acc_loss``  accuracy on val before unlearning minus that of the result
``audit/count``         forget samples attacked, and as many val samples
======================  ================================================================================

Beside the first three stand ``…/low`` and ``…/high``, the ends of their intervals. The first two are left out
where fewer than :data:`~tasks.core.figures.SHARED` samples are attacked: they would tell of persons.
``data/audit/verdict.json`` holds the verdict and the digests of the weights that it is about.

Several small forget sets can be judged together (:mod:`tasks.metrics.pooled`), by the members' placements:
for each the share of val with a higher loss. They are scores of single samples, so no file keeps them;
:func:`moments` sums them up for whoever needs them.

With ``train.start: base`` the original was trained elsewhere, on another split. ``data/base/heldout.txt``
names what it has never seen: members are forget samples outside that list, non-members val samples in it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.attacks import Samples, attack
from tasks.core.errors import RESTORE, ExpungeError
from tasks.core.figures import LEFT_OUT, SHARED
from tasks.core.files import read_json, write_json
from tasks.core.params import Params
from tasks.logits import read_logits
from tasks.metrics.intervals import Estimate, auc, paired_difference
from tasks.metrics.pooled import Moments, placements
from tasks.metrics.selection import pair_up
from tasks.metrics.summary import Metrics, flat
from tasks.metrics.utility import hits
from tasks.metrics.verdict import Verdict, judge
from tasks.samples.manifest import Manifest

FOLDER = Path("data/audit")
ORIGINAL = Path("data/train")
HELDOUT = Path("data/base/heldout.txt")

log = logging.getLogger(__name__)

NOTHING_TO_COMPARE = Verdict(
    "inconclusive",
    "No validation sample is of the same class as a forget sample that the original was trained on.",
    "The attack compares samples of the same classes; whole classes leave nothing to compare with.",
)


NOTHING_UNSEEN = Verdict(
    "inconclusive",
    "The original has seen every validation sample.",
    "So there is no non-member to compare with, and the loss of accuracy cannot be measured.",
)

TOO_FEW = Verdict(
    "inconclusive",
    f"Fewer than {SHARED} forget samples support no verdict.",
    "The intervals cannot be relied on, and figures of so few would tell of persons, so none is kept.",
)


@dataclass(frozen=True, slots=True)
class Compared:
    """What is compared.

    Attributes
    ----------
    right
        Whether each val sample that the original has not seen is classified right, by the model's folder.
    scores
        The attack's, of members and non-members, by the model's folder.
    is_member
        Which of them are members; none where no class has both.
    """

    right: Mapping[Path, NDArray[np.float64]]
    scores: Mapping[Path, NDArray[np.float64]]
    is_member: NDArray[np.bool_]


def audit(params: Params) -> Metrics:
    """Attack the result and the original on the same samples; write metrics and verdict.

    Members are forget samples, non-members val samples, equally many of each class. Where no class has
    both, as when whole classes are forgotten, there is nothing to compare: the verdict is inconclusive. So
    it is where the original has seen all of val, as when a request named what had been held out.

    Raises
    ------
    ExpungeError
        If an input is missing or damaged. Nothing is written then.
    """
    section, result = params.mia, _result(params)
    found = _compare(params)
    count = int(found.is_member.sum())
    metrics: dict[str, float] = {}
    if found.right[result].size:
        lost = paired_difference(found.right[ORIGINAL] - found.right[result], section.confidence)
        metrics |= flat("audit/val_acc_loss", lost)
    if count >= SHARED:
        areas = {
            folder: auc(scores, found.is_member, section.confidence)
            for folder, scores in found.scores.items()
        }
        verdict = judge(
            _from_half(areas[result]),
            _from_half(areas[ORIGINAL]),
            section.margin,
            section.confidence,
            count,
            reference="one half",
        )
        metrics |= flat("audit/auc", areas[result]) | flat("audit/original_auc", areas[ORIGINAL])
    elif count:
        verdict = TOO_FEW
        log.info(LEFT_OUT)
    else:
        verdict = NOTHING_TO_COMPARE if found.right[result].size else NOTHING_UNSEEN
    metrics["audit/count"] = float(count)
    digests = {"original": _digest(ORIGINAL), "result": _digest(result)}
    write_json(FOLDER / "verdict.json", asdict(verdict) | {"weights": digests})
    write_json(FOLDER / "metrics.json", metrics)
    return metrics


def moments(params: Params) -> Moments:
    """Sum up the placements of the members that :func:`audit` attacks, in the result.

    Raises
    ------
    ExpungeError
        If an input is missing or damaged.
    """
    found = _compare(params)
    scores = found.scores[_result(params)]
    placed = placements(scores[found.is_member], scores[~found.is_member]) if found.is_member.any() else []
    return Moments.of_placements(placed, len(placed))  # as many non-members were drawn


def reads(params: Params) -> tuple[str, ...]:
    """Inputs: roles, the outputs of both models, and what the base never saw."""
    folders = (ORIGINAL, Path("data") / params.audit.result)
    files = tuple(f"{folder}/{file}" for folder in folders for file in ("logits.npy", "weights.json"))
    return ("data/split/manifest.csv", *files, str(HELDOUT.parent))


def _result(params: Params) -> Path:
    return Path("data") / params.audit.result


def _compare(params: Params) -> Compared:
    """Read the logits of both models, and attack both on the same samples."""
    manifest = Manifest.read(Path("data/split/manifest.csv"))
    labels = manifest.labels
    forget, val = _sides(manifest, from_base=params.train.start == "base")
    logits = {folder: read_logits(folder / "logits.npy", labels) for folder in (ORIGINAL, _result(params))}
    rows, is_member = np.array([], np.int64), np.array([], np.bool_)
    if np.intersect1d(labels[forget], labels[val]).size:
        rows, is_member = pair_up(labels, forget, val, params.mia.seed, against="val")
    name = params.mia.attack
    return Compared(
        {folder: hits(each[val], labels[val]).astype(np.float64) for folder, each in logits.items()},
        {folder: attack(name, Samples(each[rows], labels[rows])) for folder, each in logits.items()},
        is_member,
    )


def _sides(manifest: Manifest, *, from_base: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the members and of the non-members that may be compared."""
    sides = {role: manifest.indices(role) for role in ("forget", "val")}
    for role, rows in sides.items():
        if not rows.size:
            raise ExpungeError(
                f"data/split/manifest.csv has no sample with role {role}; there is nothing to audit"
            )
    forget, val = sides["forget"], sides["val"]
    if from_base and HELDOUT.exists():
        heldout = frozenset(HELDOUT.read_text(encoding="utf-8").splitlines())
        unseen = np.array([sample_id in heldout for sample_id in manifest.sample_ids])
        if heldout and not unseen.any():
            raise ExpungeError(f"{HELDOUT} names no sample of the split; the base was made for other data")
        forget, val = forget[~unseen[forget]], val[unseen[val]]
    return forget, val


def _from_half(area: Estimate) -> Estimate:
    return Estimate(*(end - 0.5 for end in area))


def _digest(folder: Path) -> str:
    path = folder / "weights.json"
    info = read_json(path)
    if not isinstance(info, dict) or not isinstance(info.get("sha256"), str):
        raise ExpungeError(f"{path} has no sha256; {RESTORE}")
    return str(info["sha256"])


if __name__ == "__main__":
    from tasks.stage import Stage

    Stage("audit", lambda params, _: audit(params), reads, ("mia", "audit")).main()
