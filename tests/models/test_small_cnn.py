from __future__ import annotations

from typing import Any

import pytest

from tasks.core.errors import ExpungeError
from tasks.core.params import Train
from tasks.models.small_cnn import SmallCnn
from tests import tiny


def options(given: dict[str, Any]) -> SmallCnn.Options:
    train = Train.model_validate({"model": "small_cnn", "recipe": tiny.recipe(), "small_cnn": given})
    return train.options(SmallCnn.Options, where="params.yaml: train")


def test_the_widths_are_the_channels_of_the_blocks() -> None:
    model = SmallCnn(3, 10, options({"widths": [5, 6, 7], "depth": 1}))
    assert shapes(model) == [(5, 3, 3, 3), (6, 5, 3, 3), (7, 6, 3, 3)]


def test_the_depth_is_the_number_of_convolutions_a_block() -> None:
    model = SmallCnn(1, 10, options({"widths": [5, 6, 7], "depth": 3}))
    channels = [(5, 1), (5, 5), (5, 5), (6, 5), (6, 6), (6, 6), (7, 6), (7, 7), (7, 7)]
    assert shapes(model) == [(*pair, 3, 3) for pair in channels]


@pytest.mark.parametrize(("hidden", "head"), [(0, [(10, 112)]), (6, [(6, 112), (10, 6)])])
def test_hidden_units_are_a_layer_of_the_head(hidden: int, head: list[tuple[int, ...]]) -> None:
    model = SmallCnn(3, 10, options({"widths": [5, 6, 7], "hidden": hidden}))
    assert [tuple(weight.shape) for weight in model.parameters() if weight.dim() == 2] == head


def shapes(model: SmallCnn) -> list[tuple[int, ...]]:
    return [tuple(weight.shape) for weight in model.parameters() if weight.dim() == 4]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"widths": [32, 64]}, "widths is [32, 64]; list should have at least 3 items"),
        ({"widths": [32, 64, 128, 256]}, "widths is [32, 64, 128, 256]; list should have at most 3 items"),
        ({"widths": [32, 64, 0]}, "widths.2 is 0; input should be greater than or equal to 1"),
        ({"widths": [32, -1, 8]}, "widths.1 is -1; input should be greater than or equal to 1"),
        ({"widths": [32, 64, 5000]}, "widths.2 is 5000; input should be less than or equal to 1024"),
        ({"widths": [32, 64.0, 8]}, "widths.1 is 64.0; input should be a valid integer"),
        ({"widths": [32, "64", 8]}, "widths.1 is '64'; input should be a valid integer"),
        ({"widths": [32, True, 8]}, "widths.1 is True; input should be a valid integer"),
        ({"widths": 32}, "widths is 32; input should be a list"),
        ({"widths": None}, "widths is None; input should be a list"),
        ({"width": [1, 2, 3]}, "width is an unknown key; known keys: widths, depth, hidden"),
        ({"depth": 0}, "depth is 0; input should be greater than or equal to 1"),
        ({"hidden": -1}, "hidden is -1; input should be greater than or equal to 0"),
        ({"depth": 9}, "depth is 9; input should be less than or equal to 8"),
    ],
)
def test_impossible_options_are_refused_with_their_path(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ExpungeError) as caught:
        options(given)
    assert str(caught.value).startswith(f"params.yaml: train.small_cnn.{message}")
