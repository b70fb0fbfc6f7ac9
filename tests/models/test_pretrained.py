"""Files of weights that fit or do not, and layers that training leaves as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tasks.core.errors import ExpungeError
from tasks.core.params import validated
from tasks.engine.training import fit
from tasks.engine.weights import begin, load, store
from tasks.models.torchvision import Torchvision
from tests import tiny
from tests.models.pretraining import begun, info, published, put


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refusal(**options: Any) -> str:
    with pytest.raises(ExpungeError) as caught:
        begin(info(**({"name": "squeezenet1_1"} | options)), 0)
    message = str(caught.value)
    assert "\n" not in message
    return message


HEAD = "classifier.1"


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_a_published_head_is_dropped_and_drawn_from_the_seed(suffix: str) -> None:
    weights = put(published(), f"w{suffix}")
    one, two = (begun(info(name="squeezenet1_1", weights=weights), seed) for seed in (1, 2))
    first, second = tiny.state(one.net), tiny.state(two.net)
    differing = {name for name in first if not torch.equal(first[name], second[name])}
    assert differing == {f"{HEAD}.weight", f"{HEAD}.bias"}


def test_a_head_of_the_right_number_of_classes_is_kept() -> None:
    given = published(classes=3)
    model = begun(info(name="squeezenet1_1", weights=put(given)))
    assert tiny.equal(tiny.state(model.net), given)


def test_a_thousand_classes_of_your_own_keep_the_published_head() -> None:
    given = published()
    model = begun(info(name="squeezenet1_1", weights=put(given), classes=1000))
    assert tiny.equal(tiny.state(model.net), given)


def test_a_head_of_another_number_is_refused_with_what_would_fit() -> None:
    weights = put(published(classes=7))
    assert refusal(weights=weights) == f"{weights} is of a model of 7 classes; 3 or 1000 would be right"


def test_a_file_without_a_head_begins_with_a_new_one() -> None:
    given = {name: value for name, value in published().items() if not name.startswith(HEAD)}
    begun(info(name="squeezenet1_1", weights=put(given)))


def test_weights_of_another_network_are_refused_by_name_or_shape() -> None:
    weights = put(published("resnet18"))
    assert refusal(weights=weights).startswith(
        f"{weights} does not fit squeezenet1_1: it lacks features.0.weight, "
    )
    given = published()
    given["features.0.weight"] = torch.zeros(64, 3, 5, 5)
    weights = put(given)
    assert refusal(weights=weights) == (
        f"{weights} does not fit squeezenet1_1: "
        "features.0.weight is [64, 3, 5, 5] there and [64, 3, 3, 3] here"
    )
    weights = put(published() | {"more": torch.zeros(1)})
    assert refusal(weights=weights) == f"{weights} does not fit squeezenet1_1: it has besides more"


def test_a_checkpoint_with_its_optimizer_is_read_too() -> None:
    Path("data/pretrained").mkdir(parents=True)
    path = "data/pretrained/checkpoint.pt"
    torch.save({"state_dict": published(), "epoch": 3}, path)
    begun(info(name="squeezenet1_1", weights=path))


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 broken"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_what_is_no_file_of_weights_is_one_line(content: bytes, suffix: str) -> None:
    path = Path(f"data/pretrained/x{suffix}")
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert refusal(weights=str(path)).startswith(f"{path} cannot be read as a state dict (")


def test_a_list_is_no_state_dict() -> None:
    Path("data/pretrained").mkdir(parents=True)
    torch.save([torch.zeros(1)], "data/pretrained/x.pt")
    assert "holds list, which is no state dict" in refusal(weights="data/pretrained/x.pt")


def test_a_file_that_is_not_there_is_named() -> None:
    assert refusal(weights="data/pretrained/x.pth") == (
        "data/pretrained/x.pth is missing; put the file of weights there"
    )


@pytest.mark.parametrize(
    "path", ["/tmp/x.pth", "x.pth", "data/x.safetensors", "data/pretrained/../x.pth", "a/b"]
)
def test_a_file_elsewhere_is_refused_with_the_folder(path: str) -> None:
    with pytest.raises(ExpungeError) as caught:
        validated(Torchvision.Options, {"weights": path}, "params.yaml: train.torchvision.")
    assert str(caught.value) == (
        f"params.yaml: train.torchvision.weights: {path} does not lie in data/pretrained, "
        "where DVC sees changes; put it there"
    )


def split_at(model: nn.Module, last: str) -> tuple[set[str], set[str]]:
    """Names in the state, up to the layer and after it, in the order in which ResNet has them."""
    names = list(model.state_dict())
    end = max(i for i, name in enumerate(names) if name.startswith(f"net.{last}."))
    return set(names[: end + 1]), set(names[end + 1 :])


@pytest.mark.parametrize("last", ["bn1", "layer2", "layer3.0", "layer4.1.conv1"])
def test_training_leaves_what_is_frozen_with_its_statistics_and_changes_all_else(last: str) -> None:
    model = begun(info(freeze=last, channels=1, size=16))
    before = tiny.state(model)
    fit(model, tiny.noise(32, size=16), tiny.recipe(epochs=1, lr=0.05), seed=0)
    after = tiny.state(model)
    frozen, free = split_at(model, last)
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    assert not any(torch.equal(before[name], after[name]) for name in free)


def test_a_vision_transformer_freezes_what_comes_before_its_layers() -> None:
    with torch.device("meta"):
        options = Torchvision.Options(name="vit_b_32", input_size=32, freeze="encoder.layers.encoder_layer_1")
        model = Torchvision.sized(3, 2, (32, 32), options)
    frozen = {name for name, weight in model.net.named_parameters() if not weight.requires_grad}
    assert {"class_token", "conv_proj.weight", "encoder.pos_embedding"} <= frozen
    layers = {name.split(".")[2] for name in frozen if name.startswith("encoder.layers.")}
    assert layers == {"encoder_layer_0", "encoder_layer_1"}
    assert not any(name.startswith(("heads", "encoder.ln")) for name in frozen)
    model.train()
    dropout = "encoder.layers.encoder_layer_{}.dropout"
    assert [model.net.get_submodule(dropout.format(i)).training for i in (0, 1, 2)] == [False, False, True]


def test_what_is_frozen_stays_so_after_it_was_stored(tmp_path: Path) -> None:
    described = info(freeze="layer1", size=16)
    model = begun(described)
    store(tmp_path, model, described)
    again, _ = load(tmp_path)
    names = [name for name, weight in model.named_parameters() if not weight.requires_grad]
    assert names == [name for name, weight in again.named_parameters() if not weight.requires_grad] != []
    assert not again.train().get_submodule("net.bn1").training


def test_a_layer_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    assert refusal(freeze="layer9") == (
        "params.yaml: train.torchvision.freeze: squeezenet1_1 has no layer 'layer9'; "
        "it has features, classifier, and theirs"
    )


def test_a_model_without_anything_to_train_is_refused() -> None:
    assert refusal(freeze="classifier").endswith("after classifier of squeezenet1_1 nothing is left to train")
