"""Weights that were not trained here, fitted to the model that is built."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tasks.core.errors import ExpungeError
from tasks.models._state_dict import StateDict, Tensors, some

PREFIXES = ("module.", "model.", "_orig_mod.", "net.", "network.")
"""What wrappers put before names: DataParallel, Lightning, torch.compile, a class with a network in it."""

COUNTER = "num_batches_tracked"
"""Batch norm's counter, which old files lack; nothing is computed with it."""


def fit(foreign: StateDict, model: nn.Module, path: Path, what: str) -> StateDict:
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
        *([f"it lacks {some(missing)}"] if missing else []),
        *([f"it has besides {some(left)}"] if left else []),
        *([some(wrong, "; ")] if wrong else []),
    ]
    if problems:
        raise ExpungeError(f"{unfit}: {'; '.join(problems)}")
    kinds = [
        name for name in own if tensors[name].is_floating_point() != own[name].is_floating_point()
        or tensors[name].is_complex()
    ]  # fmt: skip
    if kinds:
        there, here = tensors[kinds[0]].dtype, own[kinds[0]].dtype
        raise ExpungeError(f"{unfit}: {some(kinds)} is {there} there, not {here}")
    broken = [name for name in own if not torch.isfinite(tensors[name]).all()]
    if broken:
        raise ExpungeError(f"{path}: {some(broken)} holds values that are not finite (NaN or infinity)")
    others = sorted(
        {str(value.dtype) for value in tensors.values() if value.is_floating_point()} - {"torch.float32"}
    )
    notes += [f"numbers of {', '.join(others)} became torch.float32"] if others else []
    cast = {name: tensors[name].to(own[name].dtype) for name in own}
    return StateDict(cast, (*foreign.notes, *notes))


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
