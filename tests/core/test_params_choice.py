"""Sections that select a file of a room and hold its options."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.core.errors import ExpungeError
from tasks.core.params import Section, Unlearn, read_yaml, validate
from tasks.core.plugins import choices
from tests.core.test_params_yaml import SHIPPED

METHODS, MODELS, SOURCES = (", ".join(choices(room)) for room in ("methods", "models", "datasets"))


class Options(Section):
    alpha: float = 1.0
    name: str = "x"


def unlearn(**given: Any) -> Unlearn:
    return Unlearn.model_validate({"method": "ssd", **given})


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("train", {"model": "vgg"}, f"train: model is 'vgg'; known: {MODELS}"),
        ("train", {"model": "_blocks"}, f"train: model is '_blocks'; known: {MODELS}"),
        ("train", {"model": None}, "train.model is None; input should be a valid string"),
        ("train", {"model": ["resnet18"]}, "train.model is ['resnet18']; input should be a valid string"),
        ("unlearn", {"method": "sdd"}, f"unlearn: method is 'sdd'; known: {METHODS}"),
        ("unlearn", {"method": "SSD"}, f"unlearn: method is 'SSD'; known: {METHODS}"),
        ("unlearn", {"method": "../ssd"}, f"unlearn: method is '../ssd'; known: {METHODS}"),
        ("unlearn", {"method": ""}, f"unlearn: method is ''; known: {METHODS}"),
        ("split", {"source": "mnist"}, f"split: source is 'mnist'; known: {SOURCES}"),
        ("unlearn", {"ssd": 3}, "unlearn: ssd is 3; it holds options, so it must be a mapping"),
        ("unlearn", {"ssd": []}, "unlearn: ssd is []; it holds options, so it must be a mapping"),
        (
            "unlearn",
            {"sdd": {}},
            f"unlearn: unknown key 'sdd'; known keys: method, seed, and the options of {METHODS}",
        ),
    ],
)
def test_an_unknown_choice_is_refused_with_the_known_ones(
    section: str, changes: dict[str, Any], message: str
) -> None:
    values = read_yaml(SHIPPED)
    values[section] |= changes
    with pytest.raises(ExpungeError) as caught:
        validate(values, "params.yaml")
    assert str(caught.value) == f"params.yaml: {message}"


def test_the_options_are_those_of_the_choice() -> None:
    section = unlearn(ssd={"alpha": 3.0}, reinit={"alpha": 4.0})
    assert section.chosen == "ssd"
    assert section.options(Options, where="unlearn").alpha == 3.0


@pytest.mark.parametrize("given", [{}, {"ssd": None}, {"ssd": {}}])
def test_options_that_are_not_given_have_their_defaults(given: dict[str, Any]) -> None:
    assert unlearn(**given).options(Options, where="unlearn") == Options()


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"alpha": "3"}, "alpha is '3'; input should be a valid number"),
        ({"alpha": float("nan")}, "alpha is nan; input should be a finite number"),
        ({"beta": 3}, "beta is an unknown key; known keys: alpha, name"),
        ({"name": "a\nb", "alpha": []}, "alpha is []; input should be a valid number"),
        ({3: 4}, "3 is 3; keys should be strings"),
    ],
)
def test_wrong_options_are_refused_with_their_path(given: dict[Any, Any], problem: str) -> None:
    with pytest.raises(ExpungeError) as caught:
        unlearn(ssd=given).options(Options, where="params.yaml: unlearn")
    assert str(caught.value) == f"params.yaml: unlearn.ssd.{problem}"
