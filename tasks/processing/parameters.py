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
    """Put values into ``params.yaml`` for the time of a batch's stages."""
    before = PARAMS.read_text(encoding="utf-8")
    write_json(SAVED, {"before": before, "values": dict(values)})
    try:
        override(PARAMS, values)
        write_json(
            SAVED, {"before": before, "values": dict(values), "during": PARAMS.read_text(encoding="utf-8")}
        )
        yield
    finally:
        restore()


def restore() -> None:
    """Put the user's ``params.yaml`` back, if a batch that was ended has left its own values there.

    If the user has edited the file since, only what the batch had set, and nobody has changed, is put back.
    """
    if not SAVED.exists():
        return
    try:
        saved = json.loads(SAVED.read_text(encoding="utf-8"))
        before, values, during = saved["before"], saved["values"], saved.get("during")
    except (ValueError, KeyError, TypeError):
        raise ExpungeError(
            f"{SAVED} is damaged; restore params.yaml: git checkout params.yaml; delete {SAVED}"
        ) from None
    now = PARAMS.read_text(encoding="utf-8") if PARAMS.exists() else None
    if now is None or now == during:
        write_text(PARAMS, before)
    elif now != before:
        _put_back(before, values)
    SAVED.unlink()


def _put_back(before: str, values: Mapping[str, Any]) -> None:
    """Put single values back, and leave what a person has changed."""
    original = STATE / "params.before.yaml"
    write_text(original, before)
    theirs, mine = read_yaml(PARAMS), read_yaml(original)
    back = {
        key: _value(mine, key)
        for key, value in values.items()
        if _value(theirs, key) == value != _value(mine, key)
    }
    if back:
        override(PARAMS, back)
    original.unlink()


def _value(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree
