"""Tiny-ImageNet's layout: the classes of its validation images stand in a text file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tasks.core.errors import ExpungeError
from tasks.core.files import write_text

ANNOTATIONS = "val/val_annotations.txt"
"""File name, class, and the four corners of a box, with tabs between."""


def labels(root: Path) -> dict[str, str] | None:
    """Return the class of each validation image by its path below ``root``; None in another layout.

    Raises
    ------
    ExpungeError
        If the text file is damaged; the message names the line.
    """
    path = root / ANNOTATIONS
    if not path.is_file():
        return None
    found: dict[str, str] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ExpungeError(f"{path} is not UTF-8 text: byte {error.start}") from None
    for number, line in enumerate(lines, start=1):
        name, *rest = line.split("\t")
        if line and not (name and rest and rest[0]):
            raise ExpungeError(f"{path}, line {number}: a file name, a tab and a class are needed")
        if line:
            found[f"val/images/{name}"] = rest[0]
    return found


def forget(root: Path, names: Iterable[str]) -> list[Path]:
    """Take the lines of images out of the text files beside them; return the files that were rewritten."""
    leaving: dict[Path, set[str]] = {}
    for name in names:
        part, *below = name.split("/")
        if len(below) < 2:
            continue
        file = ANNOTATIONS if part == "val" else f"{part}/{below[0]}/{below[0]}_boxes.txt"
        leaving.setdefault(root / file, set()).add(below[-1])
    changed = []
    for path, files in leaving.items():
        if path.is_file() and labels(root) is not None:
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.split("\t")[0] not in files]
            if len(kept) < len(lines):
                write_text(path, "".join(kept))
                changed.append(path)
    return changed
