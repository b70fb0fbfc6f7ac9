"""Image sources: one file a source, each a function that returns an :class:`ImageSet`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tasks.core.plugins import Registry
from tasks.samples.image_set import ImageSet

Source = Callable[[Path, int | None], ImageSet]
"""``load(path, resize)``; ``resize`` is the side in pixels to scale every image to, or None."""

SOURCES: Registry[Source] = Registry("datasets")
register = SOURCES.register
