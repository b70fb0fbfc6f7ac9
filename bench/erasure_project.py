"""Random projects for the campaign: real Git and DVC repositories, a few small images, a small model."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from ruamel.yaml import YAML

from bench.erasure_effects import dvc, program
from bench.erasure_facts import Facts, Sample

CODE = Path(__file__).resolve().parents[1]
CLASSES, IMAGES = 3, {"train": 18, "test": 5}
"""Classes, and images of each."""

SOURCES = ("folder", "folder-dvc", "folder-below", "parquet", "parquet-dvc", "parquet-git")
"""An image folder that Git ignores, that DVC tracks, or below a folder that DVC tracks; Parquet files."""

TRACKED = {"folder-dvc": "data/images", "folder-below": "data/pictures", "parquet-dvc": "data/images"}

SETTINGS: dict[str, Any] = {
    "split.resize": None,
    "split.forget.fraction": 0.1,
    "train.recipe.epochs": 1,
    "train.recipe.batch_size": 16,
    "finetune.recipe.epochs": 1,
    "runtime.threads": 1,
    "requests.val_acc_loss": 0.99,
    "requests.val_acc_loss_total": 0.99,
}


@dataclass(frozen=True, slots=True)
class Shape:
    """What a project is like.

    ``fetched``: stages of the user's own have brought annotations and second data set. ``tracked``: MLflow
    records the runs.
    """

    source: str
    remote: bool
    neighbour: bool
    twins: int
    annotations: bool
    second_set: bool
    link: bool
    ids_file: bool
    notes: bool
    fetched: bool
    tracked: bool
    settings: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        told = [self.source] + [name for name, value in asdict(self).items() if value is True]
        told += [f"{self.twins} twins"] if self.twins else []
        return ", ".join(told + [f"{key.partition('.')[2]}={value}" for key, value in self.settings.items()])


def draw(rng: random.Random) -> Shape:
    """Draw a shape."""
    source = rng.choice(SOURCES)
    methods: list[list[str]] = [[], [], ["none"], ["reinit", "none"]]
    return Shape(
        source=source,
        remote=rng.random() < 0.7,
        neighbour=rng.random() < 0.5,
        twins=rng.choice([0, 0, 1, 2, 3]),
        annotations=rng.random() < 0.5,
        second_set=rng.random() < 0.4,
        link=source.startswith("folder") and rng.random() < 0.25,
        ids_file=rng.random() < 0.25,
        notes=rng.random() < 0.3,
        fetched=rng.random() < 0.4,
        tracked=False,
        settings={
            "requests.batch_size": rng.choice([1, 1, 1, 4]),
            "requests.batch_limit": rng.choice([5000, 5000, 3]),
            "requests.chain": rng.choice(methods),
            "requests.inconclusive": rng.choice(["exact", "promote"]),
            "requests.approval": rng.random() < 0.2,
            "requests.retries": rng.choice([0, 1, 2]),
        },
    )


@dataclass
class Project:
    """A project in a folder of its own, with what the oracle must know of it."""

    home: Path
    shape: Shape
    facts: Facts
    environ: dict[str, str]
    pointer: str | None = None
    """What DVC is told to add when the images have changed."""

    @property
    def root(self) -> Path:
        """The checkout."""
        return self.home / "project"

    @property
    def source(self) -> Path:
        """The images, below the checkout."""
        return Path(source_of(self.shape))

    def git(self, *arguments: str, quiet: bool = True) -> str:
        """Run Git in the checkout."""
        return program("git", *arguments, cwd=self.root, environ=self.environ, quiet=quiet)

    def commit(self, message: str) -> None:
        """Commit all that Git does not ignore, if there is anything."""
        self.git("add", "--all")
        if self.git("status", "--porcelain"):
            self.git("commit", "--quiet", "--no-verify", "--message", message)

    def change(self, values: Mapping[str, Any]) -> None:
        """Set parameters by their dotted names."""
        change(self.root / "params.yaml", values)


def source_of(shape: Shape) -> str:
    """``split.path`` of a shape."""
    return "data/pictures/images" if shape.source == "folder-below" else "data/images"


def change(path: Path, values: Mapping[str, Any]) -> None:
    """Set parameters in a file by their dotted names."""
    yaml = YAML()
    params = yaml.load(path)
    for name, value in values.items():
        *sections, key = name.split(".")
        section = params
        for part in sections:
            section = section[part]
        section[key] = value
    yaml.dump(params, path)


def environment(home: Path) -> dict[str, str]:
    """Environment of somebody who has nothing set up: neither Git's nor DVC's own settings."""
    dropped = ("EXPUNGE_", "DVC_", "GIT_", "PREFECT_", "MLFLOW_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    identity = {
        f"GIT_{who}_{what}": value
        for who in ("AUTHOR", "COMMITTER")
        for what, value in {"NAME": "Someone", "EMAIL": "someone@example.org"}.items()
    }
    return {
        **kept,
        **identity,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}",
        "PYTHONPATH": str(home / "project"),
        "OMP_NUM_THREADS": "1",
        "EXPUNGE_TRACKING": "off",
        "EXPUNGE_KEYS": str(home / "keys"),
        "TMPDIR": str(home / "tmp"),
        "DVC_NO_ANALYTICS": "1",
        "DVC_GLOBAL_CONFIG_DIR": str(home / "dvc-global"),
        "DVC_SYSTEM_CONFIG_DIR": str(home / "dvc-system"),
        "DVC_SITE_CACHE_DIR": str(home / "dvc-site"),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
    }


@cache
def _digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    loaded = load_digits()
    return np.round(loaded.images * (255 / 16)).astype(np.uint8), loaded.target.astype(np.int64)


def encoded(pixels: NDArray[np.uint8], form: str = "PNG") -> bytes:
    """An image file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format=form)
    return file.getvalue()


def lay_out(home: Path) -> None:
    """Make the checkout's code and settings, with a first commit; before anything is drawn."""
    root = home / "project"
    for folder in ("tmp", "keys", "dvc-site"):
        (home / folder).mkdir(parents=True)
    shutil.copytree(CODE / "tasks", root / "tasks", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(CODE / ".dvc/plots", root / ".dvc/plots")
    ignores = [path.relative_to(CODE).as_posix() for path in (CODE / "data").glob("*/.gitignore")]
    ignores += [path.relative_to(CODE).as_posix() for path in (CODE / "data").glob("requests/*/.gitignore")]
    for name in (
        "dvc.yaml", "params.yaml", ".dvcignore", ".gitignore", ".dvc/config", ".dvc/.gitignore",
        "data/forget.txt", "docs/examples/my_model.py",
        *(f"data/requests/{path.name}" for path in (CODE / "data/requests").iterdir() if path.is_file()),
        *ignores,
    ):  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CODE / name, root / name)


def build(home: Path, shape: Shape, rng: random.Random) -> Project:
    """Make a project: its data, the projects and files around it; not yet its model."""
    lay_out(home)
    facts = Facts(root=home / "project", home=home, source=source_of(shape))
    project = Project(home, shape, facts, environment(home), TRACKED.get(shape.source))
    if shape.tracked:
        del project.environ["EXPUNGE_TRACKING"]
    root = project.root
    samples = _draw_samples(shape, rng)
    writer = _write_folder if shape.source.startswith("folder") else _write_parquet
    facts.samples = {sample.id: sample for sample in writer(facts, shape, samples, rng)}
    project.change(
        SETTINGS
        | {"split.source": "image_folder" if shape.source.startswith("folder") else "parquet"}
        | {"split.path": source_of(shape)}
        | shape.settings
    )
    config = "[core]\n    analytics = false\n"
    if shape.remote:
        facts.remote = home / "remote"
        facts.remote.mkdir()
        config += "    remote = store\n['remote \"store\"']\n    url = ../../remote\n"
    facts.cache = home / "cache" if shape.neighbour else root / ".dvc/cache"
    if shape.neighbour:
        config += "[cache]\n    dir = ../../cache\n"
    (root / ".dvc/config").write_text(config)
    if project.pointer is None and shape.source != "parquet-git":
        with (root / ".gitignore").open("a") as file:
            file.write("/data/images/\n")
    facts.tracked_by = "git" if shape.source == "parquet-git" else "dvc" if project.pointer else "nobody"
    program("git", "init", "--quiet", "--initial-branch=main", cwd=root, environ=project.environ)
    _around(project, rng)
    return project


def _draw_samples(shape: Shape, rng: random.Random) -> list[tuple[str, int, NDArray[np.uint8]]]:
    """Part, label and pixels of every sample; twins at the end."""
    images, targets = _digits()
    drawn = []
    for label in range(CLASSES):
        rows = rng.sample(np.flatnonzero(targets == label).tolist(), sum(IMAGES.values()))
        parts = [part for part, count in IMAGES.items() for _ in range(count)]
        drawn += [(part, label, images[row]) for part, row in zip(parts, rows, strict=True)]
    unique: dict[bytes, tuple[str, int, NDArray[np.uint8]]] = {}
    for each in drawn:
        unique.setdefault(each[2].tobytes(), each)
    samples = list(unique.values())
    trained = [each for each in samples if each[0] == "train"]
    for part, label, pixels in rng.sample(trained, shape.twins):
        samples.append((rng.choice([part, part, "test"]), label, pixels))
    return samples


def _token(rng: random.Random) -> str:
    """A name that stands nowhere by chance."""
    return f"q{rng.getrandbits(44):011x}"


def _write_folder(
    facts: Facts, shape: Shape, drawn: list[tuple[str, int, NDArray[np.uint8]]], rng: random.Random
) -> list[Sample]:
    root = facts.root
    folder, samples = root / source_of(shape), []
    for part, label, pixels in drawn:
        below = rng.choice(["", "", "", "batch 2/"])
        sample_id = f"{part}/{label}/{below}{_token(rng)}.png"
        content = encoded(pixels)
        (folder / sample_id).parent.mkdir(parents=True, exist_ok=True)
        (folder / sample_id).write_bytes(content)
        samples.append(
            _sample(sample_id, part, label, f"{source_of(shape)}/{sample_id}", None, pixels, content)
        )
    if shape.link:
        target = next(each for each in samples if each.part == "train")
        sample_id = f"train/{target.label}/{_token(rng)}.png"
        link = folder / sample_id
        link.symlink_to(os.path.relpath(root / target.file, link.parent))
        pixels = np.frombuffer(target.pixels, np.uint8).reshape(8, 8)
        facts.links[sample_id] = target.id
        samples.append(
            _sample(
                sample_id,
                "train",
                target.label,
                f"{source_of(shape)}/{sample_id}",
                None,
                pixels,
                target.content,
            )
        )
    return samples


def _write_parquet(
    facts: Facts, shape: Shape, drawn: list[tuple[str, int, NDArray[np.uint8]]], rng: random.Random
) -> list[Sample]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder, samples = facts.root / source_of(shape), []
    folder.mkdir(parents=True)
    named = rng.random() < 0.6
    rng.shuffle(drawn)
    for part, count in (("train", 1 if shape.source == "parquet-git" else rng.choice([1, 3])), ("test", 1)):
        mine = [each for each in drawn if each[0] == part]
        copies: dict[str, int] = {}
        for number in range(count):
            file = f"{part}-{number:05}-of-{count:05}.parquet"
            rows, labels = [], []
            for row, (_, label, pixels) in enumerate(mine[number::count]):
                content = encoded(pixels)
                digest = hashlib.sha256(content).hexdigest()[:16]
                copies[digest] = copies.get(digest, 0) + 1
                suffix = "" if copies[digest] == 1 else f"-{copies[digest]}"
                name = f"{_token(rng)}.png" if named else None
                sample_id = f"{part}/{name or digest + suffix}"
                samples.append(
                    _sample(sample_id, part, label, f"{source_of(shape)}/{file}", row, pixels, content)
                )
                rows.append({"bytes": content, "path": name})
                labels.append(label)
            image = pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
            table = pa.table({"image": image, "label": pa.array(labels, pa.int64())})
            pq.write_table(table, folder / file, row_group_size=16)
    return samples


def _sample(
    sample_id: str,
    part: str,
    label: int,
    file: str,
    row: int | None,
    pixels: NDArray[np.uint8],
    content: bytes,
) -> Sample:
    return Sample(sample_id, part, label, file, row, pixels.tobytes(), content)


def _around(project: Project, rng: random.Random) -> None:
    """Write what does not belong to the images, and must be left alone whatever is erased.

    All of it is in cache and remote before the images are, so what is there then is what must stay.
    """
    root, shape, facts = project.root, project.shape, project.facts
    ids = list(facts.samples)
    apart = []
    if shape.annotations:
        _annotations(root / "data/annotations.csv", facts, rng)
        apart.append("data/annotations.csv")
    if shape.second_set:
        images, _ = _digits()
        for sample in facts.samples.values():
            place = root / "data/others" / sample.id
            place.parent.mkdir(parents=True, exist_ok=True)
            pixels = 255 - images[rng.randrange(len(images))]
            same = rng.random() < 0.1
            place.write_bytes(sample.content if same else encoded(pixels))
            if same:
                facts.elsewhere.add(sample.id)
        apart.append("data/others")
    if shape.notes:
        (root / "data/notes.txt").write_text(f"ask about {rng.choice(ids)}\n")
        facts.protect(root / "data/notes.txt")
    if shape.ids_file:
        mine = [sample.id for sample in facts.samples.values() if sample.part == "train"]
        (root / "data/mine.txt").write_text("".join(f"{each}\n" for each in rng.sample(mine, 4)))
        forget = {"kind": "ids", "ids_file": "data/mine.txt", "fraction": None}
        project.change({f"split.forget.{key}": value for key, value in forget.items()})
        facts.protect(root / "data/mine.txt")
    if shape.source == "folder-below":
        (root / "data/pictures/licence.txt").write_text("ours\n")
        facts.protect(root / "data/pictures/licence.txt")
    theirs = [*apart, *([project.pointer] if project.pointer else [])]  # DVC's, not Git's
    project.git("add", "--", ".", *(f":(exclude){name}" for name in theirs))
    project.git("commit", "--quiet", "--message", "the project")
    if shape.neighbour:
        _neighbour(project, rng)
    if apart and shape.fetched:
        _fetch(project, apart)
    elif apart:
        dvc_in(project, "add", "--quiet", *apart)
        for name in apart:
            facts.protect(root / name, root / f"{name}.dvc")
        if facts.remote:
            dvc_in(project, "push", "--quiet", *apart)
    facts.protect(facts.cache, *([facts.remote] if facts.remote else []))
    if project.pointer:
        dvc_in(project, "add", "--quiet", project.pointer)
    project.commit("data")


def _fetch(project: Project, places: Sequence[str]) -> None:
    """Let stages of the user's own bring what does not belong to the images, as from a download."""
    for place in places:
        away = project.home / "fetched" / place
        away.parent.mkdir(parents=True, exist_ok=True)
        (project.root / place).rename(away)
        stage = ["--name", f"fetch-{Path(place).stem}", "--outs", place, f"cp -r {away} {place}"]
        dvc_in(project, "stage", "add", "--run", *stage)
        project.facts.protect(project.root / place)
        if project.facts.remote:
            dvc_in(project, "push", "--quiet", stage[1])


def _annotations(path: Path, facts: Facts, rng: random.Random) -> None:
    lines = [f"{sample.id},{sample.label},{rng.random():.3f}\n" for sample in facts.samples.values()]
    path.write_text("id,label,quality\n" + "".join(lines))


def _neighbour(project: Project, rng: random.Random) -> None:
    """Another project: equal file names, its own images and stages, the same cache and remote."""
    root = project.home / "neighbour"
    (root / ".dvc").mkdir(parents=True)
    (root / ".dvc/config").write_text((project.root / ".dvc/config").read_text())
    program("git", "init", "--quiet", "--initial-branch=main", cwd=root, environ=project.environ)
    images, _ = _digits()
    rows, names = [], []
    for sample in project.facts.samples.values():
        place = root / "raw" / sample.id
        place.parent.mkdir(parents=True, exist_ok=True)
        pixels = 255 - images[rng.randrange(len(images))]
        place.write_bytes(encoded(pixels))
        rows.append(pixels)
        names.append(sample.id)
    np.save(root / "raw/images.npy", np.stack(rows)[:, None])
    (root / "raw/samples.csv").write_text("sample_id\n" + "".join(f"{name}\n" for name in names))
    (root / "raw/weights.safetensors").write_bytes(_safetensors(rng))
    outs = ["images.npy", "samples.csv", "weights.safetensors"]
    stage = {
        "cmd": "mkdir -p data/split && cp " + " ".join(f"raw/{name}" for name in outs) + " data/split/",
        "deps": ["raw"],
        "outs": [f"data/split/{name}" for name in outs],
    }
    (root / "dvc.yaml").write_text(json.dumps({"stages": {"split": stage}}))
    dvc_in(project, "add", "--quiet", "raw", cwd=root)
    dvc_in(project, "repro", "--quiet", cwd=root)
    if project.facts.remote:
        dvc_in(project, "push", "--quiet", cwd=root)
    project.facts.protect(root)


def _safetensors(rng: random.Random) -> bytes:
    values = np.array([rng.random() for _ in range(16)], np.float32).tobytes()
    head = json.dumps({"w": {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]}}).encode()
    return len(head).to_bytes(8, "little") + head + values


def dvc_in(project: Project, *arguments: str, cwd: Path | None = None) -> None:
    """Run a command of DVC in the project; raise if it fails."""
    done = dvc(*(each for each in arguments if each != "--quiet"), cwd=cwd or project.root)
    if done.returncode != 0:
        raise RuntimeError(f"dvc {' '.join(arguments)}: {done.stderr}")
