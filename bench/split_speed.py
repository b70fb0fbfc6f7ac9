"""How long stage ``split`` takes on many small images, and on photos that are scaled.

Makes 70,000 PNGs of 28×28 (seven noisy variants of the embedded images, in folders with a blank in their
names), or 5,000 JPEGs of 12 megapixels (200 different ones, linked 25 times), and runs ``split`` on them in a
process of its own. Nothing of it is kept::

    python -m bench.split_speed --runs 3
    python -m bench.split_speed --photos
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from bench.large_set import flush, write_project

EMBEDDED = Path(__file__).resolve().parents[1] / "data/fashion-mnist-10k"
VARIANTS, DIFFERENT, LINKS = 7, 200, 25
PHOTO = (4000, 3000)


def embedded() -> Iterator[tuple[str, str, NDArray[np.uint8]]]:
    """Part, class and pixels of the embedded images."""
    for part in ("train", "test"):
        for row in pq.read_table(EMBEDDED / f"{part}-00000-of-00001.parquet").to_pylist():
            with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
                yield part, f"class {row['label']}", np.asarray(image)


def write_small(folder: Path) -> int:
    """Write the small images; return how many there are."""
    rng = np.random.default_rng(0)
    count = 0
    for number, (part, label, pixels) in enumerate(embedded()):
        (folder / part / label).mkdir(parents=True, exist_ok=True)
        for variant in range(VARIANTS):
            noise = rng.integers(-20, 21, pixels.shape) * (variant > 0)
            noisy = np.clip(pixels.astype(int) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(folder / part / label / f"{variant}-{number:05}.png")
            count += 1
    return count


def write_photos(folder: Path) -> int:
    """Write the photos, soft noise with some grain; return how many there are."""
    rng = np.random.default_rng(0)
    for number in range(DIFFERENT):
        small = Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8))
        large = np.asarray(small.resize(PHOTO, Image.Resampling.BICUBIC)).astype(np.int16)
        grain = rng.integers(-6, 7, large.shape, dtype=np.int16)
        photo = Image.fromarray(np.clip(large + grain, 0, 255).astype(np.uint8))
        for link in range(LINKS):
            part = "test" if link % 5 == 0 else "train"
            file = folder / part / f"class {number % 10}" / f"{link:02}-{number:03}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            if link == 0:
                first = file
                photo.save(file, quality=75)
            else:
                os.link(first, file)
    return DIFFERENT * LINKS


def timed(root: Path, changes: dict[str, Any]) -> tuple[float, int]:
    """Seconds of the whole command, and its peak memory in MiB."""
    write_project(root, changes)
    environment = {**os.environ, "PYTHONPATH": str(root), "EXPUNGE_KEYS": f"{root}-keys"}
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-m", "tasks.split"], cwd=root, env=environment, check=True)
    seconds = time.perf_counter() - begin
    flush(root, environment)
    return seconds, json.loads((root / "data/split/run.json").read_text())["peak_memory_mib"]


def main() -> None:
    """Make the images, run ``split`` so many times, print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--photos", action="store_true", help="photos of 12 megapixels, resize: 224")
    parser.add_argument("--runs", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        images = Path(name) / "images"
        count = (write_photos if arguments.photos else write_small)(images)
        size = sum(file.stat().st_size for file in images.rglob("*.*g")) / count
        print(f"{count} images, {size / 1000:.1f} kB each", flush=True)
        changes = {"path": str(images), "resize": 224 if arguments.photos else None}
        for run in range(arguments.runs):
            root = Path(name) / f"run-{run}"
            root.mkdir()
            seconds, memory = timed(root, changes)
            print(f"split: {seconds:.1f} s, {memory} MiB at most", flush=True)


if __name__ == "__main__":
    main()
