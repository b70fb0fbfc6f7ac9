"""Any image classification model of torchvision, with random, published or own weights to begin with."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pickle import UnpicklingError
from typing import Any, Self

import torch
from pydantic import model_validator
from torch import nn
from torchvision import models

from tasks.core.errors import ExpungeError
from tasks.models import register
from tasks.models._pretrained import (
    FOLDER,
    IMAGENET,
    Pretrained,
    PretrainedOptions,
    last_layer,
    names_a_file,
    replace_head,
)
from tasks.models._state_dict import Tensors

PUBLISHED = 1000
"""Classes of ImageNet, which all published weights have."""

DENSE = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)")
"""Names that DenseNet's tensors have in the published files, and no longer in the network."""


@register
class Torchvision(Pretrained):
    """The networks of ``torchvision.models``, with a head for the classes of the split."""

    where = "train.torchvision"

    class Options(PretrainedOptions):
        """See :class:`PretrainedOptions`; published weights are ``DEFAULT`` or such as ``IMAGENET1K_V1``."""

        @model_validator(mode="before")
        @classmethod
        def _default_has_a_name(cls, value: Any) -> Any:
            """Which weights are the default changes from one version of torchvision to another."""
            name = value.get("name", cls.model_fields["name"].default) if isinstance(value, Mapping) else None
            if name in models.list_models(module=models) and value.get("weights") == "DEFAULT":
                return {**value, "weights": models.get_model_weights(name).DEFAULT.name}
            return value

        @model_validator(mode="after")
        def _names_are_known(self) -> Self:
            known = models.list_models(module=models)
            if self.name not in known:
                near = ", ".join(difflib.get_close_matches(self.name, known, n=5, cutoff=0.5))
                raise ValueError(
                    f"name is {self.name!r}, which is no classification model of torchvision"
                    + (f"; near it: {near}" if near else "")
                )
            if self.weights and not names_a_file(self.weights):
                members = models.get_model_weights(self.name).__members__
                if self.weights not in members:
                    raise ValueError(
                        f"weights is {self.weights!r}; {self.name} has {', '.join(members)}, "
                        f"or name a file in {FOLDER}"
                    )
            return self

    options: Options

    @classmethod
    def sized(cls, channels: int, classes: int, size: tuple[int, int], options: Options) -> Self:  # noqa: ARG003
        """Build the network that the options name, with random weights."""
        published = _published(options)
        side = _only_side(options, published)
        given = (options.input_size,) * 2 if options.input_size else size
        if side and given != (side, side):
            raise ExpungeError(
                f"model {options.name} takes images of {side}×{side} pixels and no others, "
                f"these are {given[0]}×{given[1]}; set {cls.where}.input_size to {side}"
            )
        net = _network(options, side)
        head = last_layer(net, PUBLISHED)
        replace_head(net, head, classes)
        preset = published.transforms() if published else None
        constants = (preset.mean, preset.std) if preset else IMAGENET
        return cls(
            net, options, heads=(head,), published=PUBLISHED, classes=classes,
            constants=(tuple(constants[0]), tuple(constants[1])),
        )  # fmt: skip

    def published_weights(self) -> Tensors:
        """Fetch the weights from torch hub's cache, or from where torchvision publishes them."""
        published = _published(self.options)
        assert published is not None  # noqa: S101  # whoever has no published weights has a file
        name = published.url.rpartition("/")[2]
        try:
            tensors: Tensors = published.get_state_dict(
                progress=False, check_hash=True, map_location="cpu", weights_only=True
            )
        except (OSError, RuntimeError, EOFError, UnpicklingError) as error:  # URLError is an OSError
            problem = str(getattr(error, "reason", error)).splitlines()[0]
            raise ExpungeError(
                f"{published.url} cannot be had ({problem}); without the net put that file into "
                f"{torch.hub.get_dir()}/checkpoints, or into {FOLDER} and set {self.where}.weights to "
                f"{FOLDER / name}"
            ) from None
        return tensors

    def renamed(self, tensors: Tensors) -> Tensors:
        """DenseNet's tensors under their present names."""
        if not self.options.name.startswith("densenet"):
            return tensors
        return {DENSE.sub(r"\1\2", name): value for name, value in tensors.items()}

    def superfluous(self, name: str) -> bool:
        """Whether it is of an auxiliary head of Inception or GoogLeNet: those are switched off."""
        return name.startswith(("AuxLogits.", "aux1.", "aux2."))


def _published(options: Torchvision.Options) -> models.WeightsEnum | None:
    if options.weights is None or names_a_file(options.weights):
        return None
    return models.get_model_weights(options.name)[options.weights]


def _only_side(options: Torchvision.Options, published: models.WeightsEnum | None) -> int | None:
    """The one side in pixels that the network is made for, where there is only one."""
    if options.name.startswith("vit_"):
        return int(published.meta["min_size"][0]) if published else options.input_size or 224
    if options.name.startswith("maxvit_"):
        return options.input_size or 224
    return None


def _network(options: Torchvision.Options, side: int | None) -> nn.Module:
    settings: dict[str, object] = {}
    if options.name in {"googlenet", "inception_v3"}:
        # with transform_input the network takes ImageNet's constants, as the published weights have it
        settings = {
            "aux_logits": False,
            "init_weights": True,
            "transform_input": options.weights is not None,
        }
    elif options.name.startswith("vit_"):
        settings = {"image_size": side}
    elif options.name.startswith("maxvit_"):
        settings = {"input_size": (side, side)}
    try:
        net: nn.Module = models.get_model(options.name, weights=None, num_classes=PUBLISHED, **settings)
    except (ValueError, AssertionError) as error:  # a side that no whole number of patches makes up
        raise ExpungeError(
            f"params.yaml: {Torchvision.where}: {options.name} cannot be built for images of {side} pixels: "
            f"{' '.join(str(error).split())}; set input_size to 224"
        ) from None
    if isinstance(net, models.MNASNet):  # its own way of loading wants a version that safetensors do not keep
        net._load_from_state_dict = super(models.MNASNet, net)._load_from_state_dict
    return net
