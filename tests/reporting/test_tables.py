from __future__ import annotations

from pathlib import Path

import pytest
from numpy.testing import assert_allclose

from tasks.core.errors import ExpungeError
from tasks.reporting.tables import read_table, write_table


def test_what_is_written_is_read_back_to_six_digits(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    rows = [('a "quoted", name', 1, 1 / 3), ("line\nbreak", 20, 1e-12)]
    write_table(path, ("name", "count", "share"), rows)
    table = read_table(path, ("name", "share"))
    assert table.columns["name"] == [rows[0][0], rows[1][0]]
    assert_allclose(table.numbers("count"), [1, 20])
    assert_allclose(table.numbers("share"), [1 / 3, 1e-12], rtol=1e-5)


def test_a_table_without_rows_is_a_table(tmp_path: Path) -> None:
    write_table(tmp_path / "table.csv", ("epoch",), [])
    assert read_table(tmp_path / "table.csv", ("epoch",)).numbers("epoch").size == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no column x"),
        (b"y\n1\n", "has no column x"),
        (b"x,y\n1\n", "rows of unequal length"),
        (b"x\nten\n", "column x: could not convert"),
        (b"x\nnan\n", "column x holds NaN or infinity"),
        (b"x\n1e999\n", "column x holds NaN or infinity"),
        (b"x\n\xff\n", "is damaged"),
        (b'x\n"1\n', "is damaged"),
    ],
)
def test_a_damaged_table_is_refused_with_its_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(ExpungeError, match=message) as caught:
        read_table(path, ("x",)).numbers("x")
    assert str(path) in str(caught.value)


def test_a_missing_table_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ExpungeError, match="dvc repro"):
        read_table(tmp_path / "table.csv", ("x",))
