"""What ``python -m tasks.check`` has passed before: it is not imported and looked at again by every stage."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tasks.core.files import STATE, write_text

MARK = STATE / "checked"
"""Holds the fingerprint of the parameters and the code that passed last."""

_CODE = Path(__file__).parents[1]


def fingerprint() -> str:
    """SHA-256 over ``params.yaml`` of the current folder, and name, size and time of each module of ours."""
    seen = hashlib.sha256(Path("params.yaml").read_bytes())
    for path in sorted(_CODE.rglob("*.py")):
        status = path.stat()
        seen.update(f"\0{path.relative_to(_CODE)}\0{status.st_size}\0{status.st_mtime_ns}".encode())
    return seen.hexdigest()


def passed() -> bool:
    """Whether the parameters have passed, as they and the code are now."""
    return MARK.exists() and MARK.read_text(encoding="utf-8", errors="replace") == fingerprint()


def remember(found: str) -> None:
    """Keep the fingerprint of what has passed."""
    write_text(MARK, found)
