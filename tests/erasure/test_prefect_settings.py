"""Where Prefect keeps its runs is found by Prefect's own rules."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest

from tasks.erasure.sought import Sought
from tasks.erasure.stores import UnsearchableError
from tasks.erasure.stores.prefect import FlowRuns, local_database

PROFILES = """active = "b"
[profiles.a]
PREFECT_API_URL = "http://a"
[profiles.b]
PREFECT_API_URL = "http://b"
PREFECT_API_KEY = "kept"
"""
PLACES = {
    "nowhere": ({}, {}),
    "profile": ({".prefect/profiles.toml": PROFILES}, {}),
    "another profile": ({".prefect/profiles.toml": PROFILES}, {"PREFECT_PROFILE": "a"}),
    "no such profile": ({".prefect/profiles.toml": PROFILES}, {"PREFECT_PROFILE": "local"}),
    "damaged profiles": ({".prefect/profiles.toml": "= nothing"}, {}),
    "built-in profile": ({}, {"PREFECT_PROFILE": "local"}),
    "its name alone": ({".prefect/profiles.toml": 'active = "local"\n[profiles]\n'}, {}),
    "home without profiles": ({}, {"PREFECT_PROFILE": "local", "PREFECT_HOME": "."}),
    "home": ({"h/profiles.toml": PROFILES}, {"PREFECT_HOME": "h"}),
    "profiles that .env names": ({".env": "PREFECT_PROFILES_PATH=p.toml", "p.toml": PROFILES}, {}),
    "profiles that prefect.toml names": (
        {"prefect.toml": 'profiles_path = "p.toml"', "p.toml": PROFILES},
        {},
    ),
    ".env": (
        {".env": "export prefect_api_url='http://e' # ours\n", "prefect.toml": '[api]\nurl = "http://c"'},
        {},
    ),
    "prefect.toml": (
        {
            ".prefect/profiles.toml": PROFILES,
            "prefect.toml": '[api]\nurl = "http://c"\nkey = "k"',
            "pyproject.toml": '[tool.prefect.api]\nurl = "http://p"',
        },
        {},
    ),
    "pyproject.toml": ({"pyproject.toml": '[tool.prefect.api]\nurl = "http://p"'}, {}),
    "environment": ({".env": "PREFECT_API_URL=http://e"}, {"PREFECT_API_URL": "http://d"}),
    "set to nothing": ({".env": "PREFECT_API_URL=http://e"}, {"PREFECT_API_URL": ""}),
}


@pytest.mark.parametrize("where", PLACES)
def test_the_server_is_the_one_that_prefect_itself_would_use(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.settings import Settings, sources

    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    texts, variables = PLACES[where]
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    for name, value in {**variables, "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sources, "DEFAULT_PREFECT_HOME", tmp_path / ".prefect")
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings(action="ignore"):  # that a file of profiles is damaged
        api = Settings().api
    found = FlowRuns(os.environ, tmp_path)
    assert found.url == (api.url or "")
    assert ("Authorization" in found._headers) == (api.key is not None)


def test_without_a_server_the_database_of_prefect_is_searched_wherever_it_is(tmp_path: Path) -> None:
    home, name = {"HOME": str(tmp_path)}, "train/cat/in-database.png"
    wanted = Sought.of_samples([name])
    assert local_database(home, tmp_path).search(wanted) is not None
    for place in (".prefect/prefect.db", "db/else.sqlite"):
        (tmp_path / place).parent.mkdir()
        (tmp_path / place).write_text(name)
    (hit,) = local_database(home, tmp_path).search(wanted)
    assert hit.item == str(tmp_path / ".prefect/prefect.db")
    (tmp_path / "prefect.toml").write_text(
        f'[server.database]\nconnection_url = "sqlite+aiosqlite:///{tmp_path}/db/else.sqlite"'
    )
    (hit,) = local_database(home, tmp_path).search(wanted)
    assert hit.item == str(tmp_path / "db/else.sqlite")
    secret = {**home, "PREFECT_API_DATABASE_CONNECTION_URL": "postgresql+asyncpg://me:secret@host/runs"}
    with pytest.raises(UnsearchableError, match="PREFECT_API_URL") as caught:
        list(local_database(secret, tmp_path).search(wanted))
    assert "secret" not in str(caught.value)
