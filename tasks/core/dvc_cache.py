"""Where DVC keeps contents: with ``cache.type: symlink`` its links lead there."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

CONTENT = re.compile(r"files/md5/[0-9a-f]{2}/[0-9a-f]{30}|[0-9a-f]{2}/[0-9a-f]{30}")
"""Path of a content below the cache, as DVC 3 names it and as DVC 2 did."""


def holds(real: Path) -> bool:
    """Whether a file, all links resolved, is a content in the cache of the repository that is at work."""
    found = folder(Path.cwd()) if CONTENT.search(real.as_posix()) else None
    return (
        found is not None
        and real.is_relative_to(found)
        and bool(CONTENT.fullmatch(real.relative_to(found).as_posix()))
    )


@cache
def folder(root: Path) -> Path | None:
    """Return the cache of the repository at ``root``, wherever its settings put it; None without one.

    DVC itself is asked, once: its settings lie in up to four files.
    """
    asked = [sys.executable, "-m", "dvc", "cache", "dir"]
    done = subprocess.run(asked, cwd=root, capture_output=True, text=True, check=False)
    answer = done.stdout.strip()
    return (root / answer).resolve() if done.returncode == 0 and answer else None
