"""NumPy's arrays in a file: of images, of texts, of pickled objects."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tasks.erasure.formats import arrays
from tasks.erasure.found import Unread

if TYPE_CHECKING:
    from tasks.erasure.scan import Content, Scan

MAGIC = b"\x93NUMPY"
HEADER = 1 << 16
"""Bytes in which the header ends, unless it is of a structure with thousands of fields."""

ROWS = 1 << 16
"""Rows of texts that are read at a time."""


def matches(head: bytes) -> bool:
    """Whether it begins as NumPy's file does."""
    return head.startswith(MAGIC)


def read(content: Content, scan: Scan) -> bool:
    """Search an array, also one that was cut short."""
    try:
        shape, fortran, dtype, start = _header(content)
    except Exception:  # what a damaged header raises, NumPy does not say
        scan.unread[Unread.DAMAGED] += 1
        return False
    if dtype.hasobject:
        scan.inside(io.BytesIO(content.read(start)))
        return True
    if content.size - start < math.prod(shape) * dtype.itemsize:
        scan.unread[Unread.DAMAGED] += 1
    search(content, start, shape, dtype, scan, fortran=fortran)
    return True


def search(
    content: Content,
    start: int,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    scan: Scan,
    *,
    fortran: bool = False,
) -> None:
    """Search an array that begins somewhere in a content."""
    if not math.prod(shape) or not dtype.itemsize:
        return
    if fortran and len(shape) > 1:
        values = np.frombuffer(content.read(start, math.prod(shape) * dtype.itemsize), np.uint8)
        if len(values) < math.prod(shape) * dtype.itemsize:
            return  # of rows that lie across the file none is whole
        whole = values.view(dtype).reshape(shape, order="F")
        _values(whole, scan)
        return

    def rows(first: int, last: int) -> NDArray[Any]:
        size = math.prod(shape[1:]) * dtype.itemsize
        data = content.read(start + first * size, (last - first) * size)
        count = len(data) // size
        return np.frombuffer(data, dtype, count * math.prod(shape[1:])).reshape(count, *shape[1:])

    if not shape:
        _values(np.frombuffer(content.read(start, dtype.itemsize), dtype), scan)
    elif dtype.kind in "uif":
        arrays.search_rows(shape, dtype, rows, scan)
    else:
        step = max(1, min(ROWS, arrays.CHUNK // (math.prod(shape[1:]) * dtype.itemsize)))
        for first in range(0, shape[0], step):
            some = rows(first, min(first + step, shape[0]))
            if not len(some):
                return
            _values(some, scan)


def _values(values: NDArray[Any], scan: Scan) -> None:
    if values.dtype.names:
        for name in values.dtype.names:
            _values(values[name], scan)
    elif values.dtype.kind in "US":
        texts = {
            text if isinstance(text, bytes) else text.encode(errors="replace")
            for text in np.unique(values).tolist()
        }
        scan.names(texts)
        scan.text(b"\n".join(texts))
    elif values.dtype.kind == "V" and not values.dtype.subdtype:
        scan.text(np.ascontiguousarray(values).tobytes())
    else:
        arrays.search_array(values, scan)


def _header(content: Content) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    head = io.BytesIO(content.read(0, HEADER))
    old = np.lib.format.read_magic(head) == (1, 0)
    read_header = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(head)
    return shape, fortran, dtype, head.tell()
