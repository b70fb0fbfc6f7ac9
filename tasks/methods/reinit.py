"""Re-initialise the last layers, and let fine-tuning on the retain set train them anew."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from tasks.core.errors import ExpungeError
from tasks.core.params import Section
from tasks.methods import Method, Sets, register

RESETS = ("reset_parameters", "_reset_parameters")
"""How layers draw their weights afresh; ``nn.MultiheadAttention`` has the second."""


@register
class Reinit(Method):
    """Draw the last ``layers`` weight layers afresh, with the normalisations that follow them.

    What a network memorises of single samples sits mostly in its last layers, which learn it last.
    The method is made to be followed by fine-tuning of all layers; alone it destroys the model.

    References
    ----------
    Goel et al., Towards adversarial evaluation of inexact machine unlearning, 2022 (EU-k: the last k
    layers retrained from scratch, the others frozen); Triantafillou et al., Are we making progress in
    unlearning?, 2024 (re-initialisation and fine-tuning among the challenge's best methods).
    """

    class Options(Section):
        """``layers``: convolutions and linear layers, counted from the output."""

        layers: Annotated[int, Field(ge=1, le=1000)] = 2

    def unlearn(self, model: nn.Module, sets: Sets) -> None:  # noqa: ARG002
        """Call ``reset_parameters`` of every layer from the first chosen; frozen ones do not count."""
        modules = [
            module
            for module in model.modules()
            if any(hasattr(module, reset) for reset in RESETS)
            and all(weight.requires_grad for weight in module.parameters())
        ]
        weight_layers = [i for i, module in enumerate(modules) if isinstance(module, nn.Conv2d | nn.Linear)]
        if self.options.layers > len(weight_layers):
            frozen = any(not weight.requires_grad for weight in model.parameters())
            raise ExpungeError(
                f"params.yaml: unlearn.reinit.layers is {self.options.layers}; "
                f"the model has {len(weight_layers)} weight layers{' that are not frozen' if frozen else ''}"
            )
        torch.manual_seed(self.seed)
        for module in modules[weight_layers[-self.options.layers] :]:
            next(getattr(module, reset) for reset in RESETS if hasattr(module, reset))()
        self.on_epoch(1, {"unlearn/layers": float(self.options.layers)})
