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

Beside the first three stand ``…/low`` and ``…/high``, the ends of their intervals.
``data/audit/verdict.json`` holds the verdict, and the digests of the weights that it is about.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np

from tasks.attacks import ATTACKS, Samples
from tasks.attacks._intervals import Estimate, auc, paired_difference
from tasks.attacks._metrics import Metrics, flat
from tasks.attacks._selection import pair_up
from tasks.attacks._utility import hits
from tasks.attacks._verdict import judge
from tasks.datasets._manifest import Manifest
from tasks.errors import RESTORE, ExpungeError
from tasks.files import read_json, write_json
from tasks.logits import read_logits
from tasks.params import Params

FOLDER = Path("data/audit")
ORIGINAL, RESULT = Path("data/train"), Path("data/finetune")
READS = (
    "data/split/manifest.csv",
    *(f"{folder}/{file}" for folder in (ORIGINAL, RESULT) for file in ("logits.npy", "weights.json")),
)


def audit(params: Params) -> Metrics:
    """Attack the result and the original on the same samples; write metrics and verdict.

    Members are forget samples, non-members val samples, equally many of each class.

    Raises
    ------
    ExpungeError
        If an input is missing or damaged, or forget and val share no class. Nothing is written then.
    """
    section = params.mia
    manifest = Manifest.read(Path("data/split/manifest.csv"))
    forget, val = manifest.indices("forget"), manifest.indices("val")
    if not forget.size:
        raise ExpungeError(
            "data/split/manifest.csv has no sample with role forget; there is nothing to audit"
        )
    labels = manifest.labels
    compared, is_member = pair_up(labels, forget, val, section.seed, against="val")
    count = int(is_member.sum())
    logits = {folder: read_logits(folder / "logits.npy", labels) for folder in (ORIGINAL, RESULT)}
    areas = {
        folder: auc(
            ATTACKS.get("loss")(Samples(rows[compared], labels[compared])), is_member, section.confidence
        )
        for folder, rows in logits.items()
    }
    right = {folder: hits(rows[val], labels[val]).astype(np.float64) for folder, rows in logits.items()}
    verdict = judge(
        _from_half(areas[RESULT]),
        _from_half(areas[ORIGINAL]),
        section.margin,
        section.confidence,
        count,
        reference="one half",
    )
    metrics = {
        **flat("audit/auc", areas[RESULT]),
        **flat("audit/original_auc", areas[ORIGINAL]),
        **flat("audit/val_acc_loss", paired_difference(right[ORIGINAL] - right[RESULT], section.confidence)),
        "audit/count": float(count),
    }
    digests = {"original": _digest(ORIGINAL), "result": _digest(RESULT)}
    write_json(FOLDER / "verdict.json", asdict(verdict) | {"weights": digests})
    write_json(FOLDER / "metrics.json", metrics)
    return metrics


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

    Stage("audit", lambda params, _: audit(params), READS, ("mia",)).main()
