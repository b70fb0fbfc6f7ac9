"""Requests carried out on a schedule: inbox, batch, unlearn, audit, promote, purge, certify.

The file is not called ``requests``: Prefect puts this folder on the path, where that name would hide the
library that Prefect and MLflow use.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import chdir
from pathlib import Path
from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from pydantic import Field

from flows._plan import plan
from flows._report import Outcome, table
from flows._stages import execute
from flows.approval import ask_for
from tasks import journal
from tasks.core.errors import BusyError, ExpungeError
from tasks.core.files import only_writer
from tasks.core.params import load
from tasks.processing.processor import Processor, restore_params
from tasks.requests import inbox
from tasks.requests.catalogue import Catalogue
from tasks.requests.desk import Desk, Request
from tasks.requests.ledger import latest
from tasks.requests.settings import load_settings
from tasks.requests.states import Status

ROOT = Path(__file__).resolve().parents[1]


# The docstring is in Google style because Prefect reads the parameters' descriptions from it.
@flow(name="process-requests", persist_result=False)
def process_requests(
    retries: Annotated[int, Field(ge=0, le=10)] = 2,
    retry_delay: Annotated[int, Field(ge=0, le=3600)] = 10,
) -> State[Any]:
    """Carry out the requests that wait: batch, unlearn, audit, promote, purge, certify.

    Takes the files in the inbox first. What an earlier run began and did not finish is finished first.
    While another run, or the pipeline, is at work in this checkout, nothing is done.

    Args:
        retries: How often to try a stage again. Bad input is not tried again.
        retry_delay: Seconds to wait before a stage is tried again.
    """
    log = get_run_logger()
    try:
        with chdir(ROOT), only_writer(Path("pipeline")):
            restore_params()
            desk = Desk.open(load_settings(), os.environ, ROOT)
            stuck = []
            for name, receipt in inbox.take(desk, Catalogue.load()) if inbox.waits() else ():
                if isinstance(receipt, str):
                    stuck.append(f"inbox: {name} {receipt}")
                    continue
                log.info(
                    "Inbox: %s: request %s is %s", name, receipt.request.id, receipt.request.state.status
                )
            processor = Processor(
                root=ROOT,
                desk=desk,
                run=_stages(retries, retry_delay),
                environ=os.environ,
                flow_run={"id": str(flow_run.id), "name": str(flow_run.name)},
                log=log.info,
            )
            problems = [*stuck, *processor.process()]
            if desk.settings.approval:
                ask_for([each.id for each in desk.requests() if each.state.status is Status.VALIDATED], log)
            _report(desk)
    except BusyError as error:
        return Completed(name="Skipped", message=str(error))
    except ExpungeError as error:
        return Failed(message=str(error))
    if problems:
        return Failed(message="; ".join(problems))
    counts = _counts(desk)
    return Completed(
        message=", ".join(f"{count} {status}" for status, count in counts.items()) or "no requests"
    )


def _stages(retries: int, retry_delay: int) -> Callable[[str, Mapping[str, str]], str]:
    def run(target: str, tags: Mapping[str, str]) -> str:
        with journal.pipeline(load().tracking, ROOT) as record:
            record.tags(tags)
            outcomes = execute(
                ROOT, plan(ROOT, target), record, retries=retries, retry_delay=retry_delay, tags=tags
            )
            if failure := _failure(outcomes):
                raise ExpungeError(failure)
            return record.key

    return run


def _failure(outcomes: Mapping[str, Outcome]) -> str:
    return next((f"{stage}: {end.note}" for stage, end in outcomes.items() if end.status == "error"), "")


def _counts(desk: Desk) -> dict[str, int]:
    found = [str(request.state.status) for request in desk.requests()]
    return {status: found.count(status) for status in dict.fromkeys(found)}


def _report(desk: Desk) -> None:
    """Show the open requests, and what ended in this run, as an artifact."""
    shown = [request for request in desk.requests() if request.open or _touched_here(request)]
    rows = [
        [
            f"`{request.id}`",
            str(request.state.status),
            (request.due_at or "")[:10],
            request.next,
            *_became(request),
            request.batch or "",
        ]
        for request in shown
    ]
    create_markdown_artifact(
        "# Requests\n\n"
        + table(["request", "status", "due", "next", "version", "commit", "certificate", "batch"], rows)
        + "\n",
        key="requests",
        description=f"{len(rows)} request(s)",
    )


def _became(request: Request) -> list[str]:
    """Model version, commit and the certificate's SHA-256, as far as there are any."""
    promoted, closed = latest(request.events, "promoted"), latest(request.events, "closed")
    return [
        str(promoted.body["version"] or "") if promoted else "",
        f"`{promoted.body['commit'][:10]}`" if promoted else "",
        f"`{closed.body['certificate'][:12]}`" if closed else "",
    ]


def _touched_here(request: Request) -> bool:
    return any(
        (event.body.get("flow_run") or {}) and event.body["flow_run"]["id"] == str(flow_run.id)
        for event in request.events
        if event.kind == "started"
    )


def main() -> int:
    """Run the flow as a command: 0 when it completed, 1 when it failed."""
    from flows._server import start_server

    if problem := start_server():
        print(f"no Prefect server answers at PREFECT_API_URL: {problem}", file=sys.stderr)
        return 1
    return 0 if process_requests(return_state=True).is_completed() else 1


if __name__ == "__main__":
    sys.exit(main())
