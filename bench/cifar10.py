"""Results on CIFAR-10: every method, several seeds, mean and standard deviation.

The stages are the pipeline's own functions with the parameters of ``bench/cifar10.yaml``; only the seeds
and the method change. A reader runs::

    python -m bench.cifar10 --source parquet --path FOLDER      # train-*.parquet and test-*.parquet
    python -m bench.cifar10 --source cifar10 --path data/cifar10  # downloads the original archive
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import sys
from pathlib import Path
from typing import Any

from tasks.core.params import Params, read_yaml, validate
from tasks.core.plugins import choices
from tasks.finetune import finetune
from tasks.mia import mia
from tasks.retrain import retrain
from tasks.split import split
from tasks.stage import environment
from tasks.train import train
from tasks.unlearn import unlearn

PARAMS = Path(__file__).with_name("cifar10.yaml")
RESULTS = Path(__file__).with_name("results") / "cifar10.jsonl"


def params_of(source: str, path: str, seed: int, method: str) -> Params:
    """Parameters of ``bench/cifar10.yaml`` with every seed derived from ``seed``."""
    raw: dict[str, Any] = read_yaml(PARAMS)
    raw["split"] |= {"source": source, "path": path, "erased": None}
    raw["unlearn"]["method"] = method
    for offset, stage in enumerate(("split", "train", "retrain", "unlearn", "finetune", "mia")):
        raw[stage]["seed"] = 100 * seed + offset
    return validate(raw, str(PARAMS))


def run_seed(source: str, path: str, seed: int, methods: list[str], results: Path) -> None:
    """Split, train and retrain once, then unlearn, fine-tune and attack by each method."""
    first = params_of(source, path, seed, methods[0])
    split(first)
    train(first)
    retrain(first)
    for method in methods:
        params = params_of(source, path, seed, method)
        unlearn(params)
        finetune(params)
        row = {"seed": seed, "method": method, **mia(params), "environment": environment(params.runtime)}
        with results.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"seed {seed} {method}: AUC {row['mia/auc']:.3f} TA {row['test/acc']:.3f}", flush=True)


COLUMNS = {
    "RA": "retain/acc",
    "FA": "forget/acc",
    "TA": "test/acc",
    "MIA acc": "mia/acc",
    "MIA AUC": "mia/auc",
    "AUC − retrained": "mia/auc_difference",
    "gap": "gap",
    "ToW": "tow",
    "seconds": "time/seconds",
    "time ratio": "time/ratio",
}


def table(results: Path) -> str:
    """Markdown table: mean ± standard deviation over seeds, a row a model."""
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    lines = [f"| model | {' | '.join(COLUMNS)} |", "|---|" + "---|" * len(COLUMNS)]
    once = [row for row in rows if row["method"] == rows[0]["method"]]
    for name in ("original", "retrained"):
        cells = [
            _cell([row[f"{name}/{key}"] for row in once if f"{name}/{key}" in row])
            for key in COLUMNS.values()
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for method in dict.fromkeys(row["method"] for row in rows):
        chosen = [row for row in rows if row["method"] == method]
        cells = [_cell([row[key] for row in chosen]) for key in COLUMNS.values()]
        lines.append(f"| {method} + fine-tuning | {' | '.join(cells)} |")
    seeds = sorted({row["seed"] for row in rows})
    return "\n".join([*lines, "", f"Seeds {seeds}, mean ± standard deviation over them."])


def _cell(values: list[float]) -> str:
    if not values:
        return ""
    digits = 1 if max(values) > 1.5 else 3
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}"


def main() -> None:
    """Run what is asked for, append to the results file, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", choices=("parquet", "cifar10"), default="cifar10")
    parser.add_argument("--path", default="data/cifar10")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=list(choices("methods")), choices=choices("methods"))
    parser.add_argument("--work", type=Path, default=Path(".expunge/bench"), help="folder for stage outputs")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument(
        "--table", action="store_true", help="print the table of what was run before, run nothing"
    )
    arguments = parser.parse_args()
    results = arguments.results.resolve()
    if not arguments.table:
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
        path = str(Path(arguments.path).resolve())
        results.parent.mkdir(parents=True, exist_ok=True)
        arguments.work.mkdir(parents=True, exist_ok=True)
        os.chdir(arguments.work)
        for seed in arguments.seeds:
            run_seed(arguments.source, path, seed, arguments.methods, results)
    print(table(results))


if __name__ == "__main__":
    main()
