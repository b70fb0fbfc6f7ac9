"""Figures of the attack and of training, for files (PNG) and for the report (SVG).

Colours are those of Okabe & Ito, which people with colour vision deficiencies tell apart; line
styles differ as well. Text and axes are drawn in one colour, :data:`INK`, which the SVG form
replaces by the page's own text colour, so that a figure fits a light and a dark page.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.metrics.histogram import LossCounts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#121314"
FORGET, TEST = "#d55e00", "#0072b2"
STYLES = {
    "original": ("#d55e00", "-"),
    "unlearned": ("#e69f00", (0, (4, 1.5))),
    "finetuned": ("#0072b2", "-"),
    "retrained": ("#009e73", (0, (1, 1))),
}
TITLES = {
    "original": "original",
    "unlearned": "unlearned",
    "finetuned": "finetuned (result)",
    "retrained": "retrained (reference)",
}

Numbers = NDArray[np.float64]
Draw = Callable[["Axes"], None]
"""Draws one panel."""


def losses(counts: LossCounts, title: str, highest: float) -> Draw:
    """Histogram of the loss on forget and test samples; ``highest`` is the top of the axis."""

    def draw(axes: Axes) -> None:
        axes.stairs(counts.test, counts.edges, fill=True, color=TEST, alpha=0.3, label="test (never seen)")
        axes.stairs(counts.test, counts.edges, color=TEST, linewidth=1.2)
        axes.stairs(counts.forget, counts.edges, color=FORGET, linewidth=2.0, label="forget")
        axes.set_xscale("log")
        axes.set_xlim(counts.edges[0], counts.edges[-1])
        axes.set_ylim(0, highest * 1.05)
        axes.set_title(title)
        axes.set_xlabel("loss (log scale)")
        axes.set_ylabel("samples")
        axes.legend(loc="upper left", frameon=False)

    return draw


def roc(curves: Mapping[str, tuple[Numbers, Numbers]], *, logarithmic: bool) -> Draw:
    """ROC curves by model (false and true positive rates, ascending), with the diagonal of guessing."""

    def draw(axes: Axes) -> None:
        smallest = min(0.5, *(float(false[false > 0][0]) for false, _ in curves.values()))
        diagonal = np.geomspace(smallest, 1, 100)
        axes.plot(diagonal, diagonal, color=INK, linewidth=0.8, alpha=0.6, label="guessing")
        for name, (false, true) in curves.items():
            colour, style = STYLES[name]
            axes.plot(false, true, drawstyle="steps-post", color=colour, linestyle=style, label=name)
        if logarithmic:
            axes.set_xscale("log")
            axes.set_yscale("log")
        low = smallest if logarithmic else 0
        axes.set_xlim(low, 1)
        axes.set_ylim(low, 1)
        axes.set_title("Low false positive rates (both axes logarithmic)" if logarithmic else "Whole curve")
        axes.set_xlabel("false positive rate")
        axes.set_ylabel("true positive rate")
        axes.legend(loc="lower right", frameon=False)

    return draw


def training(epochs: Numbers, train: Numbers, val: Numbers, quantity: str, title: str) -> Draw:
    """One quantity over the epochs of one stage, on training and on validation samples."""

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        marker = "o" if len(epochs) < 10 else None
        axes.plot(epochs, train, color=FORGET, marker=marker, markersize=4, label="training")
        axes.plot(epochs, val, color=TEST, marker=marker, markersize=4, linestyle="--", label="validation")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.set_ylabel(quantity)
        axes.legend(loc="best", frameon=False)

    return draw


def png(panels: Sequence[Draw], columns: int) -> bytes:
    """Panels in a grid on white, as one PNG."""
    file = io.BytesIO()
    with _figure(panels, columns) as figure:
        figure.savefig(file, format="png", dpi=130, facecolor="white")
    return file.getvalue()


def svg(panel: Draw, name: str, label: str) -> str:
    """One panel as an SVG element to stand in a page.

    Parameters
    ----------
    name
        Keeps the element's ids apart from those of other panels on the page.
    label
        What the panel shows, for those who cannot see it; plain text without markup.
    """
    file = io.StringIO()
    with _figure([panel], columns=1) as figure:
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


@contextmanager
def _figure(panels: Sequence[Draw], columns: int) -> Iterator[Figure]:
    """Draw panels into cells of one size. Fixed margins: fitting them takes longer than drawing."""
    from matplotlib import rc_context, rcdefaults, rcParams
    from matplotlib.figure import Figure

    rows = -(-len(panels) // columns)
    ink = dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color"),
        INK,
    )
    style = {
        "font.size": 10,
        "axes.titlesize": 11,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": INK,
        "grid.alpha": 0.12,
        "lines.linewidth": 1.8,
        "svg.fonttype": "none",
        "svg.hashsalt": "expunge",
    }
    with rc_context():
        rcdefaults()  # whatever the user's own matplotlibrc says
        rcParams.update(ink | style)
        figure = Figure(figsize=(5.0 * columns, 3.4 * rows))
        for place, draw in enumerate(panels):
            row, column = divmod(place, columns)
            cell = ((column + 0.12) / columns, (rows - 1 - row + 0.155) / rows, 0.85 / columns, 0.75 / rows)
            draw(figure.add_axes(cell))
        yield figure
