"""What ``requests.near_features`` tells at which cosine, on the embedded Fashion-MNIST.

The shipped model is trained by the shipped recipe. Every 25th training picture is changed in several ways and
laid beside the others; for each cosine the table has the share of the changed pictures that are told, and how
many other pictures are told of one that is asked for. A reader runs: ``python -m bench.near_features``.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from tasks.core.params import Params, Runtime, load
from tasks.datasets import SOURCES
from tasks.engine import device as devices
from tasks.engine.data import to_device
from tasks.engine.features import near
from tasks.engine.training import fit
from tasks.models import MODELS, build
from tasks.samples.image_set import ImageSet

EMBEDDED = Path("data/fashion-mnist-10k")
COSINES = (0.9, 0.93, 0.95, 0.97, 0.99)
STEP = 25

Picture = NDArray[np.uint8]


def _saved_again(picture: Picture) -> Picture:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=75)
    return np.asarray(Image.open(file))


def _cropped(picture: Picture) -> Picture:
    whole = Image.fromarray(picture)
    box = (1, 1, whole.width - 1, whole.height - 1)
    return np.asarray(whole.crop(box).resize(whole.size, Image.Resampling.BILINEAR))


def _darker(picture: Picture) -> Picture:
    return (picture * 0.8).astype(np.uint8)


def _shifted(picture: Picture) -> Picture:
    return np.roll(picture, 1, axis=1)


def _mirrored(picture: Picture) -> Picture:
    return picture[:, ::-1]


CHANGES: Mapping[str, Callable[[Picture], Picture]] = {
    "JPEG 75": _saved_again,
    "20 % darker": _darker,
    "shifted by a pixel": _shifted,
    "a pixel cropped all round": _cropped,
    "mirrored": _mirrored,
}


def told(params: Params, of: ImageSet, seed: int, device: torch.device) -> NDArray[np.float64]:
    """Train with a seed; return for each cosine the number of others a picture, and each change's share."""
    images, train = np.asarray(of.images), np.flatnonzero(~of.is_test)
    chosen = train[::STEP]
    changed = [np.stack([change(images[row][0]) for row in chosen])[:, None] for change in CHANGES.values()]
    options = params.train.options(MODELS.get(params.train.chosen).Options, where="train")
    torch.manual_seed(seed)
    model = build(
        params.train.chosen, options, channels=1, size=images.shape[2:], classes=len(of.classes)
    ).to(device)
    fit(model, to_device(images, of.labels, train, device), params.train.recipe, seed=seed)
    every, asked = np.concatenate([images, *changed]), [chosen[[place]] for place in range(len(chosen))]
    rows = []
    for least in COSINES:
        found = near(model.eval(), every, asked, least)
        others = np.mean([np.count_nonzero(each < len(images)) for each in found])
        first = len(images) + len(chosen) * np.arange(len(CHANGES))
        shares = np.mean([np.isin(first + place, each) for place, each in enumerate(found)], axis=0)
        rows.append([others, *shares])
    return np.array(rows)


def main() -> None:
    """Print the table, means over the seeds with the smallest and the largest."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    device = devices.choose(Runtime(threads=arguments.threads))
    params = load()
    section = params.split.model_copy(update={"source": "parquet", "path": str(EMBEDDED)})
    of = SOURCES.get("parquet")(EMBEDDED, section)
    print(devices.describe(device))
    found = np.array([told(params, of, seed, device) for seed in arguments.seeds])
    print(f"| cosine | others a picture | {' | '.join(CHANGES)} |")
    print(f"|{'---|' * (2 + len(CHANGES))}")
    for least, rows in zip(COSINES, found.transpose(1, 0, 2), strict=True):
        others, *shares = rows.T
        cells = [f"{others.mean():.1f} ({others.min():.1f} to {others.max():.1f})"]
        cells += [
            f"{each.mean():.0f} % ({each.min():.0f} to {each.max():.0f})"
            for each in (100 * share for share in shares)
        ]
        print(f"| {least} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
