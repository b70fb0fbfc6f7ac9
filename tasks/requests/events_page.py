"""The page ``docs/events.md``, made from the classes of events: ``python -m tasks.requests.events_page``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from tasks.requests.events import TRANSITIONS, described
from tasks.requests.states import ENDED, OPEN, Status, Transition

INTRODUCTION = """\
# Events

The ledger is a list of events that are appended and never changed. Each has a number, a time, a kind, a
subject (the request, batch or standing hold that it is about, if any), a body, and two SHA-256: its own,
over the canonical JSON of `[number, time, kind, subject, body, previous]`, and `previous`, that of the
event before it. `expunge verify ledger` recomputes them all. The body is a JSON object with the fields
below; a field that has nothing to tell is left out, and one that a later version has added is passed over.

What a batch has in common is told once, of the batch; of a request only what is its own. No event holds the
id, path or file name of a sample, the text of an error or the score of a single sample: samples are
HMAC-SHA-256 under the key of the request, a failure is a code. Where a request stands follows from its
events alone; an event that may not happen there is refused. This page is made from the code (`python -m
tasks.requests.events_page > docs/events.md`).
"""


def page() -> str:
    """Return the page."""
    life = [
        (
            f"`{kind}`" + (" \\*" if TRANSITIONS[kind].on_hold else ""),
            meaning,
            _sources(TRANSITIONS[kind]),
            _target(TRANSITIONS[kind]),
            _fields(fields),
        )
        for kind, meaning, fields in described()
        if kind in TRANSITIONS
    ]
    others = [
        (f"`{kind}`", meaning, _fields(fields))
        for kind, meaning, fields in described()
        if kind not in TRANSITIONS
    ]
    return "\n".join(
        [
            INTRODUCTION,
            "## Of a request\n",
            *_table(("event", "meaning", "may happen to one that is", "leads to", "fields"), life),
            "",
            "An event marked with \\* can happen to a request on legal hold, too.\n",
            "## Of a batch, of holds, of the model in production, of the ledger itself\n",
            *_table(("event", "meaning", "fields"), others),
            "",
        ]
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [_line(head), _line(["---"] * len(head)), *map(_line, rows)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|').replace('``', '`') for cell in cells)} |"


def _sources(transition: Transition) -> str:
    if not transition.sources:
        return "new"
    for names, words in ((OPEN, "open"), (ENDED, "ended")):
        left = names - transition.sources
        if transition.sources <= names and len(left) < len(names) / 2:
            but = f", but not {_names(left)}" if left else ""
            return f"{words}{but}"
    return _names(transition.sources)


def _target(transition: Transition) -> str:
    if transition.back:
        return "where it failed"
    return str(transition.target) if transition.target else "(stays)"


def _names(statuses: Iterable[Status]) -> str:
    found = frozenset(statuses)
    return ", ".join(status for status in Status if status in found)


def _fields(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    sys.stdout.write(page())
