"""Weights between stages: safetensors, and beside them what they are and their digest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from tasks.core.errors import RESTORE, ExpungeError
from tasks.core.files import read_json, write_json, write_whole
from tasks.core.params import Section
from tasks.models import MODELS, build

AtLeastOne = Annotated[int, Field(ge=1)]


class Info(Section):
    """What is needed to rebuild a model and to check its weights.

    Attributes
    ----------
    sha256
        Digest of the tensors, see :func:`tensor_digest`.
    model, options
        File of ``tasks/models`` and its options.
    channels, size, classes
        Channels of the images, their height and width in pixels, names of the classes.
    """

    sha256: str
    model: str
    options: dict[str, object]
    channels: AtLeastOne
    size: tuple[AtLeastOne, AtLeastOne]
    classes: Annotated[tuple[str, ...], Field(min_length=1)]


def create(info: Info, seed: int) -> nn.Module:
    """Build the model that ``info`` describes, initialised from ``seed``."""
    torch.manual_seed(seed)
    options = MODELS.get(info.model).Options.model_validate(info.options)
    return build(info.model, options, channels=info.channels, size=info.size, classes=len(info.classes))


def tensor_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes of the tensors, in order of name.

    It names the weights themselves, not the file: two files with the same tensors have the same digest.
    """
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        sha.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def store(folder: Path, model: nn.Module, info: Info) -> Info:
    """Write ``weights.safetensors`` and ``weights.json``; return ``info`` with the digest filled in."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    info = info.model_copy(update={"sha256": tensor_digest(tensors)})
    with write_whole(folder / "weights.safetensors") as file:
        file.write(save(tensors))
    write_json(folder / "weights.json", info.model_dump(mode="json"))
    return info


def load(folder: Path) -> tuple[nn.Module, Info]:
    """Rebuild a stored model in evaluation mode, on the CPU.

    Raises
    ------
    ExpungeError
        If a file is missing or damaged, the tensors are not those whose digest was recorded, or they
        do not fit the model that is described.
    """
    path, description = folder / "weights.safetensors", folder / "weights.json"
    try:
        info = Info.model_validate(read_json(description), strict=False)
    except ValidationError as error:
        raise ExpungeError(f"{description}{_problem(error)}; {RESTORE}") from None
    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise ExpungeError(f"{path} is missing; {RESTORE}") from None
    except (SafetensorError, OSError) as error:
        raise ExpungeError(f"{path} cannot be read ({error}); {RESTORE}") from None
    if tensor_digest(tensors) != info.sha256:
        raise ExpungeError(f"{path} is damaged: its tensors do not have the recorded SHA-256; {RESTORE}")
    try:
        model = create(info, seed=0)
        model.load_state_dict(tensors)
    except ValidationError as error:
        raise ExpungeError(f"{description}{_problem(error, 'options')}; {RESTORE}") from None
    except RuntimeError:  # of many lines, one a tensor
        raise ExpungeError(
            f"{path} does not fit the model that {description.name} describes "
            f"({info.model}, {info.channels} channels, {len(info.classes)} classes); {RESTORE}"
        ) from None
    return model.eval(), info


def _problem(error: ValidationError, *path: str) -> str:
    """What is wrong with ``weights.json``; ``path`` leads to the part that was validated."""
    key = ".".join(str(part) for part in (*path, *error.errors()[0]["loc"]))
    return f": {key} is wrong or missing" if key else " is not a description of weights"
