"""Peak memory of the stages on a set of images that is larger than the memory.

Makes an image folder from noise, runs ``split``, ``train`` and ``retrain`` on it in processes of their own,
and prints what each took. Nothing of it is kept. 20 GiB of pixels take 45 GiB of disk::

    python -m bench.large_set --gib 20
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
SIDE = 1024
MODEL = '''
from torch import nn


def build(channels, classes, size):
    """Sixteenths of the pixels, and a linear layer on what two convolutions see in them."""
    return nn.Sequential(
        nn.AvgPool2d(16), nn.Conv2d(channels, 16, 3, 2), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, classes),
    )
'''


def write_images(folder: Path, count: int) -> None:
    """Two classes of soft noise as JPEGs; each is another picture."""
    rng = np.random.default_rng(0)
    for number in range(count):
        part = "test" if number % 5 == 0 else "train"
        small = Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
        file = folder / part / f"class{number % 2}" / f"{number:06d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        small.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(file, quality=80)


def write_project(root: Path, split: Mapping[str, Any]) -> None:
    """The project's stages at ``root``, with parameters for an image folder that ``split`` tells of."""
    (root / "tasks").symlink_to(ROOT / "tasks")
    (root / "data/requests").mkdir(parents=True)
    (root / "data/requests/erased.txt").write_bytes((ROOT / "data/requests/erased.txt").read_bytes())
    params = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["split"] |= {"source": "image_folder", **split}
    params["train"] |= {"model": "module", "module": {"path": "model.py", "options": {}}}
    params["train"]["recipe"] |= {"epochs": 1, "batch_size": 16, "lr": 0.01}
    (root / "model.py").write_text(MODEL)
    with (root / "params.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(params, file)


def flush(root: Path, environment: Mapping[str, str]) -> None:
    """Wait until all records are sent: nobody writes to the folder any more, and it can be deleted."""
    subprocess.run([sys.executable, "-m", "tasks.tracking", "flush"], cwd=root, env=environment, check=False)


def main() -> None:
    """Make the set, run the stages, print what they took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--gib", type=float, default=20, help="of pixels")
    parser.add_argument("--folder", type=Path, help="where to make it, if not in the temporary folder")
    arguments = parser.parse_args()
    count = int(arguments.gib * 2**30 / (3 * SIDE**2))
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        root = Path(name)
        write_project(root, {"path": "data/images"})
        write_images(root / "data/images", count)
        print(f"{count} images of {SIDE}×{SIDE}: {count * 3 * SIDE**2 / 2**30:.1f} GiB of pixels")
        environment = {**os.environ, "PYTHONPATH": str(root), "EXPUNGE_KEYS": f"{name}-keys"}
        for stage in ("split", "train", "retrain"):
            subprocess.run([sys.executable, "-m", f"tasks.{stage}"], cwd=root, env=environment, check=True)
            run = json.loads((root / f"data/{stage}/run.json").read_text(encoding="utf-8"))
            print(f"{stage}: {run['peak_memory_mib']} MiB at most, {run['seconds']:.0f} s", flush=True)
        flush(root, environment)


if __name__ == "__main__":
    main()
