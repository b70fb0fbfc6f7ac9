from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tasks.core.errors import ExpungeError
from tasks.core.files import only_writer
from tasks.requests.catalogue import Catalogue, names_of
from tasks.requests.schema import Kind, Named


def test_a_sample_is_found_by_every_name(catalogue: Catalogue) -> None:
    names: list[tuple[Kind, str | int]] = [("id", "train/3.png"), ("path", "train.parquet#3"), ("index", 3)]
    for kind, value in names:
        assert list(catalogue.ids(Named(kind, value, 0))) == ["train/3.png"]
        assert catalogue.problem(Named(kind, value, 0)) is None


def test_a_class_means_its_training_and_validation_samples(catalogue: Catalogue) -> None:
    assert list(catalogue.ids(Named("class", "dog", 0))) == [
        f"train/{row}.png" for row in (1, 3, 5, 7, 9, 11)
    ]


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        ("id", "train/99.png", "is no sample id"),
        ("id", " train/3.png", "blanks at its ends"),
        ("id", "../train/3.png", "is no sample id"),
        ("id", "train/3.PNG", "is no sample id"),
        ("id", "test/0.png", "is a test sample"),
        ("path", "train/3.png", "is no file or row of the source"),
        ("path", "test.parquet#0", "is a test sample"),
        ("index", 12, "is no row of the source's training part"),
        ("class", "cow", "is no class"),
        ("class", "Cat", "is no class"),
    ],
)
def test_a_name_that_means_nothing_says_why(
    catalogue: Catalogue, kind: Kind, value: str | int, reason: str
) -> None:
    assert list(catalogue.ids(Named(kind, value, 0))) == []
    assert reason in str(catalogue.problem(Named(kind, value, 0)))


def test_a_row_of_two_files_is_ambiguous(root: Path) -> None:
    with Path("data/split/samples.csv").open("a") as file:
        file.write("train/x.png,more.parquet#3,0,train\n")
    problem = Catalogue.load().problem(Named("index", 3, 0))
    assert problem == "is a row of 2 files; use path, such as train.parquet#3"


def test_a_source_of_files_has_no_rows() -> None:
    assert names_of("train/cat/#1.png", "train/cat/#1.png") == [
        ("id", "train/cat/#1.png"), ("path", "train/cat/#1.png"),
    ]  # fmt: skip
    assert names_of("a", "train#00012")[-1] == ("index", "12")


def test_without_a_split_the_message_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ExpungeError, match="dvc repro split"):
        Catalogue.load(tmp_path)


def test_a_split_that_is_being_made_is_waited_for(root: Path) -> None:
    path = root / "data/split/samples.csv"
    text = path.read_text()
    path.unlink()
    with pytest.raises(ExpungeError, match="is missing"):  # nobody makes it
        Catalogue.load()
    with only_writer(Path("data/split")):
        timer = threading.Timer(1.0, path.write_text, [text])
        timer.start()
        assert Catalogue.load().ids(Named("id", "train/3.png", 0)) == ["train/3.png"]
        timer.join()
        path.unlink()
        with pytest.raises(ExpungeError, match="is missing"):
            Catalogue.load(patience=1.0)
