"""Parquet files in the layout of data set hubs: one row an image, with its bytes and its label."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tasks.datasets import ImageSet, register
from tasks.datasets._decode import Decoder
from tasks.errors import ExpungeError

PARTS = ("train", "test")
IMAGE_COLUMNS = ("img", "image")
BATCH = 1024
"""Rows read at a time, so that the encoded images never lie in memory all together."""


@dataclass(frozen=True, slots=True, eq=False)
class _Shard:
    """One file, before its images are read."""

    path: Path
    part: str
    image_column: str
    labels: NDArray[np.int64]
    class_names: tuple[str, ...] | None


@register
def parquet(path: Path, resize: int | None) -> ImageSet:
    """Read ``train-*.parquet`` and ``test-*.parquet`` in the folder ``path``.

    The image column is called ``img`` or ``image`` and is binary or ``struct<bytes, path>``; the column
    ``label`` holds integers. Class names are those that the hub stored in the schema, else the numbers.

    A sample id is ``train/`` or ``test/`` and the row's ``path``. Where a part's paths are missing or
    not unique, all ids of that part are made of the SHA-256 of the image bytes instead, its first 16
    hex digits; further copies of the same bytes get ``-2``, ``-3``, … in order of their labels. So ids
    depend neither on the order of rows nor, except among such copies, on which other rows there are.

    Raises
    ------
    ExpungeError
        If files, columns, labels or images are missing or damaged.
    """
    shards = [_open(file, part) for part in PARTS for file in _files(path, part)]
    labels = np.concatenate([shard.labels for shard in shards])
    is_test = np.concatenate([np.full(len(shard.labels), shard.part == "test") for shard in shards])
    classes = _classes(path, shards, labels)
    decoder = Decoder(len(labels), resize, path)
    sources, paths, digests = [], [], []
    for shard in shards:
        for row, (image, image_path) in enumerate(_rows(shard)):
            source = f"{shard.path.name}#{row}"
            if image is None:
                decoder.refuse(source, "no bytes")
            else:
                decoder.add(io.BytesIO(image), source)
            sources.append(source)
            paths.append(image_path)
            digests.append(sha256(image or b"").hexdigest()[:16])
    tests = np.count_nonzero(is_test)
    first_test = len(labels) - tests
    train, test = slice(0, first_test), slice(first_test, None)
    return ImageSet(
        images=decoder.finish(),
        labels=labels,
        sample_ids=(
            *_sample_ids("train", paths[train], digests[train], labels[train]),
            *_sample_ids("test", paths[test], digests[test], labels[test]),
        ),
        sources=tuple(sources),
        is_test=is_test,
        classes=classes,
    )


def _files(path: Path, part: str) -> list[Path]:
    """Return the part's files in order; every one that their names announce must be there."""
    wanted = "a folder with train-*.parquet and test-*.parquet is needed"
    if path.is_file():
        raise ExpungeError(f"{path} is a single file, so there is no test part; {wanted}")
    if not path.is_dir():
        raise ExpungeError(f"{path} does not exist; {wanted}")
    files = sorted(path.glob(f"{part}-*.parquet"))
    if not files:
        found = ", ".join(sorted(file.name for file in path.iterdir())[:5]) or "nothing"
        raise ExpungeError(f"{path} holds no {part}-*.parquet (found: {found}); {wanted}")
    for file in files:
        shard = re.fullmatch(rf"{part}-\d+-of-(\d+)", file.stem, re.ASCII)
        if shard and int(shard[1]) != len(files):
            raise ExpungeError(f"{path}: {file.name} announces {int(shard[1])} files, found {len(files)}")
    return files


def _open(path: Path, part: str) -> _Shard:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            schema = file.schema_arrow
            _check_columns(path, schema)
            labels = file.read(columns=["label"]).column("label")
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from None
    image_column = next(name for name in schema.names if name in IMAGE_COLUMNS)
    return _Shard(path, part, image_column, _labels(path, labels), _class_names(schema))


def _unreadable(path: Path, error: Exception) -> ExpungeError:
    return ExpungeError(f"{path} is not a readable Parquet file: {(str(error).splitlines() or ['?'])[0]}")


def _check_columns(path: Path, schema: pa.Schema) -> None:
    images = [field for field in schema if field.name in IMAGE_COLUMNS]
    labels = [field for field in schema if field.name == "label"]
    if len(images) != 1 or len(labels) != 1:
        raise ExpungeError(
            f"{path} needs one column img or image, and one column label; found {', '.join(schema.names)}"
        )
    if not pa.types.is_integer(labels[0].type):
        raise ExpungeError(f"{path}: column label is {labels[0].type}; integers from 0 are right")
    kind = images[0].type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise ExpungeError(
            f"{path}: column {images[0].name} is {images[0].type}; binary or struct<bytes, path> is right"
        )


def _labels(path: Path, column: pa.ChunkedArray) -> NDArray[np.int64]:
    if len(column) == 0:
        raise ExpungeError(f"{path} has no rows")
    if column.null_count:
        row = int(np.argmax(column.is_null().to_numpy()))
        raise ExpungeError(f"{path.name}#{row} in {path.parent} has no label")
    labels: NDArray[np.integer] = column.to_numpy()
    # A label beyond the number of rows leaves classes empty, and would make a list of names that long.
    wrong = np.flatnonzero((labels < 0) | (labels > np.iinfo(np.int32).max))
    if wrong.size:
        row = int(wrong[0])
        raise ExpungeError(f"{path.name}#{row} in {path.parent} has label {labels[row]}; 0 or more is right")
    return labels.astype(np.int64)


def _class_names(schema: pa.Schema) -> tuple[str, ...] | None:
    """Names that the hub's library stored in the schema's metadata, if it did."""
    try:
        stored = json.loads((schema.metadata or {})[b"huggingface"])
        names = stored["info"]["features"]["label"]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _classes(path: Path, shards: Sequence[_Shard], labels: NDArray[np.int64]) -> tuple[str, ...]:
    stored = {shard.class_names: shard.path.name for shard in shards if shard.class_names is not None}
    if len(stored) > 1:
        one, other = list(stored.values())[:2]
        raise ExpungeError(f"{path}: {one} and {other} give the classes different names")
    if stored:
        return next(iter(stored))
    highest = int(labels.max())
    if highest >= len(labels):
        raise ExpungeError(
            f"{path}: label {highest} among {len(labels)} rows; labels must be 0, 1, 2, … without gaps"
        )
    return tuple(str(label) for label in range(highest + 1))


def _rows(shard: _Shard) -> Iterator[tuple[bytes | None, str | None]]:
    """Bytes and path of each image, where it has them."""
    try:
        with pq.ParquetFile(shard.path, page_checksum_verification=True) as file:
            for batch in file.iter_batches(BATCH, columns=[shard.image_column]):
                column = batch.column(0)
                if not pa.types.is_struct(column.type):
                    yield from ((image, None) for image in column.to_pylist())
                    continue
                images = pc.struct_field(column, "bytes").to_pylist()
                has_path = column.type.get_field_index("path") >= 0
                paths = pc.struct_field(column, "path").to_pylist() if has_path else [None] * len(images)
                yield from zip(images, paths, strict=True)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(shard.path, error) from None


def _sample_ids(
    part: str, paths: Sequence[str | None], digests: Sequence[str], labels: NDArray[np.int64]
) -> list[str]:
    named = [f"{part}/{path.removeprefix(f'{part}/')}" for path in paths if path]
    if len(set(named)) == len(paths):
        return named
    ids = [""] * len(digests)
    copies: Counter[str] = Counter()
    for row in np.argsort(labels, kind="stable").tolist():
        digest = digests[row]
        copies[digest] += 1
        ids[row] = f"{part}/{digest}" if copies[digest] == 1 else f"{part}/{digest}-{copies[digest]}"
    return ids
