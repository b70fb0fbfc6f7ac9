"""A table beside a folder of images."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core.errors import ExpungeError
from tasks.datasets.table import remove, table
from tasks.samples.check import check
from tasks.samples.image_set import ImageSet
from tests.datasets.building import colour, reading, write_image


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve images in a folder, no table yet."""
    for number in range(12):
        write_image(tmp_path / f"photos/img/{number:02d}.png", colour(number))
    return tmp_path / "photos"


def rows(count: int = 12) -> list[list[Any]]:
    return [[f"img/{number:02d}.png", ("cat", "dog", "ant")[number % 3]] for number in range(count)]


def write(file: Path, head: str, cells: list[list[Any]], delimiter: str = ",") -> None:
    lines = [head.replace(",", delimiter), *(delimiter.join(map(str, row)) for row in cells)]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read(path: Path, **settings: Any) -> ImageSet:
    return check(table(path, reading(**settings)), str(path))


def write_parquet(file: Path, names: tuple[str, ...], cells: list[list[Any]]) -> None:
    columns = map(list, zip(*cells, strict=True))
    pq.write_table(pa.table(dict(zip(names, columns, strict=True))), file)


def refusal(path: Path, **settings: Any) -> str:
    with pytest.raises(ExpungeError) as caught:
        read(path, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "CSV"])
def test_a_table_of_paths_and_labels_is_read(photos: Path, kind: str) -> None:
    file = photos / f"labels.{kind}"
    if kind == "parquet":
        pq.write_table(
            pa.table(dict(zip(("path", "label"), map(list, zip(*rows(), strict=True)), strict=True))), file
        )
    else:
        write(file, "path,label", rows(), "\t" if kind == "tsv" else ",")
    of = read(photos)
    assert of.classes == ("ant", "cat", "dog")
    assert of.sample_ids == tuple(f"img/{number:02d}.png" for number in range(12))
    assert of.labels.tolist() == [1, 2, 0] * 4
    assert np.array_equal(of.images[7], colour(7).transpose(2, 0, 1))
    assert (of.has_test, of.is_val, of.subjects) == (False, None, None)


def test_parts_and_people_are_read(photos: Path) -> None:
    parts = ["train"] * 7 + ["validation", "Test", "test", "val", "train"]
    cells = [
        [*row, part, f"crm:{number % 4}"]
        for number, (row, part) in enumerate(zip(rows(), parts, strict=True))
    ]
    write(photos / "labels.csv", "path,label,split,subject", [*cells, [*cells[2][:3], "crm:9"]])
    of = read(photos)
    assert np.flatnonzero(of.is_test).tolist() == [8, 9]
    assert of.is_val is not None
    assert np.flatnonzero(of.is_val).tolist() == [7, 10]
    assert of.subjects is not None
    assert of.subjects[2] == ("crm:2", "crm:9")


def test_labels_that_are_numbers_are_classes_in_the_order_of_numbers(photos: Path) -> None:
    write(photos / "labels.csv", "path,label", [[row[0], (10, 9, 2)[n % 3]] for n, row in enumerate(rows())])
    of = read(photos)
    assert of.classes == ("2", "9", "10")
    assert of.labels[:3].tolist() == [2, 1, 0]


def test_paths_may_be_absolute_below_a_root_or_written_for_windows(photos: Path) -> None:
    cells = rows()
    cells[0][0] = str(photos / "img/00.png")
    cells[1][0] = r"img\01.png"
    cells[2][0] = "./img/../img/02.png"
    write(photos / "labels.csv", "path,label", cells)
    assert read(photos).sample_ids[:3] == ("img/00.png", "img/01.png", "img/02.png")
    write(photos / "labels.csv", "file_name,label", [[row[0].removeprefix("img/"), row[1]] for row in rows()])
    assert read(photos, root="img").sample_ids[0] == "img/00.png"


@pytest.mark.parametrize("path", ["../out.png", "/etc/passwd", "img/../../out.png", ""])
def test_a_path_that_leaves_the_root_is_refused_with_its_line(photos: Path, path: str) -> None:
    write_image(photos.parent / "out.png", colour())
    cells = rows()
    cells[3][0] = path
    write(photos / "labels.csv", "path,label", cells)
    assert f"{photos / 'labels.csv'}, line 5: path {path!a}; one below {photos} is right" in refusal(photos)


def test_a_link_that_leaves_the_folder_and_a_missing_file_are_named_together(photos: Path) -> None:
    write_image(photos.parent / "out.png", colour())
    (photos / "img/03.png").unlink()
    (photos / "img/03.png").symlink_to(photos.parent / "out.png")
    (photos / "img/05.png").unlink()
    write(photos / "labels.csv", "path,label", rows())
    message = refusal(photos)
    assert "2 unusable file(s): img/03.png" in message
    assert "img/03.png, line 5 of labels.csv (link that leaves the folder)" in message
    assert "img/05.png, line 7 of labels.csv (is not there)" in message


@pytest.mark.parametrize(
    ("head", "row", "message"),
    [
        (
            "path,label,split",
            ["img/00.png", "cat", "holdout"],
            "line 14: split 'holdout'; train, val or test is right",
        ),
        ("path,label", ["img/00.png", "dog"], "line 14: 'img/00.png' is listed before, at 2"),
        ("path,label", ["img/00.png", "cat"], "line 14: 'img/00.png' is listed before, at 2"),
        ("path,label", ["img/00.png", ""], "line 14: no label"),
        ("path,label", ["img/00.png"], "line 14: 1 cells; the header has 2"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_by_line(
    photos: Path, head: str, row: list[str], message: str
) -> None:
    cells = [[*each, "train"][: head.count(",") + 1] for each in rows()]
    write(photos / "labels.csv", head, [*cells, row])
    assert message in refusal(photos)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("picture,label", "image_name, image); found picture, label"),
        ("path,kind", "has no column of labels (label, labels, fine_label, coarse_label); found path, kind"),
        ("path,path", "two columns have the same name"),
    ],
)
def test_a_table_without_the_columns_is_refused_with_those_found(
    photos: Path, head: str, message: str
) -> None:
    write(photos / "labels.csv", head, rows())
    assert message in refusal(photos)
    if head == "path,kind":
        assert read(photos, label_column="kind").classes == ("ant", "cat", "dog")


def test_which_table_is_meant_is_not_guessed(photos: Path) -> None:
    assert "holds no table; set split.table" in refusal(photos)
    for name in ("a.csv", "b.csv"):
        write(photos / name, "path,label", rows())
    assert "holds a.csv, b.csv; set split.table" in refusal(photos)
    assert len(read(photos, table="b.csv").labels) == 12
    assert "split.table: " in refusal(photos, table="c.csv")


def test_a_table_from_a_spreadsheet_with_a_mark_and_blanks_is_read(photos: Path) -> None:
    lines = ["path,label", *(f"{path}, {label} " for path, label in rows())]
    (photos / "labels.csv").write_bytes(("\ufeff" + "\r\n".join(lines) + "\r\n").encode())
    assert read(photos).classes == ("ant", "cat", "dog")


@pytest.mark.parametrize("separator", [";", "\t", ","])
def test_a_spreadsheet_of_any_country_is_read_and_written_back_as_it_was(
    photos: Path, separator: str
) -> None:
    cells = [[path, label, f"crm:{number}"] for number, (path, label) in enumerate(rows())]
    write(photos / "labels.csv", " Image_Path,Label ,SUBJECT", cells, separator)
    found = read(photos)
    assert (found.classes, found.subjects[:1] if found.subjects else None) == (
        ("ant", "cat", "dog"), (("crm:0",),),
    )  # fmt: skip
    before = (photos / "labels.csv").read_text().splitlines()
    remove(photos, ["img/04.png"], reading())
    assert (photos / "labels.csv").read_text().splitlines() == [*before[:5], *before[6:]]


@pytest.mark.parametrize("others", ["0", "12"])
def test_a_number_below_zero_is_no_label_unless_labels_are_names(photos: Path, others: str) -> None:
    cells = [[path, others] for path, _ in rows()]
    cells[3][1] = "-1"
    write(photos / "labels.csv", "path,label", cells)
    assert "labels.csv, line 5: label -1; numbers from 0, or names, are right" in refusal(photos)
    cells[4][1] = "cat"
    write(photos / "labels.csv", "path,label", cells)
    assert read(photos).classes == tuple(sorted({"-1", others, "cat"}))


def test_a_name_in_another_form_of_unicode_is_the_file(photos: Path) -> None:
    stored = unicodedata.normalize("NFD", "img/café.png")
    write_image(photos / stored, colour(50))
    write(photos / "labels.csv", "path,label", [*rows(), [unicodedata.normalize("NFC", stored), "cat"]])
    assert stored in read(photos).sample_ids


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_what_is_erased_leaves_the_folder_and_the_table_and_classes_stay(photos: Path, kind: str) -> None:
    file = photos / f"labels.{kind}"
    parts = ["train"] * 9 + ["test"] * 3
    cells = [[*row, part, "kept, with a comma"] for row, part in zip(rows(), parts, strict=True)]
    if kind == "csv":
        write(file, "path,label,split,note", [[*row[:3], f'"{row[3]}"'] for row in cells])
    else:
        write_parquet(file, ("path", "label", "split", "note"), cells)
    before = read(photos)
    gone = [
        *(f"img/{number:02d}.png" for number in (2, 5, 8)),
        *(f"img/{number:02d}.png" for number in (9, 10, 11)),
    ]
    assert set(remove(photos, gone, reading())) == {*(photos / name for name in gone), file}
    after = read(photos)
    assert after.classes == before.classes  # class ant has no training image any more
    assert after.has_test  # it is empty, and not taken anew
    assert after.sample_ids == tuple(f"img/{number:02d}.png" for number in (0, 1, 3, 4, 6, 7))
    content = file.read_bytes()
    assert b"11.png" not in content
    assert content.count(b"kept, with a comma") >= (6 if kind == "csv" else 1)
    assert remove(photos, gone, reading()) == []
    assert not any(b"11.png" in each.read_bytes() for each in photos.rglob("*") if each.is_file())
