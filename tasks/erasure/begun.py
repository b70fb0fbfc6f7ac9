"""What a purge has begun, on the disk before its first deletion, so that the next run can finish it.

Once an object is deleted, or an entry of the run cache, it no longer tells what was made of it. So everything
that is to go is written down first, in ``.expunge/purge``, and stays there until no store is open.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from tasks.core.errors import ExpungeError
from tasks.core.files import STATE, read_json, write_json

FOLDER = STATE / "purge"


@dataclass
class Begun:
    """A purge that has begun.

    Attributes
    ----------
    root
        The checkout's.
    requests
        Ids of the requests whose samples are purged.
    objects
        MD5s of DVC's objects that are to go.
    weights
        Digests of the tensors of models that are to go.
    files
        Files that Git tracks and that the purge may have changed.
    open
        Names of the stores that did not answer.
    """

    root: Path
    requests: list[str] = field(default_factory=list)
    objects: list[str] = field(default_factory=list)
    weights: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, root: Path) -> Begun:
        """Read what was begun; a file that is damaged says nothing, and is written anew."""
        path = root / FOLDER / "begun.json"
        if not path.exists():
            return cls(root)
        try:
            value = read_json(path)
            known = {each.name for each in fields(cls)} - {"root"}
            return cls(root, **{name: list(value[name]) for name in known})
        except (ExpungeError, KeyError, TypeError):
            return cls(root)

    @classmethod
    def of(cls, root: Path, requests: Iterable[str]) -> Begun:
        """Go on with a purge of these requests, or begin one; what an earlier one left open is kept."""
        found, names = cls.read(root), sorted(requests)
        if found.requests == names or found.open:
            found.requests = sorted({*found.requests, *names})
            return found
        return cls(root, names)

    def add(
        self, *, objects: Iterable[str] = (), weights: Iterable[str] = (), files: Iterable[str] = ()
    ) -> None:
        """Write down what is to go, before it goes."""
        self.objects = sorted({*self.objects, *objects})
        self.weights = sorted({*self.weights, *weights})
        self.files = sorted({*self.files, *files})
        self.write()

    def write(self) -> None:
        """Write it whole."""
        value = asdict(self)
        del value["root"]
        write_json(self.root / FOLDER / "begun.json", value)
