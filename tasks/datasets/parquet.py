"""Parquet files in the layouts of data set hubs: one row an image, with its bytes and its label."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.core.errors import ExpungeError
from tasks.core.files import clear_parts, write_whole
from tasks.core.params import Split
from tasks.datasets import register
from tasks.datasets._reading import hub_columns as columns
from tasks.datasets._reading.decode import Decoder
from tasks.datasets._reading.hub_files import PARTS, find_files
from tasks.datasets._reading.still import Decoding
from tasks.datasets._reading.subjects import references_in
from tasks.samples.check import PartlyErased
from tasks.samples.image_set import ImageSet

log = logging.getLogger(__name__)

BATCH = 1024
"""Rows read at a time at most,"""
BATCH_BYTES = 2**26
"""and about so many bytes, so that the encoded images never lie in memory all together."""

NOTE = b"expunge"
"""Key of a file's metadata under which its :class:`_Note` is kept, as JSON."""

REWRITTEN = (".parquet",)
"""Ends of the names of files that :func:`remove` writes anew without the erased, instead of deleting them."""

UNLABELLED = (None, -1)
"""What hubs write instead of a label of images that are to be judged by somebody else."""

Label = int | str | None


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
    names
        Names of all classes, where labels are names that no schema lists.
    """

    classes: Sequence[int] = ()
    by_bytes: bool = False
    gone: Mapping[str, Sequence[int]] = field(default_factory=dict)
    names: Sequence[str] = ()


@dataclass(frozen=True, slots=True, eq=False)
class _Shard:
    """One file, before its images are read.

    ``name`` is its path below the source; ``labels`` and ``subjects`` are of all rows.
    """

    path: Path
    name: str
    part: str
    image_column: str
    labels: Sequence[Label]
    subjects: Sequence[object] | None
    class_names: tuple[str, ...] | None
    note: _Note


@dataclass(frozen=True, slots=True)
class _Listed:
    """One row that has an image and a label."""

    shard: _Shard
    row: int
    path: str | None
    digest: str

    @property
    def source(self) -> str:
        return f"{self.shard.name}#{self.row}"

    @property
    def label(self) -> Label:
        return self.shard.labels[self.row]


@register
def parquet(path: Path, split: Split) -> ImageSet:
    """Read the Parquet files of a folder: ``train-*.parquet`` and, if there are any, those of val and test.

    The image column is called ``img`` or ``image``, or is the first that holds encoded images, binary or
    ``struct<bytes, path>``. The label column is ``split.label_column``, or the only one of ``label``,
    ``labels``, ``fine_label``, ``coarse_label``, or the only one that the hub's schema says is one; it holds
    numbers from 0 or names. Class names are those that the hub stored in the schema, or else the labels.
    Whose an image is stands in the column ``split.subject``, by default ``subject`` if there is one.

    A sample id is ``train/``, ``val/`` or ``test/`` and the row's ``path``. Where a part's paths are missing
    or not unique, all ids of that part are made of the SHA-256 of the image bytes instead, its first 16
    hex digits; further copies of the same bytes get ``-2``, ``-3``, … in order of their labels. So ids
    depend neither on the order of rows nor, except among such copies, on which other rows there are.

    A row whose image and label are both null was erased. The others keep their row numbers, and after
    :func:`remove` their ids too. A row that has a label but no image is passed over, and so is a test or
    validation part without labels.

    Raises
    ------
    ExpungeError
        If files, columns, labels or images are missing or damaged, or it is not clear which are meant.
    """
    shards = _labelled(path, _open_all(path, split))
    classes = _classes(path, shards)
    number: Mapping[Label, int] = {name: index for index, name in enumerate(classes)}
    decoder = Decoder(sum(len(shard.labels) for shard in shards), Decoding.of(split), path)
    listed: list[_Listed] = []
    for shard in shards:
        for row, image in _rows(shard):
            decoder.add(image, row.source)
            listed.append(row)
    labels = np.array(
        [row.label if isinstance(row.label, int) else number[row.label] for row in listed], dtype=np.int64
    )
    sample_ids = [
        sample_id
        for part in PARTS
        for sample_id in _sample_ids(part, [row for row in listed if row.shard.part == part], shards)
    ]
    parts = np.array([row.shard.part for row in listed])
    return PartlyErased(
        images=decoder.finish(len(listed)),
        labels=labels,
        sample_ids=tuple(sample_ids),
        sources=tuple(row.source for row in listed),
        is_test=parts == "test",
        classes=classes,
        pictures=decoder.pictures,
        row_counts=tuple((shard.name, len(shard.labels)) for shard in shards if shard.part == "train"),
        is_val=parts == "val" if np.any(parts == "val") else None,
        subjects=_subjects(listed),
        has_test=any(shard.part == "test" for shard in shards),
        erased_classes=_known(shards).difference(labels[parts == "train"].tolist()),
    )


def _subjects(listed: Sequence[_Listed]) -> tuple[tuple[str, ...], ...] | None:
    if all(row.shard.subjects is None for row in listed):
        return None
    return tuple(
        references_in(row.shard.subjects[row.row], row.source) if row.shard.subjects is not None else ()
        for row in listed
    )


def encoded(path: Path, references: Collection[str], split: Split) -> dict[str, bytes]:
    """Return the image bytes of the rows that ``references`` name, where they are there."""
    asked = set(references)
    rows = (row for shard in _open_all(path, split) for row in _rows(shard))
    return {row.source: image for row, image in rows if row.source in asked}


def remove(path: Path, references: Collection[str], split: Split) -> list[Path]:
    """Make the rows that ``references`` name null and return the files that were rewritten.

    Only files that hold such rows are rewritten; see :mod:`tasks.erasure.originals`. A file keeps its
    columns, metadata, compression and row groups.
    """
    shards = _open_all(path, split)
    for folder in {shard.path.parent for shard in shards}:
        clear_parts(folder)  # they would hold the images of later requests
    names = _classes(path, shards)
    number: Mapping[Label, int] = {name: index for index, name in enumerate(names)}
    trained = {
        label for shard in shards if shard.part == "train" for label in shard.labels if label is not None
    }
    classes = _known(shards).union(label if isinstance(label, int) else number[label] for label in trained)
    spelled = names if any(isinstance(label, str) for label in trained) or _noted_names(shards) else ()
    plans = [
        plan
        for part in PARTS
        for plan in _plans(
            [shard for shard in shards if shard.part == part], set(references), classes, spelled
        )
    ]
    for shard, rows, note in plans:
        _rewrite(shard, rows, note)
    return [shard.path for shard, _, _ in plans]


def _plans(
    shards: Sequence[_Shard], asked: Collection[str], classes: Collection[int], names: Sequence[str]
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
            yield shard, rows, _Note(sorted(classes), by_bytes, copies, names)


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
        for batch in file.iter_batches(_batch_size(file), row_groups=[group]):
            numbers = np.arange(len(batch))
            # Taking row "null" gives a row of nulls: nothing of the old one is even copied.
            wanted = pa.array(numbers, mask=np.isin(first + numbers, leaving))
            columns_left = [_taken(column, wanted) for column in batch.columns]
            batches.append(pa.RecordBatch.from_arrays(columns_left, schema=schema))
            first += len(batch)
        yield pa.Table.from_batches(batches, schema)


def _taken(column: pa.Array, wanted: pa.Array) -> pa.Array:
    """Take rows of a column; Arrow cannot where it holds views."""
    if "_view" not in str(column.type):
        return column.take(wanted)
    values = column.to_pylist()
    return pa.array([None if row is None else values[row] for row in wanted.to_pylist()], column.type)


def _batch_size(file: pq.ParquetFile) -> int:
    groups = [file.metadata.row_group(group) for group in range(file.num_row_groups)]
    row = sum(group.total_byte_size for group in groups) / max(1, file.metadata.num_rows)
    return int(min(BATCH, max(1, BATCH_BYTES // max(1, row))))


def _open_all(path: Path, split: Split) -> list[_Shard]:
    return [_open(path, file, part, split) for part, files in find_files(path).items() for file in files]


def _open(path: Path, file: Path, part: str, split: Split) -> _Shard:
    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as opened:
            schema = opened.schema_arrow
            image = columns.image_column(file, schema)
            label = columns.label_column(file, schema, split)
            subject = columns.subject_column(file, schema, split)
            read = opened.read(columns=list(dict.fromkeys(name for name in (label, subject) if name)))
            labels = columns.labels_in(file, label, read.column(label))
            subjects = read.column(subject).to_pylist() if subject else None
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(file, error) from None
    if not labels:
        raise ExpungeError(f"{file} has no rows")
    name = file.relative_to(path).as_posix()
    return _Shard(
        file, name, part, image, labels, subjects, columns.class_names(schema, label), _note(file, schema)
    )


def _labelled(path: Path, shards: Sequence[_Shard]) -> list[_Shard]:
    """Leave out the parts beside the training part that have no labels; refuse numbers that are none."""
    kept = []
    for part in PARTS:
        of_part = [shard for shard in shards if shard.part == part]
        labels = {label for shard in of_part for label in shard.labels}
        if (
            part != "train"
            and of_part
            and labels.issubset(UNLABELLED)
            and not any(s.note.classes for s in of_part)
        ):
            log.warning("parquet %s: the %s part has no labels and is passed over", path, part)
            continue
        kept += of_part
    for shard in kept:
        _check_labels(shard)
    return kept


def _check_labels(shard: _Shard) -> None:
    """Refuse labels that are no numbers of classes.

    One beyond the number of rows leaves classes empty, and would make a list of names that long.
    """
    for row, label in enumerate(shard.labels):
        if isinstance(label, int) and not 0 <= label <= np.iinfo(np.int32).max:
            raise ExpungeError(
                f"{shard.name}#{row} in {shard.path.parent} has label {label}; 0 or more is right"
            )


def _unreadable(path: Path, error: Exception) -> ExpungeError:
    return ExpungeError(f"{path} is not a readable Parquet file: {(str(error).splitlines() or ['?'])[0]}")


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


def _noted_names(shards: Sequence[_Shard]) -> frozenset[str]:
    return frozenset(name for shard in shards for name in shard.note.names)


def _classes(path: Path, shards: Sequence[_Shard]) -> tuple[str, ...]:
    stored = {shard.class_names: shard.name for shard in shards if shard.class_names is not None}
    if len(stored) > 1:
        one, other = list(stored.values())[:2]
        raise ExpungeError(f"{path}: {one} and {other} give the classes different names")
    labels = {label for shard in shards for label in shard.labels if label is not None}
    names = {label for label in labels if isinstance(label, str)} | _noted_names(shards)
    if names and len(names) < len(labels):
        raise ExpungeError(f"{path}: some labels are numbers and some are names; one kind is right")
    if stored:
        known = next(iter(stored))
        if strange := sorted(names - set(known)):
            raise ExpungeError(
                f"{path}: label {strange[0]!r} is no class; the schema has {', '.join(known[:20])}"
            )
        return known
    if names:
        return tuple(sorted(names))
    highest = max([*(label for label in labels if isinstance(label, int)), *_known(shards)], default=0)
    rows = sum(len(shard.labels) for shard in shards)
    if highest >= rows:
        raise ExpungeError(
            f"{path}: label {highest} among {rows} rows; labels must be 0, 1, 2, … without gaps"
        )
    return tuple(str(label) for label in range(highest + 1))


def _rows(shard: _Shard) -> Iterator[tuple[_Listed, bytes]]:
    """Every row that has an image, with its bytes; those that were erased have none, and no label."""
    without = 0
    for row, (image, image_path) in enumerate(_images(shard)):
        where = f"{shard.name}#{row} in {shard.path.parent}"
        if image is None and image_path and shard.labels[row] is not None:
            raise ExpungeError(
                f"{where} has a path, {image_path[:80]!a}, and no bytes: it lies elsewhere; use source table"
            )
        if image is None:
            without += shard.labels[row] is not None
        elif shard.labels[row] is None:
            raise ExpungeError(f"{where} has no label")
        else:
            yield _Listed(shard, row, image_path, sha256(image).hexdigest()[:16]), image
    if without:
        log.warning("%s: %d rows have a label and no image; they are passed over", shard.path, without)


def _images(shard: _Shard) -> Iterator[tuple[bytes | None, str | None]]:
    """Of every row, the image's bytes and path where it has them."""
    try:
        with pq.ParquetFile(shard.path, page_checksum_verification=True) as file:
            for batch in file.iter_batches(_batch_size(file), columns=[shard.image_column]):
                column = batch.column(0)
                if not pa.types.is_struct(column.type):
                    yield from ((image, None) for image in column.to_pylist())
                    continue
                images = pc.struct_field(column, "bytes").to_pylist()
                has_path = column.type.get_field_index("path") >= 0
                paths = pc.struct_field(column, "path").to_pylist() if has_path else [None] * len(column)
                yield from zip(images, paths, strict=True)
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
    for row in sorted(range(len(listed)), key=lambda row: _sortable(listed[row].label)):
        digest = listed[row].digest
        last[digest] += 1
        while (digest, last[digest]) in gone:
            last[digest] += 1
        copies[row] = last[digest]
    return copies


def _sortable(label: Label) -> tuple[int, str]:
    return (label, "") if isinstance(label, int) else (0, str(label))
