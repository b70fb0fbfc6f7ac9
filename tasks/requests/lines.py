"""Where a submission's file has its values: lines, counted from 1.

Lines are asked for only once something is wrong, so nothing is done before the first question. All of it
is linear in the length of the file, whatever it holds and however many questions there are.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from json import JSONDecoder
from typing import Protocol

from tasks.requests.schema import Named

CHUNK = 2**14
"""Characters between two places whose lines are known."""

_BLANKS = re.compile(r"[ \t\n\r]*+")
_SCALAR = re.compile(r'[ \t\n\r]*+("[^"\\]*+(?:\\.[^"\\]*+)*+"|[^ \t\n\r,\[\]{}"]++)[ \t\n\r]*+([,\]])')
"""An element of a list that is neither list nor object, and what stands behind it."""

_SKIP = JSONDecoder().raw_decode


class Lines(Protocol):
    """Finds lines of a submission's file, counted from 1; ``None`` where there are none."""

    def of(self, named: Named) -> int | None:
        """Line of the name of a sample."""

    def at(self, path: tuple[int | str, ...]) -> int | None:
        """Line of a value of :class:`~tasks.requests.schema.Submission`."""


@dataclass(slots=True)
class CsvLines:
    """Lines of a table: the first row's for what all rows share.

    ``of_samples`` holds, by kind, the line of every name.
    """

    first: int
    of_samples: dict[str, array[int]] = field(default_factory=dict)

    def add(self, kind: str, line: int) -> None:
        """Note the line of the next name of this kind."""
        self.of_samples.setdefault(kind, array("L")).append(line)

    def of(self, named: Named) -> int | None:
        """Line of the name of a sample."""
        return self.of_samples[named.kind][named.place]

    def at(self, path: tuple[int | str, ...]) -> int | None:
        """Line of a value of :class:`~tasks.requests.schema.Submission`."""
        return self.of_samples[str(path[1])][int(path[2])] if len(path) == 3 else self.first


class JsonLines:
    """Lines of a JSON text that is known to be right; places are searched for where a question leads.

    Parameters
    ----------
    text
        The text; ``None`` for an object that came without one, and then there are no lines.
    """

    def __init__(self, text: str | None) -> None:
        self._text = text
        self._below: dict[int, Mapping[str, int] | Sequence[int]] = {}
        self._before: list[int] = []

    def of(self, named: Named) -> int | None:
        """Line of the name of a sample."""
        return self.at(("samples", named.kind, named.place))

    def at(self, path: tuple[int | str, ...]) -> int | None:
        """Line of a value of :class:`~tasks.requests.schema.Submission`, or of the nearest that there is."""
        if self._text is None:
            return None
        place = _behind_blanks(self._text, 0)
        try:
            for part in path:
                below = self._child(self._text, place, part)
                if below is None:
                    break
                place = below
        except RecursionError:  # nested as deep as could just be read
            return None
        return self._line(self._text, place)

    def _child(self, text: str, place: int, part: int | str) -> int | None:
        """Where the member or element ``part`` of the value at ``place`` begins."""
        if place not in self._below:
            if text[place] == "{":
                self._below[place] = _members(text, place)
            else:
                self._below[place] = _elements(text, place) if text[place] == "[" else ()
        below = self._below[place]
        if isinstance(below, Mapping):
            return below.get(part) if isinstance(part, str) else None
        return below[part] if isinstance(part, int) and part < len(below) else None

    def _line(self, text: str, place: int) -> int:
        if not self._before:
            counts = (text.count("\n", start, start + CHUNK) for start in range(0, len(text), CHUNK))
            self._before = list(accumulate(counts, initial=1))
        chunk = place // CHUNK
        return self._before[chunk] + text.count("\n", chunk * CHUNK, place)


def _behind_blanks(text: str, place: int) -> int:
    match = _BLANKS.match(text, place)
    return match.end() if match else place


def _members(text: str, place: int) -> Mapping[str, int]:
    """Where the values of the object at ``place`` begin, by key."""
    found: dict[str, int] = {}
    place = _behind_blanks(text, place + 1)
    while text[place] != "}":
        key, place = _SKIP(text, place)
        place = _behind_blanks(text, _behind_blanks(text, place) + 1)  # over the colon
        found[key] = place
        place = _behind_blanks(text, _SKIP(text, place)[1])
        if text[place] == ",":
            place = _behind_blanks(text, place + 1)
    return found


def _elements(text: str, place: int) -> Sequence[int]:
    """Where the elements of the list at ``place`` begin."""
    found = array("Q")
    place += 1
    while True:
        if match := _SCALAR.match(text, place):
            found.append(match.start(1))
            place, separator = match.end(), match[2]
        else:
            place = _behind_blanks(text, place)
            if text[place] == "]":
                return found
            found.append(place)
            place = _behind_blanks(text, _SKIP(text, place)[1])
            separator = text[place]
            place += 1
        if separator == "]":
            return found
