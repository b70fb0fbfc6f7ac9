"""Parquet files in the layout of data set hubs: one row an image, with its bytes and its label."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tasks.core.errors import ExpungeError
from tasks.core.files import clear_parts, write_whole
from tasks.datasets import register
from tasks.datasets._decode import Decoder
from tasks.samples.check import PartlyErased
from tasks.samples.image_set import ImageSet

PARTS = ("train", "test")
IMAGE_COLUMNS = ("img", "image")
BATCH = 1024
"""Rows read at a time, so that the encoded images never lie in memory all together."""
NOTE = b"expunge"
"""Key of a file's metadata under which its :class:`_Note` is kept, as JSON."""


@dataclass(frozen=True, slots=True)
class _Note:
    """What a file says of the rows that were erased from it, so that the others keep ids and labels.

    Attributes
    ----------
    classes
        Numbers of the classes that had training images, in any file, before rows were erased.
    by_bytes
        Whether the part's ids are made of the bytes, though the paths that are left may be unique.
    gone
        Numbers of the erased copies of images, by digest; only of images of which a copy is kept.
    """

    classes: Sequence[int] = ()
    by_bytes: bool = False
    gone: Mapping[str, Sequence[int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class _Shard:
    """One file, before its images are read; ``rows`` and ``labels`` are of the rows not erased."""

    path: Path
    part: str
    image_column: str
    row_count: int
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...] | None
    note: _Note


@dataclass(frozen=True, slots=True)
class _Listed:
    """One row that was not erased."""

    shard: _Shard
    row: int
    path: str | None
    digest: str

    @property
    def source(self) -> str:
        return f"{self.shard.path.name}#{self.row}"


@register
def parquet(path: Path, resize: int | None) -> ImageSet:
    """Read ``train-*.parquet`` and ``test-*.parquet`` in the folder ``path``.

    The image column is called ``img`` or ``image`` and is binary or ``struct<bytes, path>``; the column
    ``label`` holds integers. Class names are those that the hub stored in the schema, else the numbers.

    A sample id is ``train/`` or ``test/`` and the row's ``path``. Where a part's paths are missing or
    not unique, all ids of that part are made of the SHA-256 of the image bytes instead, its first 16
    hex digits; further copies of the same bytes get ``-2``, ``-3``, … in order of their labels. So ids
    depend neither on the order of rows nor, except among such copies, on which other rows there are.

    A row whose image and label are both null was erased. The others keep their row numbers, and after
    :func:`remove` their ids too.

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
    listed: list[_Listed] = []
    for shard in shards:
        for row, image in _rows(shard):
            if image is None:
                decoder.refuse(row.source, "no bytes")
            else:
                decoder.add(io.BytesIO(image), row.source)
            listed.append(row)
    sample_ids = [
        sample_id
        for part in PARTS
        for sample_id in _sample_ids(part, [row for row in listed if row.shard.part == part], shards)
    ]
    return PartlyErased(
        images=decoder.finish(),
        labels=labels,
        sample_ids=tuple(sample_ids),
        sources=tuple(row.source for row in listed),
        is_test=is_test,
        classes=classes,
        pictures=decoder.pictures,
        row_counts=tuple((shard.path.name, shard.row_count) for shard in shards if shard.part == "train"),
        erased_classes=_known(shards).difference(labels[~is_test].tolist()),
    )


def encoded(path: Path, references: Collection[str]) -> dict[str, bytes]:
    """Return the image bytes of the rows that ``references`` name, where they are there."""
    asked = set(references)
    shards = [_open(file, part) for part in PARTS for file in _files(path, part)]
    rows = ((row.source, image) for shard in shards for row, image in _rows(shard))
    return {source: image for source, image in rows if image is not None and source in asked}


def remove(path: Path, references: Collection[str]) -> list[Path]:
    """Make the rows that ``references`` name null and return the files that were rewritten.

    Only files that hold such rows are rewritten; see :mod:`tasks.erasure.originals`. A file keeps its
    columns, metadata, compression and row groups.
    """
    clear_parts(path)  # they would hold the images of later requests
    shards = [_open(file, part) for part in PARTS for file in _files(path, part)]
    classes = _known(shards).union(*(shard.labels.tolist() for shard in shards if shard.part == "train"))
    plans = [
        plan
        for part in PARTS
        for plan in _plans([shard for shard in shards if shard.part == part], set(references), classes)
    ]
    for shard, rows, note in plans:
        _rewrite(shard, rows, note)
    return [shard.path for shard, _, _ in plans]


def _plans(
    shards: Sequence[_Shard], asked: Collection[str], classes: Collection[int]
) -> Iterator[tuple[_Shard, list[int], _Note]]:
    """Which files of one part to rewrite, the rows to make null and the new note.

    Those are the files that hold what is asked for, or that name an image whose last copy leaves.
    """
    listed = [row for shard in shards for row, _ in _rows(shard)]
    by_bytes = _by_bytes(listed, shards)
    kept = {row.digest for row in listed if row.source not in asked}
    numbers = _copy_numbers(listed, shards)
    leaving: dict[Path, list[int]] = {shard.path: [] for shard in shards}
    gone = {
        shard.path: {digest: list(copies) for digest, copies in shard.note.gone.items() if digest in kept}
        for shard in shards
    }
    for row, number in zip(listed, numbers, strict=True):
        if row.source not in asked:
            continue
        leaving[row.shard.path].append(row.row)
        if by_bytes and row.digest in kept:
            gone[row.shard.path].setdefault(row.digest, []).append(number)
    for shard in shards:
        rows, copies = leaving[shard.path], gone[shard.path]
        if rows or len(copies) < len(shard.note.gone):
            yield shard, rows, _Note(sorted(classes), by_bytes, copies)


def _rewrite(shard: _Shard, leaving: Sequence[int], note: _Note) -> None:
    """Write the file anew with the rows ``leaving`` null and with ``note``."""
    try:
        with pq.ParquetFile(shard.path, page_checksum_verification=True) as file:
            old = file.schema_arrow
            metadata = {**(old.metadata or {}), NOTE: json.dumps(asdict(note))}
            schema = pa.schema([column.with_nullable(True) for column in old], metadata)
            with (
                write_whole(_home(shard.path)) as target,
                pq.ParquetWriter(
                    target, schema, compression=_compression(file), write_page_checksum=True
                ) as writer,
            ):
                for table in _groups_without(file, schema, leaving):
                    writer.write_table(table, row_group_size=max(1, len(table)))
    except pa.ArrowException as error:
        raise _unreadable(shard.path, error) from None


def _home(path: Path) -> Path:
    """Where to write: a link within the folder is followed, one that leaves it is replaced by a file."""
    real = path.resolve()
    return real if real.is_relative_to(path.parent.resolve()) else path


def _compression(file: pq.ParquetFile) -> dict[str, str]:
    group = file.metadata.row_group(0)
    columns = [group.column(index) for index in range(group.num_columns)]
    return {column.path_in_schema: column.compression.replace("UNCOMPRESSED", "NONE") for column in columns}


def _groups_without(file: pq.ParquetFile, schema: pa.Schema, leaving: Sequence[int]) -> Iterator[pa.Table]:
    first = 0
    for group in range(file.num_row_groups):
        batches = []
        for batch in file.iter_batches(BATCH, row_groups=[group]):
            numbers = np.arange(len(batch))
            # Taking row "null" gives a row of nulls: nothing of the old one is even copied.
            taken = batch.take(pa.array(numbers, mask=np.isin(first + numbers, leaving)))
            batches.append(pa.RecordBatch.from_arrays(taken.columns, schema=schema))
            first += len(batch)
        yield pa.Table.from_batches(batches, schema)


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
    rows = np.flatnonzero(labels.is_valid().to_numpy())
    return _Shard(
        path,
        part,
        image_column,
        row_count=len(labels),
        rows=rows,
        labels=_labels(path, labels, rows),
        class_names=_class_names(schema),
        note=_note(path, schema),
    )


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


def _labels(path: Path, column: pa.ChunkedArray, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Labels of the rows that have one."""
    if len(column) == 0:
        raise ExpungeError(f"{path} has no rows")
    labels: NDArray[np.integer] = column.drop_null().to_numpy()
    # A label beyond the number of rows leaves classes empty, and would make a list of names that long.
    wrong = np.flatnonzero((labels < 0) | (labels > np.iinfo(np.int32).max))
    if wrong.size:
        row, label = rows[wrong[0]], labels[wrong[0]]
        raise ExpungeError(f"{path.name}#{row} in {path.parent} has label {label}; 0 or more is right")
    return labels.astype(np.int64)


def _class_names(schema: pa.Schema) -> tuple[str, ...] | None:
    """Names that the hub's library stored in the schema's metadata, if it did."""
    try:
        stored = json.loads((schema.metadata or {})[b"huggingface"])
        names = stored["info"]["features"]["label"]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _note(path: Path, schema: pa.Schema) -> _Note:
    stored = (schema.metadata or {}).get(NOTE)
    if stored is None:
        return _Note()
    try:
        return _Note(**json.loads(stored))
    except (TypeError, ValueError):
        raise ExpungeError(f"{path}: metadata {NOTE.decode()} is damaged; restore the file") from None


def _known(shards: Sequence[_Shard]) -> frozenset[int]:
    """Numbers of the classes that the files' notes name."""
    return frozenset(label for shard in shards for label in shard.note.classes)


def _classes(path: Path, shards: Sequence[_Shard], labels: NDArray[np.int64]) -> tuple[str, ...]:
    stored = {shard.class_names: shard.path.name for shard in shards if shard.class_names is not None}
    if len(stored) > 1:
        one, other = list(stored.values())[:2]
        raise ExpungeError(f"{path}: {one} and {other} give the classes different names")
    if stored:
        return next(iter(stored))
    highest = max([int(labels.max(initial=0)), *_known(shards)])
    rows = sum(shard.row_count for shard in shards)
    if highest >= rows:
        raise ExpungeError(
            f"{path}: label {highest} among {rows} rows; labels must be 0, 1, 2, … without gaps"
        )
    return tuple(str(label) for label in range(highest + 1))


def _rows(shard: _Shard) -> Iterator[tuple[_Listed, bytes | None]]:
    """Every row that was not erased, with the bytes of its image where it has them."""
    has_label = np.zeros(shard.row_count, dtype=np.bool_)
    has_label[shard.rows] = True
    for row, (is_there, image, image_path) in enumerate(_images(shard)):
        if has_label[row]:
            yield _Listed(shard, row, image_path, sha256(image or b"").hexdigest()[:16]), image
        elif is_there:
            raise ExpungeError(f"{shard.path.name}#{row} in {shard.path.parent} has no label")


def _images(shard: _Shard) -> Iterator[tuple[bool, bytes | None, str | None]]:
    """Of every row, whether its image is not null, and the image's bytes and path where it has them."""
    try:
        with pq.ParquetFile(shard.path, page_checksum_verification=True) as file:
            for batch in file.iter_batches(BATCH, columns=[shard.image_column]):
                column = batch.column(0)
                is_there, nothing = column.is_valid().to_pylist(), [None] * len(column)
                if not pa.types.is_struct(column.type):
                    yield from zip(is_there, column.to_pylist(), nothing, strict=True)
                    continue
                images = pc.struct_field(column, "bytes").to_pylist()
                has_path = column.type.get_field_index("path") >= 0
                paths = pc.struct_field(column, "path").to_pylist() if has_path else nothing
                yield from zip(is_there, images, paths, strict=True)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(shard.path, error) from None


def _sample_ids(part: str, listed: Sequence[_Listed], shards: Sequence[_Shard]) -> list[str]:
    shards = [shard for shard in shards if shard.part == part]
    if not _by_bytes(listed, shards):
        return [f"{part}/{_below_part(row)}" for row in listed]
    return [
        f"{part}/{row.digest}" if number == 1 else f"{part}/{row.digest}-{number}"
        for row, number in zip(listed, _copy_numbers(listed, shards), strict=True)
    ]


def _below_part(row: _Listed) -> str:
    return (row.path or "").removeprefix(f"{row.shard.part}/")


def _by_bytes(listed: Sequence[_Listed], shards: Sequence[_Shard]) -> bool:
    """Whether the ids of one part are made of the bytes: its paths do not do, or once did not."""
    named = {_below_part(row) for row in listed if row.path}
    return len(named) < len(listed) or any(shard.note.by_bytes for shard in shards)


def _copy_numbers(listed: Sequence[_Listed], shards: Sequence[_Shard]) -> list[int]:
    """Which copy of its image each row of one part is, from 1; numbers of erased copies stay unused."""
    gone = {
        (digest, number)
        for shard in shards
        for digest, numbers in shard.note.gone.items()
        for number in numbers
    }
    copies, last = [0] * len(listed), Counter[str]()
    labels = [label for shard in shards for label in shard.labels.tolist()]
    for row in np.argsort(labels, kind="stable").tolist():
        digest = listed[row].digest
        last[digest] += 1
        while (digest, last[digest]) in gone:
            last[digest] += 1
        copies[row] = last[digest]
    return copies
