"""The images of a split: ``data/split/images``, shard files with the same number of slots each.

A sample keeps its slot for as long as it stays. The slot of one that has left is zeros, and free for one
that comes, so an erased sample changes one shard, and DVC stores and sends one file anew. Which slot is whose
stands in ``slots.csv`` beside the shards; a row of the split's tables is not a slot.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from tasks.core import dvc_cache
from tasks.core.errors import RESTORE, ExpungeError
from tasks.core.files import write_text, write_whole
from tasks.samples import mapped
from tasks.samples.jpegs import Jpegs, zipped
from tasks.samples.mapped import File, Images, Mapped, Pixels, Rows, taken

FOLDER = "images"
"""Name of the folder, in that of the split."""

SLOTS = "slots.csv"
HEAD = ["sample_id", "slot"]
NPY, ZIP = ".npy", ".zip"
"""Ends of the names of shards, of pixels and of JPEG files."""

REPEAT = "run the stage that writes it: dvc repro split"


def slots_for(sample_ids: Sequence[str], before: Mapping[str, int]) -> Rows:
    """Give every sample a slot: its own if it had one, else the first that is free.

    All are numbered anew, in order, where less than half of the slots would be in use.

    Parameters
    ----------
    sample_ids
        N ids.
    before
        Slots by sample id.

    Returns
    -------
    slots
        ``int64 [N]``, each another.
    """
    kept = {before[name] for name in sample_ids if name in before}
    count = len(sample_ids)
    if not kept or 2 * count < max(kept) + 1:
        return np.arange(count)
    free = (slot for slot in range(max(kept) + 1 + count) if slot not in kept)
    return np.array([before[name] if name in before else next(free) for name in sample_ids], dtype=np.int64)


def write_shards(
    images: Images,
    sample_ids: Sequence[str],
    folder: Path,
    size: int,
    *,
    before_change: Callable[[], None] = lambda: None,
) -> None:
    """Write the images of samples into the slots that they have there or had in the last split, or new ones.

    A shard that stays as it is is not written. Each file is written whole, ``slots.csv`` last; whatever else
    lies in the folder is deleted.

    Parameters
    ----------
    images
        ``uint8 [N, C, H, W]``.
    sample_ids
        N ids.
    folder
        The shards', there or not.
    size
        Bytes of pixels that a shard holds at most, if an image is not larger.
    before_change
        Called when a shard has been written and is about to take its place.
    """
    slots = slots_for(sample_ids, _slots_before(folder))
    row_of = np.full(int(slots.max()) + 1, -1)
    row_of[slots] = np.arange(len(slots))
    step = max(1, size // int(np.prod(images.shape[1:])))
    made = {SLOTS}
    for start in range(0, len(row_of), step):
        rows = row_of[start : start + step]
        name, content = _shard(images, rows, start // step)
        made.add(name)
        if not _holds(folder / name, content):
            with write_whole(folder / name) as file:
                file.write(content)
                file.flush()
                before_change()
    for path in folder.iterdir():
        if path.name not in made:
            path.unlink()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEAD)
    writer.writerows(zip(sample_ids, slots.tolist(), strict=True))
    write_text(folder / SLOTS, text.getvalue())


def read_shards(folder: Path, sample_ids: Sequence[str], *, mmap: bool = False) -> Images:
    """Return the images of samples, in the order of their ids.

    Parameters
    ----------
    folder
        The shards'.
    sample_ids
        N ids, those that have a slot and no other.
    mmap
        Leave the images in their files even if they are few; many are left there in any case.

    Returns
    -------
    images
        ``uint8 [N, C, H, W]``.

    Raises
    ------
    ExpungeError
        If a file is missing or damaged, or the samples are others.
    """
    by_id = _read_slots(folder / SLOTS)
    if by_id.keys() != set(sample_ids):
        raise ExpungeError(
            f"{folder / SLOTS} names {len(by_id)} samples, the table beside the images {len(sample_ids)}: "
            f"they are not the same; {RESTORE}"
        )
    paths = [path for path in folder.iterdir() if path.suffix in (NPY, ZIP)]
    files = {path: _opened(path) for path in sorted(paths, key=lambda path: (len(path.name), path.name))}
    _check(files, folder, max(by_id.values()))
    slots = np.array([by_id[name] for name in sample_ids], dtype=np.int64)
    found = Mapped(list(files.values()), slots)
    return found if mmap or int(np.prod(found.shape)) > mapped.IN_MEMORY else found[:]


def shards_with(sample_ids: Collection[str], folder: Path) -> set[str]:
    """Return the names of the shards that hold some of the samples.

    Raises
    ------
    ExpungeError
        If a file is missing or damaged.
    """
    suffix = ZIP if (folder / _name(0, ZIP)).exists() else NPY
    step = len(_opened(folder / _name(0, suffix)))
    slots = _read_slots(folder / SLOTS)
    return {_name(slots[name] // step, suffix) for name in sample_ids if name in slots}


def _name(number: int, suffix: str = NPY) -> str:
    return f"{number:05}{suffix}"


def _slots_before(folder: Path) -> Mapping[str, int]:
    """Slots of the shards that lie there; else of those that DVC took away before it ran the stage."""
    with suppress(ExpungeError):
        return _read_slots(folder / SLOTS)
    with suppress(ExpungeError, ValueError):
        return _slots_of((dvc_cache.recorded(folder, SLOTS) or b"").decode(), folder / SLOTS)
    return {}


def _shard(images: Images, rows: Rows, number: int) -> tuple[str, bytes]:
    """Name and content of a shard of the given rows of images, of which those below 0 are nobody's."""
    some = taken(images, rows[rows >= 0])
    packed = some.packed() if isinstance(some, Mapped) else None
    if packed is not None:
        return _name(number, ZIP), zipped(
            [next(packed) if row >= 0 else b"" for row in rows], images.shape[1:]
        )
    shard = np.zeros((len(rows), *images.shape[1:]), dtype=np.uint8)
    shard[rows >= 0] = some
    file = io.BytesIO()
    np.save(file, shard, allow_pickle=False)
    return _name(number), file.getvalue()


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.stat().st_size == len(content) and path.read_bytes() == content
    except OSError:
        return False


def _opened(path: Path) -> File:
    try:
        if path.suffix == ZIP:
            return Jpegs.of_zip(path)
        content = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise ExpungeError(f"{path} is missing; {REPEAT}") from None
    except (OSError, ValueError, LookupError, TypeError, EOFError, BadZipFile) as error:
        raise ExpungeError(f"{path} is damaged ({error}); {RESTORE}") from None
    if content.dtype != np.uint8 or content.ndim != 4:
        raise ExpungeError(f"{path} holds no uint8 [N, C, H, W] array; {RESTORE}")
    return Pixels(content)


def _check(files: Mapping[Path, File], folder: Path, last: int) -> None:
    if not files:
        raise ExpungeError(f"{folder} holds no shards; {REPEAT}")
    step, *shape = next(iter(files.values())).shape
    suffix = next(iter(files)).suffix
    for number, (path, file) in enumerate(files.items()):
        is_last = number == len(files) - 1
        fits = path.name == _name(number, suffix) and list(file.shape[1:]) == shape
        if not fits or not (len(file) <= step if is_last else len(file) == step):
            raise ExpungeError(f"{path} is not of the same split as the shards before it; {RESTORE}")
    if last >= sum(map(len, files.values())):
        raise ExpungeError(f"{folder}: shards are missing at the end; {RESTORE}")


def _read_slots(path: Path) -> dict[str, int]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return _slots_of(file.read(), path)
    except FileNotFoundError:
        raise ExpungeError(f"{path} is missing; {REPEAT}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ExpungeError(f"{path} is damaged ({error}); {RESTORE}") from None


def _slots_of(text: str, path: Path) -> dict[str, int]:
    try:
        rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        if next(rows, None) != HEAD:
            raise ValueError("no table of slots")
        pairs = [(name, int(slot)) for name, slot in rows]
    except (ValueError, csv.Error) as error:
        raise ExpungeError(f"{path} is damaged ({error}); {RESTORE}") from None
    found = dict(pairs)
    if (
        not found
        or len(found) < len(pairs)
        or len(set(found.values())) < len(pairs)
        or min(found.values()) < 0
    ):
        raise ExpungeError(f"{path} is damaged (a slot of nobody or of two, or a sample twice); {RESTORE}")
    return found
