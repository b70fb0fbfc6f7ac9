"""Public data sets that are shipped with the project: in Git, unchanged, and nobody's copy of personal data.

A file ``PUBLIC`` beside such images lists the SHA-256 of each file, as ``sha256sum`` prints it. It speaks of
those very bytes and of nothing else: a file that was changed by a byte is the operator's own again.
"""

from __future__ import annotations

import re
from pathlib import Path

from tasks.core.errors import ExpungeError
from tasks.core.files import digest
from tasks.sample import PUBLIC

WHAT = "public data set shipped with the project, not the operator's copy"

LINE = re.compile(r"([0-9a-f]{64})  \S.*")


class PublicFiles:
    """What the ``PUBLIC`` files in the folders of ``data`` list.

    Attributes
    ----------
    sha256
        Digests of all files that they list.

    Raises
    ------
    ExpungeError
        If a line of one of them is none of ``sha256sum``.
    """

    def __init__(self, root: Path) -> None:
        found = set()
        for path in sorted((root / "data").glob(f"*/{PUBLIC}")):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
                if line.startswith("#") or not line:
                    continue
                match = LINE.fullmatch(line)
                if match is None:
                    raise ExpungeError(f"{path}, line {number} is damaged; restore it with Git")
                found.add(match[1])
        self.sha256 = frozenset(found)

    def has(self, path: Path) -> bool:
        """Whether a file is one of those that are listed, byte by byte."""
        return bool(self.sha256) and path.is_file() and digest(path, "sha256") in self.sha256
