"""Models of torchvision: all of them, their heads, sizes and constants."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torchvision import models

from tasks.core.errors import ExpungeError
from tasks.core.params import validated
from tasks.engine.data import normalise
from tasks.engine.weights import begin, load, store, tensor_digest
from tasks.models.torchvision import Torchvision
from tests import tiny
from tests.models.pretraining import begun, info, published, put

EVERY = models.list_models(module=models)
SMALL = (
    "densenet121", "efficientnet_b0", "googlenet", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small",
    "regnet_x_400mf", "regnet_y_400mf", "resnet18", "shufflenet_v2_x0_5", "squeezenet1_1",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))

    def refuse(url: str, *_: Any, **__: Any) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)


def refusal(**options: Any) -> str:
    with pytest.raises(ExpungeError) as caught:
        begin(info(**options), 0)
    message = str(caught.value)
    assert "\n" not in message
    return message


def invalid(**options: Any) -> str:
    with pytest.raises(ExpungeError) as caught:
        validated(Torchvision.Options, options, "params.yaml: train.torchvision.")
    return str(caught.value)


# what RegNet computes while it is built needs numbers; its large ones are the small ones, wider
@pytest.mark.parametrize("name", [name for name in EVERY if not name.startswith("regnet_")])
def test_every_model_gives_one_logit_a_class(name: str) -> None:
    fixed = name.startswith(("vit_", "maxvit_"))
    options = Torchvision.Options(name=name, input_size=224 if fixed else None)
    with torch.device("meta"):
        model = Torchvision.sized(3, 7, (224, 224), options).eval()
        logits = model.to("meta")(torch.zeros(2, 3, 224, 224))
    assert logits.shape == (2, 7)
    assert not any(1000 in weight.shape[:1] for weight in model.parameters())


def test_the_list_of_models_has_no_family_that_the_tests_do_not_build() -> None:
    small = {name[: len("regnet_x")] for name in SMALL}
    assert {name[: len("regnet_x")] for name in EVERY if name.startswith("regnet")} <= small


@pytest.mark.parametrize("name", SMALL)
def test_weights_of_a_file_are_begun_with_trained_stored_and_loaded(name: str, tmp_path: Path) -> None:
    settings = {"aux_logits": True, "init_weights": True} if name == "googlenet" else {}
    given = published(name, **settings)
    model, described = begin(info(name=name, weights=put(given), size=64), 0)
    assert described.pretrained == tensor_digest(given)
    own = tiny.state(model)
    taken = [key for key in given if f"net.{key}" in own and not key.startswith(tuple(model_heads(model)))]
    assert len(taken) > 10
    assert all(torch.equal(own[f"net.{key}"], given[key]) for key in taken)
    model.train()(torch.randn(2, 1, 64, 64)).sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())
    Path("data/pretrained/weights.safetensors").unlink()  # no stage after the training needs it
    store(tmp_path / "stored", model, described)
    again, found = load(tmp_path / "stored")
    assert tiny.equal(tiny.state(again), tiny.state(model))
    assert found.pretrained == tensor_digest(given)


def model_heads(model: Any) -> list[str]:
    return [f"{head}." for head in model.heads]


def test_densenets_published_names_are_understood() -> None:
    given = published("densenet121")
    old = {
        name.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): value for name, value in given.items()
    }
    assert old.keys() != given.keys()
    model = begun(info(name="densenet121", weights=put(old)))
    assert torch.equal(model.net.state_dict()["features.denseblock1.denselayer1.conv2.weight"],
                       given["features.denseblock1.denselayer1.conv2.weight"])  # fmt: skip


def test_an_unknown_name_is_refused_with_those_that_are_near() -> None:
    assert invalid(name="resnet81").startswith(
        "params.yaml: train.torchvision: name is 'resnet81', which is no classification model of "
        "torchvision; near it: resnet18, "
    )
    assert "no classification model" in invalid(name="fcn_resnet50")  # it segments


def test_unknown_weights_are_refused_with_the_known_ones() -> None:
    assert invalid(weights="IMAGENET1K_V9") == (
        "params.yaml: train.torchvision: weights is 'IMAGENET1K_V9'; "
        "resnet18 has IMAGENET1K_V1, DEFAULT, or name a file in data/pretrained"
    )


@pytest.mark.parametrize(
    ("name", "member"),
    [("resnet18", "IMAGENET1K_V1"), ("resnet50", "IMAGENET1K_V2"), ("vit_b_16", "IMAGENET1K_V1")],
)
def test_the_default_weights_are_recorded_by_their_name(name: str, member: str) -> None:
    assert Torchvision.Options.model_validate({"name": name, "weights": "DEFAULT"}).weights == member


def test_published_weights_are_taken_from_torch_hubs_cache(tmp_path: Path) -> None:
    given = published("squeezenet1_1")
    cache = tmp_path / "hub/hub/checkpoints"
    cache.mkdir(parents=True)
    torch.save(given, cache / models.SqueezeNet1_1_Weights.DEFAULT.url.rpartition("/")[2])
    model, described = begin(info(name="squeezenet1_1", weights="IMAGENET1K_V1"), 0)
    assert described.pretrained == tensor_digest(given)
    assert torch.equal(model.state_dict()["net.features.0.weight"], given["features.0.weight"])


def test_a_download_that_fails_says_where_to_put_the_file(tmp_path: Path) -> None:
    assert refusal(weights="DEFAULT") == (
        "https://download.pytorch.org/models/resnet18-f37072fd.pth cannot be had (no route to host); without "
        f"the net put that file into {tmp_path}/hub/hub/checkpoints, or into data/pretrained and set "
        "train.torchvision.weights to data/pretrained/resnet18-f37072fd.pth"
    )


def test_constants_are_those_of_the_weights_and_yours_come_first() -> None:
    swag = Torchvision.Options.model_validate({"name": "regnet_y_400mf"})
    assert Torchvision.sized(3, 2, (32, 32), swag).scale.flatten()[0] == pytest.approx(64 / 255 / 0.229)
    own = Torchvision.Options.model_validate({"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.25, 1.0]})
    model = Torchvision.sized(3, 2, (32, 32), own)
    model.net = torch.nn.Identity()
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    expected = (pixels / 255 - torch.tensor([0.1, 0.2, 0.3]).reshape(3, 1, 1)) / torch.tensor(
        [0.5, 0.25, 1.0]
    ).reshape(3, 1, 1)
    torch.testing.assert_close(model(normalise(pixels)), expected, rtol=1e-5, atol=1e-6)


def test_a_grey_image_stands_for_three_colours_and_is_scaled() -> None:
    model = begun(info(name="squeezenet1_1", input_size=48, size=32))
    seen: list[torch.Tensor] = []
    model.net.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model.eval()(torch.rand(2, 1, 32, 32))
    assert seen[0].shape == (2, 3, 48, 48)
    assert torch.allclose((seen[0] / model.scale)[:, 0], ((seen[0] - model.shift) / model.scale)[:, 1]
                          + (model.shift / model.scale)[:, 0], atol=1e-5)  # fmt: skip


def test_a_model_of_one_size_says_which_where_the_images_have_another() -> None:
    assert refusal(name="vit_b_32") == (
        "model vit_b_32 takes images of 224×224 pixels and no others, these are 32×32; "
        "set train.torchvision.input_size to 224"
    )
    assert refusal(name="vit_b_32", input_size=33).startswith(
        "params.yaml: train.torchvision: vit_b_32 cannot be built for images of 33 pixels: "
    )


def test_a_vision_transformer_is_built_for_the_size_that_is_set() -> None:
    with torch.device("meta"):
        options = Torchvision.Options(name="vit_b_32", input_size=64)
        model = Torchvision.sized(1, 3, (28, 28), options)
    assert model.net.state_dict()["encoder.pos_embedding"].shape[1] == 5


def test_images_that_are_too_small_for_a_network_are_one_line_with_the_option_to_set() -> None:
    message = refusal(name="alexnet", size=32)
    assert message.startswith("model torchvision on images of 1×32×32 fails: ")
    assert message.endswith("; set train.torchvision.input_size")


def test_a_state_dict_with_code_in_it_is_refused_and_not_run() -> None:
    class Harm:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (Path("harmed"),))

    buffer = io.BytesIO()
    torch.save({"fc.weight": Harm()}, buffer)
    Path("data/pretrained").mkdir(parents=True)
    Path("data/pretrained/x.pth").write_bytes(buffer.getvalue())
    assert "which is not loaded, since that could run code" in refusal(weights="data/pretrained/x.pth")
    assert not Path("harmed").exists()
