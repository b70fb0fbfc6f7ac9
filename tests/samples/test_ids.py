from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasks.core.errors import ExpungeError
from tasks.samples.ids import named_rows
from tests.datasets.building import image_set

SET = image_set([3, 3])
IDS = SET.sample_ids


def rows(tmp_path: Path, content: bytes) -> list[int]:
    file = tmp_path / "ids.txt"
    file.write_bytes(content)
    return [int(row) for row in named_rows(file, SET, "here")]


def test_ids_become_row_numbers(tmp_path: Path) -> None:
    assert rows(tmp_path, b"train/1/0\ntrain/0/2\n") == [IDS.index("train/1/0"), IDS.index("train/0/2")]


@pytest.mark.parametrize(
    "content",
    [
        b"train/0/1",
        b"train/0/1\r\n",
        b"\xef\xbb\xbftrain/0/1\n",
        b"# asked for on Monday\n\ntrain/0/1\n\n",
        b"\r\n#\r\ntrain/0/1\r\n",
    ],
)
def test_line_ends_byte_order_mark_comments_and_empty_lines_do_not_matter(
    tmp_path: Path, content: bytes
) -> None:
    assert rows(tmp_path, content) == [1]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("train/0/9", "is no sample id"),
        ("-1", "is no sample id"),
        ("0", "is no sample id"),
        ("../train/0/1", "is no sample id"),
        (" train/0/1", r"is no sample id \(blanks at its ends belong to it\)"),
        ("train/0/1\t", r"is no sample id \(blanks at its ends belong to it\)"),
        ("TRAIN/0/1", "is no sample id"),
        ("train/0/0", "repeats line 1"),
        ("test/0/0", "is a test sample; only training samples can be forgotten"),
        ("train/0/1\rtrain/0/2", "is no sample id"),
        ("train/0/\x00", "is no sample id"),
    ],
)
def test_a_bad_line_is_named_by_number_and_value(tmp_path: Path, line: str, problem: str) -> None:
    with pytest.raises(ExpungeError, match=rf"^here: .*ids\.txt: line 2 '.*' {problem}$"):
        rows(tmp_path, f"train/0/0\n{line}\n".encode())


def test_the_first_bad_lines_are_listed_together(tmp_path: Path) -> None:
    content = "\n".join(["train/0/0", *(f"x{index}" for index in range(9)), "test/0/0"])
    with pytest.raises(ExpungeError) as caught:
        rows(tmp_path, content.encode())
    message = str(caught.value)
    assert "line 2 'x0' is no sample id; line 3 'x1'" in message
    assert "line 6 'x4'" in message
    assert "x5" not in message
    assert message.endswith("; and 5 more")
    assert "\n" not in message


def test_a_long_line_does_not_flood_the_message(tmp_path: Path) -> None:
    with pytest.raises(ExpungeError) as caught:
        rows(tmp_path, b"x" * 100_000)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("content", [b"", b"\n\n", b"# nothing yet\n", b"\xef\xbb\xbf"])
def test_a_file_without_ids_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ExpungeError, match="names no sample; write one sample id a line"):
        rows(tmp_path, content)


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExpungeError, match="is not UTF-8 text: byte 3"):
        rows(tmp_path, b"abc\xff")
    with pytest.raises(ExpungeError, match="is not UTF-8 text"):
        rows(tmp_path, "train/0/1".encode("utf-16"))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.txt", tmp_path, Path("nul\0byte")):
        with pytest.raises(ExpungeError, match=r"^here: .* cannot be read"):
            named_rows(path, SET, "here")


def test_rows_are_int64(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("train/0/1\n")
    assert named_rows(tmp_path / "ids.txt", SET, "here").dtype == np.int64
