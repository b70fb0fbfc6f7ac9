"""A flow about requests fails without a word that could name somebody: the text stays in the checkout."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from prefect.client.schemas.objects import State

from flows.intake import submit_request
from flows.processing import process_requests
from flows.production import audit_production
from tasks.core.errors import ExpungeError, PlainError
from tasks.requests.desk import Desk
from tests.requests.conftest import root

__all__ = ["root"]

PROJECT = Path(__file__).parents[2]
NAME = "Jane Doe 4711"

pytestmark = [
    pytest.mark.usefixtures("server"),
    # Prefect's clients leave their sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

FLOWS: dict[str, Callable[[], State[Any]]] = {
    "process-requests": lambda: process_requests(return_state=True),
    "audit-production": lambda: audit_production(return_state=True),
    "submit-request": lambda: cast("State[Any]", submit_request({}, return_state=True)),
}
ROOTS = ("flows.processing.ROOT", "flows.production.ROOT", "flows.intake.ROOT")


@pytest.fixture
def failing(root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Exception], str]:
    """Run a flow that meets an error; return what Prefect is told."""
    shutil.copy(PROJECT / "params.yaml", root)
    for name in ROOTS:
        monkeypatch.setattr(name, root)

    def told(flow: str, error: Exception) -> str:
        def raising(*_: object) -> Desk:
            raise error

        monkeypatch.setattr(Desk, "open", raising)
        state = FLOWS[flow]()
        assert state.is_failed()
        return str(state.message)

    return told


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize(
    ("kind", "code"), [(ExpungeError, "input"), (PermissionError, "system"), (KeyError, "unknown")]
)
def test_the_text_of_an_error_stays_in_the_checkout(
    failing: Callable[[str, Exception], str], root: Path, flow: str, kind: type[Exception], code: str
) -> None:
    log = f".expunge/log/{flow}.log"
    assert failing(flow, kind(f"data/images/{NAME}.png")) == f"{flow} failed ({code}); {log} tells why"
    assert NAME in (root / log).read_text()


@pytest.mark.parametrize("flow", FLOWS)
def test_what_is_wrong_with_the_record_is_told_as_it_is(
    failing: Callable[[str, Exception], str], flow: str
) -> None:
    assert failing(flow, PlainError("event 2 was changed")) == "event 2 was changed"
