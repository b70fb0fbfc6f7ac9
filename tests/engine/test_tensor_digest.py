from __future__ import annotations

import hashlib

import pytest
import torch

from tasks.engine.weights import tensor_digest

TENSORS = {
    "a": torch.arange(6.0).reshape(2, 3),
    "b": torch.tensor(7),
    "c": torch.zeros(0, 4),
    "d": torch.tensor([True, False]),
    "e": torch.ones(3, dtype=torch.bfloat16),
}


def test_it_does_not_depend_on_the_order_of_insertion() -> None:
    reverse = dict(reversed(TENSORS.items()))
    assert tensor_digest(reverse) == tensor_digest(TENSORS)


def test_it_does_not_depend_on_the_memory_layout() -> None:
    images = torch.randn(2, 3, 4, 5)
    assert tensor_digest({"w": images}) == tensor_digest({"w": images.to(memory_format=torch.channels_last)})
    assert tensor_digest({"w": images[:, :, ::2]}) == tensor_digest({"w": images[:, :, ::2].clone()})


@pytest.mark.parametrize(
    "change",
    [
        {"a": torch.arange(6.0).reshape(3, 2)},  # shape
        {"a": torch.arange(6.0).reshape(2, 3).double()},  # type
        {"a": torch.arange(6.0).reshape(2, 3).nextafter(torch.tensor(9.0))},  # last bits
        {"a": torch.arange(6.0).reshape(2, 3).view(torch.int32)},  # type, with the same bytes
        {"b": torch.tensor(8)},
        {"b": torch.tensor([7])},
        {"c": torch.zeros(4, 0)},
        {"d": torch.tensor([False, True])},
        {"f": torch.zeros(1)},
    ],
)
def test_it_depends_on_shape_type_and_value(change: dict[str, torch.Tensor]) -> None:
    assert tensor_digest(TENSORS | change) != tensor_digest(TENSORS)


def test_it_depends_on_the_names() -> None:
    a, b = torch.zeros(2), torch.ones(2)
    assert tensor_digest({"a": a, "b": b}) != tensor_digest({"a": b, "b": a})
    assert tensor_digest({"a": a}) != tensor_digest({"b": a})


def test_it_tells_zero_from_minus_zero() -> None:
    assert tensor_digest({"a": torch.tensor(0.0)}) != tensor_digest({"a": torch.tensor(-0.0)})


def test_it_is_the_one_of_the_documented_bytes() -> None:
    expected = hashlib.sha256(b"a torch.int16 [2]\n\x01\x00\x02\x00b torch.uint8 []\n\x03").hexdigest()
    tensors = {
        "b": torch.tensor(3, dtype=torch.uint8),
        "a": torch.tensor([1, 2], dtype=torch.int16),
    }
    assert tensor_digest(tensors) == expected
