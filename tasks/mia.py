"""Stage ``mia``: attack the four models the way an adversary would, and compare them.

``data/mia/models.json`` is flat. ``<model>/…`` is about one of ``original``, ``unlearned``,
``finetuned`` and ``retrained``; keys without a model are about the result, which is ``finetuned``.
Beside most figures stand ``…/low`` and ``…/high``, the ends of their intervals.
``data/mia/metrics.json`` is the part of it that DVC and MLflow show, see :func:`headline`.

============================  =========================================================================
``<role>/acc``                accuracy on ``retain``, ``forget``, ``val`` and ``test``
``mia/acc``, ``mia/auc``      the loss attack's accuracy and AUC
``mia/auc_two_sided``         the larger of AUC and 1 − AUC: for an attacker who may turn the guess
``mia/auc_difference``        AUC minus the retrained model's, paired (not for ``retrained``)
``mia/tpr_at_<r>``            true positive rate at a false positive rate r of 0.01 and 0.001
``mia/tpr_at_<r>/supported``  1 with 10 / r non-members or more, else 0 (result only, as those below)
``time/seconds``              what it took; for ``finetuned`` unlearning and fine-tuning together
``time/ratio``                seconds of retraining for each of the result's
``gap``                       average gap
``tow``, ``tow_mia``          tug-of-war; the same with MIA accuracy for forget accuracy
``nomus``                     normalised machine unlearning score
``forget/count``              forget samples in all
``mia/count``                 forget samples attacked, and as many test samples
============================  =========================================================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.attacks import Samples, attack
from tasks.core.errors import RESTORE, ExpungeError
from tasks.core.files import read_json, write_json, write_whole
from tasks.core.params import Mia, Params
from tasks.logits import read_logits
from tasks.metrics.attacker import guess
from tasks.metrics.histogram import LossCounts, loss_counts
from tasks.metrics.intervals import auc_difference
from tasks.metrics.roc import Curve, roc, supports, thinned
from tasks.metrics.selection import pair_up
from tasks.metrics.summary import (
    RATES,
    Attacked,
    Metrics,
    by_class,
    flat,
    forgotten_classes,
    of_model,
    of_pair,
)
from tasks.metrics.utility import hits
from tasks.metrics.verdict import Verdict, judge
from tasks.reporting import figures
from tasks.reporting.tables import write_table
from tasks.samples.manifest import Manifest

FOLDER = Path("data/mia")
MODELS = {
    "original": Path("data/train"),
    "unlearned": Path("data/unlearn"),
    "finetuned": Path("data/finetune"),
    "retrained": Path("data/retrain"),
}
RESULT, REFERENCE = "finetuned", "retrained"
WITH_INTERVAL = ("mia/auc", "mia/auc_difference")
OF_EACH_MODEL = ("retain/acc", "forget/acc", "val/acc", "test/acc", "mia/acc", "mia/auc", "time/seconds")
READS = (
    "data/split/manifest.csv",
    *(f"{folder}/{file}" for folder in MODELS.values() for file in ("logits.npy", "metrics.json")),
)


def mia(params: Params) -> Metrics:
    """Attack all four models on the same samples; write metrics, verdict, tables and pictures.

    Members are forget samples, non-members test samples, equally many of each class.

    Raises
    ------
    ExpungeError
        If an input is missing or damaged, or the forget and the test set share no class. Nothing is
        written then.
    """
    section = params.mia
    manifest = Manifest.read(Path("data/split/manifest.csv"))
    rows = {role: manifest.indices(role) for role in Manifest.groups}
    _refuse_empty(rows)
    labels = manifest.labels
    compared, is_member = pair_up(labels, rows["forget"], rows["test"], section.seed)
    count = int(is_member.sum())
    attacked = {
        name: _attack(folder, labels, compared, is_member, section) for name, folder in MODELS.items()
    }
    models = {name: model for name, (model, _) in attacked.items()}
    losses = {name: found for name, (_, found) in attacked.items()}
    differences = {
        name: auc_difference(model.scores, models[REFERENCE].scores, is_member, section.confidence)
        for name, model in models.items()
        if name != REFERENCE
    }
    each = {name: of_model(model, rows, is_member, section.confidence) for name, model in models.items()}
    forgotten = forgotten_classes(labels, rows)
    for name, model in models.items():
        each[name] |= by_class(model, labels, rows["test"], forgotten, section.confidence)
    for name, difference in differences.items():
        each[name] |= flat("mia/auc_difference", difference)
    metrics = {
        **each[RESULT],
        **{f"mia/tpr_at_{rate}/supported": float(supports(rate, count)) for rate in RATES},
        **of_pair(models[RESULT], models[REFERENCE], rows, section.confidence),
        "forget/count": float(len(rows["forget"])),
        "mia/count": float(count),
        **{f"{name}/{key}": value for name, found in each.items() for key, value in found.items()},
    }
    verdict = judge(differences[RESULT], differences["original"], section.margin, section.confidence, count)
    _write(metrics, verdict, {name: model.scores for name, model in models.items()}, losses, is_member)
    return metrics


def headline(metrics: Metrics) -> Metrics:
    """What is compared between runs: the result's figures, intervals where they matter most.

    Of the other models just the main figures, so that two runs fit side by side on a screen.
    """
    chosen = {key: value for key, value in metrics.items() if key.split("/")[0] not in MODELS}
    for key in tuple(chosen):
        figure, _, end = key.rpartition("/")
        if end in {"low", "high"} and figure not in WITH_INTERVAL:
            del chosen[key]
    others = [f"{model}/{key}" for model in MODELS if model != RESULT for key in OF_EACH_MODEL]
    return chosen | {key: metrics[key] for key in others}


def _refuse_empty(rows: Mapping[str, NDArray[np.int64]]) -> None:
    empty = [role for role, found in rows.items() if not found.size]
    if empty:
        raise ExpungeError(
            f"data/split/manifest.csv has no sample with role {' or '.join(empty)}; "
            "comparing the models needs all four roles: change split in params.yaml, then dvc repro"
        )


def _attack(
    folder: Path,
    labels: NDArray[np.int64],
    compared: NDArray[np.int64],
    is_member: NDArray[np.bool_],
    section: Mia,
) -> tuple[Attacked, NDArray[np.float64]]:
    """Return the model under attack, and its losses on the samples that are compared."""
    logits = read_logits(folder / "logits.npy", labels)
    samples = Samples(logits[compared], labels[compared])
    scores = attack(section.attack, samples)
    seconds = _read_seconds(folder)
    if folder == MODELS[RESULT]:
        seconds += _read_seconds(MODELS["unlearned"])
    model = Attacked(
        right=hits(logits, labels),
        scores=scores,
        guesses=guess(scores, is_member, section.folds, section.seed),
        seconds=seconds,
    )
    return model, -attack("loss", samples)


def _read_seconds(folder: Path) -> float:
    path = folder / "metrics.json"
    metrics = read_json(path)
    seconds = metrics.get("time/seconds") if isinstance(metrics, dict) else None
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not 0 <= seconds < math.inf:
        raise ExpungeError(f"{path}: time/seconds is {seconds!r}; it must be a number of seconds; {RESTORE}")
    return float(seconds)


def _write(
    metrics: Metrics,
    verdict: Verdict,
    scores: Mapping[str, NDArray[np.float64]],
    losses: Mapping[str, NDArray[np.float64]],
    is_member: NDArray[np.bool_],
) -> None:
    counts = loss_counts(losses, is_member)
    curves = {name: thinned(roc(score, is_member), 500) for name, score in scores.items()}
    pictures = {"losses": _draw_losses(counts, metrics), "roc": _draw_roc(curves)}
    for name, picture in pictures.items():
        with write_whole(FOLDER / f"{name}.png") as file:
            file.write(picture)
    write_table(
        FOLDER / "losses.csv",
        ("model", "bin_left", "bin_right", "forget", "test"),
        (
            (name, *row)
            for name, (edges, forget, test) in counts.items()
            for row in zip(edges[:-1], edges[1:], forget, test, strict=True)
        ),
    )
    write_table(
        FOLDER / "roc.csv",
        ("model", "fpr", "tpr"),
        ((name, *point) for name, curve in curves.items() for point in zip(*curve, strict=True)),
    )
    write_json(FOLDER / "verdict.json", asdict(verdict))
    write_json(FOLDER / "models.json", metrics)
    write_json(FOLDER / "metrics.json", headline(metrics))


def _draw_losses(counts: Mapping[str, LossCounts], metrics: Metrics) -> bytes:
    highest = max(max(sides.forget.max(), sides.test.max()) for sides in counts.values())
    panels = [
        figures.losses(sides, f"{figures.TITLES[name]}: AUC {metrics[f'{name}/mia/auc']:.3f}", float(highest))
        for name, sides in counts.items()
    ]
    return figures.png(panels, columns=2)


def _draw_roc(curves: Mapping[str, Curve]) -> bytes:
    return figures.png([figures.roc(curves, logarithmic=kind) for kind in (False, True)], columns=2)


if __name__ == "__main__":
    from tasks.stage import Stage

    Stage("mia", lambda params, _: headline(mia(params)), READS, ("mia",)).main()
