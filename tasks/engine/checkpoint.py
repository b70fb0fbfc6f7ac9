"""Checkpoints: what a killed training needs to go on, bit for bit."""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Mapping
from typing import Any

import torch

from tasks.core.files import STATE, write_whole

log = logging.getLogger(__name__)


class Checkpoint:
    """The last finished epoch of one stage, in ``.expunge/checkpoints``.

    It lies outside the stage's outputs, which DVC deletes before it starts the stage. The file begins
    with the SHA-256 of the rest: a torch file with a flipped bit would load silently.

    Parameters
    ----------
    name
        Stage.
    identity
        Everything that the result depends on; a checkpoint of anything else is ignored.
    """

    def __init__(self, name: str, identity: Mapping[str, Any]) -> None:
        self.path = STATE / "checkpoints" / f"{name}.ckpt"
        self.identity = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def save(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint by this state, whole or not at all."""
        buffer = io.BytesIO()
        torch.save({"identity": self.identity, **state}, buffer)
        content = buffer.getvalue()
        with write_whole(self.path) as file:
            file.write(hashlib.sha256(content).digest())
            file.write(content)

    def load(self) -> dict[str, Any] | None:
        """State to resume from, or None when there is none, or it is damaged or of another training."""
        if not self.path.exists():
            return None
        content = self.path.read_bytes()
        if hashlib.sha256(content[32:]).digest() != content[:32]:
            log.warning("checkpoint %s is damaged; starting from the first epoch", self.path)
            return None
        state: dict[str, Any] = torch.load(io.BytesIO(content[32:]), map_location="cpu", weights_only=True)
        if state["identity"] != self.identity:
            log.info("checkpoint %s belongs to another training; starting from the first epoch", self.path)
            return None
        return state

    def discard(self) -> None:
        """Delete the checkpoint: the stage's outputs are written."""
        self.path.unlink(missing_ok=True)
