"""Choose the options of a method: forget set against val, and accuracy on val. Nothing else.

Neither the test set nor the retrained model is looked at. The target for the attack is one half: val was
held out just as a stranger's images are. A reader runs, for example::

    python -m bench.tune --path FOLDER --source parquet ssd alpha 2 5 10
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score
from torch import nn

from bench.cifar10 import PARAMS
from tasks.core.params import Params, read_yaml, validate
from tasks.engine import device as devices
from tasks.engine.data import Data, to_device
from tasks.engine.predict import accuracy, logits
from tasks.engine.training import fit
from tasks.engine.weights import load
from tasks.methods import METHODS, Sets
from tasks.metrics.scores import cross_entropy
from tasks.samples.manifest import load_roles
from tasks.split import split
from tasks.train import train

SEED = 900
"""Not one of the seeds that results are reported for."""


def params_of(arguments: argparse.Namespace, value: float | None) -> Params:
    """The parameters with one option of one method, or of fine-tuning, changed."""
    raw = read_yaml(arguments.params)
    method, option = arguments.method, arguments.option
    raw["split"] |= {"source": arguments.source, "path": str(arguments.path), "seed": SEED, "erased": None}
    raw["runtime"]["threads"] = arguments.threads
    raw["train"]["seed"] = SEED + 1
    raw["unlearn"]["method"] = method
    if option is not None and value is not None:
        section = raw["finetune"]["recipe"] if option.startswith("finetune.") else raw["unlearn"][method]
        key = option.removeprefix("finetune.")
        if key == "augment":
            section[key] = section[key] if value else {}
        else:
            section[key] = int(value) if isinstance(section[key], int) else value
    return validate(raw, str(arguments.params))


def main() -> None:
    """Train once, then print a line for each value, after unlearning and after fine-tuning."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("method")
    parser.add_argument(
        "option",
        nargs="?",
        help="an option of the method, or finetune.lr, finetune.epochs, …; finetune.augment 0 takes it out",
    )
    parser.add_argument("values", nargs="*", type=float)
    parser.add_argument("--params", type=Path, default=PARAMS)
    parser.add_argument("--source", default="cifar10")
    parser.add_argument("--path", type=Path, default=Path("data/cifar10"))
    parser.add_argument("--work", type=Path, default=Path(".expunge/tune"))
    parser.add_argument("--no-finetune", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    arguments.path = arguments.path.resolve()
    arguments.params = arguments.params.resolve()
    arguments.work.mkdir(parents=True, exist_ok=True)
    os.chdir(arguments.work)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    if not Path("data/train/weights.json").exists():
        first = params_of(arguments, None)
        split(first)
        train(first)
    for value in arguments.values or [None]:
        one_value(params_of(arguments, value), arguments, value)


def one_value(params: Params, arguments: argparse.Namespace, value: float | None) -> None:
    """Unlearn and fine-tune with one value, and print what val says."""
    loaded = load_roles()
    manifest, images = loaded.manifest, loaded.images
    target = devices.choose(params.runtime)
    model, _ = load(Path("data/train"))
    model.to(target)
    data = {
        role: to_device(images, manifest.labels, manifest.indices(role), target)
        for role in ("retain", "forget", "val")
    }
    method = METHODS.get(params.unlearn.method)
    title = f"{arguments.method} {arguments.option or ''} {'' if value is None else value}"
    report(f"{title}: original", model, data, 0.0)
    start = time.perf_counter()
    method(params.unlearn.options(method.Options, where="unlearn"), SEED + 2).unlearn(
        model, Sets(retain=data["retain"], forget=data["forget"])
    )
    seconds = time.perf_counter() - start
    report(f"{title}: unlearned", model, data, seconds)
    if params.finetune.recipe and not arguments.no_finetune:
        seconds += fit(model, data["retain"], params.finetune.recipe, seed=SEED + 3).seconds
        report(f"{title}: fine-tuned", model, data, seconds)


def report(title: str, model: nn.Module, data: dict[str, Data], seconds: float) -> None:
    """Print accuracies and the loss attack's AUC of forget against val."""
    rows = {role: logits(model, data[role].images) for role in ("forget", "val")}
    labels = {role: data[role].labels.cpu().numpy() for role in rows}
    losses = np.concatenate([cross_entropy(rows[role], labels[role]) for role in rows])
    member = np.arange(len(losses)) < len(rows["forget"])
    print(
        f"{title:45s} forget acc {accuracy(rows['forget'], labels['forget']):.3f}  "
        f"val acc {accuracy(rows['val'], labels['val']):.3f}  "
        f"AUC forget/val {roc_auc_score(member, -losses):.3f}  {seconds:.0f} s",
        flush=True,
    )


if __name__ == "__main__":
    main()
