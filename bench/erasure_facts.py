"""What the campaign's oracle knows of a project and of what was asked for; no code told it."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PASSED_OVER = {".git", "tmp", "__pycache__"}


@dataclass(frozen=True, slots=True)
class Violation:
    """One guarantee that does not hold, by its number in the list of seven, and what was seen."""

    guarantee: int
    seen: str

    def __str__(self) -> str:
        return f"{self.guarantee}: {self.seen}"


@dataclass(frozen=True, slots=True)
class Sample:
    """One image as the project was given it.

    ``file`` lies below the checkout; ``row`` is its row there, if it holds many.
    """

    id: str
    part: str
    label: int
    file: str
    row: int | None
    pixels: bytes
    content: bytes

    @property
    def token(self) -> str:
        """The part of its id that stands nowhere by chance."""
        name = self.id.rpartition("/")[2]
        return name.removesuffix(".png")


@dataclass(frozen=True, slots=True)
class Trained:
    """A model that was trained: its digest, and the ids and pixels that the training could see."""

    weights: str
    ids: frozenset[str]
    pixels: frozenset[bytes]


@dataclass
class Facts:
    """What is known of a project and of what was asked for, without asking the code.

    Attributes
    ----------
    asked
        Ids that each valid submission names, by its requester's reference, which is unique.
    bad
        References of submissions that must be rejected.
    protected
        SHA-256 by path of files that must stay as they are.
    elsewhere
        Ids of samples whose image is also in data that is not to be erased from.
    returned
        Ids of samples whose image, or another under its name, was put back by hand.
    trained
        Every model that was trained.
    holds
        Ids that each standing hold protects.
    links
        Ids of samples that are links, and of the samples that they lead to.
    """

    root: Path
    home: Path
    source: str
    samples: dict[str, Sample] = field(default_factory=dict)
    cache: Path = Path()
    remote: Path | None = None
    tracked_by: str = "nobody"
    asked: dict[str, frozenset[str]] = field(default_factory=dict)
    bad: set[str] = field(default_factory=set)
    protected: dict[Path, str] = field(default_factory=dict)
    elsewhere: set[str] = field(default_factory=set)
    returned: set[str] = field(default_factory=set)
    trained: list[Trained] = field(default_factory=list)
    holds: dict[str, frozenset[str]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    def protect(self, *places: Path) -> None:
        """Note how files, and all files below folders, are now; they must stay so."""
        for place in places:
            for path in files_below(place):
                self.protected[path] = sha256(path)


def sha256(path: Path) -> str:
    """Digest of a file, or of where a link leads."""
    content = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
    return hashlib.sha256(content).hexdigest()


def files_below(place: Path) -> Iterator[Path]:
    """Every file of a folder, or the file itself; Git's and DVC's temporary ones left out."""
    if place.is_file() or place.is_symlink():
        yield place
        return
    for path in sorted(place.rglob("*")):
        parts = path.relative_to(place).parts
        if not PASSED_OVER.intersection(parts) and (path.is_file() or path.is_symlink()):
            yield path


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the ledger."""

    seq: int
    at: str
    kind: str
    subject: str | None
    body: str
    previous: str
    hash: str

    @property
    def told(self) -> Any:
        """Its body, as plain JSON."""
        return json.loads(self.body)


def read_ledger(path: Path) -> list[Row]:
    """Rows of the ledger; none if there is no ledger yet."""
    if not path.exists():
        return []
    connection = sqlite3.connect(path)
    try:
        found = connection.execute(
            "SELECT seq, at, kind, request, body, previous, hash FROM expunge_events ORDER BY seq"
        ).fetchall()
    except sqlite3.OperationalError:
        return []
    finally:
        connection.close()
    return [Row(*row) for row in found]
