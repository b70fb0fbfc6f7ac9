"""Packages as pip leaves them, in a folder of a test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

MODEL = """
from torch import nn

from tasks.core.params import Section
from tasks.models import Architecture


class Net(Architecture):
    class Options(Section):
        width: int = 4

    def __init__(self, channels, classes, options):
        super().__init__()
        self.net = nn.Sequential(
            nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * channels, options.width), nn.ReLU(),
            nn.Linear(options.width, classes),
        )

    def forward(self, x):
        return self.net(x)
"""

ATTACK = """
import numpy as np


def margin(samples):
    rows = np.arange(len(samples.labels))
    others = samples.logits.copy()
    others[rows, samples.labels] = -np.inf
    return samples.logits[rows, samples.labels] - others.max(axis=1)


def blind(samples):
    return np.full(len(samples.labels), np.nan)
"""

METHOD = """
import torch

from tasks.methods import Method


class Halve(Method):
    def unlearn(self, model, sets):
        with torch.no_grad():
            for weight in model.parameters():
                weight.div_(2)
"""

SOURCE = """
import numpy as np

from tasks.datasets.digits import digits


def fewer(path, resize):
    return digits(path, resize)
"""


def install(
    folder: Path, name: str, code: str, points: Mapping[str, Mapping[str, str]], version: str = "1.0"
) -> None:
    """Lay a package of one module into ``folder``, with its entry points: ``{group: {name: attribute}}``."""
    module = name.replace("-", "_")
    (folder / module).mkdir(parents=True, exist_ok=True)
    (folder / module / "__init__.py").write_text(code)
    about = folder / f"{module}.dist-info"
    about.mkdir(exist_ok=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = []
    for group, entries in points.items():
        lines += [f"[{group}]", *(f"{entry} = {module}:{attribute}" for entry, attribute in entries.items())]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n")
