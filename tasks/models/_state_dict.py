"""State dicts in files: safetensors, or what ``torch.save`` writes, read without running code."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from tasks.core.errors import ExpungeError

KEYS = ("state_dict", "model_state_dict", "model", "net", "weights")
"""Where checkpoints keep the state dict, beside an optimizer's state and the like."""

SHOWN = 3

SAVE = "torch.save(model.state_dict(), path), or safetensors.torch.save_file(model.state_dict(), path)"

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class StateDict:
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


def read(path: Path) -> StateDict:
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
            return StateDict(load_file(path))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles that it may not understand: it says so by an error
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, SafetensorError, OSError, RuntimeError, ValueError, EOFError, LookupError,
            TypeError) as error:  # fmt: skip
        if isinstance(error, UnpicklingError) and (name := _object_in(str(error))):
            raise ExpungeError(
                f"{path} holds an object of {name}, which is not loaded, since that could run code; "
                f"save the state dict alone: {SAVE}"
            ) from None
        raise ExpungeError(
            f"{path} cannot be read as a state dict ({_problem(error)}); one is made by {SAVE}"
        ) from None
    return _unpacked(found, path)


def _object_in(message: str) -> str:
    """Name of what is no tensor, as PyTorch tells it; empty if it tells none."""
    named = re.search(r"GLOBAL ([\w.]+)|global `?([\w.]+)", message)
    return next(filter(None, named.groups()), "") if named else ""


def _problem(error: Exception) -> str:
    if isinstance(error, UnpicklingError):  # it says at length how one could run code
        return "no plain state dict"
    if "TorchScript" in str(error):
        return "a TorchScript archive"
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__


def _unpacked(found: Any, path: Path) -> StateDict:
    """Take the state dict itself, or that of a checkpoint."""
    if not isinstance(found, Mapping) or not found:
        held = type(found).__name__ if found or not isinstance(found, Mapping) else "an empty dict"
        raise ExpungeError(f"{path} holds {held}, which is no state dict; one is made by {SAVE}")
    if any(isinstance(value, torch.Tensor) for value in found.values()):
        odd = [str(name) for name, value in found.items() if not isinstance(value, torch.Tensor)]
        if odd:
            raise ExpungeError(f"{path} is no state dict: {some(odd)} in it is no tensor")
        return StateDict(dict(found))
    for key in KEYS:
        inner = found.get(key)
        if isinstance(inner, Mapping) and any(isinstance(value, torch.Tensor) for value in inner.values()):
            told = f"the state dict is what the file has under {key!r}"
            unpacked = _unpacked(inner, path)
            return StateDict(unpacked.tensors, (told, *unpacked.notes))
    raise ExpungeError(
        f"{path} holds no state dict, but {some(list(map(str, found)))}; one is made by {SAVE}"
    )


def some(names: Sequence[str], between: str = ", ") -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{between.join(names[:SHOWN])}{more}"
