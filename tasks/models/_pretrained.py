"""What models of torchvision and timm share: weights to begin with, constants, sizes, freezing, heads."""

from __future__ import annotations

import os
from abc import abstractmethod
from pathlib import Path
from typing import Annotated, Self

import torch
from pydantic import Field, field_validator
from torch import nn
from torch.nn.functional import interpolate

from tasks.core.errors import ExpungeError
from tasks.core.params import Section
from tasks.models import CENTRE, SCALE, Architecture
from tasks.models._state_dict import Tensors, read, some

FOLDER = Path("data/pretrained")
"""Where files of weights lie: DVC trains anew when one of them changes."""

SUFFIXES = (".safetensors", ".pt", ".pth")
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's red, green and blue, of pixels from 0 to 1."""

Colour = Annotated[tuple[float, float, float], Field(strict=False)]


class PretrainedOptions(Section):
    """Options of a model that may begin with weights of others.

    ``name``: of the library's model. ``weights``: ``null`` for random ones, the name of published ones, or a
    file in ``data/pretrained``. ``input_size``: side in pixels that images are scaled to inside the model.
    ``mean``, ``std``: what the weights expect of red, green and blue, from 0 to 1. ``freeze``: the last
    layer, by its name in the model, that training leaves as it is, like all before it.
    """

    name: Annotated[str, Field(min_length=1)] = "resnet18"
    weights: Annotated[str, Field(min_length=1)] | None = None
    input_size: Annotated[int, Field(ge=8, le=1024)] | None = None
    mean: Colour | None = None
    std: tuple[Annotated[float, Field(gt=0)], ...] | None = Field(None, strict=False)
    freeze: Annotated[str, Field(min_length=1)] | None = None

    @field_validator("std")
    @classmethod
    def _is_of_three_colours(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value is not None and len(value) != 3:
            raise ValueError("three numbers would be right: of red, green and blue")
        return value

    @field_validator("weights")
    @classmethod
    def _file_is_where_dvc_looks(cls, value: str | None) -> str | None:
        if value is None or not names_a_file(value):
            return value
        if FOLDER not in Path(os.path.normpath(value)).parents:
            raise ValueError(f"{value} does not lie in {FOLDER}, where DVC sees changes; put it there")
        return value

    @property
    def file(self) -> Path | None:
        """The file of weights, if one is named."""
        return Path(self.weights) if self.weights and names_a_file(self.weights) else None


def names_a_file(weights: str) -> bool:
    """Whether ``weights`` is a path and not the name of published weights."""
    return "/" in weights or weights.endswith(SUFFIXES)


class Pretrained(Architecture):
    """A library's network, with its own constants, size and head.

    Parameters
    ----------
    net
        With a head for the published number of classes replaced by one for ``classes``.
    heads
        Names of the layers in ``net`` that give the logits.
    published
        Number of classes that published weights have; files of theirs are taken without their head.
    constants
        Mean and standard deviation that the weights expect.
    """

    scale: torch.Tensor
    shift: torch.Tensor
    where: str
    """Section of the options in ``params.yaml``, for messages."""

    def __init__(
        self,
        net: nn.Module,
        options: PretrainedOptions,
        *,
        heads: tuple[str, ...],
        published: int,
        classes: int,
        constants: tuple[tuple[float, ...], tuple[float, ...]],
    ) -> None:
        super().__init__()
        self.net, self.options = net, options
        self.heads, self.published, self.classes = heads, published, classes
        self.remedy = f"set {self.where}.input_size"
        mean, std = (
            torch.tensor(given or default, dtype=torch.float64).reshape(1, 3, 1, 1)
            for given, default in zip((options.mean, options.std), constants, strict=True)
        )
        # (p/255 − mean)/std of a pixel p, which arrives as (p − CENTRE)/SCALE
        self.register_buffer("scale", (SCALE / 255 / std).float(), persistent=False)
        self.register_buffer("shift", ((CENTRE / 255 - mean) / std).float(), persistent=False)
        self.frozen = self._freeze(options.freeze) if options.freeze else ()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``[B, K]`` of images ``[B, C, H, W]``; a grey image stands for all three colours."""
        side = self.options.input_size
        if side and tuple(x.shape[2:]) != (side, side):
            x = interpolate(x, (side, side), mode="bilinear", antialias=True, align_corners=False)
        x = x * self.scale + self.shift
        logits: torch.Tensor = self.net(x.contiguous(memory_format=torch.channels_last))
        return logits

    def train(self, mode: bool = True) -> Self:
        """Frozen layers stay in evaluation mode: batch norm's statistics would move, too."""
        super().train(mode)
        for name in self.frozen:
            self.net.get_submodule(name).training = False
        return self

    def _freeze(self, last: str) -> tuple[str, ...]:
        """Freeze the layers up to ``last``; return their names, but for those that hold others, too."""
        names = [name for name, _ in self.net.named_modules()]
        if last not in names:
            known = ", ".join(name for name, _ in self.net.named_children())
            raise ExpungeError(
                f"params.yaml: {self.where}.freeze: {self.options.name} has no layer {last!r}; "
                f"it has {known}, and theirs"
            )
        end = max(i for i, name in enumerate(names) if f"{name}.".startswith(f"{last}."))
        for name in names[: end + 1]:
            for weight in self.net.get_submodule(name).parameters(recurse=False):
                weight.requires_grad = False
        if not any(weight.requires_grad for weight in self.net.parameters()):
            raise ExpungeError(
                f"params.yaml: {self.where}.freeze: "
                f"after {last} of {self.options.name} nothing is left to train"
            )
        return tuple(name for name in names[: end + 1] if name and not last.startswith(f"{name}."))

    def begin(self) -> Tensors:
        """Take the weights that the options name; see :meth:`Architecture.begin`.

        Raises
        ------
        ExpungeError
            If they cannot be had, or are not of this network.
        """
        if self.options.weights is None:
            return {}
        file = self.options.file
        tensors = _read(file) if file else self.published_weights()
        published = f"{self.options.name}'s weights {self.options.weights}"
        self._take(self.renamed(tensors), str(file or published))
        return tensors

    @abstractmethod
    def published_weights(self) -> Tensors:
        """Fetch the published weights that the options name, from the library's cache or the net."""

    def renamed(self, tensors: Tensors) -> Tensors:
        """Tensors under the names that the network has for them."""
        return tensors

    def superfluous(self, name: str) -> bool:  # noqa: ARG002
        """Whether a tensor may be left over, as those of auxiliary heads."""
        return False

    def _take(self, tensors: Tensors, where: str) -> None:
        ends = tuple(f"{head}." for head in self.heads)
        outputs = {len(tensors[f"{head}.weight"]) for head in self.heads if f"{head}.weight" in tensors}
        if outputs == {self.published} != {self.classes}:
            tensors = {name: value for name, value in tensors.items() if not name.startswith(ends)}
        elif outputs and outputs != {self.classes}:
            raise ExpungeError(
                f"{where} is of a model of {max(outputs)} classes; "
                f"{self.classes} or {self.published} would be right"
            )
        own = self.net.state_dict()
        for name, value in tensors.items():
            if name in own and own[name].shape != value.shape:
                raise ExpungeError(
                    f"{where} does not fit {self.options.name}: {name} is {list(value.shape)} there and "
                    f"{list(own[name].shape)} here"
                )
        found = self.net.load_state_dict(tensors, strict=False)
        dropped = {name for name in own if name.startswith(ends) and not outputs - {self.published}}
        missing = [name for name in found.missing_keys if name not in dropped]
        left = [name for name in found.unexpected_keys if not self.superfluous(name)]
        for names, what in ((missing, "lacks"), (left, "has besides")):
            if names:
                raise ExpungeError(f"{where} does not fit {self.options.name}: it {what} {some(names)}")


def last_layer(net: nn.Module, outputs: int) -> str:
    """Name of the last linear layer or convolution with that many outputs: the head."""
    found = [
        name
        for name, module in net.named_modules()
        if outputs == getattr(module, "out_features", getattr(module, "out_channels", None))
        and isinstance(module, nn.Linear | nn.Conv2d)
    ]
    return str(found[-1])


def replace_head(net: nn.Module, name: str, classes: int) -> None:
    """Put a freshly initialised layer of ``classes`` outputs into the place of the head."""
    old = net.get_submodule(name)
    new: nn.Module
    if isinstance(old, nn.Conv2d):
        new = nn.Conv2d(old.in_channels, classes, 1, bias=old.bias is not None)
    else:
        assert isinstance(old, nn.Linear)  # noqa: S101  # last_layer finds nothing else
        new = nn.Linear(old.in_features, classes, bias=old.bias is not None)
    net.set_submodule(name, new)


def _read(path: Path) -> Tensors:
    if not path.exists():
        raise ExpungeError(f"{path} is missing; put the file of weights there")
    return read(path).tensors
