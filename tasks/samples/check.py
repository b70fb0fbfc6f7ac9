"""What every source must deliver before anything is built on it."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sized
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tasks.core.errors import ExpungeError
from tasks.samples.image_set import ImageSet
from tasks.samples.pictures import SIZE

UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode categories that end a line, steer a terminal, or are not UTF-8: not in ids and names."""


@dataclass(frozen=True, slots=True)
class PartlyErased(ImageSet):
    """What a source delivers that originals can be taken out of.

    Attributes
    ----------
    erased_classes
        Numbers of the classes that have no training images because all were erased. They stay classes,
        so the others keep their numbers and a model its outputs.
    """

    erased_classes: frozenset[int] = field(kw_only=True)


def is_plain(text: str) -> bool:
    """Whether ``text`` is one non-empty line of UTF-8 without control characters."""
    if text.isascii():
        return text.isprintable() and text != ""
    return not any(unicodedata.category(letter) in UNPRINTABLE for letter in text)


def check(image_set: ImageSet, where: str) -> ImageSet:
    """Return ``image_set`` if it is fit for use.

    The same picture under two ids is allowed, even in training and test part: published data sets have
    such pairs, and an evaluation must show them rather than hide them. Whoever asks to forget a picture
    has to name all its copies; intake tells which there are (:mod:`tasks.samples.copies`).

    Parameters
    ----------
    where
        The source, for messages.

    Raises
    ------
    ExpungeError
        If there are fewer than two classes, a class without images that was not erased, training images of
        fewer than two classes, a label that is no class, an id that is used twice, or one that does not fit
        on a line.
    """
    problem = _shape_problem(image_set) or _name_problem(image_set) or _class_problem(image_set)
    if problem:
        raise ExpungeError(f"{where}: {problem}")
    return image_set


def _shape_problem(image_set: ImageSet) -> str | None:
    images = image_set.images
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        return f"images are {images.dtype} {list(images.shape)}; uint8 [N, 1 or 3, H, W] is right"
    columns: list[Sized] = [image_set.labels, image_set.sample_ids, image_set.sources, image_set.is_test]
    columns += [each for each in (image_set.is_val, image_set.subjects) if each is not None]
    lengths = [len(column) for column in columns]
    if set(lengths) != {len(images)}:
        return f"{len(images)} images, but {lengths} labels, ids, sources, test and val marks, and subjects"
    pictures = image_set.pictures
    if pictures.dtype != np.uint8 or pictures.shape != (len(images), SIZE):
        return f"pictures are {pictures.dtype} {list(pictures.shape)}; uint8 [{len(images)}, {SIZE}] is right"
    if _training(image_set).sum() == 0:
        return "no training images"
    return None


def _training(image_set: ImageSet) -> NDArray[np.bool_]:
    """Tell which samples are in neither the source's test part nor its validation part."""
    held_out = image_set.is_test if image_set.is_val is None else image_set.is_test | image_set.is_val
    return ~held_out


def _name_problem(image_set: ImageSet) -> str | None:
    for kind, names in (
        ("sample id", image_set.sample_ids),
        ("source", image_set.sources),
        ("class name", image_set.classes),
    ):
        bad = next((name for name in names if not is_plain(name)), None)
        if bad is not None:
            return f"{kind} {bad!a} is empty or holds control characters"
    for kind, names in (("sample id", image_set.sample_ids), ("class name", image_set.classes)):
        if len(set(names)) != len(names):
            name, count = Counter(names).most_common(1)[0]
            return f"{kind} {name!r} stands for {count} different ones; it must be unique"
    return None


def _class_problem(image_set: ImageSet) -> str | None:
    labels, classes = image_set.labels, image_set.classes
    if len(classes) < 2:
        return f"{len(classes)} class ({', '.join(classes)}); a classifier needs at least 2"
    outside = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if outside.size:
        row = int(outside[0])
        return f"label {labels[row]} of {image_set.sources[row]}; classes are 0 to {len(classes) - 1}"
    training = np.bincount(labels[_training(image_set)], minlength=len(classes))
    counts = np.bincount(labels, minlength=len(classes))
    erased = image_set.erased_classes if isinstance(image_set, PartlyErased) else frozenset()
    empty = [label for label in np.flatnonzero(counts == 0).tolist() if label not in erased]
    if empty:
        return f"class {empty[0]} ({classes[empty[0]]}) has no training images"
    if np.count_nonzero(training) < 2 and not erased:
        return f"training images of {np.count_nonzero(training)} class; a classifier needs at least 2"
    return None
