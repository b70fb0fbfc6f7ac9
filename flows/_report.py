"""The Markdown page that links what a pipeline run left behind."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tasks.core.dvc_failure import StageError
from tasks.core.errors import ExpungeError
from tasks.core.files import digest
from tasks.stage import git_state
from tasks.tracking import run_ids

MODELS = ("original", "unlearned", "finetuned", "retrained")
HEADLINES = ("retain/acc", "forget/acc", "test/acc", "mia/acc", "mia/auc")


@dataclass(frozen=True)
class Outcome:
    """How a stage ended, after how many seconds, and why.

    ``error``: the whole reason, where ``note`` leaves out what may name samples.
    """

    status: Literal["success", "cached", "error", "skipped"]
    seconds: float = 0.0
    note: str = ""
    error: StageError | None = None

    def __str__(self) -> str:
        spent = "" if self.status == "skipped" else f", {self.seconds:.1f} s"
        return f"{self.status}{spent}{f': {self.note}' if self.note else ''}"


def markdown(outcomes: Mapping[str, Outcome], *, flow_run: str, key: str) -> str:
    """Render the page from the outcomes and the files in the working directory.

    Figures of a stage that failed or was not reached are left out: they would be an older run's.
    """
    parts = ["# Unlearning pipeline", _stages(outcomes)]
    if _is_current(outcomes, "mia"):
        parts += _results(Path("data/mia"))
    parts.append(_links(outcomes, flow_run, key))
    return "\n\n".join(parts) + "\n"


def _is_current(outcomes: Mapping[str, Outcome], stage: str) -> bool:
    return stage in outcomes and outcomes[stage].status in {"success", "cached"}


def _stages(outcomes: Mapping[str, Outcome]) -> str:
    rows = [
        [
            stage,
            end.status,
            "" if end.status == "skipped" else f"{end.seconds:.1f}",
            _made_by(stage) if _is_current(outcomes, stage) else "",
            end.note,
        ]
        for stage, end in outcomes.items()
    ]
    return table(["stage", "status", "seconds", "MLflow run", "note"], rows)


def _made_by(stage: str) -> str:
    key = _read(Path("data") / stage / "run.json").get("run")
    return _mlflow_run(str(key)) if key else ""


def _mlflow_run(key: str) -> str:
    """MLflow's id of a run; before it is sent there, the command that will tell it."""
    sent = run_ids([key], Path.cwd()).get(key)
    return f"`{sent}`" if sent else f"`python -m tasks.tracking find {key}`"


def _results(folder: Path) -> list[str]:
    figures = _read(folder / "models.json")
    rows = [[model, *(_figure(figures.get(f"{model}/{name}")) for name in HEADLINES)] for model in MODELS]
    verdict = _read(folder / "verdict.json")
    return [
        f"Verdict: **{verdict.get('verdict', 'none')}**. {verdict.get('text', '')}",
        table(["model", *HEADLINES], rows),
    ]


def _links(outcomes: Mapping[str, Outcome], flow_run: str, key: str) -> str:
    page = Path("data/report/report.html")
    lock = Path("dvc.lock")
    rows = [
        ["flow run", flow_run],
        ["MLflow parent run", _mlflow_run(key)],
        ["Git commit", _commit()],
        ["dvc.lock (MD5)", f"`{digest(lock)}`" if lock.exists() else ""],
        ["report", f"`{page.resolve()}`" if _is_current(outcomes, "report") and page.exists() else ""],
    ]
    return table(["what", "where"], [row for row in rows if row[1]])


def _commit() -> str:
    try:
        git = git_state()
    except ExpungeError as error:
        return str(error)
    changed = " with changes that are not committed" if git.get("git.dirty") == "true" else ""
    return f"`{git['git.commit']}`{changed}" if git else ""


def _figure(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else ""


def table(head: list[str], rows: list[list[str]]) -> str:
    """Render rows as a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _read(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one: a page with a gap is better than a run without a page."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
