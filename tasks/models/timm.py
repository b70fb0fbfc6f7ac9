"""Any image classification model of the package timm, with random, published or own weights to begin with."""

from __future__ import annotations

import difflib
from types import ModuleType
from typing import Any, Self

from torch import nn

from tasks.core.errors import ExpungeError
from tasks.models import register
from tasks.models._pretrained import FOLDER, IMAGENET, Pretrained, PretrainedOptions, names_a_file
from tasks.models._state_dict import Tensors


@register
class Timm(Pretrained):
    """The networks of ``timm``, with a head for the classes of the split."""

    where = "train.timm"

    class Options(PretrainedOptions):
        """See :class:`PretrainedOptions`; published weights are ``DEFAULT``, which the name may choose.

        ``resnet18.a1_in1k`` is timm's way to name one of several weights of ``resnet18``.
        """

    options: Options

    @classmethod
    def sized(cls, channels: int, classes: int, size: tuple[int, int], options: Options) -> Self:  # noqa: ARG003
        """Build the network that the options name, with random weights."""
        _require_known(options)
        net: Any = _network(options, pretrained=False)
        config: dict[str, Any] = net.pretrained_cfg
        side = options.input_size or config["input_size"][-1]
        given = (options.input_size,) * 2 if options.input_size else size
        if config.get("fixed_input_size") and given != (side, side):
            raise ExpungeError(
                f"model {options.name} takes images of {side}×{side} pixels and no others, "
                f"these are {given[0]}×{given[1]}; set {cls.where}.input_size to {side}"
            )
        published = net.num_classes
        net.reset_classifier(classes)
        heads = config["classifier"]
        return cls(
            net,
            options,
            heads=(heads,) if isinstance(heads, str) else tuple(heads),
            published=published,
            classes=classes,
            constants=(tuple(config.get("mean", IMAGENET[0])), tuple(config.get("std", IMAGENET[1]))),
        )

    def published_weights(self) -> Tensors:
        """Fetch the weights from the cache of Hugging Face's hub, or from the hub."""
        try:
            tensors: Tensors = _network(self.options, pretrained=True).state_dict()
        except ExpungeError:
            raise
        except Exception as error:  # of the hub's client, which has many
            problem = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ExpungeError(
                f"timm's weights of {self.options.name} cannot be had ({problem}); without the net put their "
                f"file into {FOLDER} and name it as {self.where}.weights"
            ) from None
        return tensors


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise ExpungeError(
            f"params.yaml: train.model is timm, which is not installed ({error}): pip install timm"
        ) from None
    return timm  # type: ignore[no-any-return]


def _require_known(options: Timm.Options) -> None:
    timm = _timm()
    name, _, tag = options.name.partition(".")
    problem = ""
    if not timm.is_model(name):
        near = ", ".join(difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.5))
        problem = f"name is {options.name!r}, which is no model of timm" + (
            f"; near it: {near}" if near else ""
        )
    elif tag and options.name not in timm.list_pretrained(f"{name}.*"):
        known = ", ".join(timm.list_pretrained(f"{name}.*")) or "none"
        problem = f"name is {options.name!r}; {name} has the weights {known}"
    elif options.weights and not names_a_file(options.weights) and options.weights != "DEFAULT":
        problem = f"weights is {options.weights!r}; DEFAULT, or a file in {FOLDER}"
    elif options.weights == "DEFAULT" and not timm.is_model_pretrained(options.name):
        problem = f"weights is 'DEFAULT', but timm has none of {options.name}"
    if problem:
        raise ExpungeError(f"params.yaml: {Timm.where}: {problem}")


def _network(options: Timm.Options, *, pretrained: bool) -> nn.Module:
    timm = _timm()
    settings: dict[str, Any] = {}
    config = timm.get_pretrained_cfg(options.name, allow_unregistered=True)
    if options.input_size and config is not None and config.fixed_input_size:
        settings["img_size"] = options.input_size
    net: nn.Module = timm.create_model(options.name, pretrained=pretrained, **settings)
    return net
