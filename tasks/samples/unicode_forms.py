"""Ways to write one name: ``é`` is one character or two, as the system that a file passed through has it."""

from __future__ import annotations

import unicodedata


def forms(value: str) -> tuple[str, ...]:
    """Return the ways to write a name that are canonically equivalent, its own first.

    A keyed digest is of the name as it was stored, which may be in either form.
    """
    composed, decomposed = (unicodedata.normalize(form, value) for form in ("NFC", "NFD"))
    return tuple(dict.fromkeys([value, composed, decomposed]))
