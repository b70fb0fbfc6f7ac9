"""Tables by column: Parquet, Arrow and Feather, ORC; lists, structs and dictionaries too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.erasure.formats import arrays
from tasks.erasure.found import Unread

if TYPE_CHECKING:
    from tasks.erasure.scan import Content, Scan

PARQUET, ARROW, ORC, STREAM = b"PAR1", b"ARROW1\0\0", b"ORC", b"\xff\xff\xff\xff"
ROWS = 1 << 14
"""Rows that are read at a time, where they are small."""

BYTES = 1 << 25
"""Bytes of rows that are read at a time."""

DEEPEST = 32
"""Lists in lists."""


def matches(head: bytes) -> bool:
    """Whether it begins as a file of columns does."""
    return head.startswith((PARQUET, ARROW, ORC)) or (head[:4] == STREAM and head[7:8] == b"\0")


def read(content: Content, scan: Scan) -> bool:
    """Search every column; false if the file could not be read to its end."""
    import pyarrow as pa

    reader = next(reader for mark, reader in READERS.items() if content.head.startswith(mark))
    content.stream.seek(0)
    try:
        for batch in reader(content, scan):
            batch.validate(full=True)  # else a damaged offset would end the process
            for column in batch.columns:
                _column(column, scan)
    except (
        pa.ArrowException,
        OSError,
        ValueError,
        OverflowError,
        TypeError,
        NotImplementedError,
        MemoryError,
    ):
        scan.unread[Unread.DAMAGED] += content.head[:4] != STREAM
        return False
    return True


def _parquet(content: Content, scan: Scan) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(_Kept(content.stream)) as file:
        _schema(file.schema_arrow, scan)
        metadata = file.metadata
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        size = max([group.total_byte_size // max(group.num_rows, 1) for group in groups], default=1)
        yield from file.iter_batches(max(16, min(ROWS, BYTES // max(size, 1))))


def _arrow(content: Content, scan: Scan) -> Iterator[Any]:
    import pyarrow as pa

    with pa.ipc.open_file(_Kept(content.stream)) as file:
        _schema(file.schema, scan)
        for number in range(file.num_record_batches):
            yield from _slices(file.get_batch(number))


def _stream(content: Content, scan: Scan) -> Iterator[Any]:
    import pyarrow as pa

    with pa.ipc.open_stream(_Kept(content.stream)) as file:
        _schema(file.schema, scan)
        for batch in file:
            yield from _slices(batch)


def _orc(content: Content, scan: Scan) -> Iterator[Any]:
    from pyarrow import orc

    file = orc.ORCFile(_Kept(content.stream))
    _schema(file.schema, scan)
    for number in range(file.nstripes):
        yield from _slices(file.read_stripe(number))


READERS: dict[bytes, Callable[[Content, Scan], Iterator[Any]]] = {
    PARQUET: _parquet, ARROW: _arrow, ORC: _orc, STREAM: _stream,
}  # fmt: skip


class _Kept:
    """A stream that pyarrow may use and cannot close: it is needed once more, to be read as text."""

    closed = False
    mode = "rb"

    def __init__(self, stream: Any) -> None:
        self.read, self.seek, self.tell = stream.read, stream.seek, stream.tell

    def close(self) -> None:
        """Leave it open."""

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def writable(self) -> bool:
        """False."""
        return False


def _slices(batch: Any) -> Iterator[Any]:
    for start in range(0, batch.num_rows, ROWS):
        yield batch.slice(start, ROWS)


def _schema(schema: Any, scan: Scan) -> None:
    scan.text("\n".join(schema.names).encode(errors="replace"))
    for value in (schema.metadata or {}).values():
        scan.text(value)


def _column(column: Any, scan: Scan, depth: int = 0) -> None:
    """Search a column, whatever it is made of."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import types

    kind = column.type
    if depth > DEEPEST or not len(column) or types.is_null(kind):
        return
    if isinstance(kind, pa.BaseExtensionType):
        _column(column.storage, scan, depth + 1)
    elif types.is_dictionary(kind):
        _column(column.dictionary, scan, depth + 1)
    elif types.is_struct(kind):
        for part in column.flatten():
            _column(part, scan, depth + 1)
    elif types.is_map(kind):
        _column(column.keys, scan, depth + 1)
        _column(column.items, scan, depth + 1)
    elif types.is_union(kind):
        for number in range(kind.num_fields):
            _column(column.field(number), scan, depth + 1)
    elif _is_list(kind):
        _images(column, scan)
        _column(column.flatten(), scan, depth + 1)
    elif types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        texts = pc.unique(column).cast(pa.large_binary()).to_pylist()
        texts = [text for text in texts if text]
        scan.names(texts)
        scan.text(b"\n".join(texts))
    elif _is_binary(kind):
        plain = column if types.is_binary(kind) else column.cast(pa.large_binary())
        for value in pc.unique(plain).to_pylist():
            scan.encoded(value or b"")


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _is_binary(kind: Any) -> bool:
    from pyarrow import types

    return bool(
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
        or types.is_binary_view(kind)
    )


def _images(column: Any, scan: Scan) -> None:
    """Look at lists of numbers of equal length as images, as datasets keep them that are not encoded."""
    from pyarrow import types

    if not scan.by_image or column.null_count:
        return
    shape = [len(column)]
    values = column
    while _is_list(values.type):
        flat = values.flatten()
        if not len(values) or len(flat) % len(values) or flat.null_count:
            return
        each = len(flat) // len(values)
        if not types.is_fixed_size_list(values.type) and (np.asarray(values.value_lengths()) != each).any():
            return
        shape.append(each)
        values = flat
    if len(shape) <= 4 and (types.is_integer(values.type) or types.is_floating(values.type)):
        arrays.search_array(values.to_numpy(zero_copy_only=False).reshape(shape), scan)
