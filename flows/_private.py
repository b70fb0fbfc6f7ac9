"""How a flow about requests ends when it cannot do its work: Prefect keeps what it is told for ever."""

from __future__ import annotations

import traceback
from contextlib import chdir
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Failed

from tasks.core.errors import BusyError, ExpungeError, PlainError, UnavailableError
from tasks.processing import steplog


def failed(flow: str, root: Path, error: Exception) -> State[Any]:
    """Return the state of a flow that met an error.

    Its text may name samples, unless it says of itself that it does not: so Prefect is told a code, and the
    text is written to a log of the checkout at ``root``.
    """
    if isinstance(error, PlainError | BusyError | UnavailableError):
        return Failed(message=str(error))
    from tasks.processing.processor import code_of  # takes long

    known = isinstance(error, ExpungeError | OSError)
    with chdir(root):
        steplog.write(flow, str(error) if known else traceback.format_exc())
    return Failed(message=f"{flow} failed ({code_of(error)}); {steplog.path_of(flow)} tells why")
