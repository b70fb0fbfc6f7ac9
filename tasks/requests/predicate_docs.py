"""The predicate's documentation, made from its classes: the JSON Schema and the table of all fields.

``python -m tasks.requests.predicate_docs`` writes both into ``docs/``; a test holds them to the classes.
"""

from __future__ import annotations

import json
import types
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from tasks.requests.predicate import Erasure, Part, Statement

BEGIN = "<!-- made by python -m tasks.requests.predicate_docs -->\n"
END = "<!-- end -->"


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of the payload."""
    schema = Statement.model_json_schema(mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def table() -> str:
    """Return the table of all that the predicate holds, in Markdown."""
    rows = [f"| `{name}` | {kind} | {meaning} |" for name, kind, meaning in _rows(Erasure, "")]
    return "\n".join(["| key | type | holds |", "|---|---|---|", *rows])


def _rows(part: type[Part], prefix: str) -> Iterator[tuple[str, str, str]]:
    for name, field in part.model_fields.items():
        below, many, optional = _inner(field.annotation)
        kind = f"{'list of ' if many else ''}{_called(below)}{' or null' if optional else ''}"
        if isinstance(below, type) and issubclass(below, Part):
            meaning = (below.__doc__ or "").partition("\n")[0]
            yield f"{prefix}{name}", kind, field.description or meaning
            yield from _rows(below, f"{prefix}{name}{'[]' if many else ''}.")
        else:
            yield f"{prefix}{name}", kind, field.description or ""


def _inner(annotation: Any) -> tuple[Any, bool, bool]:
    """Return ``X`` of ``tuple[X, ...] | None``, and whether it is many, and optional."""
    many = optional = False
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif get_origin(annotation) is tuple:
            many, annotation = True, get_args(annotation)[0]
        elif get_origin(annotation) in {types.UnionType, Union} and len(get_args(annotation)) == 2:
            optional, annotation = True, get_args(annotation)[0]
        else:
            return annotation, many, optional


def _called(kind: Any) -> str:
    if get_origin(kind) is dict or (isinstance(kind, type) and issubclass(kind, Part)):
        return "object"
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return ", ".join(f"`{each}`" for each in kind)
    return {str: "text", int: "whole number", float: "number", bool: "true or false"}[kind]


def main() -> None:
    """Write the schema and the table into ``docs/`` of the repository that we are in."""
    docs = Path("docs")
    (docs / "certificate.schema.json").write_text(json.dumps(json_schema(), indent=2) + "\n")
    page = docs / "certificate.md"
    before, mark, rest = page.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{mark}{table()}\n{END}{after}")


if __name__ == "__main__":
    main()
