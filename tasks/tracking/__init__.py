"""Sends the journals of :mod:`tasks.journal` to MLflow.

======================  ==============================================================================
``__main__``            ``python -m tasks.tracking send | flush | find``
``waiting``             the journals in the spool, as a sender reads them
``sender``              one process at a time delivers what waits, and notes why something cannot be
``store``               an MLflow tracking store: experiments, and runs that are found by our keys
``replay``              entries of a journal, written to its run
``model``               a stage's weights as an MLflow model
``registry``            versions of the registered model, the one in production, what must go
``parent``              the run of a whole pipeline: its stages, executed and cached, and its figures
======================  ==============================================================================

Only ``store``, ``replay``, ``model``, ``parent`` and ``registry`` import mlflow; the first four in a sender.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tasks.core.errors import ExpungeError
from tasks.core.files import STATE, read_json

RUNS = STATE / "runs"
"""``<key>.json`` for every run that MLflow has: ``{"run_id", "experiment_id", "uri"}``."""


def run_ids(keys: Iterable[str], root: Path) -> dict[str, str]:
    """MLflow run ids of our keys; keys that MLflow has not yet got are left out."""
    found = {}
    for key in keys:
        try:
            found[key] = str(read_json(root / RUNS / f"{key}.json")["run_id"])
        except (ExpungeError, KeyError, TypeError):
            continue
    return found
