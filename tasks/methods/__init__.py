"""Unlearning methods: one file each, a class whose ``unlearn`` reads like the paper's algorithm."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import nn

from tasks.core.params import Section
from tasks.core.plugins import Registry
from tasks.engine.data import Data
from tasks.engine.training import OnEpoch, ignore


@dataclass(frozen=True, slots=True)
class Sets:
    """What a method may look at, on the model's device. There is no test set, and no retrained model."""

    retain: Data
    forget: Data


class Method(ABC):
    """Base of every method.

    Parameters
    ----------
    options
        The method's own ``Options``, from ``params.yaml`` under ``unlearn.<file name>``.
    seed
        Of everything that the method draws.
    on_epoch
        Called with the metrics of each pass or step worth a point in a curve.
    """

    class Options(Section):
        """Options in ``params.yaml``; none by default."""

    def __init__(self, options: Any, seed: int, on_epoch: OnEpoch = ignore) -> None:
        self.options = options
        self.seed = seed
        self.on_epoch = on_epoch

    @abstractmethod
    def unlearn(self, model: nn.Module, sets: Sets) -> None:
        """Change the model's weights in place so that it forgets ``sets.forget``."""


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Weights that a method may change, by name: those that are not frozen."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


METHODS: Registry[type[Method]] = Registry("methods")
register = METHODS.register
