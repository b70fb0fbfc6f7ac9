"""NegGrad+: descend on the retain set and ascend on the forget set (Kurmanji et al. 2023)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD

from tasks.core.errors import ExpungeError
from tasks.core.params import Positive, Recipe, Section
from tasks.engine.batches import batches, batches_per_epoch
from tasks.methods import Method, Sets, register, trainable


@register
class NegGradPlus(Method):
    """Minimise ``alpha · L(retain) − (1 − alpha) · L(forget)``, one batch of each a step.

    References
    ----------
    Kurmanji et al., Towards unbounded machine unlearning, NeurIPS 2023, section 4 (NegGrad+).
    """

    class Options(Section):
        """``alpha`` weighs the retain set; an epoch is one pass over the retain set."""

        alpha: Annotated[float, Field(gt=0, lt=1)] = 0.95
        lr: Positive = 0.01
        momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
        epochs: Annotated[int, Field(ge=1, le=1000)] = 1
        batch_size: Annotated[int, Field(ge=2, le=65_536)] = 256

    def unlearn(self, model: nn.Module, sets: Sets) -> None:
        """Run the epochs; the forget set is cycled through as often as the retain set needs."""
        o = self.options
        optimizer = SGD(trainable(model).values(), lr=o.lr, momentum=o.momentum, fused=True)
        recipe = Recipe(epochs=o.epochs, batch_size=o.batch_size, lr=o.lr)
        forget_recipe = recipe.model_copy(update={"batch_size": min(o.batch_size, len(sets.forget))})
        torch.manual_seed(self.seed)  # for layers that draw, such as dropout
        cycle = 0
        forget = batches(sets.forget, forget_recipe, seed=self.seed, epoch=cycle)
        model.train()
        for epoch in range(1, o.epochs + 1):
            total = torch.zeros((), device=sets.retain.device)
            steps = batches_per_epoch(sets.retain, recipe)
            for images_r, labels_r in batches(sets.retain, recipe, seed=self.seed, epoch=epoch):
                pair = next(forget, None)
                if pair is None:
                    cycle += 1
                    forget = batches(sets.forget, forget_recipe, seed=self.seed + 1, epoch=cycle)
                    pair = next(forget)
                images_f, labels_f = pair
                logits = model(torch.cat((images_r, images_f)))
                retain_loss = cross_entropy(logits[: len(labels_r)], labels_r)
                forget_loss = cross_entropy(logits[len(labels_r) :], labels_f)
                loss = o.alpha * retain_loss - (1 - o.alpha) * forget_loss
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                total += loss.detach()
            if not torch.isfinite(total):
                raise ExpungeError("neggrad_plus diverged; lower unlearn.neggrad_plus.lr or raise its alpha")
            self.on_epoch(epoch, {"unlearn/loss": total.item() / steps})
