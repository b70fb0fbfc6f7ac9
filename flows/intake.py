"""A request to forget, handed in as parameters of a Prefect deployment."""

from __future__ import annotations

import json
import os
from contextlib import chdir
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows._private import failed
from tasks.processing import checkout
from tasks.requests.catalogue import Catalogue
from tasks.requests.desk import Desk, new_id
from tasks.requests.settings import load_settings
from tasks.requests.states import Status

ROOT = Path(__file__).resolve().parents[1]


def _catalogue() -> Catalogue | None:
    """The samples that there are; ``None`` while the data cannot be read: it is resolved later then."""
    return Catalogue.load_or_none()[0]


# The docstring is in Google style because Prefect reads the parameters' descriptions from it.
@flow(name="submit-request", persist_result=False)
def submit_request(submission: dict[str, Any]) -> Any:
    """Take one request to forget into the ledger.

    The same checks as `expunge submit`. The run completes if the request was accepted or is a duplicate,
    and fails, naming what is wrong, if it was rejected. Prefect keeps the parameters of its runs: the
    purge deletes this run; that of a rejected request stays until you delete it.

    Args:
        submission: The request, as in docs/requests.md: requester, received_at, ground, samples.
    """
    try:
        with chdir(ROOT):
            desk = Desk.open(load_settings(), os.environ, ROOT)
            checkout.refuse_elsewhere(desk, ROOT)
            receipt = desk.submit(
                json.dumps(submission).encode(),
                "parameters.json",
                _catalogue(),
                channel="prefect",
                request=new_id(flow_run.scheduled_start_time, suffix=str(flow_run.id)[:8]),
                flow_run=str(flow_run.id),
            )
    except Exception as error:  # an engine that meets it would tell its text
        return failed("submit-request", ROOT, error)
    request = receipt.request
    get_run_logger().info("%s", receipt.told())
    if request.state.status is Status.REJECTED:
        # Without the values: Prefect would keep them.
        problems = "; ".join(f"{problem.where}: {problem.what}" for problem in receipt.problems)
        return Failed(message=f"request {request.id} was rejected: {problems}")
    return Completed(message=f"request {request.id}: {request.state.status}")
