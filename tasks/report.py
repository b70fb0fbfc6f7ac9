"""Stage ``report``: one self-contained page, from the verdict in words to the hashes of every file."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.core.errors import RESTORE, ExpungeError
from tasks.core.files import read_json, write_text
from tasks.core.params import Params
from tasks.metrics.histogram import LossCounts
from tasks.reporting import figures
from tasks.reporting.pages import render
from tasks.reporting.tables import read_table

DATA = Path("data")
PAGE = DATA / "report" / "report.html"
MODELS = {"original": "train", "unlearned": "unlearn", "finetuned": "finetune", "retrained": "retrain"}
STAGES = ("split", "train", "retrain", "unlearn", "finetune", "mia")
READS = (
    "data/split/metrics.json",
    "data/split/classes.json",
    "data/mia/models.json",
    "data/mia/verdict.json",
    "data/mia/losses.csv",
    "data/mia/roc.csv",
    *(f"data/{stage}/history.csv" for stage in MODELS.values()),
)


class Panel(NamedTuple):
    """What :func:`~tasks.reporting.figures.svg` draws, once all inputs are read."""

    draw: figures.Draw
    name: str
    label: str


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure as the page shows it, with its interval where it has one."""

    text: str
    interval: str = ""


class Figures:
    """The figures of a ``metrics.json``, formatted; a missing one is an error with its name."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._values = _mapping(path)

    def value(self, key: str) -> float:
        """Return the figure itself."""
        value = self._values.get(key)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
            raise ExpungeError(f"{self._path}: {key} is {value!r}, it must be a number; {RESTORE}")
        return float(value)

    def has(self, key: str) -> bool:
        """Whether a figure is given: some are only of some forget sets."""
        return key in self._values

    def count(self, key: str) -> str:
        """Return a number of samples."""
        return f"{self.value(key):,.0f}"

    def percent(self, key: str) -> Figure:
        """Return a share as a percentage."""
        value, low, high = self._estimate(key, 100)
        return Figure(f"{value:.1f} %", f"{low:.1f} to {high:.1f}")

    def decimal(self, key: str) -> Figure:
        """Return a figure with three decimals."""
        value, low, high = self._estimate(key, 1)
        return Figure(f"{value:.3f}", f"{low:.3f} to {high:.3f}")

    def signed(self, key: str) -> Figure:
        """Return a difference with three decimals and its sign."""
        value, low, high = (f"{end:+.3f}".replace("-", "−") for end in self._estimate(key, 1))
        return Figure(value, f"{low} to {high}")

    def cases(self, key: str) -> str:
        """Return a probability as a number of cases out of 100."""
        return f"{100 * self.value(key):.0f}"

    def seconds(self, key: str) -> Figure:
        """Return a time to three digits."""
        value = self.value(key)
        if value < 0.01:
            return Figure("< 0.01 s")
        return Figure(f"{value:.3g} s" if value < 1000 else f"{value:,.0f} s")

    def _estimate(self, key: str, scale: float) -> list[float]:
        return [scale * self.value(name) for name in (key, f"{key}/low", f"{key}/high")]


def report(params: Params) -> dict[str, float]:
    """Write ``data/report/report.html`` from what the other stages wrote.

    Raises
    ------
    ExpungeError
        If an input is missing or damaged. A missing ``run.json`` is not an error: the page then
        shows less of where its figures come from.
    """
    found = Figures(DATA / "mia/models.json")
    content = {
        "parameters": params,
        "confidence": f"{100 * params.mia.confidence:g} %",
        "margin": f"{params.mia.margin:g}",
        "yaml": _yaml(params),
        "verdict": _verdict(DATA / "mia/verdict.json"),
        "found": found,
        "models": figures.TITLES,
        "classes": _classes(DATA / "split/classes.json"),
        "counts": Figures(DATA / "split/metrics.json"),
        "provenance": _provenance(),
        "pictures": {
            "losses": list(_losses(DATA / "mia/losses.csv", found)),
            "roc": list(_roc(DATA / "mia/roc.csv")),
            "training": list(_training()),
        },
    }
    draw = lambda panel: figures.svg(*panel)  # noqa: E731
    write_text(PAGE, render("report.html", content | {"draw": draw}))
    return {}


def _verdict(path: Path) -> dict[str, str]:
    verdict = _mapping(path)
    for key in ("verdict", "text", "reason"):
        if not isinstance(verdict.get(key), str):
            raise ExpungeError(f"{path}: {key} is {verdict.get(key)!r}, it must be text; {RESTORE}")
    return verdict


def _classes(path: Path) -> list[str]:
    classes = read_json(path)
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ExpungeError(f"{path} is not a list of class names; {RESTORE}")
    return classes


def _mapping(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise ExpungeError(f"{path} holds no JSON object; {RESTORE}")
    return value


def _losses(path: Path, found: Figures) -> Iterator[Panel]:
    counts = {}
    for model, (left, right, forget, test) in _by_model(path, ("bin_left", "bin_right", "forget", "test")):
        edges = np.append(left, right[-1])
        if edges[0] <= 0 or (np.diff(edges) <= 0).any():
            raise ExpungeError(f"{path}: the bins of model {model} do not ascend from above zero; {RESTORE}")
        counts[model] = LossCounts(edges, forget, test)
    highest = max(max(sides.forget.max(), sides.test.max()) for sides in counts.values())
    for model, sides in counts.items():
        title = f"{figures.TITLES[model]}: AUC {found.decimal(f'{model}/mia/auc').text}"
        draw = figures.losses(sides, title, float(highest))
        yield Panel(draw, f"loss-{model}", f"Losses of forget and test samples, {title}")


def _roc(path: Path) -> Iterator[Panel]:
    curves = {}
    for model, (false, true) in _by_model(path, ("fpr", "tpr")):
        if min(false[0], true[0]) < 0 or (false[-1], true[-1]) != (1, 1):
            raise ExpungeError(f"{path}: the rates of model {model} do not rise from 0 to 1; {RESTORE}")
        curves[model] = (false, true)
    for name, logarithmic in (("linear", False), ("logarithmic", True)):
        draw = figures.roc(curves, logarithmic=logarithmic)
        yield Panel(draw, f"roc-{name}", f"ROC curves of the attack on the four models, {name} axes")


def _training() -> Iterator[Panel]:
    """Panels of loss and accuracy for each stage that trained; unlearning may do so in no epochs."""
    for model, stage in MODELS.items():
        table = read_table(DATA / stage / "history.csv", ("epoch",))
        for quantity, name in (("loss", "loss"), ("acc", "accuracy")):
            columns = ("epoch", f"train/{quantity}", f"val/{quantity}")
            if not table.columns["epoch"] or not table.columns.keys() >= set(columns):
                continue
            epochs, train, val = map(table.numbers, columns)
            draw = figures.training(epochs, train, val, name, f"{stage} ({model}): {name}")
            yield Panel(draw, f"{stage}-{quantity}", f"{name} of stage {stage} over its epochs")


def _by_model(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Columns of numbers, ``float64 [columns, rows]``, for each of the four models."""
    table = read_table(path, ("model", *columns))
    models = np.array(table.columns["model"])
    numbers = np.array([table.numbers(column) for column in columns])
    for model in MODELS:
        chosen = models == model
        if not chosen.any():
            raise ExpungeError(f"{path} has no rows for model {model}; {RESTORE}")
        yield model, numbers[:, chosen]


def _yaml(params: Params) -> str:
    """Parameters that apply, as YAML: no options of what was not chosen, and not where runs are recorded."""
    from ruamel.yaml import YAML

    values = params.model_dump(mode="json", exclude={"tracking"})
    for name, section in (("train", params.train), ("unlearn", params.unlearn)):
        for option in (section.model_extra or {}).keys() - {section.chosen}:
            del values[name][option]
    text = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # declared as None
    yaml.dump(values, text)
    return text.getvalue()


def _provenance() -> dict[str, Any]:
    """What the stages' ``run.json`` tell, arranged: runs, environments, files; whatever keys they have."""
    paths = {stage: DATA / stage / "run.json" for stage in STAGES}
    runs = {stage: _mapping(path) for stage, path in paths.items() if path.exists()}
    environments: dict[str, tuple[list[str], dict[str, Any]]] = {}
    files: list[tuple[str, str, str, str]] = []
    for stage, run in runs.items():
        for direction in ("inputs", "outputs"):
            listed = run.pop(direction, None) or {}
            files += [(stage, direction.removesuffix("s"), path, md5) for path, md5 in listed.items()]
        environment = run.pop("environment", None) or {}
        environments.setdefault(repr(environment), ([], environment))[0].append(stage)
    columns = list(dict.fromkeys(key for run in runs.values() for key in run if key != "stage"))
    return {"columns": columns, "runs": runs, "environments": list(environments.values()), "files": files}


if __name__ == "__main__":
    from tasks.stage import Stage

    Stage("report", lambda params, _: report(params), READS, ("report",)).main()
