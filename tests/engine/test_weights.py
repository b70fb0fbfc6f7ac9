from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from tasks.core.errors import RESTORE, ExpungeError
from tasks.core.plugins import choices
from tasks.engine.weights import Info, create, load, store, tensor_digest
from tasks.models import MODELS
from tests import tiny


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store(tmp_path, tiny.model(seed=3), tiny.info())
    return tmp_path


def refusal(folder: Path) -> str:
    with pytest.raises(ExpungeError) as caught:
        load(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "weights.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("name", choices("models"))
@pytest.mark.parametrize("channels", [1, 3])
def test_every_model_comes_back_bit_for_bit(name: str, channels: int, tmp_path: Path) -> None:
    if name == "timm":
        pytest.importorskip("timm")
    info = Info(
        sha256="",
        model=name,
        options=MODELS.get(name).Options().model_dump(mode="json"),
        channels=channels,
        size=(32, 28),
        classes=("cat", "dog"),
    )
    model = create(info, seed=1)
    model.train()
    model(torch.randn(4, channels, 32, 28))  # statistics of batch norm, and its 0-dimensional counter
    stored = store(tmp_path, model, info)
    again, found = load(tmp_path)
    assert tiny.equal(tiny.state(again), tiny.state(model))
    assert found == stored
    assert found.model_copy(update={"sha256": ""}) == info
    assert found.sha256 == tensor_digest(model.state_dict())
    assert not again.training


def test_one_seed_makes_one_model_and_another_seed_another() -> None:
    assert tiny.equal(tiny.state(tiny.model(seed=4)), tiny.state(tiny.model(seed=4)))
    assert not tiny.equal(tiny.state(tiny.model(seed=4)), tiny.state(tiny.model(seed=5)))


def test_weights_json_has_the_documented_keys(folder: Path) -> None:
    description = json.loads((folder / "weights.json").read_text())
    digest = description.pop("sha256")
    assert len(digest) == 64
    assert description == {
        "model": "grey_cnn",
        "options": {},
        "channels": 1,
        "size": [8, 8],
        "classes": ["class 0", "class 1", "class 2"],
    }


def test_the_same_weights_are_the_same_file(folder: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    store(again, *load(folder))
    for name in ("weights.safetensors", "weights.json"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_every_flipped_byte_of_the_tensors_is_noticed(folder: Path) -> None:
    path = folder / "weights.safetensors"
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    for place in [*range(header, len(content), 9973), len(content) - 1]:
        damaged = bytearray(content)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        assert refusal(folder) == (
            f"{path} is damaged: its tensors do not have the recorded SHA-256; {RESTORE}"
        )


def test_a_flipped_byte_of_the_header_is_noticed_or_means_nothing(folder: Path) -> None:
    path = folder / "weights.safetensors"
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    before = tiny.state(load(folder)[0])
    for place in range(0, header, 7):
        damaged = bytearray(content)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with suppress(ExpungeError):
            assert tiny.equal(tiny.state(load(folder)[0]), before)


@pytest.mark.parametrize("length", [0, 5, 8, 100, -1, -1000])
def test_a_truncated_file_is_refused(folder: Path, length: int) -> None:
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    assert refusal(folder).startswith(f"{path} cannot be read (")


def test_missing_weights_are_named(folder: Path) -> None:
    path = folder / "weights.safetensors"
    path.unlink()
    assert refusal(folder).startswith(f"{path} is missing; restore it")


def test_a_missing_description_is_named(folder: Path) -> None:
    path = folder / "weights.json"
    path.unlink()
    assert refusal(folder).startswith(f"{path} is missing")


@pytest.mark.parametrize("text", ["", "{", "{'model': 1}", "\ufeff{}", '{"a": "\x01"}'])
def test_a_description_that_is_no_json_is_refused(folder: Path, text: str) -> None:
    (folder / "weights.json").write_text(text)
    assert "weights.json is not valid JSON" in refusal(folder)


@pytest.mark.parametrize("text", ["[]", "3", "null", '"text"'])
def test_a_description_that_is_no_mapping_is_refused(folder: Path, text: str) -> None:
    path = folder / "weights.json"
    path.write_text(text)
    assert refusal(folder).startswith(f"{path} is not a description of weights; restore it")


@pytest.mark.parametrize("key", ["sha256", "model", "options", "channels", "size", "classes"])
def test_a_description_without_a_key_is_refused(folder: Path, key: str) -> None:
    path = folder / "weights.json"
    description = json.loads(path.read_text())
    del description[key]
    path.write_text(json.dumps(description))
    assert refusal(folder).startswith(f"{path}: {key} is wrong or missing; restore it")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("channels", "grey"),
        ("channels", 0),
        ("channels", -1),
        ("size", [8]),
        ("size", [0, 8]),
        ("size", "8x8"),
        ("classes", []),
        ("classes", 3),
        ("options", []),
        ("model", 7),
        ("owner", "me"),
    ],
)
def test_a_description_with_an_impossible_value_is_refused(folder: Path, key: str, value: object) -> None:
    edit(folder, **{key: value})
    assert refusal(folder).startswith(f"{folder / 'weights.json'}: {key}")


def test_an_unknown_model_is_refused_with_the_known_ones(folder: Path) -> None:
    edit(folder, model="transformer")
    message = refusal(folder)
    assert "'transformer'" in message
    assert all(name in message for name in choices("models"))


@pytest.mark.parametrize(
    "options", [{"widths": [4, 6]}, {"widths": "all"}, {"dropout": 3}, {"widths": [4, 6, 0]}]
)
def test_options_that_the_model_does_not_have_are_refused(folder: Path, options: object) -> None:
    edit(folder, model="small_cnn", options=options)
    assert refusal(folder).startswith(f"{folder / 'weights.json'}: options.")


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": ["one", "two"]},
        {"channels": 3},
        {"model": "small_cnn", "options": {"widths": [4, 6, 9]}},
        {"model": "resnet18", "options": {}},
    ],
)
def test_tensors_that_do_not_fit_the_described_model_are_refused(
    folder: Path, changes: dict[str, object]
) -> None:
    edit(folder, **changes)
    assert refusal(folder).startswith(f"{folder / 'weights.safetensors'} does not fit the model")
