"""Ways to write one name: ``é`` is one character or two, as the system that a file passed through has it."""

from __future__ import annotations

import unicodedata


def composed(name: str) -> str:
    """Return a name in the form in which names are compared: NFC."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def forms(value: str) -> tuple[str, ...]:
    """Return the ways to write a name that are canonically equivalent, its own first.

    A keyed digest is of the name as it was stored, which may be in either form.
    """
    return tuple(dict.fromkeys([value, composed(value), unicodedata.normalize("NFD", value)]))
