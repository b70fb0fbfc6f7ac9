"""What a certificate says of weights that were not trained here, and of what is not known of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HOLDS = {
    "exact": (
        "The model after the erasure was trained from scratch and has nothing of them: "
        "none of this holds for it."
    ),
    "approximate": "The model after the erasure was made of them: all of this holds for it, too.",
    "covered": "The model was not changed: all of this holds for the model after the erasure, too.",
    "never-learned": "The model was not changed: all of this holds for the model after the erasure, too.",
}
"""For which model it holds, by what the method promises."""


def unknown(origin: Mapping[str, Any], before: str | None, guarantee: str) -> str:
    """Return the sentences that say what is not known of weights, and of which model that holds.

    Parameters
    ----------
    origin
        All other fields of :class:`~tasks.requests.predicate.Origin`.
    before
        SHA-256 of the tensors of the model that the erasure started from.
    guarantee
        Of the method that was used.
    """
    was = "is" if before == origin["weights"] else "was made, by approximate methods, of"
    besides = [f"{origin[part]} {word} samples" for part, word in (("val", "validation"), ("test", "test"))
               if origin[part]]  # fmt: skip
    also = f" and on {' and '.join(besides)}" if besides else ""
    share = (
        f"all {origin['of']} training samples that the data set had then"
        if origin["trained_on"] == "all"
        else f"{origin['samples']} of the {origin['of']} training samples that the data set had then"
    )
    return (
        f"The model that the erasure started from {was} a model that was not trained by this pipeline: its "
        f"weights were adopted on {origin['adopted_at'][:10]} from a file with SHA-256 {origin['file']}. "
        f"{origin['by']} states that it was trained on {share}{also}; that was not verified. How it was "
        "trained (recipe, seed, augmentation), which weights that training began with and what else it has "
        "seen, copies of the same images included, is not known. Copies of that file that the purge could "
        f"not find may exist. {HOLDS.get(guarantee, '')}"
    )
