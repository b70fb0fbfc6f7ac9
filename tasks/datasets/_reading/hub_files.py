"""Which Parquet files of a folder make up which part, in the layouts of data set hubs."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tasks.core.errors import ExpungeError

log = logging.getLogger(__name__)

PARTS = ("train", "val", "test")
NAMES = {
    "train": "train", "training": "train",
    "validation": "val", "valid": "val", "val": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""The part that a file or folder of this name belongs to."""

SHARD = re.compile(r"(?P<name>.+)-(?P<number>\d+)-of-(?P<count>\d+)(?P<hash>-[0-9a-f]{4,64})?", re.ASCII)
WANTED = (
    "a folder with train-*.parquet, train.parquet or train/*.parquet is needed, and if wanted the same of "
    "test and val"
)


def find_files(path: Path) -> dict[str, list[Path]]:
    """Return the files of each part in order; every one that their names announce must be there.

    They lie in ``path``, or else in the only folder in it that has a training part, such as ``data`` or that
    of a configuration.

    Raises
    ------
    ExpungeError
        If there is no training part, a file is missing, or files of two generations lie side by side: hubs
        leave those of before in place, and to read both would be to read most images twice.
    """
    if path.is_file():
        raise ExpungeError(f"{path} is a single file; {WANTED}: put it into a folder as train.parquet")
    if not path.is_dir():
        raise ExpungeError(f"{path} does not exist; {WANTED}")
    folder = _folder(path)
    parts: dict[str, list[Path]] = {}
    strange: list[str] = []
    for file in sorted([*folder.glob("*.parquet"), *folder.glob("*/*.parquet")]):
        part = _part_of(file, folder)
        if part is None:
            strange.append(file.relative_to(path).as_posix())
        else:
            parts.setdefault(part, []).append(file)
    if strange:
        more = f" and {len(strange) - 3} more" if len(strange) > 3 else ""
        log.warning("parquet %s: passed over, as of no known part: %s%s", path, ", ".join(strange[:3]), more)
    for files in parts.values():
        _refuse_two_generations(path, files)
    return {part: parts[part] for part in PARTS if part in parts}


def _folder(path: Path) -> Path:
    if _has_training_part(path):
        return path
    below = [each for each in sorted(path.iterdir()) if each.is_dir() and _has_training_part(each)]
    if len(below) == 1:
        return below[0]
    if below:
        raise ExpungeError(
            f"{path} holds several sets, {', '.join(each.name for each in below)}; set split.path to one"
        )
    found = ", ".join(sorted(file.name for file in path.iterdir())[:5]) or "nothing"
    raise ExpungeError(f"{path} holds no train-*.parquet (found: {found}); {WANTED}")


def _has_training_part(folder: Path) -> bool:
    files = (*folder.glob("*.parquet"), *folder.glob("*/*.parquet"))
    return any(_part_of(file, folder) == "train" for file in files)


def _part_of(file: Path, folder: Path) -> str | None:
    """Part that a file belongs to by its name, or by that of the folder it lies in; None if by neither."""
    below = file.relative_to(folder).parts
    name = below[0] if len(below) > 1 else re.split(r"[-_.]", file.name, maxsplit=1)[0]
    return NAMES.get(name.lower())


def _refuse_two_generations(path: Path, files: Sequence[Path]) -> None:
    """Refuse files of one part that cannot belong together by their names."""
    shown = [file.relative_to(path).as_posix() for file in files]
    groups: dict[tuple[str, str], list[int]] = {}
    for row, file in enumerate(files):
        shard = SHARD.fullmatch(file.stem)
        kind = f"{shard['name']} of {int(shard['count'])}{shard['hash'] or ''}" if shard else "whole"
        groups.setdefault((str(file.parent), kind), []).append(row)
    numbered = [SHARD.fullmatch(file.stem) for file in files]
    twice = Counter(int(shard["number"]) for shard in numbered if shard)
    for number, count in twice.items():
        if count > 1:
            same = [
                name
                for name, shard in zip(shown, numbered, strict=True)
                if shard and int(shard["number"]) == number
            ]
            raise _two_generations(path, same[0], same[1])
    if len({folder for folder, _ in groups}) > 1 or (any(numbered) and not all(numbered)):
        first, second = list(groups.values())[:2]
        raise _two_generations(path, shown[first[0]], shown[second[0]])
    for name, shard in zip(shown, numbered, strict=True):
        if shard and int(shard["count"]) != len(files):
            raise ExpungeError(f"{path}: {name} announces {int(shard['count'])} files, found {len(files)}")


def _two_generations(path: Path, one: str, other: str) -> ExpungeError:
    return ExpungeError(
        f"{path} holds files of two generations of one part, such as {one} and {other}; remove those of one"
    )
