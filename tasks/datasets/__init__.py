"""Image sources: one file a source, each a function that returns an :class:`ImageSet`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tasks.core.params import Split
from tasks.core.plugins import Registry
from tasks.samples.image_set import ImageSet

Source = Callable[[Path, Split], ImageSet]
"""``load(path, split)``; the section says how images are read, and ``path`` where they lie."""

SOURCES: Registry[Source] = Registry("datasets")
register = SOURCES.register
