"""Who is training, validation and test sample, and who is to be forgotten.

A sample's rank is the SHA-256 of a purpose, the seed and the sample's id. The rank knows nothing of the
other samples or of their order. In each class the samples of lowest rank are taken, exactly as many as
the fraction asks for. So exact, stratified counts are kept, and when samples leave, the others are still
taken in the same order: a role changes only where the smaller class needs fewer samples, or where a
taken sample has left and the next in rank follows. (A threshold on the hash instead of a count would keep
every single role, at the price of counts that vary at random.) Where the source tells whose the samples are,
those of a person are taken together (:func:`tasks.samples.people.choose`), and counts are as near as that
allows.
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
from tasks.samples.ids import held_out_rows, named_rows
from tasks.samples.image_set import ImageSet
from tasks.samples.people import choose, groups_of

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
        or ``class``; of kind ``ids`` only in that a named sample is never ``val``, and one that is named as
        held out is ``test``.
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
    named = held = np.empty(0, dtype=np.int64)
    if forget.kind == "ids":
        where = f"{WHERE}.forget.ids_file"
        named = named_rows(Path(str(forget.ids_file)), image_set, where, is_erased)
        held = held_out_rows(Path(str(forget.ids_file)), image_set, where)
    parts = _parts(image_set, split, named, held)
    roles = np.where(parts == "train", "retain", parts)
    roles[_forgotten(image_set, parts, split, named)] = "forget"
    _refuse_unwanted_loss(image_set, roles, forget)
    _tell_untested_classes(image_set, roles)
    if not np.any(roles == "forget") and not held.size:
        log.warning("%s.forget: all that it names was erased; nothing is left to forget", WHERE)
    return parts, roles


def _parts(
    image_set: ImageSet, split: Split, named: NDArray[np.int64], held: NDArray[np.int64]
) -> NDArray[np.str_]:
    """Parts of the samples: the source's own first, and then what is drawn of the training samples left."""
    parts = np.where(image_set.is_test, "test", "train")
    if image_set.is_val is not None:
        parts[image_set.is_val] = "val"
    parts[held] = "test"
    if not image_set.has_test:
        parts[_held_out("test", split.test_fraction, image_set, parts, split, named)] = "test"
        log.info(
            "the source has no test part: %s.test_fraction, %g of every class%s, is taken",
            WHERE, split.test_fraction, "" if image_set.is_val is None else " but for the source's val part",
        )  # fmt: skip
    if image_set.is_val is not None:
        parts[named] = "train"
        parts[held] = "test"
        if not np.any(parts == "val"):
            log.warning(
                "%s: nothing is left of the source's val part: val_fraction, %g of every class, is taken",
                WHERE, split.val_fraction,
            )  # fmt: skip
    if not np.any(parts == "val"):
        parts[_held_out("val", split.val_fraction, image_set, parts, split, named)] = "val"
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


def _held_out(
    part: str,
    fraction: float,
    image_set: ImageSet,
    parts: NDArray[np.str_],
    split: Split,
    named: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Choose what is held out of the training samples, without those that are to be forgotten by name.

    The fraction is of each class's samples that are in no other part yet: of a source that has a val part and
    no test part, the test share is of those that are not val.
    At least one sample of every class stays for training. A person's samples stay together; so what is of the
    same person as a sample that is named is not held out either.
    """
    is_candidate = parts == "train"
    members = np.bincount(image_set.labels[is_candidate], minlength=len(image_set.classes))
    wanted = np.array([max(1, share(fraction, count)) for count in members.tolist()])
    is_candidate[named] = False
    ranks = _ranks(part, split.seed, image_set)
    if image_set.subjects is not None:
        groups = groups_of(image_set.subjects)
        is_candidate &= ~np.isin(groups, groups[named])
        # a person of whom a part of the source's own has images stays where the source has put the rest
        is_candidate &= ~np.isin(groups, groups[image_set.is_test | (parts == "val")])
    candidates = np.flatnonzero(is_candidate)
    free = np.bincount(image_set.labels[candidates], minlength=len(image_set.classes))
    spare = (free - 1).clip(0)
    return _taken(image_set, ranks, candidates, np.minimum(wanted, spare), spare)


def _ranks(purpose: str, seed: int, image_set: ImageSet) -> NDArray[np.uint64]:
    """Rank of each sample, or the lowest of those of its people."""
    ranks = rank(purpose, seed, image_set.sample_ids)
    if image_set.subjects is None:
        return ranks
    people = list(dict.fromkeys(name for names in image_set.subjects for name in names))
    of_person = dict(zip(people, rank(f"{purpose}:subject", seed, people).tolist(), strict=True))
    for row, names in enumerate(image_set.subjects):
        if names:
            ranks[row] = min(of_person[name] for name in names)
    return ranks


def _taken(
    image_set: ImageSet,
    ranks: NDArray[np.uint64],
    candidates: NDArray[np.int64],
    wanted: NDArray[np.int64],
    spare: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Take so many of each class, ``[K]``: those of lowest rank, or all samples of people at once."""
    labels = image_set.labels
    if image_set.subjects is not None:
        return choose(groups_of(image_set.subjects), ranks, labels, candidates, wanted, spare)
    of_class = [candidates[labels[candidates] == label] for label in range(len(wanted))]
    return np.concatenate(
        [lowest(ranks, rows, int(count)) for rows, count in zip(of_class, wanted, strict=True)]
    )


def _forgotten(
    image_set: ImageSet, parts: NDArray[np.str_], split: Split, named: NDArray[np.int64]
) -> NDArray[np.int64]:
    forget = split.forget
    if forget.kind == "ids":
        return named
    ranks = _ranks("forget", split.seed, image_set)
    rows = np.flatnonzero(parts == "train")
    counts = np.bincount(image_set.labels[rows], minlength=len(image_set.classes))
    if forget.kind == "class":
        _refuse_unknown_classes(forget, image_set.classes)
        wanted = np.zeros_like(counts)
        for label in forget.classes:
            wanted[label] = min(counts[label], max(1, share(forget.part, int(counts[label]))))
            _tell_part(forget, image_set, label, int(wanted[label]), int(counts[label]))
        rows = rows[np.isin(image_set.labels[rows], forget.classes)]
        return _taken(image_set, ranks, rows, wanted, counts)
    wanted = np.array([share(forget.part, int(count)) for count in counts])
    # a person's images may leave a class that has no more than them
    taken = _taken(image_set, ranks, rows, wanted, np.maximum(wanted, counts - 1))
    return taken if taken.size else lowest(ranks, rows, 1)


def _tell_part(forget: Forget, image_set: ImageSet, label: int, wanted: int, count: int) -> None:
    name = image_set.classes[label]
    if not count:
        log.warning("%s.forget.classes: class %d (%s) was erased and is passed over", WHERE, label, name)
    elif wanted < count:
        log.warning(
            "%s.forget.fraction: %s takes %d of the %d training samples of class %d (%s); "
            "fraction: null takes all",
            WHERE, forget.part, wanted, count, label, name,
        )  # fmt: skip


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
    untrained = np.setdiff1d(
        image_set.labels, image_set.labels[np.isin(roles, ("retain", "forget"))]
    ).tolist()
    if untrained:
        named = ", ".join(f"{label} ({image_set.classes[label]})" for label in untrained)
        log.warning("%s: no training images of class %s: to any model its images are errors", WHERE, named)
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
