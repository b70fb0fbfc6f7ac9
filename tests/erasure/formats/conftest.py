from __future__ import annotations

from tests.erasure.formats.samples import others, search

__all__ = ["others", "search"]
