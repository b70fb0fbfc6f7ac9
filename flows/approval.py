"""A person's decision on a request, asked for in Prefect."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any, Literal

from prefect import flow, get_run_logger
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.flow_runs import pause_flow_run, suspend_flow_run
from prefect.input import RunInput
from prefect.runtime import deployment
from prefect.states import Cancelled, Completed, Failed
from pydantic import Field

from tasks.core.errors import ExpungeError
from tasks.processing import checkout
from tasks.requests import events as facts
from tasks.requests.desk import Desk
from tasks.requests.settings import load_settings

ROOT = Path(__file__).resolve().parents[1]
WEEK = 7 * 24 * 3600
NAME = "approve-request"
PAGE = 200


class Approval(RunInput):
    """What the form in Prefect's UI asks for.

    Prefect's server checks it before the run resumes, by what JSON Schema can say; pydantic's validators
    would come too late.
    """

    decision: Literal["approve", "refuse"]
    by: str = Field(pattern=r"\S", max_length=200, description="Who decides.")
    reason: str = Field(pattern=r"\S", max_length=1000, description="Why; it is recorded.")


@flow(name=NAME, persist_result=False)
def approve_request(request: str, wait_seconds: int = WEEK) -> State[Any]:
    """Ask a person to approve or refuse a request: the run pauses until the form is filled in.

    A run of the deployment is suspended: no process waits. Once it is resumed, a worker starts it again from
    the beginning, and it finds the answer.

    Args:
        request: The request's id.
        wait_seconds: How long to wait; then the request stays as it is.
    """
    log = get_run_logger()
    try:
        with chdir(ROOT):
            desk = Desk.open(load_settings(), os.environ, ROOT)
            checkout.refuse_elsewhere(desk, ROOT)
            found = desk.show(request)
            found.state.follow(facts.Approved.kind, facts.TRANSITIONS, request)
        ground = found.received.ground
        validated = found.latest(facts.Validated)
        shared = validated.shared if validated else 0
        others = f" ({shared} show other people, too)" if shared else ""
        count = f"{found.count} sample(s){others}"
        about = f"Request {found.id}: {count}, ground {ground}, due {desk.day(found.due_at)}"
        log.info(about)
        wait = suspend_flow_run if deployment.id else pause_flow_run
        form = Approval.with_initial_data(description=about)
        decision = wait(wait_for_input=form, timeout=wait_seconds)
        with chdir(ROOT):
            kind = facts.Approved if decision.decision == "approve" else facts.Refused
            desk.decide(kind(by=decision.by, reason=decision.reason), request)
    except ExpungeError as error:
        return Failed(message=str(error))
    return Completed(message=f"request {request} {kind.kind} by {decision.by}")


def ask_for(waiting: Collection[str], log: logging.Logger | logging.LoggerAdapter[Any]) -> None:
    """See that each request that waits for approval has one run that asks, and that no other is asked about.

    Parameters
    ----------
    waiting
        Ids of the requests.
    log
        Told what was started or ended.
    """
    with get_client(sync_client=True) as client:
        asked = {str(run.parameters.get("request")): run for run in _unfinished(client)}
        for request, run in asked.items():
            if request not in waiting and run.state is not None and run.state.is_paused():
                decided: State[Any] = Cancelled(message=f"request {request} was decided elsewhere")
                client.set_flow_run_state(run.id, decided, force=True)
    for request in waiting:
        if request in asked:
            continue
        try:
            run_deployment(f"{NAME}/{NAME}", flow_run_name=f"approve-{request}", timeout=0, as_subflow=False,
                           parameters={"request": request})  # fmt: skip
            log.info("Request %s waits for approval: a run of %s asks for it", request, NAME)
        except ObjectNotFound:
            log.info("Request %s waits for approval: expunge approve %s", request, request)


def _unfinished(client: SyncPrefectClient) -> Iterator[FlowRun]:
    types = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.PAUSED]
    unfinished = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=types)))
    own = FlowFilter(name=FlowFilterName(any_=[NAME]))
    offset = 0
    while page := client.read_flow_runs(
        flow_filter=own, flow_run_filter=unfinished, limit=PAGE, offset=offset
    ):
        yield from page
        offset += PAGE
