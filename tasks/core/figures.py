"""Of how many samples a figure must be, to be written down anywhere."""

from __future__ import annotations

SHARED = 20
"""Fewest samples of which figures are kept: figures of fewer are figures of persons."""

LEFT_OUT = (
    f"fewer than {SHARED} samples are to be forgotten: "
    "figures of so few would tell of persons, so none is kept"
)
"""What a stage says where it leaves them out."""
