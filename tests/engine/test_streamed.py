"""Images in a file train, score and unlearn as images in memory do, to the bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tasks.core.params import Augment
from tasks.core.plugins import choices
from tasks.engine.data import Data, Groups
from tasks.engine.predict import logits
from tasks.engine.resumable import _digest
from tasks.engine.training import fit
from tasks.engine.weights import tensor_digest
from tasks.methods import METHODS, Sets
from tests import tiny
from tests.samples.building import in_files

ROLES = np.array(["retain", "forget", "val", "test", "retain", "retain"])
CPU = torch.device("cpu")


@pytest.fixture
def both(tmp_path: Path) -> tuple[Groups, Groups]:
    """The same images in memory and in a file."""
    digits = tiny.digits()
    images: NDArray[np.uint8] = digits.images[:600].numpy()
    labels, names = digits.labels[:600].numpy(), np.tile(ROLES, 100)
    of_file = in_files(images, tmp_path, each=250)
    return Groups(images, labels, names), Groups(of_file, labels, names)


def trained(data: Data, val: Data) -> tuple[str, list[dict[str, float]]]:
    model = tiny.model(classes=10)
    recipe = tiny.recipe(lr=0.02, augment=Augment(flip=True, crop=1, cutout=2))
    history = fit(model, data, recipe, seed=3, val=val).history
    return tensor_digest(model.state_dict()), [{**row, "images_per_second": 0} for row in history]


def test_a_training_takes_the_same_steps(both: tuple[Groups, Groups]) -> None:
    one, other = (trained(each.on_device("retain", CPU), each.on_device("val", CPU)) for each in both)
    assert one == other


def test_scores_and_digests_are_the_same(both: tuple[Groups, Groups]) -> None:
    model = tiny.model(classes=10)
    assert np.array_equal(logits(model, both[0].images), logits(model, both[1].images))
    prints = {_digest(each.on_device("retain", CPU), each.on_device("val", CPU)) for each in both}
    assert len(prints) == 1


@pytest.mark.parametrize("method", choices("methods"))
def test_every_method_ends_in_the_same_weights(both: tuple[Groups, Groups], method: str) -> None:
    ends = set()
    for groups in both:
        model = tiny.model(classes=10)
        chosen = METHODS.get(method)
        sets = Sets(retain=groups.on_device("retain", CPU), forget=groups.on_device("forget", CPU))
        few = {"influence": {"samples": 100, "iterations": 2}}.get(method, {})
        chosen(chosen.Options(**few), 5).unlearn(model, sets)
        ends.add(tensor_digest(model.state_dict()))
    assert len(ends) == 1


def test_sets_of_two_kinds_are_not_put_together(both: tuple[Groups, Groups]) -> None:
    one, other = (each.on_device("retain", CPU) for each in both)
    with pytest.raises(ValueError, match="one set is in memory and one in a file"):
        one.together_with(other)
    assert len(replace(other, labels=other.labels).together_with(other)) == 2 * len(other)
