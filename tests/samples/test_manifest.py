from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tasks.core.errors import ExpungeError
from tasks.samples import shards
from tasks.samples.manifest import (
    LoadedSplit,
    Manifest,
    Samples,
    load_roles,
    load_samples,
    load_split,
)
from tasks.samples.mapped import Mapped

IDS = ("train/a,b.png", 'train/"q".png', "train/猫.png", " train/blank ", "test/1", "test/=1+1")
PARTS = ("train", "train", "val", "train", "test", "test")
ROLES = ("retain", "forget", "val", "retain", "test", "test")


def built() -> LoadedSplit:
    labels = np.array([0, 1, 0, 1, 0, 1])
    sources = tuple(f"source {index}" for index in range(6))
    images = np.random.default_rng(0).integers(0, 256, (6, 3, 4, 5), dtype=np.uint8)
    samples = Samples(IDS, sources, labels, np.array(PARTS))
    return LoadedSplit(images, samples, Manifest(IDS, sources, labels, np.array(ROLES)), ("cat", "dog"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    built().write(tmp_path / "split")
    return tmp_path / "split"


def test_a_split_comes_back_as_it_was_written(folder: Path) -> None:
    loaded, expected = load_split(folder), built()
    assert np.array_equal(loaded.images, expected.images)
    assert loaded.samples.sample_ids == loaded.manifest.sample_ids == IDS
    assert loaded.samples.sources == loaded.manifest.sources == expected.samples.sources
    assert np.array_equal(loaded.samples.labels, expected.samples.labels)
    assert loaded.samples.labels.dtype == np.int64
    assert loaded.samples.parts.tolist() == list(PARTS)
    assert loaded.manifest.roles.tolist() == list(ROLES)
    assert loaded.classes == ("cat", "dog")


def test_the_files_have_the_documented_columns(folder: Path) -> None:
    lines = (folder / "samples.csv").read_text(encoding="utf-8").split("\n")
    assert lines[:2] == ["sample_id,source,label,part", '"train/a,b.png",source 0,0,train']
    assert (folder / "manifest.csv").read_text(encoding="utf-8").split("\n")[
        0
    ] == "sample_id,source,label,role"


def test_indices_are_the_rows_of_a_group() -> None:
    split = built()
    assert split.manifest.indices("retain").tolist() == [0, 3]
    assert split.samples.indices("train").tolist() == [0, 1, 3]
    assert split.manifest.indices("test").dtype == np.int64
    assert len(split.manifest) == 6
    with pytest.raises(ValueError, match="'train' is no role; known: retain, forget, val, test"):
        split.manifest.indices("train")


def test_samples_load_without_a_manifest(folder: Path) -> None:
    (folder / "manifest.csv").unlink()
    assert load_samples(folder).samples.sample_ids == IDS
    with pytest.raises(ExpungeError, match=r"manifest\.csv is missing; .* dvc repro split"):
        load_roles(folder)


def test_roles_load_without_samples(folder: Path) -> None:
    (folder / "samples.csv").unlink()
    assert load_roles(folder).manifest.roles.tolist() == list(ROLES)


def test_images_can_be_mapped_instead_of_read(folder: Path) -> None:
    mapped = load_roles(folder, mmap=True).images
    assert isinstance(mapped, Mapped)
    assert np.array_equal(mapped, built().images)


def damage(folder: Path, name: str, old: str, new: str) -> None:
    text = (folder / name).read_text(encoding="utf-8")
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1), encoding="utf-8", newline="")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("sample_id,", "\ufeffsample_id,", "line 1: the header is not sample_id,source,label,role"),
        ("label,role", "role,label", "line 1: the header is not"),
        ("source 1,1,forget", "source 1", "line 3: 2 columns instead of 4"),
        ("1,forget", "1,forget,", "line 3: 5 columns instead of 4"),
        ("1,forget", "-1,forget", "line 3: label '-1' is no class number"),
        ("1,forget", "1_0,forget", "line 3: label '1_0'"),
        ("1,forget", " 1,forget", "line 3: label ' 1'"),
        ("1,forget", "٣,forget", "line 3: label '٣'"),
        ("1,forget", "1.0,forget", "line 3: label '1.0'"),
        ("1,forget", "true,forget", "line 3: label 'true'"),
        ("1,forget", ",forget", "line 3: label ''"),
        ("1,forget", "9999999999999999999999,forget", "line 3: label '9999"),
        ("1,forget", "1,forgotten", "line 3: role 'forgotten', known: retain, forget, val, test"),
        ("1,forget", "1,FORGET", "line 3: role 'FORGET'"),
        ("test/=1+1", "test/1", "line 7: sample id 'test/1' for the second time"),
        ("train/猫", '"train/猫', "line .*: "),
        ("train/猫", "train/\n猫", "line 4: 1 columns"),
        ("1,forget", "7,forget", r"has label 7, .*classes\.json only 2 classes"),
    ],
)
def test_a_damaged_table_is_refused_with_its_line(folder: Path, old: str, new: str, message: str) -> None:
    damage(folder, "manifest.csv", old, new)
    with pytest.raises(ExpungeError, match=rf"manifest\.csv.*{message}.*dvc checkout") as caught:
        load_roles(folder)
    assert "\n" not in str(caught.value)


def test_an_empty_table_and_one_that_is_not_utf8_are_refused(folder: Path) -> None:
    (folder / "manifest.csv").write_text("sample_id,source,label,role\n")
    with pytest.raises(ExpungeError, match="has no rows"):
        load_roles(folder)
    (folder / "manifest.csv").write_text("")
    with pytest.raises(ExpungeError, match="line 1: the header is not"):
        load_roles(folder)
    (folder / "manifest.csv").write_bytes(b"sample_id,source,label,role\n\xff,a,0,retain\n")
    with pytest.raises(ExpungeError, match="is not UTF-8 text: byte 28"):
        load_roles(folder)


def test_tables_of_different_splits_are_refused(folder: Path) -> None:
    damage(folder, "manifest.csv", "0,val", "0,test")
    with pytest.raises(ExpungeError, match="are of different splits"):
        load_split(folder)


def test_tables_that_the_images_do_not_fit_never_stay(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk in the midst of the shards leaves no images of one split beside tables of another."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    split, tables = built(), {"samples.csv", "manifest.csv"}
    monkeypatch.setattr(shards, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        split.write(folder)
    assert tables <= {path.name for path in folder.iterdir()}  # no shard was another
    with pytest.raises(OSError, match="No space"):
        replace(split, images=255 - np.asarray(split.images)).write(folder)
    assert tables.isdisjoint(path.name for path in folder.iterdir())


def test_a_table_of_other_samples_than_the_images_is_refused(folder: Path) -> None:
    damage(folder, "manifest.csv", "test/1,source 4,0,test\n", "")
    with pytest.raises(ExpungeError, match=r"slots\.csv names 6 samples, the table beside the images 5"):
        load_roles(folder)


@pytest.mark.parametrize("content", ['{"a": 1}', "[1, 2]", '"cat"'])
def test_class_names_must_be_a_list_of_names(folder: Path, content: str) -> None:
    (folder / "classes.json").write_text(content)
    with pytest.raises(ExpungeError, match="is not a list of class names"):
        load_samples(folder)


def test_columns_of_different_lengths_are_never_written(tmp_path: Path) -> None:
    manifest = replace(built().manifest, sources=("one",))
    with pytest.raises(ValueError, match="zip"):
        manifest.write(tmp_path / "manifest.csv")
    assert not list(tmp_path.iterdir())
