"""Prefect can keep what flows and tasks return in files that no purge searches; ours keep nothing."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Any

import pytest
from prefect import Flow, Task, flow
from prefect.settings import (
    PREFECT_LOCAL_STORAGE_PATH,
    PREFECT_RESULTS_PERSIST_BY_DEFAULT,
    temporary_settings,
)

import flows

pytestmark = [
    pytest.mark.usefixtures("server"),
    # Prefect's clients leave their sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def ours() -> dict[str, Flow[..., Any] | Task[..., Any]]:
    modules = [importlib.import_module(f"flows.{each.name}") for each in pkgutil.iter_modules(flows.__path__)]
    return {
        f"{module.__name__}.{name}": value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, Flow | Task)
    }


def test_no_flow_and_no_task_persists_results() -> None:
    found = ours()
    assert len(found) >= 7
    assert [name for name, each in found.items() if each.persist_result is not False] == []


@flow
def by_settings() -> str:
    return "kept"


@flow(persist_result=False)
def never() -> str:
    return "not kept"


def test_that_is_stronger_than_the_settings(tmp_path: Path) -> None:
    settings = {PREFECT_RESULTS_PERSIST_BY_DEFAULT: True, PREFECT_LOCAL_STORAGE_PATH: tmp_path}
    with temporary_settings(settings):
        never()
        assert list(tmp_path.rglob("*")) == []
        by_settings()
        assert [path for path in tmp_path.rglob("*") if path.is_file()]
