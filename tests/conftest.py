from __future__ import annotations

import os
import signal
import uuid

import dvc.logger  # noqa: F401 - first within a test, its log would go to a stream that ends with that test
import pytest

# As many processes as there are cores share the tests, and a thread that waits for another spins. PyTorch
# reads this when it is imported; tests of several threads set them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell without job control starts background jobs with Ctrl-C ignored, and their children inherit that.
# The tests that interrupt a process would then wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)


LONG = (
    "flows/test_end_to_end", "flows/test_approval", "processing/", "functional/", "engine/test_distributed",
    "flows/", "erasure/",
)  # fmt: skip
"""What takes longest begins first, so that no process is left alone with it at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        found = (number for number, name in enumerate(LONG) if item.nodeid.startswith(f"tests/{name}"))
        return next(found, len(LONG))

    items.sort(key=place)


@pytest.fixture(autouse=True)
def _keys_of_nobody(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have erased samples: keys and mark in their home are not the tests'."""
    folder = tmp_path_factory.getbasetemp() / f"keys-{uuid.uuid4().hex}"
    monkeypatch.setenv("EXPUNGE_KEYS", str(folder))
