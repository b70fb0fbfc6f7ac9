"""The oracle's own readers of Git, Parquet, arrays, weights and DVC's objects: none is the project's."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.erasure_facts import Sample


def git(root: Path, *arguments: str) -> str:
    """Return what Git prints; nothing if it fails."""
    done = subprocess.run(
        ["git", "--no-optional-locks", *arguments],
        cwd=root,
        capture_output=True,
        check=False,
        text=True,
        errors="replace",
    )
    return done.stdout if done.returncode == 0 else ""


def machine_messages(root: Path) -> list[str]:
    """Messages of the commits that carry the machine's trailers, on any branch."""
    found = git(root, "log", "--all", "--format=%B%x00").split("\0")
    return [message for message in found if re.search(r"^Expunge-", message, re.MULTILINE)]


def machine_commits(root: Path) -> Iterator[str]:
    """Messages of those commits, and the lines that they add to texts."""
    found = git(root, "log", "--all", "--grep=^Expunge-", "--format=%H").split()
    for commit in found:
        yield git(root, "show", "--format=%B", "--unified=0", "--no-color", commit)


def parquet_rows(path: Path) -> list[bytes | None]:
    """Encoded images of a Parquet file."""
    import pyarrow.parquet as pq

    column = pq.read_table(path, columns=["image"]).column(0).to_pylist()
    return [None if image is None else image["bytes"] for image in column]


def read_split(folder: Path) -> tuple[list[str], set[bytes]]:
    """Ids of what the stages see, and pixels of all that lies in shards; nothing while they are made."""
    try:
        with (folder / "samples.csv").open(newline="", encoding="utf-8") as file:
            ids = [row["sample_id"] for row in csv.DictReader(file)]
        images = read_shards(folder)
    except (OSError, ValueError, KeyError, EOFError):
        return [], set()
    return ids, {image.tobytes() for image in images if image.any()}


def read_shards(folder: Path) -> NDArray[np.uint8]:
    """All slots of a split, ``uint8 [M, C, H, W]``; those of nobody are zeros."""
    shards = [np.load(path, allow_pickle=False) for path in sorted((folder / "images").glob("*.npy"))]
    return np.concatenate(shards)


def read_images(folder: Path) -> dict[str, bytes]:
    """Pixels of the samples of a split, by their ids."""
    images = read_shards(folder)
    with (folder / "images/slots.csv").open(newline="", encoding="utf-8") as file:
        return {row["sample_id"]: images[int(row["slot"])].tobytes() for row in csv.DictReader(file)}


def tensor_digest(data: bytes) -> str | None:
    """SHA-256 over names, types, shapes and bytes of the tensors of a safetensors file."""
    try:
        length = int.from_bytes(data[:8], "little")
        head = json.loads(data[8 : 8 + length])
        body, sha = data[8 + length :], hashlib.sha256()
        for name in sorted(head):
            if name != "__metadata__":
                tensor = head[name]
                first, last = tensor["data_offsets"]
                sha.update(f"{name} {TYPES[tensor['dtype']]} {tensor['shape']}\n".encode())
                sha.update(body[first:last])
    except (ValueError, KeyError, TypeError):
        return None
    return sha.hexdigest()


TYPES = {"F32": "torch.float32", "I64": "torch.int64", "F64": "torch.float64", "U8": "torch.uint8"}


def dvc_object(store: Path, md5: str) -> bytes | None:
    """Content of one of DVC's objects, if it is there and is what its name says."""
    path = store / "files/md5" / md5[:2] / md5[2:]
    if not path.is_file():
        return None
    content = path.read_bytes()
    right = hashlib.md5(content, usedforsecurity=False).hexdigest() == md5.removesuffix(".dir")
    return content if right else None


def held(
    data: bytes,
    names: Sequence[tuple[Sample, bytes]],
    content: Mapping[bytes, Sample],
    pixels: Sequence[Sample],
) -> str | None:
    """What of erased samples some bytes hold."""
    if data in content:
        return f"is the original of {content[data].id}"
    for sample, token in names:
        if token in data:
            return f"names {sample.id}"
    for sample in pixels:
        if sample.pixels in data:
            return f"shows {sample.id}"
    if data[:4] == b"PAR1":
        for image in _images_of(data):
            if image in content:
                return f"has the original of {content[image].id}"
    return None


def _images_of(data: bytes) -> list[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        column = pq.read_table(io.BytesIO(data), columns=["image"]).column(0).to_pylist()
    except (pa.ArrowException, OSError, KeyError):
        return []
    return [image["bytes"] for image in column if image is not None]


def git_objects(root: Path) -> Iterator[bytes]:
    """Content of every object that Git keeps, whatever leads to it; deltas are made whole."""
    command = ["git", "cat-file", "--batch-all-objects", "--unordered", "--batch"]
    data = subprocess.run(command, cwd=root, capture_output=True, check=False).stdout
    place = 0
    while (end := data.find(b"\n", place)) >= 0:
        size = int(data[place:end].split()[2])
        yield data[end + 1 : end + 1 + size]
        place = end + size + 2
