"""Who is training, validation and test sample, and who is to be forgotten.

A sample's rank is the SHA-256 of a purpose, the seed and the sample's id. The rank knows nothing of the
other samples or of their order. In each class the samples of lowest rank are taken, exactly as many as
the fraction asks for. So exact, stratified counts are kept, and when samples leave, the others are still
taken in the same order: a role changes only where the smaller class needs fewer samples, or where a
taken sample has left and the next in rank follows. (A threshold on the hash instead of a count would keep
every single role, at the price of counts that vary at random.)
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.core.errors import ExpungeError
from tasks.core.params import Forget, Split
from tasks.samples.ids import named_rows
from tasks.samples.image_set import ImageSet

log = logging.getLogger(__name__)

WHERE = "params.yaml: split"


def rank(purpose: str, seed: int, sample_ids: Sequence[str]) -> NDArray[np.uint64]:
    """Rank of each sample: the first 64 bits of SHA-256 of ``purpose:seed:sample_id``.

    Ranks for different purposes or seeds are independent of each other.
    """
    digests = (hashlib.sha256(f"{purpose}:{seed}:{sample_id}".encode()) for sample_id in sample_ids)
    first = b"".join(digest.digest()[:8] for digest in digests)
    return np.frombuffer(first, dtype=">u8").astype(np.uint64)


def lowest(ranks: NDArray[np.uint64], candidates: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return the ``count`` of ``candidates`` (row numbers) that have the lowest ranks."""
    return candidates[np.argsort(ranks[candidates], kind="stable")[:count]]


def share(fraction: float, count: int) -> int:
    """``fraction`` of ``count``, rounded half up."""
    return math.floor(fraction * count + 0.5)


def assign_roles(
    image_set: ImageSet, split: Split, is_erased: Callable[[str], bool] = lambda _: False
) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    """Decide every sample's part and role.

    Parameters
    ----------
    image_set
        A checked set.
    split
        The section of ``params.yaml``; an ``ids_file`` is read from the working directory.
    is_erased
        Whether an id that is not in the set was that of a sample that a request has erased.

    Returns
    -------
    parts
        ``[N]`` of ``train``, ``val`` or ``test``. Parts do not depend on a forget set of kind ``random``
        or ``class``; of kind ``ids`` only in that a named sample is never ``val``.
    roles
        ``[N]`` of ``retain``, ``forget``, ``val`` or ``test``. Nobody is to be forgotten, and a warning says
        so, if all that is named, or the class, was erased already.

    Raises
    ------
    ExpungeError
        If the validation set would be empty, a file names nothing to forget, nothing would be left to
        retain, or a whole class would be forgotten though nothing asks for that.
    """
    forget = split.forget
    named = np.empty(0, dtype=np.int64)
    if forget.kind == "ids":
        where = f"{WHERE}.forget.ids_file"
        named = named_rows(Path(str(forget.ids_file)), image_set, where, is_erased)
    parts = _parts(image_set, split, named)
    roles = np.where(parts == "train", "retain", parts)
    roles[_forgotten(image_set, parts, split, named)] = "forget"
    _refuse_unwanted_loss(image_set, roles, forget)
    _tell_untested_classes(image_set, roles)
    if not np.any(roles == "forget"):
        log.warning("%s.forget: all that it names was erased; nothing is left to forget", WHERE)
    return parts, roles


def _parts(image_set: ImageSet, split: Split, named: NDArray[np.int64]) -> NDArray[np.str_]:
    parts = np.where(image_set.is_test, "test", "train")
    is_named = np.zeros(len(parts), dtype=np.bool_)
    is_named[named] = True
    ranks = rank("val", split.seed, image_set.sample_ids)
    for label in range(len(image_set.classes)):
        members = _training_members(image_set, parts, label)
        candidates = members[~is_named[members]]
        wanted = max(1, share(split.val_fraction, len(members)))
        # At least one sample of the class stays for training.
        parts[lowest(ranks, candidates, max(0, min(wanted, len(candidates) - 1)))] = "val"
    if np.any(parts == "val"):
        return parts
    if split.forget.kind == "ids":
        raise ExpungeError(
            f"{WHERE}.forget.ids_file: {split.forget.ids_file} leaves no sample to spare for validation; "
            "name fewer"
        )
    raise ExpungeError(
        f"{WHERE}.val_fraction: no sample to spare for validation; every class has just one to train on"
    )


def _training_members(image_set: ImageSet, parts: NDArray[np.str_], label: int) -> NDArray[np.int64]:
    return np.flatnonzero((image_set.labels == label) & (parts == "train"))


def _forgotten(
    image_set: ImageSet, parts: NDArray[np.str_], split: Split, named: NDArray[np.int64]
) -> NDArray[np.int64]:
    forget = split.forget
    if forget.kind == "ids":
        return named
    ranks = rank("forget", split.seed, image_set.sample_ids)
    if forget.kind == "class":
        _refuse_unknown_classes(forget, image_set.classes)
        groups = [_training_members(image_set, parts, label) for label in forget.classes]
        for label in (label for label, rows in zip(forget.classes, groups, strict=True) if not rows.size):
            name = image_set.classes[label]
            log.warning("%s.forget.classes: class %d (%s) was erased and is passed over", WHERE, label, name)
        chosen = [lowest(ranks, rows, max(1, share(forget.part, len(rows)))) for rows in groups]
        for label, rows, some in zip(forget.classes, groups, chosen, strict=True):
            if len(some) < len(rows):
                log.warning(
                    "%s.forget.fraction: %s takes %d of the %d training samples of class %d (%s); "
                    "fraction: null takes all",
                    WHERE, forget.part, len(some), len(rows), label, image_set.classes[label],
                )  # fmt: skip
        return np.concatenate(chosen)
    groups = [_training_members(image_set, parts, label) for label in range(len(image_set.classes))]
    taken = np.concatenate([lowest(ranks, rows, share(forget.part, len(rows))) for rows in groups])
    return taken if taken.size else lowest(ranks, np.concatenate(groups), 1)


def _refuse_unknown_classes(forget: Forget, classes: Sequence[str]) -> None:
    unknown = [label for label in forget.classes if label >= len(classes)]
    if unknown:
        raise ExpungeError(
            f"{WHERE}.forget.classes: no class {unknown[0]}; classes are 0 ({classes[0]}) "
            f"to {len(classes) - 1} ({classes[-1]})"
        )


def _refuse_unwanted_loss(image_set: ImageSet, roles: NDArray[np.str_], forget: Forget) -> None:
    where = f"{WHERE}.forget"
    if not np.any(roles == "retain"):
        count = np.count_nonzero(roles == "forget")
        raise ExpungeError(f"{where} takes all {count} training samples; nothing is left to retain")
    if forget.kind == "class":
        return
    lost = [
        label
        for label in range(len(image_set.classes))
        if label not in forget.classes and _lost(image_set, roles, label)
    ]
    if not lost:
        return
    count = np.count_nonzero((image_set.labels == lost[0]) & (roles == "forget"))
    name = f"class {lost[0]} ({image_set.classes[lost[0]]})"
    if forget.kind == "ids":
        raise ExpungeError(
            f"{where}.ids_file: {forget.ids_file} names all {count} training samples of {name}; "
            f"if the whole class is to be forgotten use kind: class, or classes: [{lost[0]}] beside it"
        )
    raise ExpungeError(
        f"{where}.fraction: {forget.part} takes all {count} training samples of {name}; "
        "lower it, or use kind: class if the class is to be forgotten"
    )


def _tell_untested_classes(image_set: ImageSet, roles: NDArray[np.str_]) -> None:
    """Warn of what ``mia`` would find out after hours: it compares with test images of the same class."""
    tested = np.unique(image_set.labels[roles == "test"])
    forgotten = np.unique(image_set.labels[roles == "forget"])
    untested = np.setdiff1d(np.arange(len(image_set.classes)), tested).tolist()
    if forgotten.size and not np.isin(forgotten, tested).any():
        log.warning("%s: no test images of any class that is to be forgotten: mia cannot judge", WHERE)
    elif untested:
        named = ", ".join(f"{label} ({image_set.classes[label]})" for label in untested)
        log.warning("%s: no test images of class %s: mia leaves them out", WHERE, named)


def _lost(image_set: ImageSet, roles: NDArray[np.str_], label: int) -> bool:
    """Whether a class has samples to forget and none to retain; one that was erased before has neither."""
    found = roles[image_set.labels == label]
    return bool(np.any(found == "forget") and not np.any(found == "retain"))
