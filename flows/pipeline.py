"""The unlearning pipeline as a Prefect flow: plan, execute, report.

DVC decides what has to run and keeps the results; Prefect decides when, tries again, and shows. Run
it with ``python -m flows.pipeline``, or deploy it with ``prefect --no-prompt deploy --all``.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import chdir
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from prefect import Task, flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import FailedRun
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed
from pydantic import Field

from flows._failure import StageError
from flows._overrides import Scalar, override, parse
from flows._plan import Plan, plan
from flows._report import Outcome, markdown
from flows._reproduction import Reproduction
from tasks import journal
from tasks.errors import ExpungeError
from tasks.files import only_writer
from tasks.params import load

ROOT = Path(__file__).resolve().parents[1]

StageName = Literal["split", "train", "retrain", "unlearn", "finetune", "audit", "mia", "report"]


class _NoEmptyTraceback(logging.Filter):
    """Drops the traceback of a state that failed on purpose: it shows Prefect's engine, or nothing."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and (record.exc_info[0] is None or issubclass(record.exc_info[0], FailedRun)):
            record.exc_info = None
        return True


for _logger in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_logger).addFilter(_NoEmptyTraceback())


# The docstring is in Google style because Prefect reads the parameters' descriptions from it.
@flow(name="unlearning-pipeline")
def pipeline(
    target: StageName | None = None,
    force: bool = False,
    overrides: dict[str, Scalar | list[Scalar]] | None = None,
    retries: Annotated[int, Field(ge=0, le=10)] = 2,
    retry_delay: Annotated[int, Field(ge=0, le=3600)] = 10,
) -> State[Any]:
    """Make a classifier forget, repair it, attack it, and report.

    Runs the stages of `dvc.yaml` in order. DVC skips what is up to date, so a second run does nothing.
    Each stage ends as *success* (it ran), *cached* (DVC had its outputs), *error*, or *skipped* (not
    reached, or not selected). The artifact `unlearning-pipeline` links what came of it.

    Args:
        target: Run up to this stage; empty runs all stages.
        force: Run the stages even if nothing changed.
        overrides: Values to write into params.yaml first, as `dvc exp run -S` does, such as
            {"unlearn.method": "ssd"}. A key must be in the file; the change stays there.
        retries: How often to try a stage again. Bad input is not tried again.
        retry_delay: Seconds to wait before a stage is tried again.
    """
    try:
        with chdir(ROOT), only_writer(Path("pipeline")):
            if overrides:
                override(Path("params.yaml"), overrides)
            tracking = load().tracking
            planned = plan(ROOT, target)
            get_run_logger().info("Plan: %s", ", ".join(planned.stages))
            with journal.pipeline(tracking, ROOT) as record:
                run = _run.with_options(retries=retries, retry_delay_seconds=retry_delay)
                outcomes = _execute(planned, record, run, force=force)
                _report(outcomes, record)
    except ExpungeError as error:
        return Failed(message=str(error))
    ended = [outcome.status for outcome in outcomes.values()]
    return Completed(message=", ".join(f"{ended.count(s)} {s}" for s in dict.fromkeys(ended)))


def _execute(
    planned: Plan, record: journal.Journal, run: Task[[str, Reproduction], State[Any]], *, force: bool
) -> dict[str, Outcome]:
    """Follow one ``dvc repro`` through the stages, a Prefect task each; stop at the first failure."""
    tags = {"prefect.flow_run_id": flow_run.id, "prefect.flow_run_name": flow_run.name}
    record.tags(tags)
    variables = {"EXPUNGE_PIPELINE": record.handle, "EXPUNGE_TAGS": json.dumps(tags)}
    outcomes: dict[str, Outcome] = {}
    failed = ""
    with Reproduction(ROOT, planned, force=force, variables=variables) as dvc:
        for stage in planned.stages:
            if failed:
                note = f"{failed} failed"
                _skip.with_options(name=stage, task_run_name=stage)(note, return_state=True)
                outcomes[stage] = Outcome("skipped", note=note)
                continue
            started = time.monotonic()
            state = run.with_options(name=stage, task_run_name=stage)(stage, dvc, return_state=True)
            failed = stage if state.is_failed() else ""
            outcomes[stage] = Outcome(
                "error" if failed else "cached" if state.name == "Cached" else "success",
                time.monotonic() - started,
                state.message or "",
            )
    return outcomes | {stage: Outcome("skipped", note="not selected") for stage in planned.others}


def _can_help(_task: object, _task_run: object, state: State[Any]) -> bool:
    return isinstance(state.data, StageError) and state.data.transient


@task(cache_policy=NO_CACHE, retry_condition_fn=_can_help)
def _run(stage: str, dvc: Reproduction) -> State[Any]:
    log = get_run_logger()
    try:
        status = dvc.follow(stage, log.info)
    except StageError as error:
        return Failed(message=str(error), data=error)
    return Completed(name="Cached") if status == "cached" else Completed()


@task(cache_policy=NO_CACHE)
def _skip(reason: str) -> State[Any]:
    return Cancelled(name="Skipped", message=reason)


def _report(outcomes: Mapping[str, Outcome], record: journal.Journal) -> None:
    """Log how the stages ended and make the artifact; a failure goes on as the stage's own line."""
    log = get_run_logger()
    for stage, outcome in outcomes.items():
        log.info("Report: %-8s %s", stage, outcome)
    failure = next((f"{stage}: {end.note}" for stage, end in outcomes.items() if end.status == "error"), "")
    create_markdown_artifact(
        markdown(outcomes, flow_run=f"{flow_run.name} (`{flow_run.id}`)", key=record.key),
        key="unlearning-pipeline",
        description=failure or "All selected stages are up to date.",
    )
    if failure:
        raise ExpungeError(failure)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the flow as a command: 0 when it completed, 1 when it failed, 2 for a wrong command line."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.pipeline",
        description="Run the unlearning pipeline as a Prefect flow. Uses the server at PREFECT_API_URL, "
        "or a temporary one.",
    )
    parser.add_argument("--target", choices=get_args(StageName), help="run up to this stage")
    parser.add_argument("--force", action="store_true", help="run the stages even if nothing changed")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="write a value into params.yaml first, such as unlearn.method=ssd; can be repeated",
    )
    parser.add_argument("--retries", type=int, default=2, help="tries after a failure (default: %(default)s)")
    arguments = parser.parse_args(argv)
    try:
        overrides = dict(map(parse, arguments.overrides))
    except ExpungeError as error:
        parser.error(str(error))
    if problem := _start_server():
        print(f"no Prefect server answers at PREFECT_API_URL: {problem}", file=sys.stderr)
        return 1
    try:
        state = pipeline(
            arguments.target, arguments.force, overrides, retries=arguments.retries, return_state=True
        )
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0 if state.is_completed() else 1


def _start_server() -> Exception | None:
    """Start the temporary server if it is needed; return what is wrong with the server, if anything.

    Whatever ends this process from outside shall stop the stage, be recorded, and stop the server, in
    this order. But a terminal sends Ctrl-C, and its own closing, to the server as well, and a flow
    whose server is gone waits for minutes. So the server starts with these signals blocked.
    """
    ended_by = [signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        ended_by.append(signal.SIGHUP)
    for number in ended_by:
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    from_terminal = {signal.SIGINT, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, from_terminal)
    try:
        with get_client(sync_client=True) as client:
            return client.api_healthcheck()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, from_terminal)


if __name__ == "__main__":
    sys.exit(main())
