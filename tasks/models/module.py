"""A model of your own: a Python file with a function ``build``."""

from __future__ import annotations

import inspect
import os
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Self

import torch
from pydantic import Field, field_validator
from torch import nn

from tasks.core.errors import ExpungeError
from tasks.core.files import digest
from tasks.core.params import Section
from tasks.models import Architecture, register

ROOT = Path(__file__).parents[2]
"""Where paths begin: the repository, or the code that a model in MLflow carries with it."""

WHERE = "params.yaml: train.module"


@register
class OwnModule(Architecture):
    """What ``build(channels, classes, size, **options)`` of a Python file returns."""

    class Options(Section):
        """``path``: of the file, from the repository's root. ``options``: keywords for its ``build``."""

        path: Annotated[str, Field(min_length=1)] = "docs/examples/my_model.py"
        options: dict[str, Any] = Field(default_factory=dict)

        @field_validator("path")
        @classmethod
        def _lies_in_the_repository(cls, value: str) -> str:
            path = Path(value)
            if path.is_absolute() or os.path.normpath(value).startswith("..") or path.suffix != ".py":
                raise ValueError(f"{value} is no Python file in the repository; write its path from the root")
            return value

    def __init__(self, net: nn.Module, code: str, path: str, example: torch.Tensor) -> None:
        super().__init__()
        self.net, self.code = net, code
        self.path, self.example = path, example

    @classmethod
    def sized(cls, channels: int, classes: int, size: tuple[int, int], options: Options) -> Self:
        """Call ``build`` of the file.

        Raises
        ------
        ExpungeError
            If the file is missing, has no such function or fails, if the function does not take the
            options, or returns no ``nn.Module``.
        """
        path = ROOT / options.path
        try:
            code = digest(path, "sha256")
        except OSError as error:
            raise ExpungeError(f"{WHERE}.path: {options.path} cannot be read ({error.strerror})") from None
        build = _function(path, options.path)
        _require_options(build, options)
        try:
            net = build(channels, classes, size, **options.options)
        except Exception as error:
            raise ExpungeError(_line(error, path, options.path)) from error
        if not isinstance(net, nn.Module):
            raise ExpungeError(
                f"{options.path}: build returns {type(net).__name__}; an nn.Module would be right"
            )
        return cls(net, code, options.path, torch.zeros(2, channels, *size))

    def begin(self) -> Mapping[str, torch.Tensor]:
        """See that the net takes images, while it trains and while it does not; it is left as it was."""
        before = {name: value.clone() for name, value in self.net.state_dict().items()}
        for training in (True, False):
            try:
                with torch.no_grad(), torch.random.fork_rng(devices=[]):
                    self.net.train(training)(self.example)
            except Exception as error:
                raise ExpungeError(_line(error, ROOT / self.path, self.path)) from error
        self.net.load_state_dict(before)
        return {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``[B, K]`` of images ``[B, C, H, W]``."""
        logits: torch.Tensor = self.net(x)
        return logits


def _function(path: Path, shown: str) -> Callable[..., Any]:
    """Run the file, without leaving anything beside it, and return its function ``build``."""
    module = ModuleType(f"expunge_module_{path.stem}")
    module.__file__ = str(path)
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)  # noqa: S102
    except Exception as error:
        raise ExpungeError(_line(error, path, shown)) from error
    build = getattr(module, "build", None)
    if not callable(build):
        raise ExpungeError(f"{shown} has no function build(channels, classes, size, **options)")
    return build  # type: ignore[no-any-return]


def _require_options(build: Callable[..., Any], options: OwnModule.Options) -> None:
    try:
        inspect.signature(build).bind("channels", "classes", "size", **options.options)
    except TypeError as error:
        raise ExpungeError(
            f"{WHERE}.options: {error}; {options.path} has build{inspect.signature(build)}"
        ) from None


def _line(error: Exception, path: Path, shown: str) -> str:
    """One line for an exception: the last line of the file that it went through, and what it says."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{shown}, line {error.lineno}: {error.msg}"
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)
    ]
    place = f"{shown}, line {lines[-1]}" if lines else shown
    return f"{place}: {type(error).__name__}: {' '.join(str(error).split())}"
