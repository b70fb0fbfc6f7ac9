"""A person's decision on a request, asked for in Prefect."""

from __future__ import annotations

import os
from contextlib import chdir
from pathlib import Path
from typing import Any, Literal

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from prefect.states import Completed, Failed
from pydantic import Field, field_validator

from tasks.errors import ExpungeError
from tasks.params import load
from tasks.requests.desk import Desk

ROOT = Path(__file__).resolve().parents[1]
WEEK = 7 * 24 * 3600


class Approval(RunInput):
    """What the form in Prefect's UI asks for; it is checked before the run resumes."""

    decision: Literal["approve", "refuse"]
    by: str = Field(min_length=1, max_length=200, description="Who decides.")
    reason: str = Field(min_length=1, max_length=1000, description="Why; it is recorded.")

    @field_validator("by", "reason")
    @classmethod
    def _says_something(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("blanks say nothing")
        return value


@flow(name="approve-request")
def approve_request(request: str, wait_seconds: int = WEEK) -> State[Any]:
    """Ask a person to approve or refuse a request: the run pauses until the form is filled in.

    Args:
        request: The request's id.
        wait_seconds: How long to wait; then the request stays as it is.
    """
    log = get_run_logger()
    try:
        with chdir(ROOT):
            desk = Desk.open(load().requests, os.environ, ROOT)
            found = desk.show(request)
            found.state.after("approved")
        log.info("Request %s: %s sample(s), ground %s, due %s", found.id, found.count,
                 found.events[0].body.get("ground"), found.due_at)  # fmt: skip
        decision = pause_flow_run(wait_for_input=Approval, timeout=wait_seconds)
        with chdir(ROOT):
            kind = "approved" if decision.decision == "approve" else "refused"
            desk.decide(kind, request, by=decision.by, reason=decision.reason)
    except ExpungeError as error:
        return Failed(message=f"request {request} {error}" if str(error).startswith("is ") else str(error))
    return Completed(message=f"request {request} {kind} by {decision.by}")
