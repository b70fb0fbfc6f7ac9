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
from tasks.core.plugins import packages
from tasks.models import MODELS, Architecture, build

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
    pretrained
        Digest of the tensors that the first training began with, as they were published or lay in their
        file; None where it began with random ones, or that is not known.
    code, package
        Digest of the code of a model that is not in ``tasks/models``, and the name and version of the package
        that it comes from: SHA-256 of the file of ``module``, MD5 of a package's files as DVC takes it.
    adopted
        SHA-256 of the file that the weights were adopted from, or those that they were made of; None where
        all of their training was done here.
    """

    sha256: str
    model: str
    options: dict[str, object]
    channels: AtLeastOne
    size: tuple[AtLeastOne, AtLeastOne]
    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    pretrained: str | None = None
    code: str | None = None
    package: str | None = None
    adopted: str | None = None


def create(info: Info, seed: int) -> nn.Module:
    """Build the model that ``info`` describes, initialised from ``seed`` alone."""
    torch.manual_seed(seed)
    options = MODELS.get(info.model).Options.model_validate(info.options)
    return build(info.model, options, channels=info.channels, size=info.size, classes=len(info.classes))


def begin(info: Info, seed: int) -> tuple[nn.Module, Info]:
    """Build a model for a new training, with pretrained weights if its options name some.

    Returns
    -------
    model
        As :func:`create` builds it, with the weights that it shall begin with.
    info
        With what is to be recorded of those weights, and of code that is not in ``tasks/models``.

    Raises
    ------
    ExpungeError
        If the weights cannot be had or do not fit, or the model does not take the images.
    """
    model = create(info, seed)
    found: dict[str, str | None] = {}
    if isinstance(model, Architecture):
        tensors = model.begin()
        found = {"pretrained": tensor_digest(tensors) if tensors else None}
    require_logits(model, info)
    if not any(weight.requires_grad for weight in model.parameters()):
        raise ExpungeError(f"model {info.model} has no weight that a training could change")
    return model, info.model_copy(update=found | code_of(model, info.model))


def code_of(model: nn.Module, name: str) -> dict[str, str | None]:
    """What ``weights.json`` records of the code of a model that is not in ``tasks/models``."""
    found = {"code": model.code} if isinstance(model, Architecture) else {}
    package = packages("models").get(name)
    return found | ({"package": package.label, "code": package.digest()} if package else {})


def differing_option(info: Info, options: Section) -> str | None:
    """Return the first option that stored weights have otherwise than ``options``; ``None`` if none differs.

    One that the weights do not name, as those of earlier versions, has the value that is the default now.
    """
    wanted = options.model_dump(mode="json")
    known = {name: value for name, value in info.options.items() if name in wanted}
    found = type(options).model_validate(known).model_dump(mode="json")
    return next((name for name in wanted if found[name] != wanted[name]), None)


def require_logits(model: nn.Module, info: Info, remedy: str = "") -> None:
    """See that two grey images of the size in ``info`` become two rows of logits.

    Parameters
    ----------
    model
        On any device; it is in training mode afterwards.
    info
        Tells channels, size and classes.
    remedy
        What to do where it fails; the model's own by default.

    Raises
    ------
    ExpungeError
        If the model does not take such images, or gives something else.
    """
    device = next((weight.device for weight in model.parameters()), torch.device("cpu"))
    images = torch.zeros(2, info.channels, *info.size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    what = f"model {info.model} on images of {info.channels}×{info.size[0]}×{info.size[1]}"
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            found = model.eval()(images)
        except (RuntimeError, ValueError, AssertionError) as error:
            remedy = remedy or getattr(model, "remedy", Architecture.remedy)
            raise ExpungeError(f"{what} fails: {' '.join(str(error).split())}; {remedy}") from error
    model.train()
    shape = tuple(getattr(found, "shape", ())) or type(found).__name__
    if shape != (2, len(info.classes)):
        raise ExpungeError(
            f"{what} gives {shape} for two images of {len(info.classes)} classes; "
            f"(2, {len(info.classes)}) would be right"
        )


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
    description = info.model_dump(mode="json")
    write_json(
        folder / "weights.json", {key: value for key, value in description.items() if value is not None}
    )
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
