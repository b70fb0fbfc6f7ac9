"""What every method promises; a new file in ``tasks/methods`` is tested here without a change."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from tasks.core.errors import ExpungeError
from tasks.core.params import Unlearn
from tasks.core.plugins import choices
from tasks.engine.training import Epoch, fit
from tasks.methods import METHODS, Method, Sets
from tests import tiny

every_method = pytest.mark.parametrize("name", choices("methods"))


def sets(forget: int = 6) -> Sets:
    data = tiny.noise(40)
    return Sets(data.subset(torch.arange(forget, 40)), data.subset(torch.arange(forget)))


def trained() -> nn.Module:
    model = tiny.model()
    fit(model, tiny.noise(40), tiny.recipe(lr=0.01), seed=0)
    return model


def run(name: str, model: nn.Module, given: Sets, seed: int = 2) -> list[tuple[int, Epoch]]:
    seen: list[tuple[int, Epoch]] = []
    kind = METHODS.get(name)
    method = kind(kind.Options(), seed, lambda epoch, row: seen.append((epoch, row)))
    assert isinstance(method, Method)
    method.unlearn(model, given)
    return seen


@every_method
def test_one_seed_gives_the_same_bits_twice(name: str) -> None:
    ends = []
    for noise in (0, 99):  # whatever the global generator's state was
        model = trained()
        torch.manual_seed(noise)
        run(name, model, sets())
        ends.append(tiny.state(model))
    assert tiny.equal(ends[0], ends[1])


@every_method
@pytest.mark.parametrize("forget", [1, 6, 38])
def test_any_forget_set_leaves_a_finite_model_of_the_same_shape(name: str, forget: int) -> None:
    model = trained()
    before = tiny.state(model)
    run(name, model, sets(forget))
    after = tiny.state(model)
    assert list(after) == list(before)
    for key, value in after.items():
        assert (value.shape, value.dtype, value.device) == (
            before[key].shape, before[key].dtype, before[key].device,
        )  # fmt: skip
        assert bool(torch.isfinite(value).all())


@every_method
def test_the_weights_stay_trainable_and_channels_last(name: str) -> None:
    model = trained()
    run(name, model, sets())
    assert all(weight.requires_grad for weight in model.parameters())
    assert all(
        weight.is_contiguous(memory_format=torch.channels_last)
        for weight in model.parameters()
        if weight.dim() == 4
    )
    before = tiny.state(model)
    fit(model, sets().retain, tiny.recipe(epochs=1, lr=0.01), seed=0)
    after = tiny.state(model)
    assert not any(torch.equal(before[key], after[key]) for key, _ in model.named_parameters())


@every_method
def test_the_images_and_labels_stay_as_they_are(name: str) -> None:
    given, reference = sets(), sets()
    run(name, trained(), given)
    for part, expected in ((given.retain, reference.retain), (given.forget, reference.forget)):
        assert torch.equal(part.images, expected.images)
        assert torch.equal(part.labels, expected.labels)


@every_method
def test_what_it_tells_is_a_curve_of_finite_numbers_with_one_set_of_names(name: str) -> None:
    seen = run(name, trained(), sets())
    assert [epoch for epoch, _ in seen] == list(range(1, len(seen) + 1))
    assert len({tuple(row) for _, row in seen}) <= 1
    for _, row in seen:
        assert all(key.startswith("unlearn/") and math.isfinite(value) for key, value in row.items())


def test_no_unlearning_changes_nothing_and_tells_nothing() -> None:
    model = trained()
    before, training = tiny.state(model), model.training
    assert run("none", model, sets()) == []
    assert tiny.equal(tiny.state(model), before)
    assert model.training is training


@pytest.mark.parametrize("name", [name for name in choices("methods") if name != "none"])
def test_every_other_method_changes_the_weights(name: str) -> None:
    model, kind = trained(), METHODS.get(name)
    given = {"alpha": 1.0} if name == "ssd" else {}  # its default may select no weight at all
    options = kind.Options.model_validate(given)
    before = tiny.state(model)
    kind(options, 0).unlearn(model, sets())
    assert not tiny.equal(tiny.state(model), before)


@pytest.mark.parametrize(
    ("name", "key", "values"),
    [
        ("neggrad_plus", "alpha", [0, 1, -0.1, math.nan, "0.9"]),
        ("neggrad_plus", "lr", [0, -1, math.inf, True]),
        ("neggrad_plus", "momentum", [1, -0.1]),
        ("neggrad_plus", "epochs", [0, 1.0, 1001]),
        ("neggrad_plus", "batch_size", [1, 65_537]),
        ("influence", "damping", [0, -1, math.nan]),
        ("influence", "scale", [0, -1, math.inf]),
        ("influence", "samples", [0, 1.5]),
        ("influence", "iterations", [0, 10_001]),
        ("influence", "batch_size", [0, 65_537]),
        ("ssd", "alpha", [0, -1, math.nan]),
        ("ssd", "strength", [0, -1, math.inf]),
        ("ssd", "batch_size", [0, 4097]),
        ("ssd", "samples", [0, -5]),
        ("reinit", "layers", [0, 1001, 2.0, True]),
    ],
)
def test_impossible_options_are_refused_with_their_path(name: str, key: str, values: list[Any]) -> None:
    for value in values:
        section = Unlearn.model_validate({"method": name, name: {key: value}})
        with pytest.raises(ExpungeError) as caught:
            section.options(METHODS.get(name).Options, where="params.yaml: unlearn")
        assert str(caught.value).startswith(
            f"params.yaml: unlearn.{name}.{key} is {value!r}; input should be "
        )
