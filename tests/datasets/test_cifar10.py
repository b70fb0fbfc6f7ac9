from __future__ import annotations

import hashlib
import io
import pickle
import socket
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.core.errors import ExpungeError
from tasks.datasets.cifar10 import cifar10
from tasks.samples.check import check
from tasks.samples.pictures import fingerprints_of
from tests.datasets.building import reading

BATCH = 20
NAMES = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]


def batch(number: int) -> tuple[NDArray[np.uint8], list[int]]:
    pixels = np.random.default_rng(number).integers(0, 256, (BATCH, 3072), dtype=np.uint8)
    return pixels, [(index + number) % 10 for index in range(BATCH)]


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address at which the folder ``tmp_path/server`` is served."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "server"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder))) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture
def archive(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive like the original, with 20 images a batch, which torchvision takes for the original."""
    from torchvision.datasets import CIFAR10

    contents = {"batches.meta": pickle.dumps({"label_names": [f"class {k}" for k in range(10)]})}
    for number, name in enumerate(NAMES):
        pixels, labels = batch(number)
        contents[name] = pickle.dumps({"data": pixels, "labels": labels})
    path = tmp_path / "server" / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, content in contents.items():
            entry = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    sums = {name: hashlib.md5(content).hexdigest() for name, content in contents.items()}
    changes: dict[str, Any] = {
        "url": f"{server}/{path.name}",
        "tgz_md5": hashlib.md5(path.read_bytes()).hexdigest(),
        "train_list": [[name, sums[name]] for name in NAMES[:5]],
        "test_list": [[NAMES[5], sums[NAMES[5]]]],
        "meta": {"filename": "batches.meta", "key": "label_names", "md5": sums["batches.meta"]},
    }
    for name, value in changes.items():
        monkeypatch.setattr(CIFAR10, name, value)
    return path


def test_the_archive_is_downloaded_and_read(archive: Path, tmp_path: Path) -> None:
    before = socket.getdefaulttimeout()
    of = check(cifar10(tmp_path / "data", reading()), "cifar10")
    assert socket.getdefaulttimeout() == before
    assert of.images.shape == (120, 3, 32, 32)
    for number in range(6):
        rows = slice(BATCH * number, BATCH * (number + 1))
        pixels, labels = batch(number)
        assert np.array_equal(of.images[rows].reshape(BATCH, 3072), pixels)
        assert of.labels[rows].tolist() == labels
    assert of.is_test.tolist() == [False] * 100 + [True] * 20
    assert (of.sample_ids[0], of.sample_ids[99], of.sample_ids[100]) == (
        "train/00000",
        "train/00099",
        "test/00000",
    )
    assert of.sources[100] == "test#00000"
    assert of.row_counts == (("train", 100),)
    assert of.classes[3] == "class 3"
    archive.unlink()  # a second time nothing is downloaded
    assert cifar10(tmp_path / "data", reading(16)).images.shape == (120, 3, 16, 16)


def test_the_fingerprints_are_of_the_pictures_before_they_are_scaled(archive: Path, tmp_path: Path) -> None:
    native, scaled = cifar10(tmp_path / "data", reading()), cifar10(tmp_path / "data", reading(16))
    assert np.array_equal(native.pictures, fingerprints_of(np.asarray(native.images)))
    assert np.array_equal(native.pictures, scaled.pictures)


def test_an_archive_put_there_by_hand_is_used(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    archive.rename(tmp_path / "data" / archive.name)
    assert len(cifar10(tmp_path / "data", reading()).labels) == 120


def test_an_archive_with_a_wrong_checksum_is_refused(archive: Path, tmp_path: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(
        ExpungeError, match=r"could not be downloaded to .*data \(File not found or corrupted"
    ):
        cifar10(tmp_path / "data", reading())


def test_an_archive_that_the_server_lacks_is_refused(archive: Path, tmp_path: Path) -> None:
    archive.unlink()
    with pytest.raises(ExpungeError, match=r"could not be downloaded to .*data \(HTTP Error 404"):
        cifar10(tmp_path / "data", reading())


def test_without_a_network_the_message_says_where_to_put_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(ExpungeError) as caught:
        cifar10(tmp_path, reading())
    message = str(caught.value)
    assert message.startswith(f"CIFAR-10 could not be downloaded to {tmp_path} (<urlopen error")
    assert message.endswith(
        "without a network, put cifar-10-python.tar.gz from "
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz there and run again"
    )
    assert "\n" not in message
