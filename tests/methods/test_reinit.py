from __future__ import annotations

import pytest
import torch
from torch import nn

from tasks.core.errors import ExpungeError
from tasks.methods import Sets
from tasks.methods.reinit import Reinit
from tests import tiny

LAST = [["7"], ["3", "4"], ["0", "1"]]
"""Weight layers of :func:`trained` from the output, each with the batch norm that follows it."""


def fresh(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Flatten(), nn.Linear(128, 3),
    )  # fmt: skip


@pytest.fixture
def trained() -> nn.Module:
    """Every tensor differs from its initial value, so that a reset shows."""
    model = fresh(0)
    with torch.no_grad():
        for value in model.state_dict().values():
            value.add_(3)
    return model


def apply(model: nn.Module, layers: int, seed: int = 0) -> None:
    sets = Sets(tiny.noise(8), tiny.noise(2))
    Reinit(Reinit.Options(layers=layers), seed).unlearn(model, sets)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_last_layers_and_the_norms_after_them_change_and_nothing_else(
    trained: nn.Module, layers: int
) -> None:
    before = tiny.state(trained)
    apply(trained, layers)
    after = tiny.state(trained)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    chosen = {module for group in LAST[:layers] for module in group}
    assert changed == {name for name in before if name.rpartition(".")[0] in chosen}


def test_norms_are_as_new(trained: nn.Module) -> None:
    apply(trained, 2)
    state = tiny.state(trained)
    for key, value in {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1}.items():
        assert bool((state[f"4.{key}"] == value).all())


def test_the_seed_decides_the_new_weights(trained: nn.Module) -> None:
    before = tiny.state(trained)
    ends: list[dict[str, torch.Tensor]] = []
    for seed in (3, 3, 4):
        trained.load_state_dict(before)
        torch.manual_seed(len(ends))  # whatever the global generator's state was
        apply(trained, 2, seed)
        ends.append(tiny.state(trained))
    assert tiny.equal(ends[0], ends[1])
    assert not torch.equal(ends[0]["7.weight"], ends[2]["7.weight"])


def test_new_weights_are_spread_as_those_of_a_new_model(trained: nn.Module) -> None:
    apply(trained, 3)
    new = tiny.state(fresh(1))
    for name, value in tiny.state(trained).items():
        if value.dim() > 1:
            assert float(value.std()) == pytest.approx(float(new[name].std()), rel=0.4)


def test_more_layers_than_the_model_has_are_refused_and_nothing_changes(trained: nn.Module) -> None:
    before = tiny.state(trained)
    with pytest.raises(ExpungeError) as caught:
        apply(trained, 4)
    message = "params.yaml: unlearn.reinit.layers is 4; the model has 3 weight layers"
    assert str(caught.value) == message
    assert tiny.equal(tiny.state(trained), before)
