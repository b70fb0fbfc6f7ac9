"""The values of a batch in ``params.yaml`` while its stages run, and the user's own put back afterwards.

Whatever ends the process, the next one puts them back. What the user has changed meanwhile stays.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.core.errors import ExpungeError
from tasks.core.files import STATE, write_json, write_text
from tasks.core.params import read_yaml
from tasks.overrides import override

PARAMS = Path("params.yaml")
SAVED = STATE / "params.json"
"""The user's ``params.yaml``, and what a batch has written in its place."""


@contextmanager
def overridden(values: Mapping[str, Any]) -> Iterator[None]:
    """Put values into ``params.yaml`` for the time of a batch's stages.

    Raises
    ------
    ExpungeError
        If the result is no valid params file.
    """
    before = _text(PARAMS)
    during = _with(before, values)
    write_json(SAVED, {"before": before, "values": dict(values), "during": during})
    try:
        write_text(PARAMS, during)
        yield
    finally:
        restore()


def restore() -> None:
    """Put the user's ``params.yaml`` back, if a batch that was ended has left its own values there.

    If the user has edited the file since, only what the batch had set, and nobody has changed, is put back.

    Raises
    ------
    ExpungeError
        If what was saved is damaged, or the user's file is no YAML.
    """
    if not SAVED.exists():
        return
    try:
        saved = json.loads(SAVED.read_text(encoding="utf-8"))
        before, values, during = saved["before"], saved["values"], saved.get("during")
        sound = isinstance(before, str) and isinstance(values, dict)
    except (ValueError, KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise ExpungeError(
            f"{SAVED} is damaged; restore params.yaml: git checkout params.yaml; delete {SAVED}"
        )
    now = _text(PARAMS) if PARAMS.exists() else None
    if now is None or now == during:
        write_text(PARAMS, before)
    elif now != before:
        _put_back(before, values)
    SAVED.unlink()


def _text(path: Path) -> str:
    """Text with the ends of lines that the user's editor writes."""
    return path.read_bytes().decode()


def _with(text: str, values: Mapping[str, Any]) -> str:
    """Return the text of a params file with other values."""
    with _draft(text) as draft:
        try:
            override(draft, values)
        except ExpungeError as error:
            raise ExpungeError(str(error).replace(str(draft), str(PARAMS))) from None
        return _text(draft)


@contextmanager
def _draft(text: str) -> Iterator[Path]:
    path = STATE / "params.draft.yaml"
    write_text(path, text)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _put_back(before: str, values: Mapping[str, Any]) -> None:
    """Put single values back, and leave what a person has changed."""
    with _draft(before) as draft:
        theirs, mine = read_yaml(PARAMS), read_yaml(draft)
    back = {
        key: _value(mine, key)
        for key, value in values.items()
        if _value(theirs, key) == value != _value(mine, key)
    }
    if back:
        override(PARAMS, back)


def _value(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree
