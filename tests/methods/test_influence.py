from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev
from torch.nn.functional import cross_entropy

from tasks.core.errors import ExpungeError
from tasks.engine.data import Data, normalise
from tasks.engine.training import Epoch, evaluate, fit
from tasks.methods import Sets
from tasks.methods.influence import (
    Influence,
    Weights,
    conjugate_gradients,
    gauss_newton_product,
    loss_gradient,
)
from tasks.models._blocks import ConvNet
from tests import tiny

DECAY = 1.0
"""``DECAY / 2 · ‖w‖²`` beside the sum of the losses makes logistic regression strictly convex."""


def weights_of(model: nn.Module) -> Weights:
    return {name: value.detach() for name, value in model.named_parameters()}


def flat(weights: Weights) -> torch.Tensor:
    return torch.cat([value.detach().reshape(-1) for value in weights.values()])


def shaped(vector: torch.Tensor, like: Weights) -> Weights:
    parts = torch.split(vector, [value.numel() for value in like.values()])
    return {name: part.reshape(like[name].shape) for name, part in zip(like, parts, strict=True)}


def logits_at(model: nn.Module, vector: torch.Tensor, data: Data) -> torch.Tensor:
    """The model's logits with its weights read from one vector."""
    out: torch.Tensor = functional_call(model, shaped(vector, weights_of(model)), (normalise(data.images),))
    return out


def exact_hessian(model: nn.Module, data: Data) -> torch.Tensor:
    """Of the mean loss, ``[P, P]``."""

    def loss(vector: torch.Tensor) -> torch.Tensor:
        return cross_entropy(logits_at(model, vector, data), data.labels)

    found: torch.Tensor = jacrev(jacrev(loss))(flat(weights_of(model)))
    return found


def solve(model: nn.Module, data: Data) -> None:
    """Train logistic regression to its optimum, by Newton's method."""
    for _ in range(12):
        weights = weights_of(model)
        gradient = flat(loss_gradient(model, data, 1000)) * len(data) + DECAY * flat(weights)
        matrix = exact_hessian(model, data) * len(data) + DECAY * torch.eye(len(gradient))
        step = shaped(torch.linalg.solve(matrix, gradient), weights)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                weight.sub_(step[name])
    assert float(gradient.norm()) < 1e-10


def sets(seed: int = 0, forget: int = 4) -> Sets:
    data = tiny.noise(60, size=3, seed=seed)
    return Sets(data.subset(torch.arange(forget, 60)), data.subset(torch.arange(forget)))


def step_of(model: nn.Module, given: Sets, **options: float) -> torch.Tensor:
    """Take the influence step; return by how much the weights moved."""
    before = flat(weights_of(model))
    Influence(Influence.Options.model_validate(options), seed=0).unlearn(model, given)
    return flat(weights_of(model)) - before


class TestProducts:
    def test_for_a_linear_model_the_product_is_the_exact_hessians(self) -> None:
        model, data = tiny.linear(9), tiny.noise(40, size=3)
        weights, exact = weights_of(model), exact_hessian(model, data)
        for seed in range(3):
            v = torch.randn(
                exact.shape[0], generator=torch.Generator().manual_seed(seed), dtype=torch.float64
            )
            product = gauss_newton_product(model, weights, data, shaped(v, weights), batch_size=7)
            torch.testing.assert_close(flat(product), exact @ v, rtol=1e-10, atol=1e-12)

    def test_for_a_network_it_is_jacobian_hessian_jacobian(self) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(tiny.ToDouble(), ConvNet(1, 3, (2, 2, 2)).double()).eval()
        data, weights = tiny.noise(6), weights_of(model)
        jacobian = jacrev(lambda w: logits_at(model, w, data))(flat(weights))  # [N, K, P]
        p = logits_at(model, flat(weights), data).softmax(dim=1)
        curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
        exact = torch.einsum("nkp,nkl,nlq->pq", jacobian, curvature, jacobian) / len(data)
        for seed in range(3):
            v = torch.randn(
                exact.shape[0], generator=torch.Generator().manual_seed(seed), dtype=torch.float64
            )
            product = gauss_newton_product(model, weights, data, shaped(v, weights), batch_size=4)
            torch.testing.assert_close(flat(product), exact @ v, rtol=1e-9, atol=1e-12)

    def test_the_gradient_is_that_of_the_mean_loss(self) -> None:
        model, data = tiny.linear(9), tiny.noise(40, size=3)
        _, expected = tiny.logistic_loss(tiny.logistic_parameters(model), data)
        found = loss_gradient(model, data, batch_size=7)
        weight, bias = found.values()
        torch.testing.assert_close(weight, torch.from_numpy(expected[:, :-1]))
        torch.testing.assert_close(bias, torch.from_numpy(expected[:, -1]))


class TestConjugateGradients:
    @staticmethod
    def system(seed: int, size: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        root = torch.randn(size, size, generator=generator, dtype=torch.float64)
        return root @ root.T + torch.eye(size), torch.randn(size, generator=generator, dtype=torch.float64)

    @pytest.mark.parametrize("seed", range(3))
    def test_they_solve_the_system_as_a_direct_solver_does(self, seed: int) -> None:
        matrix, b = self.system(seed)
        x, residual = conjugate_gradients(lambda v: {"w": matrix @ v["w"]}, {"w": b}, 100, tolerance=1e-12)
        torch.testing.assert_close(x["w"], torch.linalg.solve(matrix, b), rtol=1e-9, atol=1e-10)
        assert residual < 1e-11

    def test_one_iteration_is_the_steepest_descent(self) -> None:
        matrix, b = self.system(0)
        x, residual = conjugate_gradients(lambda v: {"w": matrix @ v["w"]}, {"w": b}, 1)
        expected = (b @ b) / (b @ matrix @ b) * b
        torch.testing.assert_close(x["w"], expected)
        assert residual == pytest.approx(float((b - matrix @ expected).norm() / b.norm()))

    def test_no_gradient_is_no_step(self) -> None:
        x, residual = conjugate_gradients(lambda v: v, {"w": torch.zeros(3)}, 5)
        assert x["w"].tolist() == [0, 0, 0]
        assert residual == 0

    def test_it_stops_when_the_residual_is_small_enough(self) -> None:
        products = 0

        def identity(v: Weights) -> Weights:
            nonlocal products
            products += 1
            return v

        conjugate_gradients(identity, {"w": torch.ones(4)}, 50)
        assert products == 1


class TestStep:
    @pytest.mark.parametrize("seed", range(3))
    def test_it_is_the_exact_newton_step_that_takes_the_forget_set_out(self, seed: int) -> None:
        given, model = sets(seed), tiny.linear(9)
        count = len(given.retain)
        solve(model, Data(*(torch.cat(pair) for pair in pairs(given))))
        loss = cross_entropy(model(normalise(given.forget.images)), given.forget.labels, reduction="sum")
        gradient = flat(dict(zip("wb", torch.autograd.grad(loss, list(model.parameters())), strict=True)))
        matrix = exact_hessian(model, given.retain) * count + DECAY * torch.eye(len(gradient))
        exact = torch.linalg.solve(matrix, gradient)
        step = step_of(model, given, damping=DECAY / count, iterations=500)
        torch.testing.assert_close(step, exact, rtol=0, atol=1e-6)
        assert float(exact.norm()) > 0.05  # so that 1e-6 says something

    @pytest.mark.parametrize("seed", range(5))
    def test_it_moves_the_weights_four_fifths_of_the_way_to_the_retrained_optimum(self, seed: int) -> None:
        given, model, retrained = sets(seed), tiny.linear(9), tiny.linear(9)
        solve(model, Data(*(torch.cat(pair) for pair in pairs(given))))
        solve(retrained, given.retain)
        before = flat(weights_of(retrained)) - flat(weights_of(model))
        step = step_of(model, given, damping=DECAY / len(given.retain), iterations=500)
        assert float((before - step).norm()) < 0.2 * float(before.norm())

    def test_the_scale_multiplies_it(self) -> None:
        steps = [step_of(tiny.linear(9), sets(), iterations=500, scale=scale) for scale in (1.0, 0.25)]
        torch.testing.assert_close(steps[1], steps[0] * 0.25)

    def test_it_raises_the_loss_of_the_forget_set(self) -> None:
        given, model = sets(), tiny.linear(9)
        solve(model, Data(*(torch.cat(pair) for pair in pairs(given))))
        before = evaluate(model, given.forget)["val/loss"]
        step_of(model, given, iterations=500)
        assert evaluate(model, given.forget)["val/loss"] > 1.2 * before

    def test_with_a_huge_damping_nothing_moves(self) -> None:
        assert float(step_of(tiny.linear(9), sets(), damping=1e12).abs().max()) < 1e-12

    def test_a_large_damping_makes_it_a_gradient_step(self) -> None:
        given, model = sets(), tiny.linear(9)
        gradient = flat(loss_gradient(model, given.forget, 10)) * len(given.forget) / len(given.retain)
        step = step_of(model, given, damping=1e6)
        torch.testing.assert_close(step, gradient / 1e6, rtol=1e-4, atol=1e-12)

    def test_the_curvature_comes_from_as_many_retain_images_as_asked_for(self) -> None:
        steps = [
            step_of(tiny.linear(9), sets(), samples=samples, iterations=500) for samples in (56, 10_000, 20)
        ]
        torch.testing.assert_close(steps[0], steps[1], rtol=1e-6, atol=1e-9)
        assert not torch.allclose(steps[0], steps[2], rtol=1e-3)

    def test_it_tells_the_residual_and_the_length(self) -> None:
        seen: list[tuple[int, Epoch]] = []
        model = tiny.linear(9)
        before = flat(weights_of(model))
        options = Influence.Options(iterations=500, scale=0.5)
        Influence(options, 0, lambda epoch, row: seen.append((epoch, row))).unlearn(model, sets())
        ((epoch, row),) = seen
        assert epoch == 1
        assert row["unlearn/residual"] <= 1e-6
        assert row["unlearn/step_norm"] == pytest.approx(float((flat(weights_of(model)) - before).norm()))

    def test_a_step_that_is_not_finite_is_refused_and_not_taken(self) -> None:
        model = tiny.linear(9)
        with torch.no_grad():
            next(model.parameters())[0, 0] = math.inf
        before = tiny.state(model)
        with pytest.raises(ExpungeError, match=r"the step is not finite; raise unlearn\.influence\.damping"):
            step_of(model, sets())
        assert tiny.equal(tiny.state(model), before)


def pairs(given: Sets) -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    return (given.retain.images, given.forget.images), (given.retain.labels, given.forget.labels)


@pytest.mark.parametrize("name", ["grey_cnn", "resnet18"])
def test_a_network_with_batch_norm_keeps_its_statistics_and_stays_finite(name: str) -> None:
    from tasks.engine.weights import create

    model = create(tiny.info().model_copy(update={"model": name}), seed=0)
    data = tiny.noise(20)
    fit(model, data, tiny.recipe(epochs=1, lr=0.01), seed=0)
    before = tiny.state(model)
    given = Sets(data.subset(torch.arange(4, 20)), data.subset(torch.arange(4)))
    Influence(Influence.Options(iterations=2), 0).unlearn(model, given)
    after = tiny.state(model)
    for key, value in after.items():
        assert bool(torch.isfinite(value).all())
        assert not key.endswith(("running_mean", "running_var", "num_batches_tracked")) or torch.equal(
            value, before[key]
        )
    assert not tiny.equal(before, after)
