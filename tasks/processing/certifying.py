"""The certificate of a request, made from the ledger."""

from __future__ import annotations

from pathlib import Path

from tasks.core.params import Runtime
from tasks.requests.desk import Desk
from tasks.requests.request import Request


def certify(desk: Desk, request: Request, runtime: Runtime, folder: Path) -> Path:
    """Write the certificate of a request whose samples are purged; return its path."""
    raise NotImplementedError
