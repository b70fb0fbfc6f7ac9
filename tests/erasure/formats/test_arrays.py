"""Images are found in arrays of every layout and type, and other images of the same shape are not."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import save as safetensors

from tasks.erasure.search import Found, Sought, Unread, find
from tests.erasure.formats.samples import GREYS, IMAGES, NAME, encoded, erased, picture_digest

HWC = IMAGES.transpose(0, 2, 3, 1)
SQUARE = np.random.default_rng(9).integers(0, 256, (12, 3, 6, 6), dtype=np.uint8)
LAYOUTS: dict[str, NDArray[Any]] = {
    "channels first": IMAGES,
    "channels last": HWC,
    "with an alpha channel": np.concatenate([HWC, np.full_like(HWC[..., :1], 255)], axis=3),
    "one image": IMAGES[3],
    "one image, channels last": HWC[3],
    "one grey image": GREYS[4, 0],
    "grey": GREYS[:, 0],
    "grey in colour": np.repeat(GREYS, 3, axis=1),
    "grey with a channel": GREYS,
    "flattened grey": GREYS.reshape(12, -1),
    "one flattened grey image": GREYS[4].reshape(-1),
    "int64": IMAGES.astype(np.int64),
    "int16, channels last": HWC.astype(np.int16),
    "uint16, big-endian": IMAGES.astype(">u2"),
    "float32, 0 to 1": (IMAGES / 255).astype(np.float32),
    "float16, 0 to 1": (IMAGES / 255).astype(np.float16),
    "float64, 0 to 255": IMAGES.astype(np.float64),
    "float32, -1 to 1": (HWC / 127.5 - 1).astype(np.float32),
    "Fortran": np.asfortranarray(HWC),
}


def npy(values: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def npz(values: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, labels=np.arange(3), images=values)
    return file.getvalue()


def pt(values: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    torch.save({"epoch": 3, "images": torch.from_numpy(values.astype(values.dtype.newbyteorder("=")))}, file)
    return file.getvalue()


def tensors(values: NDArray[Any]) -> bytes:
    content: bytes = safetensors(
        {"images": np.ascontiguousarray(values.astype(values.dtype.newbyteorder("=")))}
    )
    return content


def parquet(values: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    values = values.astype(values.dtype.newbyteorder("="))
    pq.write_table(pa.table({"images": pa.array(values.tolist())}), file)
    return file.getvalue()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_image_is_found_in_every_layout(layout: str, others: Sought) -> None:
    content = npy(LAYOUTS[layout])
    found = find(content, erased(IMAGES[3], GREYS[4]))
    assert found.pixels
    assert found == Found(pixels=found.pixels)
    assert not find(content, others)
    by_picture = Sought.of_samples([], pictures=map(bytes.decode, _pictures()))
    assert find(content, by_picture) == Found(pixels=1)


def _pictures() -> list[bytes]:

    return [picture_digest(IMAGES[3]).encode(), picture_digest(GREYS[4]).encode()]


@pytest.mark.parametrize("write", [npy, npz, pt, tensors, parquet])
@pytest.mark.parametrize("layout", ["channels first", "channels last", "grey", "float32, 0 to 1", "int64"])
def test_arrays_are_found_in_every_container(
    write: Callable[[NDArray[Any]], bytes], layout: str, others: Sought
) -> None:
    content = write(LAYOUTS[layout])
    assert find(content, erased(IMAGES[3], GREYS[4])).pixels
    assert not find(content, others)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_an_array_is_found_in_a_pickle(protocol: int, others: Sought) -> None:
    batch = {
        "filenames": [NAME, "b"],
        "data": SQUARE.reshape(12, -1),
        "more": [GREYS[:, 0].astype(np.float32)],
    }
    content = pickle.dumps(batch, protocol)
    assert find(content, erased(SQUARE[5], GREYS[4])).pixels >= 2
    assert find(content, erased(SQUARE[5])).names == 1
    assert not find(content, others)
    assert not find(content, erased(SQUARE[5] ^ 1, names=()))


def test_flattened_images_in_colour_are_found_in_both_orders() -> None:
    for values in (SQUARE.reshape(12, -1), SQUARE.transpose(0, 2, 3, 1).reshape(12, -1)):
        assert find(npy(values), erased(SQUARE[5])).pixels
        assert not find(npy(values), erased(SQUARE[5] ^ 1))


def test_flattened_images_that_are_no_squares_are_found_where_their_size_is_known() -> None:

    content = npy(HWC.reshape(12, -1))
    picture = picture_digest(IMAGES[3])
    assert find(content, Sought.of_samples([], pictures=[picture], sizes=[(8, 6)]))
    assert not find(content, Sought.of_samples([], pictures=[picture], sizes=[(8, 7)]))


def test_standardised_images_are_named_as_not_recognisable() -> None:
    images = np.random.default_rng(1).normal(size=(4, 3, 16, 16)).astype(np.float32)
    assert find(npy(images), erased(IMAGES[3])).unread == {Unread.FLOATS: 1}
    logits, kernel = images.reshape(4, -1)[:, :10], images[:, :, :3, :3]
    assert not find(npy(logits), erased(IMAGES[3])).unread
    assert not find(npy(kernel), erased(IMAGES[3])).unread


def test_parameters_of_layers_are_no_images_whatever_their_shape() -> None:
    weights = np.random.default_rng(1).normal(size=(10, 256)).astype(np.float32)
    for name, unread in (("head.1.weight", {}), ("weight", {}), ("weights", {Unread.FLOATS: 1})):
        assert find(safetensors({name: weights}), erased(IMAGES[3])).unread == unread


def test_names_in_an_array_of_texts_are_found(others: Sought) -> None:
    for values in (
        np.array([NAME, "x"]),
        np.array([NAME.encode(), b"x"]),
        np.array([NAME, None], dtype=object),
    ):
        assert find(npy(values), erased(IMAGES[3])) == Found(names=1)
        assert not find(npy(values), others)
    records = np.array([(3, NAME), (4, "y")], dtype=[("label", "i8"), ("path", "U30")])
    assert find(npy(records), erased(IMAGES[3])) == Found(names=1)


def test_encoded_images_are_found_in_an_array_of_objects(others: Sought) -> None:
    values = np.array([encoded(IMAGES[3]), encoded(IMAGES[2]), None], dtype=object)
    assert find(npy(values), erased(IMAGES[3])).files == 1
    assert not find(npy(values), others)
