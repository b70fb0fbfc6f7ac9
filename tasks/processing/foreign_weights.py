"""Weights that were not trained here: read without running code, and fitted to the model that is built."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from tasks.core.errors import ExpungeError

PREFIXES = ("module.", "model.", "_orig_mod.", "net.", "network.")
"""What wrappers put before names: DataParallel, Lightning, torch.compile, a class with a network in it."""

KEYS = ("state_dict", "model_state_dict", "model", "net", "weights")
"""Where checkpoints keep the state dict, beside an optimizer's state and the like."""

COUNTER = "num_batches_tracked"
"""Batch norm's counter, which old files lack; nothing is computed with it."""

SHOWN = 3

SAVE = "torch.save(model.state_dict(), path), or safetensors.torch.save_file(model.state_dict(), path)"

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Foreign:
    """Tensors of a file.

    Attributes
    ----------
    tensors
        By name, on the CPU.
    notes
        What was done to find or fit them, a line each.
    """

    tensors: Tensors
    notes: tuple[str, ...] = ()


def read(path: Path) -> Foreign:
    """Read the state dict in a file of safetensors or of ``torch.save``; no code in it is run.

    Raises
    ------
    ExpungeError
        If the file cannot be read so, or holds something else.
    """
    try:
        with path.open("rb") as file:
            is_safetensors = file.read(9)[8:] == b"{"
    except OSError as error:
        raise ExpungeError(f"{path} cannot be read ({error.strerror}); name the file of weights") from None
    try:
        if is_safetensors:
            return Foreign(load_file(path))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles that it may not understand: it says so by an error
            found = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ExpungeError(
            f"{path} holds {_what_is_no_tensor(str(error))}, which is not loaded, since that could run code; "
            f"save the state dict alone: {SAVE}"
        ) from None
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, LookupError, TypeError) as error:
        problem = "a TorchScript archive" if "TorchScript" in str(error) else _first_line(error)
        raise ExpungeError(
            f"{path} cannot be read as a state dict ({problem}); one is made by {SAVE}"
        ) from None
    return _unpacked(found, path)


def _what_is_no_tensor(message: str) -> str:
    named = re.search(r"GLOBAL ([\w.]+)|global `?([\w.]+)", message)
    name = next(filter(None, named.groups()), "") if named else ""
    return f"an object of {name}" if name else "no plain state dict"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__


def _unpacked(found: Any, path: Path) -> Foreign:
    """Take the state dict itself, or that of a checkpoint."""
    if not isinstance(found, Mapping) or not found:
        held = type(found).__name__ if found or not isinstance(found, Mapping) else "an empty dict"
        raise ExpungeError(f"{path} holds {held}, which is no state dict; one is made by {SAVE}")
    if any(isinstance(value, torch.Tensor) for value in found.values()):
        odd = [str(name) for name, value in found.items() if not isinstance(value, torch.Tensor)]
        if odd:
            raise ExpungeError(f"{path} is no state dict: {_some(odd)} in it is no tensor")
        return Foreign(dict(found))
    for key in KEYS:
        inner = found.get(key)
        if isinstance(inner, Mapping) and any(isinstance(value, torch.Tensor) for value in inner.values()):
            told = f"the state dict is what the file has under {key!r}"
            unpacked = _unpacked(inner, path)
            return Foreign(unpacked.tensors, (told, *unpacked.notes))
    raise ExpungeError(
        f"{path} holds no state dict, but {_some(list(map(str, found)))}; one is made by {SAVE}"
    )


def fit(foreign: Foreign, model: nn.Module, path: Path, what: str) -> Foreign:
    """Return the tensors under the names and types of the model's own.

    Prefixes that wrappers leave are taken off, or put on, where that makes more names fit.

    Parameters
    ----------
    foreign
        What the file holds.
    model
        Built for the images and classes of the split; it is not changed.
    path, what
        The file and the model, for messages.

    Raises
    ------
    ExpungeError
        If a name is missing or left over, a shape or a kind of number is another, or a value is not finite.
    """
    own = model.state_dict()
    renamed, notes = _renamed(foreign.tensors, own, getattr(model, "renamed", dict))
    superfluous = getattr(model, "superfluous", lambda _: False)
    spare = {name for name in renamed.keys() - own.keys() if superfluous(name.removeprefix("net."))}
    tensors = {name: value for name, value in renamed.items() if name not in spare}
    counters = {name for name in own.keys() - tensors.keys() if name.endswith(COUNTER)}
    tensors |= {name: torch.zeros_like(own[name]) for name in counters}
    unfit = f"{path} does not fit {what}"
    wrong = [
        f"{name} is {list(tensors[name].shape)} there and {list(own[name].shape)} here"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    missing = [name for name in own if name not in tensors]
    left = [name for name in tensors if name not in own]
    problems = [
        *([f"it lacks {_some(missing)}"] if missing else []),
        *([f"it has besides {_some(left)}"] if left else []),
        *([_some(wrong, "; ")] if wrong else []),
    ]
    if problems:
        raise ExpungeError(f"{unfit}: {'; '.join(problems)}")
    kinds = [
        name for name in own if tensors[name].is_floating_point() != own[name].is_floating_point()
        or tensors[name].is_complex()
    ]  # fmt: skip
    if kinds:
        there, here = tensors[kinds[0]].dtype, own[kinds[0]].dtype
        raise ExpungeError(f"{unfit}: {_some(kinds)} is {there} there, not {here}")
    broken = [name for name in own if not torch.isfinite(tensors[name]).all()]
    if broken:
        raise ExpungeError(f"{path}: {_some(broken)} holds values that are not finite (NaN or infinity)")
    others = sorted(
        {str(value.dtype) for value in tensors.values() if value.is_floating_point()} - {"torch.float32"}
    )
    notes += [f"numbers of {', '.join(others)} became torch.float32"] if others else []
    cast = {name: tensors[name].to(own[name].dtype) for name in own}
    return Foreign(cast, (*foreign.notes, *notes))


def _renamed(tensors: Tensors, own: Tensors, rename: Any) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Return the tensors under the names that most of the model's own agree with, and what was done."""
    ways: list[tuple[str, dict[str, torch.Tensor]]] = []
    current, taken = dict(tensors), ""
    while True:
        ways.append((taken, current))
        prefix = next((each for each in PREFIXES if any(name.startswith(each) for name in current)), None)
        if prefix is None:
            break
        current, taken = {name.removeprefix(prefix): value for name, value in current.items()}, taken + prefix
    with_net = [(way, {f"net.{name}": value for name, value in rename(found).items()}) for way, found in ways]
    best, found = max([*ways, *with_net], key=lambda each: len(own.keys() & each[1].keys()))
    return found, [f"the prefix {best!r} was taken off the names"] if best else []


def _some(names: Sequence[str], between: str = ", ") -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{between.join(names[:SHOWN])}{more}"


def reorder(tensors: Tensors, model: nn.Module, order: Sequence[int], images: torch.Tensor) -> Tensors:
    """Return tensors of a model whose output ``i`` is what output ``order[i]`` of ``tensors`` was.

    The rows of the last layer change places; that the logits then do is seen on ``images``.

    Parameters
    ----------
    tensors
        That fit ``model``.
    model
        Left with the tensors that are returned, in evaluation mode.
    order
        For each class of the split, the output of the file.
    images
        ``float [B, C, H, W]``, normalised.

    Raises
    ------
    ExpungeError
        If the model has no last layer whose outputs are the logits.
    """
    model.load_state_dict(tensors)
    with torch.no_grad():
        before = model.eval()(images)[:, list(order)]
    for layer in _last_layers(model, len(order)):
        rows = {f"{layer}.weight", f"{layer}.bias"} & tensors.keys()
        changed = {name: tensors[name][list(order)] for name in rows}
        model.load_state_dict({**tensors, **changed})
        with torch.no_grad():
            if np.allclose(model(images).numpy(), before.numpy(), atol=1e-4):
                return {**tensors, **changed}
    raise ExpungeError(
        "the order of the classes cannot be changed: this model has no last layer whose outputs are the "
        "logits; write a file whose outputs are in the order of data/split/classes.json"
    )


def _last_layers(model: nn.Module, classes: int) -> Iterable[str]:
    found: list[str] = [
        name
        for name, module in model.named_modules()
        if classes == getattr(module, "out_features", getattr(module, "out_channels", None))
    ]
    return reversed(found)
