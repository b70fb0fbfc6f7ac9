"""Influence functions: one damped Newton step that takes the forget set out of the loss."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import torch
from pydantic import Field
from torch import nn
from torch.func import functional_call, jvp, vjp
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy, softmax

from tasks.core.errors import ExpungeError
from tasks.core.params import Positive, Section
from tasks.engine.data import Data, normalise
from tasks.methods import Method, Sets, register, trainable

Weights = dict[str, torch.Tensor]


@register
class Influence(Method):
    """Add ``scale · (G + damping · I)⁻¹ · (1/|R|) Σ_F ∇loss`` to the weights.

    G is the generalised Gauss-Newton matrix of the mean loss on the retain set: the Hessian without
    the term that is indefinite, equal to it for models that are linear in their weights. The system is
    solved by conjugate gradients, which need only products G·v.

    References
    ----------
    Koh & Liang, Understanding black-box predictions via influence functions, ICML 2017 (the step);
    Guo et al., Certified data removal from machine learning models, ICML 2020 (removal as a Newton step);
    Schraudolph, Fast curvature matrix-vector products, 2002, and Martens 2010 (G and its products).
    """

    class Options(Section):
        """``samples``: retain images that G is estimated from. ``iterations``: of conjugate gradients."""

        damping: Positive = 0.1
        scale: Positive = 1.0
        samples: Annotated[int, Field(ge=1)] = 1000
        iterations: Annotated[int, Field(ge=1, le=10_000)] = 10
        batch_size: Annotated[int, Field(ge=1, le=65_536)] = 250

    def unlearn(self, model: nn.Module, sets: Sets) -> None:
        """Take the step; batch norm stays in evaluation mode, its statistics as they are."""
        o = self.options
        model.eval()
        weights = {name: value.detach() for name, value in trainable(model).items()}
        generator = torch.Generator().manual_seed(self.seed)
        sample = sets.retain.subset(torch.randperm(len(sets.retain), generator=generator)[: o.samples])
        gradient = _scaled(
            loss_gradient(model, sets.forget, o.batch_size), len(sets.forget) / len(sets.retain)
        )

        def damped(v: Weights) -> Weights:
            product = gauss_newton_product(model, weights, sample, v, o.batch_size)
            return {name: product[name] + o.damping * v[name] for name in v}

        step, residual = conjugate_gradients(damped, gradient, o.iterations)
        if not all(bool(torch.isfinite(part).all()) for part in step.values()):
            raise ExpungeError("influence: the step is not finite; raise unlearn.influence.damping")
        with torch.no_grad():
            for name, value in trainable(model).items():
                value.add_(step[name], alpha=o.scale)
        self.on_epoch(
            1, {"unlearn/residual": residual, "unlearn/step_norm": _dot(step, step) ** 0.5 * o.scale}
        )


def loss_gradient(model: nn.Module, data: Data, batch_size: int) -> Weights:
    """Gradient of the mean cross-entropy over ``data``."""
    weights = trainable(model)
    sums = {name: torch.zeros_like(value) for name, value in weights.items()}
    for images, labels in data.parts(batch_size):
        loss = cross_entropy(model(normalise(images)), labels, reduction="sum")
        for name, part in zip(sums, torch.autograd.grad(loss, list(weights.values())), strict=True):
            sums[name] += part
    return _scaled(sums, 1 / len(data))


def gauss_newton_product(
    model: nn.Module, weights: Weights, data: Data, v: Weights, batch_size: int
) -> Weights:
    """``Jᵀ H_L J v / N``: J the Jacobian of the logits, H_L the softmax cross-entropy's Hessian."""
    sums = {name: torch.zeros_like(value) for name, value in v.items()}
    for images, _ in data.parts(batch_size):
        inputs = normalise(images)

        def outputs(w: Weights, inputs: torch.Tensor = inputs) -> torch.Tensor:
            result: torch.Tensor = functional_call(model, w, (inputs,))
            return result

        # at its first call PyTorch uses what it has deprecated itself
        with warnings.catch_warnings(), plain_attention():
            warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
            logits, jv = jvp(outputs, (weights,), (v,))  # type: ignore[misc]
        p = softmax(logits, dim=1)
        hjv = p * (jv - (p * jv).sum(dim=1, keepdim=True))
        (product,) = vjp(outputs, weights)[1](hjv)
        for name in sums:
            sums[name] += product[name]
    return _scaled(sums, 1 / len(data))


@contextmanager
def plain_attention() -> Iterator[None]:
    """Compute attention in the one of PyTorch's ways that has the forward derivative which jvp needs."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def conjugate_gradients(
    matrix: Callable[[Weights], Weights], b: Weights, iterations: int, tolerance: float = 1e-6
) -> tuple[Weights, float]:
    """Solve ``matrix(x) = b`` for a symmetric positive definite matrix (Hestenes & Stiefel 1952).

    Returns
    -------
    x
        The solution after at most ``iterations`` products.
    residual
        ``‖b − matrix(x)‖ / ‖b‖``.
    """
    x = {name: torch.zeros_like(value) for name, value in b.items()}
    r, p = dict(b), dict(b)
    rr = first = _dot(r, r)
    for _ in range(iterations):
        if rr <= tolerance**2 * first or rr == 0:
            break
        product = matrix(p)
        step = rr / _dot(p, product)
        x = {name: x[name] + step * p[name] for name in x}
        r = {name: r[name] - step * product[name] for name in r}
        rr, previous = _dot(r, r), rr
        p = {name: r[name] + (rr / previous) * p[name] for name in p}
    return x, (rr / first) ** 0.5 if first else 0.0


def _scaled(weights: Weights, factor: float) -> Weights:
    return {name: value * factor for name, value in weights.items()}


def _dot(a: Weights, b: Weights) -> float:
    return sum(float((a[name].double() * b[name].double()).sum()) for name in a)
