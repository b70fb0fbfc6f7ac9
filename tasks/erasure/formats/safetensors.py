"""Weights as safetensors keep them: the header, the digest of the tensors, tensors that are images."""

from __future__ import annotations

import hashlib
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.erasure.formats import npy

if TYPE_CHECKING:
    from tasks.erasure.scan import Content, Scan

HEADER = 100_000_000
"""Bytes of the longest header that the format allows."""

TORCH = {
    "BOOL": ("bool", 1), "U8": ("uint8", 1), "I8": ("int8", 1), "U16": ("uint16", 2), "I16": ("int16", 2),
    "F16": ("float16", 2), "BF16": ("bfloat16", 2), "U32": ("uint32", 4), "I32": ("int32", 4),
    "F32": ("float32", 4), "U64": ("uint64", 8), "I64": ("int64", 8), "F64": ("float64", 8),
    "F8_E4M3": ("float8_e4m3fn", 1), "F8_E5M2": ("float8_e5m2", 1), "C64": ("complex64", 8),
}  # fmt: skip
"""PyTorch's names of the types, of which the digest is made, and bytes of a value."""

IMAGES = ("U8", "I16", "I32", "I64", "F16", "F32", "F64")
PARAMETERS = ("weight", "bias", "running_mean", "running_var")
"""What PyTorch's layers call their tensors: floats of these names are no images, whatever their shape."""


def matches(head: bytes) -> bool:
    """Whether a length and a header of JSON begin it."""
    return head[8:10] == b'{"'


def read(content: Content, scan: Scan) -> bool:
    """Search header and tensors; not the bytes of the tensors as text."""
    length = int.from_bytes(content.head[:8], "little")
    if length > min(HEADER, content.size):
        return False
    header = content.read(8, length)
    scan.text(header)
    try:
        tensors = json.loads(header)
        tensors.pop("__metadata__", None)
        _check(tensors, content.size - 8 - length)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return True  # a damaged one can be used by nobody
    if scan.sought.weights:
        scan.model(_digest(tensors, content, 8 + length))
    for name, tensor in tensors.items():
        if tensor["dtype"].startswith("F") and name.rpartition(".")[2] in PARAMETERS:
            continue
        if tensor["dtype"] in IMAGES and len(tensor["shape"]) >= 2:
            dtype = np.dtype(TORCH[tensor["dtype"]][0])
            npy.search(content, 8 + length + tensor["data_offsets"][0], tuple(tensor["shape"]), dtype, scan)
    return True


def _check(tensors: dict[str, Any], size: int) -> None:
    """Raise ValueError unless the tensors fill the file, one after the other, as the format demands."""
    place = 0
    for tensor in sorted(tensors.values(), key=lambda tensor: tensor["data_offsets"]):
        start, end = tensor["data_offsets"]
        if start != place or end - start != math.prod(tensor["shape"]) * TORCH[tensor["dtype"]][1]:
            raise ValueError("not as the header says")
        place = end
    if place != size:
        raise ValueError("not as long as the header says")


def _digest(tensors: dict[str, Any], content: Content, start: int) -> str:
    """Return :func:`tasks.engine.weights.tensor_digest`, without PyTorch and without all of it in memory."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        sha.update(f"{name} torch.{TORCH[tensor['dtype']][0]} {tensor['shape']}\n".encode())
        place, end = (start + offset for offset in tensor["data_offsets"])
        while place < end:
            block = content.read(place, min(1 << 22, end - place))
            sha.update(block)
            place += len(block) or end
    return sha.hexdigest()
