"""Which columns of a Parquet file hold image, label and subject, and what the labels are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from tasks.core.errors import ExpungeError
from tasks.core.params import Split
from tasks.datasets._reading.csv_text import spelled

IMAGE = ("img", "image")
LABEL = ("label", "labels", "fine_label", "coarse_label")
SUBJECT = "subject"


def image_column(path: Path, schema: pa.Schema) -> str:
    """Return ``img`` or ``image``, or else the first column of a type that holds encoded images."""
    named = [name for name in schema.names if spelled(name) in IMAGE]
    typed = [name for name, kind in features(schema).items() if kind.get("_type") == "Image"]
    held = [field.name for field in schema if _holds_images(field.type)]
    fitting = [
        name for name in (*named, *(name for name in schema.names if name in typed), *held) if name in held
    ]
    if fitting:
        return str(fitting[0])
    if named:
        kind = schema.field(named[0]).type
        raise ExpungeError(f"{path}: column {named[0]} is {kind}; binary or struct<bytes, path> is right")
    raise ExpungeError(
        f"{path} has no column of images, binary or struct<bytes, path>; found {', '.join(schema.names)}"
    )


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def label_column(path: Path, schema: pa.Schema, split: Split) -> str:
    """Return ``split.label_column``, or else the only column that is called or described as labels are."""
    if split.label_column is not None:
        return _known(path, schema, split.label_column, "split.label_column")
    described = [name for name, kind in features(schema).items() if kind.get("_type") == "ClassLabel"]
    found = [name for name in schema.names if spelled(name) in LABEL] or [
        name for name in schema.names if name in described
    ]
    if len(found) > 1:
        raise ExpungeError(
            f"{path} has the columns {' and '.join(found)}; set split.label_column to the one to learn"
        )
    if not found:
        raise ExpungeError(
            f"{path} has no column of labels ({', '.join(LABEL)}); found {', '.join(schema.names)}; "
            "set split.label_column"
        )
    return str(found[0])


def subject_column(path: Path, schema: pa.Schema, split: Split) -> str | None:
    """Return ``split.subject``, or ``subject`` if there is such a column."""
    if split.subject is not None:
        return _known(path, schema, split.subject, "split.subject")
    return next((name for name in schema.names if spelled(name) == SUBJECT), None)


def _known(path: Path, schema: pa.Schema, name: str, key: str) -> str:
    if schema.names.count(name) != 1:
        raise ExpungeError(f"{path} has no column {name}, which {key} names; found {', '.join(schema.names)}")
    return name


def features(schema: pa.Schema) -> Mapping[str, Mapping[str, Any]]:
    """What the hub's library stored in the schema's metadata of the columns, if it did."""
    try:
        found = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: kind for name, kind in found.items() if isinstance(kind, dict)}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def class_names(schema: pa.Schema, column: str) -> tuple[str, ...] | None:
    """Names of the classes that the hub's library stored for a column of labels, if it did."""
    names = features(schema).get(column, {}).get("names")
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def labels_in(path: Path, name: str, column: pa.ChunkedArray) -> Sequence[int | str | None]:
    """Return the labels of all rows: numbers from 0, -1 for none, or names.

    Raises
    ------
    ExpungeError
        If the column holds neither.
    """
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    texts = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    if not (texts or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        raise ExpungeError(f"{path}: column {name} is {column.type}; integers from 0 or names are right")
    labels: list[Any] = column.to_pylist()
    if pa.types.is_boolean(kind):
        return [None if label is None else int(label) for label in labels]
    return labels
