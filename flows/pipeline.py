"""The unlearning pipeline as a Prefect flow: plan, execute, report.

DVC decides what has to run and keeps the results; Prefect decides when, tries again, and shows. Run
it with ``python -m flows.pipeline``, or deploy it with ``prefect --no-prompt deploy --all``.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import chdir
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from pydantic import Field

from flows._plan import plan
from flows._report import Outcome, markdown
from flows._server import start_server
from flows._stages import execute
from tasks import journal
from tasks.core.errors import ExpungeError
from tasks.core.files import only_writer
from tasks.core.params import load
from tasks.overrides import Scalar, override, parse

ROOT = Path(__file__).resolve().parents[1]

StageName = Literal["sample", "split", "train", "retrain", "unlearn", "finetune", "audit", "mia", "report"]


# The docstring is in Google style because Prefect reads the parameters' descriptions from it.
@flow(name="unlearning-pipeline", persist_result=False)
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
                outcomes = execute(
                    ROOT, planned, record, retries=retries, retry_delay=retry_delay, force=force
                )
                _report(outcomes, record)
    except ExpungeError as error:
        return Failed(message=str(error))
    ended = [outcome.status for outcome in outcomes.values()]
    return Completed(message=", ".join(f"{ended.count(s)} {s}" for s in dict.fromkeys(ended)))


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
    if problem := start_server():
        print(f"no Prefect server answers at PREFECT_API_URL: {problem}", file=sys.stderr)
        return 1
    try:
        state = pipeline(
            arguments.target, arguments.force, overrides, retries=arguments.retries, return_state=True
        )
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0 if state.is_completed() else 1


if __name__ == "__main__":
    sys.exit(main())
