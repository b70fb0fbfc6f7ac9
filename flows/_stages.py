"""The stages of ``dvc.yaml`` as Prefect tasks."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.client.schemas.objects import State
from prefect.exceptions import FailedRun
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed

from flows._plan import Plan
from flows._report import Outcome
from flows._reproduction import Reproduction
from tasks import journal
from tasks.core.dvc_failure import StageError, names_nothing


class _NoEmptyTraceback(logging.Filter):
    """Drops the traceback of a state that failed on purpose: it shows Prefect's engine, or nothing."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and (record.exc_info[0] is None or issubclass(record.exc_info[0], FailedRun)):
            record.exc_info = None
        return True


for _logger in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_logger).addFilter(_NoEmptyTraceback())


def execute(
    root: Path,
    planned: Plan,
    record: journal.Journal,
    *,
    retries: int,
    retry_delay: int,
    force: bool = False,
    tags: Mapping[str, str] | None = None,
    private: bool = False,
) -> dict[str, Outcome]:
    """Follow one ``dvc repro`` through the stages, a Prefect task each; stop at the first failure.

    Parameters
    ----------
    root
        The checkout.
    planned
        The stages.
    record
        Of the pipeline run.
    retries, retry_delay
        How often a stage is tried again, and after how many seconds.
    force
        Run the stages even if nothing changed.
    tags
        Further tags of every stage's MLflow run.
    private
        Whether Prefect is not to be told what a stage says is wrong: it may name samples to be forgotten.
    """
    run = _run.with_options(retries=retries, retry_delay_seconds=retry_delay)
    tags = {"prefect.flow_run_id": flow_run.id, "prefect.flow_run_name": flow_run.name, **(tags or {})}
    record.tags(tags)
    variables = {"EXPUNGE_PIPELINE": record.handle, "EXPUNGE_TAGS": json.dumps(tags)}
    outcomes: dict[str, Outcome] = {}
    failed = ""
    with Reproduction(root, planned, force=force, variables=variables) as dvc:
        for stage in planned.stages:
            if failed:
                note = f"{failed} failed"
                _skip.with_options(name=stage, task_run_name=stage)(note, return_state=True)
                outcomes[stage] = Outcome("skipped", note=note)
                continue
            started = time.monotonic()
            options = run.with_options(name=stage, task_run_name=stage)
            state = options(stage, dvc, private=private, return_state=True)
            failed = stage if state.is_failed() else ""
            outcomes[stage] = Outcome(
                "error" if failed else "cached" if state.name == "Cached" else "success",
                time.monotonic() - started,
                state.message or "",
                dvc.error if failed else None,
            )
    return outcomes | {stage: Outcome("skipped", note="not selected") for stage in planned.others}


def _can_help(_task: object, _task_run: object, state: State[Any]) -> bool:
    return isinstance(state.data, StageError) and state.data.transient


@task(persist_result=False, retry_condition_fn=_can_help)
def _run(stage: str, dvc: Reproduction, *, private: bool) -> State[Any]:
    log = get_run_logger()

    def say(line: str) -> None:
        if not private or names_nothing(line):
            log.info(line)

    try:
        status = dvc.follow(stage, say)
    except StageError as error:
        dvc.error = error  # Prefect wraps what a state holds
        return Failed(message=error.ending if private else str(error), data=error)
    return Completed(name="Cached") if status == "cached" else Completed()


@task(persist_result=False)
def _skip(reason: str) -> State[Any]:
    return Cancelled(name="Skipped", message=reason)
