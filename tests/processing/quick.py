"""The stages run in this process, without DVC: for tests of what happens between them."""

from __future__ import annotations

import importlib
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tasks.core.files import content_digest, digest, write_json
from tasks.core.params import load
from tasks.erasure.purge import Purge
from tasks.processing.processor import Processor
from tasks.requests.key_folder import open_keys
from tasks.requests.production import BASE
from tasks.requests.settings import settings_of

if TYPE_CHECKING:
    from tests.processing.conftest import Checkout


def run_stages(target: str, tags: Mapping[str, str]) -> str:
    """Run every stage up to ``target`` whatever is up to date."""
    params = load()
    middle = ["retrain"] if params.audit.result == "retrain" else ["unlearn", "finetune"]
    for stage in ["split", "train", *middle, "audit"]:
        function = getattr(importlib.import_module(f"tasks.{stage}"), stage)
        if stage == "split":
            function(params, open_keys(settings_of(params), os.environ, Path.cwd()))
        else:
            function(params)
        inputs = {
            f"data/split/{name}": content_digest(Path("data/split", name))
            for name in ("images", "samples.csv")
        }
        write_json(
            Path("data", stage, "run.json"), {"run": uuid.uuid4().hex, "inputs": inputs, "outputs": {}}
        )
        if stage == target:
            break
    return uuid.uuid4().hex


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


def kill_at(checkout: Checkout, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Let a step of the processor be where a run of it is killed."""

    def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Processor, step, killed)
        with pytest.raises(Killed):
            checkout.process(run_stages)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Any:
    """No DVC at all: the purge makes the split again in this process, too."""

    def again(_: Purge, *arguments: str) -> None:
        run_stages("split", {})
        for path in Path("data").glob("*/weights.safetensors"):
            if digest(path) != digest(BASE / path.name):
                path.unlink()  # without dvc.lock the purge does not know whose they are

    monkeypatch.setattr(Purge, "_dvc", again)
    return run_stages
