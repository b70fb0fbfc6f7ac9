"""Files of weights that others have made: what is understood, and what is refused in one line."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torchvision import models

from tasks.core.errors import ExpungeError
from tasks.engine.weights import Info, create
from tasks.models._state_dict import StateDict, read
from tasks.processing import foreign_weights
from tasks.processing.foreign_weights import fit, reorder
from tests import tiny

WHAT = "grey_cnn"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def saved(value: Any, name: str = "w.pt") -> Path:
    torch.save(value, name)
    return Path(name)


def fitted(path: Path) -> StateDict:
    return fit(read(path), tiny.model(), path, WHAT)


def own() -> dict[str, torch.Tensor]:
    return dict(tiny.model().state_dict())


def prefixed(prefix: str) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": value for name, value in tiny.model().state_dict().items()}


@pytest.mark.parametrize(
    "made",
    [
        lambda: tiny.model().state_dict(),
        lambda: prefixed("module."),
        lambda: prefixed("module._orig_mod."),
        lambda: prefixed("net."),
        lambda: {"state_dict": prefixed("model."), "epoch": 3, "optimizer": {"lr": 0.1}},
        lambda: {"model": tiny.model().state_dict()},
        lambda: {
            name: value.double() if value.is_floating_point() else value.int()
            for name, value in own().items()
        },
    ],
)
def test_state_dicts_as_wrappers_and_checkpoints_have_them_are_those_of_the_model(
    folder: Path, made: Callable[[], Any]
) -> None:
    found = fitted(saved(made())).tensors
    assert list(found) == list(own())
    assert all(torch.equal(found[name], value) for name, value in own().items())
    assert all(found[name].dtype == value.dtype for name, value in own().items())


def test_what_was_done_to_the_names_is_told(folder: Path) -> None:
    told = fitted(saved({"state_dict": prefixed("model."), "epoch": 3})).notes
    assert told == (
        "the state dict is what the file has under 'state_dict'",
        "the prefix 'model.' was taken off the names",
    )
    assert fitted(saved(tiny.model().state_dict())).notes == ()


def test_safetensors_are_told_by_their_content_whatever_the_file_is_called(folder: Path) -> None:
    save_file({name: value.contiguous() for name, value in own().items()}, "w.bin")
    assert fitted(Path("w.bin")).notes == ()


def test_a_network_of_torchvision_has_the_names_that_torchvision_gives_it(folder: Path) -> None:
    info = Info(
        sha256="", model="torchvision", options={"name": "googlenet"}, channels=1, size=(32, 32),
        classes=("a", "b"),
    )  # fmt: skip
    model = create(info, seed=0)
    net = models.googlenet(num_classes=2, aux_logits=True, init_weights=False)
    save_file(net.state_dict(), "w.safetensors")
    path = Path("w.safetensors")
    found = fit(read(path), model, path, "googlenet").tensors
    assert torch.equal(found["net.fc.weight"], net.fc.weight)
    assert found.keys() == model.state_dict().keys()


class Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("ran"),))


def test_a_pickle_that_would_run_code_runs_none(folder: Path) -> None:
    path = saved({"state_dict": tiny.model().state_dict(), "x": Runs()})
    with pytest.raises(
        ExpungeError, match=r"^w\.pt holds .* which is not loaded, since that could run code; "
    ):
        read(path)
    Path("p.pt").write_bytes(pickle.dumps(Runs()))
    with pytest.raises(ExpungeError, match=r"^p\.pt "):
        read(Path("p.pt"))
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: saved(tiny.model()), "an object of tasks.models.grey_cnn.GreyCnn, which is not loaded"),
        (lambda: saved({"args": argparse.Namespace()}), "an object of argparse.Namespace"),
        (lambda: saved([1, 2]), "holds list, which is no state dict"),
        (lambda: saved({}), "holds an empty dict, which is no state dict"),
        (lambda: saved({"epoch": 3, "best": 0.5}), "holds no state dict, but epoch, best; "),
        (
            lambda: saved({**tiny.model().state_dict(), "note": "x"}),
            "is no state dict: note in it is no tensor",
        ),
        (lambda: Path("none.pt"), r"none\.pt cannot be read \(No such file"),
        (lambda: Path(), r"cannot be read \(Is a directory\)"),
    ],
)
def test_what_is_no_state_dict_is_refused_in_one_line(
    folder: Path, made: Callable[[], Path], message: str
) -> None:
    with pytest.raises(ExpungeError, match=message) as raised:
        read(made())
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"PK\3\4 cut short", b"\x10\0\0\0\0\0\0\0{garbage", b"\x80\x02cos"])
def test_a_damaged_file_is_refused_in_one_line(folder: Path, content: bytes) -> None:
    Path("w.pt").write_bytes(content)
    with pytest.raises(ExpungeError, match=r"^w\.pt (cannot be read as a state dict|holds) ") as raised:
        read(Path("w.pt"))
    assert "\n" not in str(raised.value)


def changed(change: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    tensors = dict(tiny.model().state_dict())
    change(tensors)
    return saved(tensors)


def head() -> str:
    return next(name for name in reversed(tiny.model().state_dict()) if name.endswith(".weight"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda each: each.pop(head()), "w.pt does not fit grey_cnn: it lacks "),
        (lambda each: each.update(extra=torch.zeros(1)), "it has besides extra"),
        (
            lambda each: each.update({head(): torch.zeros(10, each[head()].shape[1])}),
            r" is \[10, \d+\] there and \[3, \d+\] here",
        ),
        (lambda each: each[head()].fill_(float("nan")), "holds values that are not finite"),
        (lambda each: each.update({head(): each[head()].int()}), "is torch.int32 there, not torch.float32"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], Any], message: str
) -> None:
    with pytest.raises(ExpungeError, match=message) as raised:
        fitted(changed(change))
    assert "\n" not in str(raised.value)


def test_counters_of_batch_norm_may_be_missing_as_in_old_files(folder: Path) -> None:
    names = [name for name in tiny.model().state_dict() if name.endswith("num_batches_tracked")]
    assert names
    assert fitted(changed(lambda each: [each.pop(name) for name in names])).tensors[names[0]] == 0


def test_the_outputs_take_the_order_of_the_classes(folder: Path) -> None:
    model = tiny.model(seed=1)
    tensors = {name: value.clone() for name, value in model.state_dict().items()}
    images = torch.randn(4, 1, 8, 8)
    before = model.eval()(images)
    found = reorder(tensors, model, [2, 0, 1], images)
    model.load_state_dict(found)
    torch.testing.assert_close(model(images), before[:, [2, 0, 1]])


def test_an_order_that_no_last_layer_has_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign_weights, "_last_layers", lambda *_: [])
    model = tiny.model()
    with pytest.raises(ExpungeError, match="no last layer whose outputs are the logits"):
        reorder(dict(model.state_dict()), model, [1, 0, 2], torch.randn(2, 1, 8, 8))
