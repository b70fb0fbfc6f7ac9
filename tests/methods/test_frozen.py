"""Methods and fine-tuning on models with frozen layers, dropout, and attention without batch norm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tasks.core.errors import ExpungeError
from tasks.core.params import Params
from tasks.core.plugins import choices
from tasks.engine.training import fit
from tasks.finetune import finetune
from tasks.methods import METHODS, Sets, trainable
from tasks.train import train
from tasks.unlearn import unlearn
from tests import small_split, tiny
from tests.models.pretraining import published, put

every_method = pytest.mark.parametrize("name", choices("methods"))


class Transformer(nn.Module):
    """A vision transformer of one layer: attention, layer norm, dropout; no batch norm and no convolution."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Linear(16, 12)
        self.position = nn.Parameter(torch.randn(1, 4, 12) / 10)
        self.norm = nn.LayerNorm(12)
        self.attention = nn.MultiheadAttention(12, 2, dropout=dropout, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.unfold(2, 4, 4).unfold(3, 4, 4).reshape(len(x), 4, 16)
        tokens = self.norm(self.embedding(tokens) + self.position)
        tokens = tokens + self.dropout(self.attention(tokens, tokens, tokens, need_weights=False)[0])
        logits: torch.Tensor = self.head(tokens.mean(1))
        return logits


def sets() -> Sets:
    data = tiny.noise(40)
    return Sets(data.subset(torch.arange(6, 40)), data.subset(torch.arange(6)))


def options(name: str) -> Any:
    kind = METHODS.get(name)
    return kind.Options.model_validate({"alpha": 1.0} if name == "ssd" else {})


@every_method
def test_a_transformer_with_dropout_forgets_with_the_same_bits_twice(name: str) -> None:
    ends = []
    for noise in (0, 99):  # whatever the global generator's state was
        model = Transformer(dropout=0.3)
        fit(model, tiny.noise(40), tiny.recipe(), seed=0)
        before = tiny.state(model)
        torch.manual_seed(noise)
        METHODS.get(name)(options(name), 2).unlearn(model, sets())
        ends.append(tiny.state(model))
        assert tiny.equal(before, ends[-1]) is (name == "none")
        assert all(bool(torch.isfinite(value).all()) for value in ends[-1].values())
    assert tiny.equal(*ends)


@every_method
def test_a_method_changes_what_is_not_frozen_alone(name: str) -> None:
    model = Transformer(dropout=0.0)
    for part in (model.embedding, model.norm):
        part.requires_grad_(False)
    model.position.requires_grad_(False)
    before = tiny.state(model)
    METHODS.get(name)(options(name), 2).unlearn(model, sets())
    changed = {key for key, value in tiny.state(model).items() if not torch.equal(value, before[key])}
    assert changed <= set(trainable(model))
    assert bool(changed) is (name != "none")


def test_the_step_of_influence_is_that_of_a_model_which_has_only_what_is_not_frozen() -> None:
    alone, first = nn.Linear(64, 3).double(), nn.Linear(64, 64).double()
    with torch.no_grad():
        first.weight.copy_(torch.eye(64))
        first.bias.zero_()
    last = nn.Linear(64, 3).double()
    last.load_state_dict(alone.state_dict())
    first.requires_grad_(False)
    influence = METHODS.get("influence")(options("influence"), 2)
    influence.unlearn(nn.Sequential(nn.Flatten(), tiny.ToDouble(), alone), sets())
    influence.unlearn(nn.Sequential(nn.Flatten(), tiny.ToDouble(), first, last), sets())
    torch.testing.assert_close(last.weight, alone.weight)


def test_reinit_redraws_attention_and_counts_no_frozen_layers() -> None:
    model = Transformer(dropout=0.0)
    before = tiny.state(model)
    METHODS.get("reinit")(METHODS.get("reinit").Options.model_validate({"layers": 3}), 2).unlearn(
        model, sets()
    )
    assert not torch.equal(model.attention.in_proj_weight, before["attention.in_proj_weight"])
    model.embedding.requires_grad_(False)
    three = METHODS.get("reinit").Options.model_validate({"layers": 3})
    with pytest.raises(ExpungeError, match=r"the model has 2 weight layers that are not frozen$"):
        METHODS.get("reinit")(three, 2).unlearn(model, sets())


def parameters(**changes: Any) -> Params:
    recipe = {"epochs": 1, "batch_size": 16, "lr": 0.02}
    model = {"name": "resnet18", "freeze": "layer3", "weights": "data/pretrained/weights.safetensors"}
    section = {"model": "torchvision", "recipe": recipe, "torchvision": model}
    return small_split.parameters(**({"train": section, "finetune": {"recipe": recipe}} | changes))


@pytest.fixture
def _split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small_split.write()


@pytest.mark.usefixtures("_split")
def test_frozen_layers_have_the_files_bits_after_every_stage_whatever_the_method() -> None:
    given = published("resnet18")
    put(given)
    end = list(given).index("layer3.1.bn2.num_batches_tracked")
    train(parameters())
    for name in choices("methods"):
        one = {"samples": 32, "iterations": 2} if name == "influence" else options(name).model_dump()
        unlearn(parameters(unlearn={"method": name, name: one}))
        finetune(parameters())
        for stage in ("train", "unlearn", "finetune"):
            tensors = load_file(f"data/{stage}/weights.safetensors")
            for key in list(given)[: end + 1]:
                assert torch.equal(tensors[f"net.{key}"], given[key]), (name, stage, key)
            if stage != "unlearn":
                moved = "layer4.1.bn2.running_var"
                assert not torch.equal(tensors[f"net.{moved}"], given[moved])
