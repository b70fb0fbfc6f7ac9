"""No unlearning: fine-tuning on the retain set is left to do the forgetting."""

from __future__ import annotations

from torch import nn

from tasks.methods import Method, Sets, register


@register
class NoUnlearning(Method):
    """The baseline that every other method has to beat (catastrophic forgetting alone)."""

    def unlearn(self, model: nn.Module, sets: Sets) -> None:
        """Leave the model as it is."""
