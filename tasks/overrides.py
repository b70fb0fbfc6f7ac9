"""Parameters of one run, written into ``params.yaml`` the way ``dvc exp run -S`` does it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.representer import RoundTripRepresenter

from tasks.core.errors import ExpungeError
from tasks.core.files import write_text
from tasks.core.params import read_yaml, validate

Scalar = str | int | float | bool | None


def override(path: Path, overrides: Mapping[str, Scalar | list[Scalar]]) -> None:
    """Set keys such as ``unlearn.method`` in a params file; comments and layout stay.

    The result is validated as a whole before anything is written. Nothing is written if the file
    already says what was asked for.

    Raises
    ------
    ExpungeError
        If a key is not in the file, or the result is not a valid params file.
    """
    before = read_yaml(path)
    yaml = _round_trip()
    params = yaml.load(path.read_text(encoding="utf-8"))
    for key, value in overrides.items():
        _set(params, key, value, path)
    written = io.StringIO()
    yaml.dump(params, written)
    after = YAML(typ="safe", pure=True).load(written.getvalue())
    validate(after, f"{path} with {_shown(overrides)}")
    if after != before:
        write_text(path, written.getvalue())


def parse(assignment: str) -> tuple[str, Any]:
    """Split ``unlearn.method=ssd``; the value is read as YAML 1.2, like the file itself.

    Raises
    ------
    ExpungeError
        If there is no ``=``, no key, or the value is not YAML.
    """
    key, sign, value = assignment.partition("=")
    if not sign or not key.strip():
        raise ExpungeError(f"--set {assignment!r}: write it as key=value, such as unlearn.method=ssd")
    try:
        return key.strip(), YAML(typ="safe", pure=True).load(value)
    except YAMLError:
        raise ExpungeError(
            f"--set {assignment!r}: the value is not YAML; quote it, e.g. '\"text\"'"
        ) from None


def _set(params: Any, key: str, value: object, path: Path) -> None:
    section = params
    *parents, last = key.split(".")
    for at, name in enumerate([*parents, last]):
        if not isinstance(section, Mapping) or name not in section:
            known = ", ".join(map(str, section)) if isinstance(section, Mapping) else "none"
            place = ".".join(key.split(".")[:at]) or str(path)
            raise ExpungeError(f"{key!r} is not in {path}; keys of {place}: {known}")
        if at < len(parents):
            section = section[name]
    section[last] = value


def _shown(overrides: Mapping[str, object]) -> str:
    return ", ".join(f"{key}={value}" for key, value in overrides.items())


class _Representer(RoundTripRepresenter):
    """Writes ``null`` as ``null``; the library's own leaves the value out."""


_Representer.add_representer(
    type(None), lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null")
)


def _round_trip() -> YAML:
    yaml = YAML()
    yaml.Representer = _Representer
    yaml.preserve_quotes = True
    yaml.width = 10_000
    return yaml
