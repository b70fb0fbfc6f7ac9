"""Models of timm, where it is installed; and the line that says how to install it, where it is not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tasks.core.errors import ExpungeError
from tasks.engine.weights import begin, load, store, tensor_digest
from tasks.models._pretrained import Pretrained
from tests import tiny
from tests.models.pretraining import begun, info, put


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refusal(**options: Any) -> str:
    with pytest.raises(ExpungeError) as caught:
        begin(info("timm", **options), 0)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_where_it_is_not_installed_one_line_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    assert refusal().startswith("params.yaml: train.model is timm, which is not installed (")
    assert refusal().endswith("): pip install timm")


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet10t", None),
        ("vit_tiny_patch16_224", 32),
        ("deit_tiny_distilled_patch16_224", 32),
        ("mobilenetv3_small_050", 64),
    ],
)
def test_weights_of_a_file_are_begun_with_trained_stored_and_loaded(
    name: str, size: int | None, tmp_path: Path
) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(9)
    settings = {"img_size": size} if name.startswith(("vit", "deit")) else {}
    given = timm.create_model(name, **settings).state_dict()
    model, described = begin(info("timm", name=name, weights=put(given), input_size=size), 0)
    assert isinstance(model, Pretrained)
    assert described.pretrained == tensor_digest(given)
    state = tiny.state(model)
    ends = tuple(f"{head}." for head in model.heads)
    same = [key for key in given if not key.startswith(ends)]
    assert 0 < len(same) < len(given)
    assert all(torch.equal(state[f"net.{key}"], given[key]) for key in same)
    model.train()(torch.randn(2, 1, 32, 32)).sum().backward()
    Path("data/pretrained/weights.safetensors").unlink()
    store(tmp_path / "stored", model, described)
    assert tiny.equal(tiny.state(load(tmp_path / "stored")[0]), tiny.state(model))


def test_names_weights_and_sizes_that_there_are_not_are_refused_with_what_would_be_right() -> None:
    pytest.importorskip("timm")
    assert refusal(name="resnet81").startswith(
        "params.yaml: train.timm: name is 'resnet81', which is no model of timm; near it: "
    )
    assert "has the weights resnet18.a1_in1k, " in refusal(name="resnet18.none")
    assert refusal(weights="IMAGENET1K_V1").endswith(
        "is 'IMAGENET1K_V1'; DEFAULT, or a file in data/pretrained"
    )
    assert refusal(name="vit_tiny_patch16_224") == (
        "model vit_tiny_patch16_224 takes images of 224×224 pixels and no others, these are 32×32; "
        "set train.timm.input_size to 224"
    )


def test_constants_are_those_that_timm_knows_of_the_weights() -> None:
    pytest.importorskip("timm")
    model = begun(info("timm", name="vit_tiny_patch16_224", input_size=32))
    assert model.scale.flatten()[0] == pytest.approx(64 / 255 / 0.5)  # its mean and spread are one half


def test_a_download_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    create = timm.create_model

    def offline(*given: Any, pretrained: bool, **settings: Any) -> Any:
        if pretrained:
            raise ConnectionError("no route\nto host")
        return create(*given, **settings)

    monkeypatch.setattr(timm, "create_model", offline)
    assert refusal(weights="DEFAULT") == (
        "timm's weights of resnet18 cannot be had (no route); without the net put their file "
        "into data/pretrained and name it as train.timm.weights"
    )
