"""Which samples no model in production was ever trained on: there is nothing of them to unlearn."""

from __future__ import annotations

from collections.abc import Collection

from tasks.core.files import read_json
from tasks.requests.catalogue import Catalogue
from tasks.requests.production import BASE

HELDOUT = BASE / "heldout.txt"
"""Ids of the validation and test samples that the model in production, and all before it, have not seen."""


def listed() -> frozenset[str]:
    """Return the ids in the list beside the model in production; none before there is one."""
    return frozenset(HELDOUT.read_text(encoding="utf-8").splitlines() if HELDOUT.exists() else ())


def never_learned(sample_ids: Collection[str], catalogue: Catalogue) -> frozenset[str]:
    """Return those of some samples that the model in production was not trained on, nor any before it.

    A validation image may have been a training image in an earlier split, and a test image, too, where the
    source has no test part: so what counts is the list beside the model. On the source's own test part no
    model is ever trained here; on what a file of weights that was adopted has been trained, the list alone
    tells.
    """
    unseen, own = listed(), not _is_adopted()
    return frozenset(name for name in sample_ids if name in unseen or (own and catalogue.is_own_test(name)))


def _is_adopted() -> bool:
    """Whether the model in production is, or was made of, weights that were not trained here."""
    path = BASE / "weights.json"
    return path.exists() and bool(read_json(path).get("adopted"))
