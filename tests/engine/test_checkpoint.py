from __future__ import annotations

import hashlib
import io
import logging
import zipfile
from pathlib import Path

import pytest
import torch

from tasks.engine.checkpoint import Checkpoint


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def saved() -> Checkpoint:
    checkpoint = Checkpoint("train", {"seed": 1})
    checkpoint.save({"model": {"w": torch.arange(4.0)}, "history": [{"lr": 0.1}], "seconds": 2.5})
    return checkpoint


def test_what_is_saved_is_loaded(saved: Checkpoint) -> None:
    state = Checkpoint("train", {"seed": 1}).load()
    assert state is not None
    assert torch.equal(state["model"]["w"], torch.arange(4.0))
    assert state["history"] == [{"lr": 0.1}]
    assert state["seconds"] == 2.5


def test_without_a_file_there_is_nothing_to_resume() -> None:
    assert Checkpoint("train", {"seed": 1}).load() is None


def test_each_stage_has_its_own(saved: Checkpoint) -> None:
    assert Checkpoint("retrain", {"seed": 1}).load() is None


def test_another_identity_is_another_training(saved: Checkpoint, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert Checkpoint("train", {"seed": 2}).load() is None
    assert "belongs to another training" in caplog.text


def test_the_order_of_an_identitys_keys_does_not_matter() -> None:
    Checkpoint("train", {"seed": 1, "lr": 2}).save({})
    assert Checkpoint("train", {"lr": 2, "seed": 1}).load() is not None


def test_every_flipped_byte_is_noticed(saved: Checkpoint, caplog: pytest.LogCaptureFixture) -> None:
    content = saved.path.read_bytes()
    for place in range(0, len(content), 37):
        damaged = bytearray(content)
        damaged[place] ^= 0x10
        saved.path.write_bytes(damaged)
        assert saved.load() is None
    assert "is damaged; starting from the first epoch" in caplog.text


@pytest.mark.parametrize("length", [0, 10, 32, 33, 500])
def test_a_truncated_file_is_noticed(saved: Checkpoint, length: int) -> None:
    saved.path.write_bytes(saved.path.read_bytes()[:length])
    assert saved.load() is None


def test_a_save_replaces_the_one_before_and_leaves_nothing_else(saved: Checkpoint) -> None:
    saved.save({"seconds": 9.0})
    state = saved.load()
    assert state is not None
    assert state["seconds"] == 9.0
    assert [path.name for path in saved.path.parent.iterdir()] == ["train.ckpt"]


def test_discarding_twice_is_no_error(saved: Checkpoint) -> None:
    saved.discard()
    assert not saved.path.exists()
    saved.discard()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_checkpoint_from_a_gpu_is_readable_without_one(saved: Checkpoint) -> None:
    moved = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(saved.path.read_bytes()[32:])) as source,
        zipfile.ZipFile(moved, "w") as target,
    ):
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("data.pkl"):
                assert b"\x03\x00\x00\x00cpu" in content
                content = content.replace(b"\x03\x00\x00\x00cpu", b"\x06\x00\x00\x00cuda:0")
            target.writestr(name, content)
    content = moved.getvalue()
    saved.path.write_bytes(hashlib.sha256(content).digest() + content)
    state = saved.load()
    assert state is not None
    assert torch.equal(state["model"]["w"], torch.arange(4.0))
