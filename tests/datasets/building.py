"""Small image files and image sets for the tests of the sources."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from tasks.core.params import Forget, Split
from tasks.samples.image_set import ImageSet


def reading(resize: int | None = None, source: str = "image_folder", **settings: Any) -> Split:
    """The section of params.yaml that says how a source is read."""
    return Split(source=source, path="data/images", resize=resize, forget=Forget(), **settings)


def grey(seed: int = 0, height: int = 9, width: int = 7) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def colour(seed: int = 0, height: int = 9, width: int = 7) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(image: Image.Image | NDArray[Any], kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    picture.save(file, kind, **options)
    return file.getvalue()


def image_set(train: Sequence[int], test: Sequence[int] | None = None) -> ImageSet:
    """An image set with ``train[k]`` and ``test[k]`` samples of class k."""
    test = test or [2] * len(train)
    rows = [
        (f"{part}/{label}/{index}", label, part == "test")
        for part, counts in (("train", train), ("test", test))
        for label, count in enumerate(counts)
        for index in range(count)
    ]
    ids, labels, is_test = zip(*rows, strict=True)
    return ImageSet(
        images=np.zeros((len(rows), 1, 2, 2), dtype=np.uint8),
        labels=np.array(labels, dtype=np.int64),
        sample_ids=ids,
        sources=tuple(f"source of {sample_id}" for sample_id in ids),
        is_test=np.array(is_test),
        classes=tuple(f"class{label}" for label in range(len(train))),
        pictures=np.zeros((len(rows), 32), dtype=np.uint8),
    )


def taken(of: ImageSet, rows: NDArray[np.int64]) -> ImageSet:
    """The given rows of an image set, in the given order."""
    return ImageSet(
        images=of.images[rows],
        labels=of.labels[rows],
        sample_ids=tuple(of.sample_ids[row] for row in rows),
        sources=tuple(of.sources[row] for row in rows),
        is_test=of.is_test[rows],
        classes=of.classes,
        pictures=of.pictures[rows],
    )


def write_hub_file(
    path: Path,
    images: Sequence[bytes | None],
    labels: Sequence[Any],
    *,
    paths: Sequence[str | None] | None = None,
    column: str = "image",
    label_type: pa.DataType | None = None,
    metadata: dict[str, str] | None = None,
) -> None:
    """A Parquet file as data set hubs write it."""
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [
        {"bytes": image, "path": name}
        for image, name in zip(images, paths or [None] * len(images), strict=True)
    ]
    table = pa.table(
        {column: pa.array(rows, struct), "label": pa.array(labels, label_type)},
    ).replace_schema_metadata(metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def write_image(path: Path, image: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def write_folders(root: Path, classes: Sequence[str] = ("cat", "dog"), count: int = 4) -> Path:
    """An image folder with ``count`` training and 2 test images a class."""
    for part, images in (("train", count), ("test", 2)):
        for number, name in enumerate(classes):
            for index in range(images):
                write_image(root / part / name / f"{index:03d}.png", colour(100 * number + index))
    return root
