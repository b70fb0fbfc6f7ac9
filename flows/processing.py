"""Requests carried out on a schedule: inbox, batch, unlearn, audit, promote, purge, certify.

The file is not called ``requests``: Prefect puts this folder on the path, where that name would hide the
library that Prefect and MLflow use.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
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
from flows._private import failed
from flows._report import table
from flows._stages import execute
from flows.approval import ask_for
from tasks import journal
from tasks.core.dvc_failure import StageError
from tasks.core.errors import AtWorkError
from tasks.core.files import only_writer
from tasks.core.params import load
from tasks.processing import parameters
from tasks.processing.dvc_repro import refused
from tasks.processing.processor import Processor
from tasks.requests import events as facts
from tasks.requests.desk import Desk
from tasks.requests.request import Request
from tasks.requests.settings import load_settings

ROOT = Path(__file__).resolve().parents[1]


# The docstring is in Google style because Prefect reads the parameters' descriptions from it.
@flow(name="process-requests", persist_result=False)
def process_requests(
    retries: Annotated[int, Field(ge=0, le=10)] = 2,
    retry_delay: Annotated[int, Field(ge=0, le=3600)] = 10,
) -> State[Any]:
    """Carry out the requests that wait: batch, unlearn, audit, promote, purge, certify.

    Takes the files in the inbox first. What an earlier run began and did not finish is finished first.
    While another run, or the pipeline, is at work in this checkout, nothing is done. Whatever else is in the
    way for longer than a moment, such as a lock that a killed process has left, fails the run.

    Args:
        retries: How often to try a stage again. Bad input is not tried again.
        retry_delay: Seconds to wait before a stage is tried again.
    """
    log = get_run_logger()
    try:
        with chdir(ROOT), only_writer(Path("pipeline")):
            parameters.restore()
            desk = Desk.open(load_settings(), os.environ, ROOT)
            before = desk.ledger.head().seq
            processor = Processor(
                root=ROOT,
                desk=desk,
                run=_stages(retries, retry_delay),
                environ=os.environ,
                flow_run={"id": str(flow_run.id), "name": str(flow_run.name)},
                log=log.info,
            )
            problems = processor.process()
            if desk.settings.approval or desk.settings.shared == "ask":
                ask_for([row.request for row in desk.waiting_for_approval()], log)
            _report(desk, before)
    except AtWorkError as error:
        return Completed(name="Skipped", message=str(error))
    except Exception as error:  # an engine that meets it would tell its text
        return failed("process-requests", ROOT, error)
    if problems:
        return Failed(message="; ".join(problems))
    counts = Counter(str(row.status) for row in desk.rows())
    return Completed(
        message=", ".join(f"{count} {status}" for status, count in counts.items()) or "no requests"
    )


def _stages(retries: int, retry_delay: int) -> Callable[[str, Mapping[str, str]], str]:
    def run(target: str, tags: Mapping[str, str]) -> str:
        with journal.pipeline(load().tracking, ROOT) as record:
            record.tags(tags)
            outcomes = execute(
                ROOT,
                plan(ROOT, target),
                record,
                retries=retries,
                retry_delay=retry_delay,
                tags=tags,
                private=True,
            )
            for stage, end in outcomes.items():
                if end.status == "error":
                    raise refused(end.error or StageError(end.note, transient=False), stage)
            return record.key

    return run


def _report(desk: Desk, before: int) -> None:
    """Show the open requests, and what ended in this run, as an artifact."""
    changed = {event.request for event in desk.ledger.after(before)}
    shown = [row for row in desk.rows() if row.open or row.request in changed]
    rows = [
        [
            f"`{row.request}`",
            str(row.status),
            desk.day(row.due_at),
            desk.next_of(row),
            *_became(desk.show(row.request)),
            row.batch or "",
        ]
        for row in shown
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
    promoted, closed = request.common(facts.Promotion), request.latest(facts.Closed)
    return [
        str(promoted.version or "") if promoted else "",
        f"`{(promoted.commit or '')[:10]}`" if promoted else "",
        f"`{(closed.certificate or '')[:12]}`" if closed else "",
    ]


def main() -> int:
    """Run the flow as a command: 0 when it completed, 1 when it failed."""
    from flows._server import start_server

    if problem := start_server():
        print(f"no Prefect server answers at PREFECT_API_URL: {problem}", file=sys.stderr)
        return 1
    return 0 if process_requests(return_state=True).is_completed() else 1


if __name__ == "__main__":
    sys.exit(main())
