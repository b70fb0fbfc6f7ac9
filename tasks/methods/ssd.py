"""Selective synaptic dampening: shrink the weights that matter to the forget set (Foster et al. 2024)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import nn
from torch.nn.functional import cross_entropy

from tasks.core.params import Positive, Section
from tasks.engine.data import Data, normalise
from tasks.methods import Method, Sets, register, trainable


@register
class SSD(Method):
    """Weight i with ``I_f > alpha · I`` is multiplied by ``min(lambda · I / I_f, 1)``.

    I is the diagonal of the empirical Fisher information over retain and forget set, ``I_f`` over the
    forget set.

    References
    ----------
    Foster, Schoepf & Brintrup, Fast machine unlearning without retraining through selective synaptic
    dampening, AAAI 2024, equations 5 to 7.
    """

    class Options(Section):
        """``alpha`` selects, ``strength`` is the paper's lambda.

        ``batch_size``: the squared gradient is taken of the mean loss of that many images, as in the
        authors' code; 1 is the Fisher diagonal itself, and slow. Forget sets smaller than that set it.
        ``samples`` caps the images that I is estimated from.
        """

        alpha: Positive = 10.0
        strength: Positive = 1.0
        batch_size: Annotated[int, Field(ge=1, le=4096)] = 16
        samples: Annotated[int, Field(ge=1)] = 10_000

    def unlearn(self, model: nn.Module, sets: Sets) -> None:
        """Estimate both importances and dampen."""
        o = self.options
        everything = sets.retain.together_with(sets.forget)
        generator = torch.Generator().manual_seed(self.seed)
        everything, forget = (_sample(data, o.samples, generator) for data in (everything, sets.forget))
        # One size for both: a mean over few images is noisier, and noise would pass for importance.
        batch_size = min(o.batch_size, len(forget))
        all_importance = importance(model, everything, batch_size)
        forget_importance = importance(model, forget, batch_size)
        dampened = total = 0
        with torch.no_grad():
            for weight, i_all, i_forget in zip(
                trainable(model).values(), all_importance, forget_importance, strict=True
            ):
                chosen = i_forget > o.alpha * i_all
                factor = (o.strength * i_all / i_forget).clamp(max=1)
                weight.copy_(torch.where(chosen, weight * factor, weight))
                dampened += int(chosen.sum())
                total += chosen.numel()
        self.on_epoch(1, {"unlearn/dampened": dampened / total})


def importance(model: nn.Module, data: Data, batch_size: int) -> list[torch.Tensor]:
    """Mean squared gradient of the loss for each weight, over batches, in evaluation mode.

    With ``batch_size`` 1 it is the diagonal of the empirical Fisher information matrix.
    """
    model.eval()
    weights = list(trainable(model).values())
    sums = [torch.zeros_like(weight) for weight in weights]
    for images, labels in data.parts(batch_size):
        loss = cross_entropy(model(normalise(images)), labels)
        for total, gradient in zip(sums, torch.autograd.grad(loss, weights), strict=True):
            total.addcmul_(gradient, gradient, value=len(labels))
    return [total / len(data) for total in sums]


def _sample(data: Data, count: int, generator: torch.Generator) -> Data:
    return data.subset(torch.randperm(len(data), generator=generator)[:count])
