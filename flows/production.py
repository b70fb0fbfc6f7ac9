"""The model in production, audited again every night over the cohort of past requests."""

from __future__ import annotations

import os
from contextlib import chdir
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows._private import failed
from tasks.core.files import only_writer
from tasks.core.params import load
from tasks.processing.cohort import audit_production as audit
from tasks.requests.desk import Desk
from tasks.requests.settings import settings_of

ROOT = Path(__file__).resolve().parents[1]


@flow(name="audit-production", persist_result=False)
def audit_production() -> State[Any]:
    """Audit the model in production over the cohort of past requests.

    Fails, so that an automation can alert someone, if the verdict changed, if other weights than the ledger's
    are in production, or if samples that were erased are in the data again.
    """
    log = get_run_logger()
    try:
        with chdir(ROOT), only_writer(Path("pipeline")):
            params = load()
            found = audit(Desk.open(settings_of(params), os.environ, ROOT), params, ROOT)
    except Exception as error:  # an engine that meets it would tell its text
        return failed("audit-production", ROOT, error)
    log.info("%s: %s", found.verdict, found.text)
    lines = [f"Verdict: **{found.verdict}**. {found.text}", *(f"- {alarm}" for alarm in found.alarms)]
    create_markdown_artifact("# Production\n\n" + "\n\n".join(lines) + "\n", key="audit-production")
    if found.alarms:
        return Failed(message="; ".join(found.alarms))
    return Completed(message=f"{found.verdict}: {found.text}")
