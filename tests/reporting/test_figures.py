from __future__ import annotations

import io
import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from tasks.metrics.histogram import LossCounts
from tasks.reporting import figures

COUNTS = LossCounts(np.logspace(-3, 1, 5), np.array([0.0, 4, 9, 1]), np.array([1.0, 2, 8, 3]))
STEP = (np.array([0.0, 0.25, 1.0]), np.array([0.5, 0.75, 1.0]))
CURVES = dict.fromkeys(figures.STYLES, STEP)
EPOCHS = np.arange(1.0, 4)

PANELS = {
    "losses": figures.losses(COUNTS, "original", 9),
    "roc": figures.roc(CURVES, logarithmic=False),
    "roc-log": figures.roc(CURVES, logarithmic=True),
    "training": figures.training(EPOCHS, 1 / EPOCHS, 1 / EPOCHS, "loss", "train"),
    "roc-of-one-sample-a-side": figures.roc(
        dict.fromkeys(figures.STYLES, (np.array([0.0, 1.0]), np.array([1.0, 1.0]))), logarithmic=True
    ),
    "one-epoch": figures.training(EPOCHS[:1], EPOCHS[:1], EPOCHS[:1], "loss", "train"),
}


@pytest.mark.parametrize("name", PANELS)
def test_a_panel_is_one_svg_element_with_a_label_and_its_text(name: str) -> None:
    root = ET.fromstring(figures.svg(PANELS[name], name, "what it shows"))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert (root.get("role"), root.get("aria-label")) == ("img", "what it shows")
    texts = {"".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")}
    assert texts & {"samples", "true positive rate", "loss"}


def test_the_ids_of_two_panels_on_a_page_do_not_meet() -> None:
    first, second = (
        set(re.findall(r'\bid="([^"]+)"', figures.svg(PANELS["losses"], name, ""))) for name in ("a", "b")
    )
    assert first
    assert not first & second


def test_references_inside_a_panel_point_to_its_own_ids() -> None:
    text = figures.svg(PANELS["training"], "a", "")
    targets = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    assert targets
    assert targets <= set(re.findall(r'\bid="([^"]+)"', text))


def test_text_and_axes_take_the_colour_of_the_page() -> None:
    text = figures.svg(PANELS["losses"], "a", "")
    assert "currentColor" in text
    assert figures.INK not in text
    assert "#000000" not in text
    assert "#ffffff" not in text


def test_a_panel_is_the_same_text_every_time() -> None:
    assert figures.svg(PANELS["roc"], "a", "") == figures.svg(PANELS["roc"], "a", "")


def test_a_png_holds_the_panels_in_a_grid_on_white() -> None:
    image = Image.open(io.BytesIO(figures.png([PANELS["losses"]] * 4, columns=2))).convert("RGB")
    assert image.size == (1300, 884)
    assert image.getpixel((0, 0)) == (255, 255, 255)


def test_settings_of_the_user_do_not_reach_the_figures() -> None:
    from matplotlib import rc_context

    plain = figures.svg(PANELS["roc"], "a", "")
    with rc_context({"axes.facecolor": "black", "lines.linewidth": 9, "font.family": "serif"}):
        assert figures.svg(PANELS["roc"], "a", "") == plain
