"""Samples are found in real files of every format, whatever the files are called, and nothing else is."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.numpy import save
from safetensors.torch import save_file

from tasks.engine.weights import tensor_digest
from tasks.erasure.formats.text import BLOCK
from tasks.erasure.search import Found, Wanted, find, named
from tasks.requests.keys import reference
from tasks.requests.suppression import fingerprint

KEY, OTHER = b"k" * 32, b"o" * 32
ID, SOURCE = "train/Größe, 1/my cat.png", "bilder/my cat.png"
"""A name with blanks, a comma, an umlaut and a path in it."""
PLAIN = "train/cat/0001.png"
KEPT = "train/cat/0002.png"
IMAGES = np.random.default_rng(1).integers(0, 256, (40, 3, 5, 4), dtype=np.uint8)


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(file, "png")
    return file.getvalue()


def wanted(*rows: int, names: tuple[str, ...] = (ID, PLAIN), key: bytes = KEY, source: str = "s#9") -> Wanted:
    return Wanted(
        key,
        frozenset(reference(key, "id", name) for name in names) | {reference(key, "path", source)},
        frozenset(reference(key, "pixels", fingerprint(IMAGES[row])) for row in rows),
        frozenset(reference(key, "file", hashlib.sha256(png(IMAGES[row])).hexdigest()) for row in rows),
    )


WANTED = wanted(3, 5, source=SOURCE)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "c0ffee"


def in_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, IMAGES)


def in_fortran_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.asfortranarray(IMAGES))


def in_parquet(path: Path) -> None:
    cells = [{"bytes": png(image), "path": f"{row}.png"} for row, image in enumerate(IMAGES)]
    lists = [[ID, "a"] if row == 7 else [] for row in range(len(IMAGES))]
    words = pa.array([PLAIN if row == 39 else KEPT for row in range(len(IMAGES))]).dictionary_encode()
    pq.write_table(pa.table({"img": cells, "lists": lists, "words": words}), path, row_group_size=16)


def in_database(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute('CREATE TABLE "my ""table" (id INTEGER, name TEXT, image BLOB, note TEXT)')
        rows = [
            (0, ID, b"", None),
            (1, "x", png(IMAGES[3]), "y"),
            (2, "x", b"", json.dumps({"path": SOURCE})),
        ]
        database.executemany('INSERT INTO "my ""table" VALUES (?, ?, ?, ?)', rows)
    database.close()


def in_csv(path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["sample_id", "source"], [ID, SOURCE], [PLAIN, "s"], [KEPT, "t"]])


def test_a_model_is_known_by_its_tensors_whatever_its_file(file: Path) -> None:
    tensors = {
        "b": torch.arange(6, dtype=torch.int64).reshape(2, 3),
        "a": torch.ones(2, dtype=torch.bfloat16),
    }
    sought = [Wanted(KEY, frozenset(), frozenset(), frozenset(), weights=frozenset({tensor_digest(tensors)}))]
    for metadata in (None, {"by": "somebody else"}):
        save_file(tensors, file, metadata)
        assert find(file, sought) == Found(weights=1)
        assert "model that had learned" in find(file, sought).why
        assert not find(file, [WANTED])
    file.write_bytes(file.read_bytes()[:-1])
    assert not find(file, sought)
    save_file(tensors | {"a": torch.zeros(2, dtype=torch.bfloat16)}, file)
    assert not find(file, sought)


BOTH = Found(names=2)


@pytest.mark.parametrize(
    ("write", "found"),
    [
        (in_array, Found(pixels=2)),
        (in_fortran_array, Found(pixels=2)),
        (in_parquet, Found(names=2, pixels=2, files=2)),
        (in_database, Found(names=2, pixels=1, files=1)),
        (in_csv, Found(names=3)),
        (lambda path: path.write_bytes(png(IMAGES[3])), Found(pixels=1, files=1, whole=True)),
        (lambda path: path.write_text(f"{ID}\n{PLAIN}\n", "utf-8"), BOTH),
        (lambda path: path.write_text(f"\ufeffid;b\r\n{ID};3\r\n{PLAIN};4\r\n", "utf-8"), BOTH),
        (lambda path: path.write_text(f"{PLAIN}\tid\n2\t{ID}\n", "utf-8"), BOTH),
        (lambda path: path.write_text(json.dumps([{"relpath": ID}, {PLAIN: 1}])), BOTH),
        (lambda path: path.write_text(json.dumps({"a": [ID]}) + "\n" + json.dumps(PLAIN) + "\n{brok"), BOTH),
        (lambda path: path.write_text(f"ids:\n  - {SOURCE}\nfirst: {PLAIN} # why\n", "utf-8"), BOTH),
        (lambda path: path.write_text(f"it's at '{ID}', lost; id={PLAIN}.\n", "utf-8"), BOTH),
        (lambda path: path.write_text(f"it's at '/mnt/x/{ID}', lost;\n", "utf-8"), Found(weak=1)),
        (lambda path: path.write_bytes(save({"x": np.zeros(9, "f4")}, {"first": PLAIN})), Found(names=1)),
    ],
)  # fmt: skip
def test_samples_are_found_in_every_format(file: Path, write: Callable[[Path], object], found: Found) -> None:
    write(file)
    assert find(file, [WANTED]) == found
    assert find(file.read_bytes(), [WANTED]) == found
    assert not find(file, [wanted(names=("digits/0001",), key=OTHER)])
    assert find(file, [wanted(names=(), key=OTHER), WANTED]) == found


@pytest.mark.parametrize("write", [in_array, in_parquet, in_database, in_csv])
def test_what_is_not_wanted_is_not_found(file: Path, write: Callable[[Path], None]) -> None:
    write(file)
    absent = wanted(names=("train/cat/000", "cat/0001.pn", "Größe, 1/my", "1/my cat"))
    assert find(file, [absent]) == Found()


def test_two_requests_have_keys_of_their_own(file: Path) -> None:
    in_array(file)
    assert find(file, [wanted(1), wanted(1, 2, key=OTHER)]).pixels == 3
    mixed = Wanted(KEY, frozenset(), wanted(1, key=OTHER).pixels, frozenset())
    assert not find(file, [mixed])


def test_an_image_of_another_shape_is_another_image(file: Path) -> None:
    with file.open("wb") as stream:
        np.save(stream, IMAGES.transpose(0, 2, 1, 3).reshape(IMAGES.shape))
    assert not find(file, [WANTED])


def test_an_array_that_was_cut_short_is_searched_to_its_end(file: Path) -> None:
    in_array(file)
    file.write_bytes(file.read_bytes()[: 128 + 4 * 60 + 7])
    assert find(file, [WANTED]) == Found(pixels=1)


def test_text_is_searched_across_blocks(file: Path) -> None:
    filler = "2026-05-01 INFO nothing to see\n" * (BLOCK // 31 + 10)
    file.write_text(f"{filler}lost {PLAIN}\n{filler}{ID}", "utf-8")
    assert find(file, [WANTED]) == BOTH


def test_a_row_that_was_deleted_is_found_in_the_freed_page(file: Path) -> None:
    with sqlite3.connect(file) as database:
        database.execute("PRAGMA secure_delete = OFF")
        database.execute("CREATE TABLE t (body TEXT)")
        database.execute("INSERT INTO t VALUES (?)", (json.dumps({"samples": [PLAIN]}),))
        database.commit()
        database.execute("DROP TABLE t")
    database.close()
    assert PLAIN.encode() in file.read_bytes()
    assert find(file, [WANTED]) == Found(names=1)


def test_a_database_in_use_is_read_with_what_is_not_yet_in_its_file(file: Path) -> None:
    database = sqlite3.connect(file)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE TABLE t (name TEXT, other TEXT)")
    database.execute("INSERT INTO t VALUES (?, ?)", (ID, "z"))
    database.commit()
    assert find(file, [WANTED]) == Found(names=1)
    database.close()
    before = sorted(path.name for path in file.parent.iterdir())
    assert find(file, [WANTED]) == Found(names=1)
    assert sorted(path.name for path in file.parent.iterdir()) == before


@pytest.mark.parametrize("write", [in_array, in_parquet, in_database, in_csv])
def test_damaged_content_never_raises(file: Path, write: Callable[[Path], None]) -> None:
    write(file)
    whole = file.read_bytes()
    rng = np.random.default_rng(2)
    for length in [0, 1, 6, 7, 10, 16, 60, 100, 120, *rng.integers(0, len(whole), 10).tolist()]:
        find(whole[:length], [WANTED])
    for _ in range(60):
        damaged = bytearray(whole)
        for place in rng.integers(0, min(len(whole), 4096), 8).tolist():
            damaged[place] = int(rng.integers(0, 256))
        file.write_bytes(damaged)
        find(file, [WANTED])
        find(bytes(damaged), [WANTED])


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\0" * 99, b"\xff\xfe\0", b'"\\ud800" "\\q" "', b'a,"b\n' * 9, b"PAR1PAR1",
        b"SQLite format 3\0",
        b"\x93NUMPY\x09\0", b"\x93NUMPY\x01\x00\x10\x00{'descr': (((((\n", b"\x08" + b"\0" * 7 + b'{"',
        b'"' * 9999, b"/" * 99999, b"a/" * 3000, b"[" * 99999,
    ],
)  # fmt: skip
def test_odd_content_never_raises(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert find(file, [WANTED]) == find(content, [WANTED]) == Found()


def test_a_path_is_a_name_by_its_end() -> None:
    assert named(f"/home/x/data/{PLAIN}", [WANTED])
    assert named(SOURCE, [WANTED])
    assert not named(f"{PLAIN}/x", [WANTED])
    assert not named(PLAIN[1:], [WANTED])
    assert not named("\udcff/x", [WANTED])


def test_what_was_found_is_said_in_words() -> None:
    assert Found(names=2, pixels=1).why == "holds names of samples: 2, pixels of samples: 1"
    assert Found(files=1, whole=True).why == "is the image file of a sample"
