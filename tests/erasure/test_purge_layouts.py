"""A purge in every layout of images, with every way in which DVC lays files into the working tree."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.core import dvc_cache
from tasks.core.params import load
from tasks.datasets import SOURCES
from tasks.erasure.purge import verify
from tasks.requests.keys import KeyStore
from tests.datasets.building import encoded, grey, write_hub_file, write_image
from tests.erasure.test_purge import Project, files
from tests.functional.repository import Repository, environment

COUNT = 24


def picture(number: int) -> Any:
    return grey(number, 8, 8)


def write_table(folder: Path) -> str:
    rows = []
    for number in range(COUNT):
        write_image(folder / f"photos/{number:02d}.png", picture(number))
        rows.append([f"photos/{number:02d}.png", f"class {number % 2}", f"crm:{number}"])
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "subject"], *rows])
    return "photos/{:02d}.png"


def write_folders(folder: Path) -> str:
    lines = ["path,subject"]
    for number in range(COUNT):
        name = f"train/{number % 2}/{number:02d}.png"
        write_image(folder / name, picture(number))
        lines.append(f"{name},crm:{number}")
    (folder / "subjects.csv").write_text("\n".join([*lines, ""]))
    return "train/{parity}/{:02d}.png"


def write_hub(folder: Path) -> str:
    for start in (0, COUNT // 2):
        numbers = range(start, start + COUNT // 2)
        write_hub_file(
            folder / f"data/train-{2 * start // COUNT:05d}-of-00002.parquet",
            [encoded(picture(number)) for number in numbers],
            [("no", "yes")[number % 2] for number in numbers],
            paths=[f"{number:02d}.png" for number in numbers],
        )
    return "train/{:02d}.png"


LAYOUTS: dict[str, tuple[str, Callable[[Path], str]]] = {
    "table": ("table", write_table),
    "subjects": ("image_folder", write_folders),
    "hub": ("parquet", write_hub),
}


def name_of(pattern: str, number: int) -> str:
    return pattern.replace("{parity}", str(number % 2)).format(number)


@pytest.fixture
def project(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Project, str]:
    layout, link = request.param
    source, write = LAYOUTS[layout]
    for name in [name for name in os.environ if name.startswith(("EXPUNGE_", "DVC_", "GIT_"))]:
        monkeypatch.delenv(name)
    folder = tmp_path / "project"
    folder.mkdir()
    repository = Repository(folder, environment(tmp_path))
    repository.environment["EXPUNGE_KEYS"] = str(tmp_path / "keys")
    repository.create()
    shutil.rmtree(folder / "data/source")
    pattern = write(folder / "data/images")
    repository.change({"split.source": source, "split.path": "data/images", "split.val_fraction": 0.2})
    repository.dvc("config", "cache.type", link)
    repository.dvc("remote", "add", "--default", "store", "../store")
    repository.dvc("add", "--quiet", "data/images")
    repository.dvc("repro", "--quiet", "split")
    repository.commit("images that DVC tracks")
    repository.dvc("push", "--quiet", "--run-cache")
    for name, value in repository.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.chdir(folder)
    dvc_cache.folder.cache_clear()
    return Project(repository, KeyStore(tmp_path / "keys", folder)), pattern


@pytest.mark.parametrize(
    "project",
    [
        ("table", "symlink"),
        pytest.param(("subjects", "hardlink"), marks=pytest.mark.long),
        pytest.param(("hub", "symlink"), marks=pytest.mark.long),
    ],
    indirect=True,
)
def test_what_is_erased_leaves_every_store_and_a_clone_gets_the_rest(
    project: tuple[Project, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of, pattern = project
    section = load().split
    read = SOURCES.get(section.source)
    before = read(Path(section.path), section)
    samples = [line.split(",") for line in Path("data/split/samples.csv").read_text().splitlines()[1:]]
    of_name = {name_of(pattern, number): number for number in range(COUNT)}
    assert of_name.keys() == {row[0] for row in samples}
    gone = [row[0] for row in samples if row[3] == "train"][2:4]
    request = of.promoted(*gone)
    checklist = of.purge().carry_out([request])
    request = of.record(request, checklist)
    assert checklist.open == ()
    assert of.repository.git("status", "--porcelain", "-uno") == ""
    status = of.repository.dvc("status")
    assert "data/images" not in status, status
    after = read(Path(section.path), section)
    assert set(before.sample_ids) - set(after.sample_ids) == set(gone)
    assert after.classes == before.classes
    with monkeypatch.context() as patch:
        patch.chdir(
            of.clone(tmp_path / "clone").root
        )  # DVC's links lead into the cache of the project at work
        at_clone = read(Path(section.path), section)
    assert (at_clone.sample_ids, at_clone.classes) == (after.sample_ids, after.classes)
    for folder in (of.root / ".dvc/cache", of.store, of.root / "data"):
        for path, content in files(folder).items():
            assert encoded(picture(of_name[gone[0]])) not in content, path
            assert f"crm:{of_name[gone[1]]}\n".encode() not in content, path
    assert [line for line in verify(of.purge(), [request]) if not line.holds] == []
