"""A checkout with a real Git and DVC repository, an image folder of its own, and a small model in it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tasks.processing.dvc_repro import run_stages
from tasks.processing.processor import Processor
from tasks.requests.catalogue import Catalogue
from tasks.requests.desk import Desk
from tasks.requests.keys import KeyStore
from tasks.requests.ledger import Ledger
from tasks.requests.request import Request
from tasks.requests.settings import load_settings
from tests.functional.repository import Repository, environment
from tests.once import made_once

SETTINGS = {
    "split.source": "image_folder",
    "split.path": "data/images",
    "split.forget.fraction": 0.1,
    "train.recipe.epochs": 3,
    "finetune.recipe.epochs": 1,
    "runtime.threads": 1,
    "requests.batch_size": 1,
    "requests.chain": [],
    "requests.val_acc_loss": 0.9,
}
IMAGES = {"train": 40, "test": 10}
"""Images of each of three classes."""


@dataclass
class Checkout:
    """The project in a folder of its own, and a desk whose clock tests move."""

    repository: Repository
    keys: KeyStore
    time: datetime
    logged: list[str]

    @property
    def root(self) -> Path:
        return self.repository.root

    @property
    def desk(self) -> Desk:
        url = f"sqlite:///{self.root}/data/requests/ledger.db"
        return Desk(Ledger(url, lambda: self.time), self.keys, load_settings(), lambda: self.time)

    def submit(self, *ids: str, requester: str = "crm:1", **changes: Any) -> Request:
        value = {
            "requester": requester,
            "received_at": self.time.isoformat(),
            "ground": "consent-withdrawn",
            "samples": {"id": list(ids)},
        } | changes
        receipt = self.desk.submit(json.dumps(value).encode(), "r.json", Catalogue.load(), channel="cli")
        assert not receipt.problems
        return receipt.request

    def processor(self, run: Callable[[str, Mapping[str, str]], str | None] = run_stages) -> Processor:
        return Processor(root=self.root, desk=self.desk, run=run, environ={}, log=self.logged.append)

    def process(self, run: Callable[[str, Mapping[str, str]], str | None] = run_stages) -> list[str]:
        self.time += timedelta(minutes=15)
        return self.processor(run).process()

    def kinds(self, request: str) -> list[str]:
        return [event.kind for event in self.desk.show(request).events]

    def status(self, request: str) -> str:
        return str(self.desk.show(request).state.status)

    def set(self, **values: object) -> None:
        """Change settings of requests, and commit that."""
        self.repository.change({f"requests.{key}": value for key, value in values.items()})
        self.repository.git("commit", "--quiet", "--message", "other settings", "--", "params.yaml")


def names(label: int, *numbers: int) -> list[str]:
    """Ids of training images."""
    return [f"train/{label}/{number:03}.png" for number in numbers]


def write_images(folder: Path) -> None:
    """Write real digits of three classes as PNG files."""
    digits = load_digits()
    for label in range(3):
        rows = iter(np.flatnonzero(digits.target == label))
        for part, count in IMAGES.items():
            target = folder / part / str(label)
            target.mkdir(parents=True)
            for number in range(count):
                pixels = (digits.images[next(rows)] * 15.9375).astype(np.uint8)
                Image.fromarray(pixels).save(target / f"{number:03}.png")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """The project with its first model, committed."""
    folder = made_once(tmp_path_factory, "processing", _train)
    return Repository(folder / "project", environment(folder))


def _train(folder: Path) -> None:
    repository = Repository(folder / "project", environment(folder))
    repository.root.mkdir()
    repository.create()
    write_images(repository.root / "data/images")
    repository.write("data/images/.gitignore", "*\n!.gitignore\n")
    repository.change(SETTINGS)
    repository.commit("images of our own")
    repository.dvc("repro", "train")
    repository.commit("the first model")
    shutil.rmtree(repository.root / ".expunge/spool")  # of this very folder: a copy would send it here


@pytest.fixture
def checkout(trained: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Checkout]:
    repository = trained.copy(tmp_path / "project")
    for name in [name for name in os.environ if name.startswith(("EXPUNGE_", "DVC_", "GIT_"))]:
        monkeypatch.delenv(name)
    for name, value in repository.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(repository.root))
    monkeypatch.chdir(repository.root)
    keys = KeyStore(tmp_path / "keys", repository.root)
    monkeypatch.setenv("EXPUNGE_KEYS", str(keys.folder))
    repository.environment["EXPUNGE_KEYS"] = str(keys.folder)
    yield Checkout(repository, keys, datetime(2026, 5, 1, 12, tzinfo=UTC), [])
    shutil.rmtree(repository.root)
