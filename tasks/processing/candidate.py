"""Weights that may go into production: read, and held against the data set and what is stated of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tasks.core.errors import ExpungeError
from tasks.core.files import digest
from tasks.core.params import Params
from tasks.engine import device as devices
from tasks.engine.data import normalise
from tasks.engine.predict import accuracy, logits
from tasks.engine.weights import Info, code_of, create, require_logits, tensor_digest
from tasks.models import MODELS
from tasks.models._state_dict import Tensors, read
from tasks.processing import foreign_weights, outputs_check
from tasks.processing.repository import tracked_files
from tasks.processing.stated import TrainedOn, trained_on
from tasks.requests import events as facts
from tasks.requests.catalogue import Catalogue
from tasks.requests.desk import Desk
from tasks.requests.high_water import list_of, read_checked
from tasks.samples.manifest import Samples, SplitSamples, load_samples

LOOKED_AT = 2000
"""Images, at most, that the accuracy on what the weights were trained on is measured on."""

LONGEST_NOTE, LONGEST_NAME = 1000, 200


@dataclass(frozen=True, slots=True)
class Statement:
    """What a person states of a file of weights.

    Attributes
    ----------
    by
        Who.
    trained_on
        File of the ids of the samples that they were trained on; ``None``: all training samples.
    classes
        Names of the outputs, in their order; empty: they are in that of ``data/split/classes.json``.
    note
        What else is known of their training.
    """

    by: str
    trained_on: Path | None = None
    classes: tuple[str, ...] = ()
    note: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """Weights that have passed all checks.

    Attributes
    ----------
    model, info
        The model with the weights, and its description.
    stated
        What the record will tell of them.
    heldout
        Ids of the samples that they have not seen.
    figures
        Accuracies by part, and how many images they are of.
    notes, warnings
        What was done to fit them, and what a person should look at.
    """

    model: nn.Module
    info: Info
    stated: facts.Stated
    heldout: tuple[str, ...]
    figures: Mapping[str, float]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def val_acc(self) -> float | None:
        """Accuracy on validation samples that they have not seen."""
        return self.figures.get("val/acc")


def examine(path: Path, statement: Statement, params: Params, desk: Desk) -> Candidate:
    """Read weights and hold them, and what is stated of them, against the data set; nothing is changed.

    Raises
    ------
    ExpungeError
        If Git tracks a file that is named, the weights are no state dict of the model that ``params.yaml``
        names, what is stated cannot be, or the split is missing.
    """
    _check_words(statement)
    lying = [told for file in (path, statement.trained_on) if file for told in _about_where_it_lies(file)]
    split = load_samples(mmap=True)
    is_erased = read_checked(list_of(params.split), desk.keys).naming(desk.keys)
    on = trained_on(statement.trained_on, split.samples, is_erased)
    _refuse_own_tests(on, split.samples)
    options = params.train.options(MODELS.get(params.train.model).Options, where="params.yaml: train")
    _, channels, height, width = split.images.shape
    info = Info(
        sha256="", model=params.train.model, options=options.model_dump(mode="json"), channels=channels,
        size=(height, width), classes=split.classes, adopted=_sha256(path),
    )  # fmt: skip
    model = create(info, seed=0)
    what = f"{info.model} for {channels}×{height}×{width} images of {len(info.classes)} classes"
    found = foreign_weights.fit(read(path), model, path, what)
    model.load_state_dict(_in_order(found.tensors, model, statement.classes, split))
    require_logits(model, info)
    info = info.model_copy(update={"sha256": tensor_digest(model.state_dict()), **code_of(model, info.model)})
    figures, warned = _measured(model.eval(), split, on, params, path)
    samples = split.samples
    stated = facts.Stated(
        file=str(info.adopted), by=statement.by, trained_on="all" if on.is_all else "list",
        samples=on.count(samples, "train"), of=len(samples.indices("train")), val=on.count(samples, "val"),
        test=on.count(samples, "test"), note=statement.note,
    )  # fmt: skip
    return Candidate(
        model.cpu(), info, stated, tuple(on.unseen(samples, "train", "val", "test")), figures, found.notes,
        (*warned, *lying, *_about_what_is_not_held_out(stated, len(samples.indices("val")))),
    )  # fmt: skip


def _check_words(statement: Statement) -> None:
    for option, text, most in (
        ("--by", statement.by, LONGEST_NAME),
        ("--note", statement.note, LONGEST_NOTE),
    ):
        if text is not None and (len(text) > most or not text.isprintable() or not text.strip()):
            raise ExpungeError(f"{option}: one line of at most {most} characters would be right")


def _about_where_it_lies(file: Path) -> list[str]:
    """Warn of a file in the checkout: it knows what requests will erase.

    Raises
    ------
    ExpungeError
        If Git tracks it: its history would keep what the file knows.
    """
    root = Path.cwd()
    if not file.resolve().is_relative_to(root):
        return []
    if tracked_files(file):
        raise ExpungeError(
            f"{file} is tracked by Git, whose history would keep what requests erase; move it out of the "
            f"checkout, take it out of the history (git rm --cached {file}, and amend the commit that added "
            "it), and name it where it lies then"
        )
    return [f"{file} lies in the checkout: every purge will tell of it (exit status 3); move it elsewhere"]


def _refuse_own_tests(on: TrainedOn, samples: Samples) -> None:
    """Refuse weights that know test images of the source's own: none of them could be unlearned again."""
    catalogue = Catalogue.load()
    seen = [samples.sample_ids[row] for row in samples.indices("test") if on.seen[row]]
    if own := sum(map(catalogue.is_own_test, seen)):
        raise ExpungeError(
            f"--trained-on names {own} sample(s) of the source's own test part, on which no model is trained "
            "here, so that none could be unlearned again; move them to the training part, or leave out the "
            "test part (split.test_fraction takes one)"
        )


def _sha256(path: Path) -> str:
    try:
        return digest(path, "sha256")
    except OSError as error:
        raise ExpungeError(f"{path} cannot be read ({error.strerror}); name the file of weights") from None


def _in_order(tensors: Tensors, model: nn.Module, named: Sequence[str], split: SplitSamples) -> Tensors:
    """Return the tensors with their outputs in the order of the split's classes."""
    if not named or tuple(named) == split.classes:
        return tensors
    if sorted(named) != sorted(split.classes):
        others = sorted(set(named) ^ set(split.classes))
        which = f"{others[0]!r} is on one side only" if others else "a name stands twice"
        raise ExpungeError(
            f"--classes: {len(named)} names, and data/split/classes.json has {len(split.classes)}: {which}; "
            "name each class of that file once, in the order of the outputs"
        )
    order = [list(named).index(name) for name in split.classes]
    images = normalise(torch.from_numpy(split.images[:16].copy()))
    return foreign_weights.reorder(tensors, model, order, images)


def _measured(
    model: nn.Module, split: SplitSamples, on: TrainedOn, params: Params, path: Path
) -> tuple[dict[str, float], list[str]]:
    """Return accuracies on what the weights have seen and have not, and warnings."""
    model.to(devices.choose(params.runtime))
    samples = split.samples
    val, seen = samples.indices("val"), np.flatnonzero(on.seen)
    seen = seen[:: max(1, len(seen) // LOOKED_AT)][:LOOKED_AT]
    figures: dict[str, float] = {}
    scores = {name: _logits(model, split, rows) for name, rows in (("val", val), ("seen", seen))}
    if not all(np.isfinite(each).all() for each in scores.values()):
        raise ExpungeError(f"{path}: the model gives logits that are not finite on images of data/split")
    unseen = ~on.seen[val]
    if unseen.any():
        figures |= _figure("val", scores["val"][unseen], samples.labels[val][unseen])
    figures |= _figure("seen", scores["seen"], samples.labels[seen])
    return figures, list(outputs_check.warnings(scores["val"], samples.labels[val], split.classes))


def _logits(model: nn.Module, split: SplitSamples, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = logits(model, np.ascontiguousarray(split.images[rows]))
    return found


def _figure(name: str, rows: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, float]:
    return {f"{name}/acc": accuracy(rows, labels), f"{name}/count": float(len(labels))}


def _about_what_is_not_held_out(stated: facts.Stated, val: int) -> list[str]:
    found = []
    if stated.val and stated.val == val:
        found.append(
            "all validation samples were trained on: no audit can judge a request, so that each is carried "
            "out as requests.inconclusive says, and no loss of accuracy can be measured"
        )
    elif stated.val:
        found.append(f"{stated.val} of {val} validation samples were trained on: audits use the others only")
    if stated.test:
        found.append(f"{stated.test} test samples were trained on: figures on test are of images it has seen")
    return found
