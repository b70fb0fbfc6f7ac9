"""A model of a user's own file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tasks.core.errors import ExpungeError
from tasks.core.params import validated
from tasks.engine.weights import begin, load, store
from tasks.models import module
from tests import tiny
from tests.models.pretraining import info

LINEAR = """
import torch
from torch import nn

def build(channels, classes, size, *, bias=True):
    height, width = size
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, classes, bias=bias))
"""


@pytest.fixture(autouse=True)
def _root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "ROOT", tmp_path)


def write(text: str = LINEAR, path: str = "mine/net.py") -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")
    return path


def refusal(text: str, **options: Any) -> str:
    with pytest.raises(ExpungeError) as caught:
        begin(info("module", path=write(text), options=options), 0)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_function_gets_the_shape_of_the_images_and_its_options() -> None:
    model, _ = begin(info("module", path=write(), options={"bias": False}, channels=3, size=8, classes=4), 0)
    assert [tuple(weight.shape) for weight in model.parameters()] == [(4, 3 * 8 * 8)]


def test_one_seed_makes_one_model() -> None:
    described = info("module", path=write())
    one, again, other = (tiny.state(begin(described, seed)[0]) for seed in (1, 1, 2))
    assert tiny.equal(one, again)
    assert not tiny.equal(one, other)


def test_the_digest_of_the_file_is_in_weights_json(tmp_path: Path) -> None:
    path = write()
    model, described = begin(info("module", path=path), 0)
    store(tmp_path / "stored", model, described)
    recorded = json.loads((tmp_path / "stored/weights.json").read_text())
    assert recorded["code"] == hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert "pretrained" not in recorded


def test_a_changed_file_takes_the_weights_as_long_as_they_fit(tmp_path: Path) -> None:
    model, described = begin(info("module", path=write()), 0)
    store(tmp_path / "stored", model, described)
    write(LINEAR + "\n# a remark\n")
    assert tiny.equal(tiny.state(load(tmp_path / "stored")[0]), tiny.state(model))
    write(LINEAR.replace("nn.Flatten(), ", "nn.Flatten(), nn.ReLU(), "))
    with pytest.raises(ExpungeError, match=r"weights.safetensors does not fit the model"):
        load(tmp_path / "stored")


def test_nothing_is_left_beside_the_file_and_no_name_is_taken() -> None:
    import sys

    before = set(sys.modules)
    begin(info("module", path=write()), 0)
    assert [path.name for path in Path("mine").iterdir()] == ["net.py"]
    assert {name for name in set(sys.modules) - before if "net" in name.split(".")} == set()


def test_an_option_that_the_function_does_not_take_is_refused_with_those_that_it_takes() -> None:
    assert refusal(LINEAR, depth=3) == (
        "params.yaml: train.module.options: got an unexpected keyword argument 'depth'; "
        "mine/net.py has build(channels, classes, size, *, bias=True)"
    )
    assert "multiple values for argument 'size'" in refusal(LINEAR, size=3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n\nimport no_such_module\n", "mine/net.py, line 3: ModuleNotFoundError: No module named"),
        ("def build(:\n", "mine/net.py, line 1: "),
        ("x = 1\n", "mine/net.py has no function build(channels, classes, size, **options)"),
        ("build = 3\n", "mine/net.py has no function build("),
        (
            "def build(channels, classes, size):\n    return {}['a']\n",
            "mine/net.py, line 2: KeyError: 'a'",
        ),
        (
            "def build(channels, classes, size):\n    return 3\n",
            "mine/net.py: build returns int; an nn.Module",
        ),
        (
            "from torch import nn\n\ndef build(channels, classes, size):\n    return nn.Flatten()\n",
            "model module on images of 1×32×32 gives (2, 1024) for two images of 3 classes; (2, 3) would be",
        ),
        (
            LINEAR + "\nclass Net(nn.Module):\n    def forward(self, x):\n        return x.foo\n"
            "def build(channels, classes, size):\n    return Net()\n",
            "mine/net.py, line 11: AttributeError: ",
        ),
        (
            LINEAR + "\nclass Net(nn.Module):\n    def forward(self, x):\n"
            "        return torch.zeros(len(x), 3)\ndef build(channels, classes, size):\n    return Net()\n",
            "model module has no weight that a training could change",
        ),
    ],
)
def test_what_is_wrong_with_the_file_is_one_line_with_its_place(text: str, message: str) -> None:
    assert refusal(text).startswith(message)


def test_what_fails_only_while_the_net_trains_is_found_before_the_training() -> None:
    text = LINEAR + (
        "\nclass Net(nn.Linear):\n    def forward(self, x):\n"
        "        if self.training:\n            raise RuntimeError('not\\nyet')\n"
        "        return super().forward(x.flatten(1))\n"
        "def build(channels, classes, size):\n    return Net(1024, 3)\n"
    )
    assert refusal(text) == "mine/net.py, line 12: RuntimeError: not yet"


def test_looking_at_the_net_leaves_its_statistics_as_they_were() -> None:
    text = LINEAR.replace("nn.Flatten(), ", "nn.BatchNorm2d(channels), nn.Flatten(), ")
    model, _ = begin(info("module", path=write(text)), 0)
    state = tiny.state(model)
    assert torch.equal(state["net.0.running_var"], torch.ones(1))
    assert state["net.0.num_batches_tracked"] == 0


@pytest.mark.parametrize("path", ["/tmp/net.py", "../net.py", "a/../../net.py", "net.txt", "folder"])
def test_a_path_that_leaves_the_repository_or_names_no_python_file_is_refused(path: str) -> None:
    with pytest.raises(ExpungeError, match=r"^params.yaml: train.module.path: .* is no Python file in the"):
        validated(module.OwnModule.Options, {"path": path}, "params.yaml: train.module.")


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ExpungeError) as caught:
        begin(info("module", path="mine/other.py"), 0)
    assert str(caught.value) == (
        "params.yaml: train.module.path: mine/other.py cannot be read (No such file or directory)"
    )
