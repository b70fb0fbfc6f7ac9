"""Where Prefect's server and its database are, by Prefect's own rules.

Prefect's settings take a second and more to be loaded, and tell of this process alone. So the few that matter
here are read from the same places in the same order: the environment, ``.env``, ``prefect.toml`` and
``pyproject.toml`` of the folder that Prefect is started in, and the active profile.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

URL, KEY, AUTH_STRING = "PREFECT_API_URL", "PREFECT_API_KEY", "PREFECT_API_AUTH_STRING"
HOME, PROFILES_PATH = "PREFECT_HOME", "PREFECT_PROFILES_PATH"
DATABASES = tuple(f"PREFECT_{part}_DATABASE_CONNECTION_URL" for part in ("SERVER", "API"))
DRIVERS = tuple(f"PREFECT_{part}_DATABASE_DRIVER" for part in ("SERVER", "API"))


class PrefectSettings:
    """The settings that Prefect has if it is started in a folder, with an environment.

    Of a file that is damaged nothing is taken: Prefect does not start with it either.

    Parameters
    ----------
    environ
        The environment.
    root
        The folder.
    """

    def __init__(self, environ: Mapping[str, str], root: Path = Path()) -> None:
        self._environ = environ
        self._root = root
        self._layers = [
            {name.upper(): value for name, value in environ.items()},
            _dotenv(root / ".env"),
            dict(_flat(_toml(root / "prefect.toml"))),
            dict(_flat(_toml(root / "pyproject.toml").get("tool", {}).get("prefect", {}))),
        ]
        self._layers.append({name.upper(): str(value) for name, value in self._profile().items()})

    def get(self, *names: str) -> str:
        """Return a setting, of whatever name it goes by; empty if it is not set, or to nothing."""
        return next((layer[name] for layer in self._layers for name in names if name in layer), "")

    @property
    def home(self) -> Path:
        """The folder in which Prefect keeps what is its own."""
        return Path(self.get(HOME) or self._own_folder).expanduser()

    @property
    def _own_folder(self) -> Path:
        return Path(self._environ.get("HOME") or Path.home(), ".prefect")

    def _profile(self) -> dict[str, Any]:
        path, own = self._profiles(), _toml(_built_in_path())
        found = _toml(path)
        active = str(self._environ.get("PREFECT_PROFILE") or found.get("active"))
        if active in found.get("profiles", {}):
            return dict(found["profiles"][active])
        damaged = path.exists() and not found
        return {} if damaged else dict(own.get("profiles", {}).get(own.get("active"), {}))

    def _profiles(self) -> Path:
        """File of the profiles; Prefect's own, if the user has none in the place where they usually lie."""
        if named := self.get(PROFILES_PATH):
            return self._root / Path(named).expanduser()
        if home := self._environ.get(HOME):
            return self._root / Path(home).expanduser() / "profiles.toml"
        own = self._own_folder / "profiles.toml"
        return own if own.exists() else _built_in_path()


def _built_in_path() -> Path:
    spec = find_spec("prefect")  # finds it without importing it
    places = (spec.submodule_search_locations if spec else None) or [""]
    return Path(places[0], "settings/profiles.toml")


def _dotenv(path: Path) -> dict[str, str]:
    try:
        found = dotenv_values(path, encoding="utf-8") if path.is_file() else {}
    except (OSError, ValueError):
        return {}
    return {name.upper(): value for name, value in found.items() if value is not None}


def _flat(section: Mapping[str, Any], prefix: str = "PREFECT") -> Iterator[tuple[str, str]]:
    """Settings of a file by the names that they have in an environment."""
    for key, value in section.items():
        name = f"{prefix}_{key.upper()}"
        if isinstance(value, Mapping):
            yield from _flat(value, name)
        else:
            yield name, str(value)


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
