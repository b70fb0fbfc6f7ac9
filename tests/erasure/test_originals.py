from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core.errors import ExpungeError
from tasks.core.params import Split, load, validate
from tasks.datasets import SOURCES
from tasks.erasure import originals
from tasks.erasure.originals import OWNED, why_kept
from tasks.samples.check import check
from tasks.samples.image_set import ImageSet
from tasks.split import split
from tests.datasets.building import colour, reading, taken, write_folders, write_image
from tests.datasets.building import encoded as as_file

ROOT = Path(__file__).parent.parent.parent
FILES = ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test-00000-of-00001.parquet")
TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def at(source: str, path: Path) -> Split:
    return reading(source=source).model_copy(update={"path": str(path)})


def encoded(source: str, path: Path, references: Sequence[str]) -> dict[str, bytes]:
    return originals.encoded(at(source, path), references)


def remove(source: str, path: Path, references: Sequence[str]) -> list[Path]:
    return originals.remove(at(source, path), references)


def write_table(root: Path) -> Path:
    """Three classes, with the labels in a table, in which one image has a row for each of two people."""
    write_folders(root / "photos", ["ant", "bee", "cat"])
    files = sorted(file.relative_to(root / "photos").as_posix() for file in root.rglob("*.png"))
    rows = [f"photos/{file},{file.split('/')[1]},{file.split('/')[0]},p{n}" for n, file in enumerate(files)]
    (root / "table.csv").write_text("\n".join(["path,label,split,subject", *rows, rows[0] + "b", ""]))
    return root


def write_hub(root: Path, seeds: Sequence[int] = range(18), *, named: bool = True) -> Path:
    """Two training files and a test file of six rows each, three classes, uncompressed."""
    root.mkdir()
    images = [
        {"bytes": as_file(colour(s)), "path": f"{r}.png" if named else None} for r, s in enumerate(seeds)
    ]
    for number, name in enumerate(FILES):
        table = pa.table(
            {
                "image": pa.array(images[6 * number : 6 * number + 6], TYPE),
                "label": [0, 1, 2] * 2,
                "note": ["n"] * 6,
            }
        )
        pq.write_table(
            table.replace_schema_metadata({"a": "b"}), root / name, row_group_size=4, compression="none"
        )
    return root


# In "copies", image 0 stands in rows 1, 4, 7 (class 1), 5 and 8 (class 2), image 2 in rows 2 and 11.
COPIES = [1, 0, 2, 3, 0, 0, 6, 0, 0, 9, 10, 2, *range(6)]
MAKERS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "table": ("table", write_table),
    "folder": ("image_folder", lambda root: write_folders(root, ["ant", "bee", "cat"])),
    "named": ("parquet", write_hub),
    "unnamed": ("parquet", lambda root: write_hub(root, named=False)),
    "copies": ("parquet", lambda root: write_hub(root, COPIES, named=False)),
}


@pytest.fixture(params=MAKERS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    source, make = MAKERS[request.param]
    return source, make(tmp_path / "store")


def read(source: str, path: Path) -> ImageSet:
    return check(SOURCES.get(source)(path, reading(source=source)), "here")


def without(of: ImageSet, references: Sequence[str]) -> ImageSet:
    return taken(of, np.flatnonzero([name not in references for name in of.sources]))


def assert_same(one: ImageSet, other: ImageSet) -> None:
    for name in ("images", "labels", "is_test"):
        assert np.array_equal(getattr(one, name), getattr(other, name))
    for name in ("sample_ids", "sources", "classes"):
        assert getattr(one, name) == getattr(other, name)


def files(path: Path) -> dict[Path, bytes]:
    """Every file below ``path``, hidden ones too."""
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


def holds(path: Path, content: bytes) -> bool:
    return any(content in held for held in files(path).values())


def test_removal_takes_the_bytes_and_leaves_the_rest_and_the_next_does_nothing(
    store: tuple[str, Path],
) -> None:
    before = read(*store)
    asked = before.sources[1::3]  # of every file, of training and test
    originals, others = encoded(*store, asked), encoded(*store, without(before, asked).sources)
    assert set(originals) == set(asked)
    assert set(originals) | set(others) == set(before.sources)
    assert all(holds(store[1], content) for content in originals.values())
    assert remove(*store, [*asked, "train/ant/none.png", f"{FILES[0]}#6", f"{FILES[0]}#01"])
    assert not any(holds(store[1], lost) for lost in set(originals.values()) - set(others.values()))
    assert_same(read(*store), without(before, asked))
    assert encoded(*store, before.sources) == others
    left = files(store[1])
    assert remove(*store, asked) == []
    assert files(store[1]) == left


def test_samples_leave_one_by_one(store: tuple[str, Path]) -> None:
    before = read(*store)
    asked = [name for name, label in zip(before.sources, before.labels, strict=True) if label == 1][::-1]
    for count in range(1, len(asked) + 1):
        assert remove(*store, [asked[count - 1]])
        assert_same(read(*store), without(before, asked[:count]))


@pytest.mark.parametrize("done", [0, 1, 2])
def test_an_interrupted_removal_is_finished_by_the_next(
    store: tuple[str, Path], done: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read(*store)
    asked = before.sources[1::3]
    originals, others = encoded(*store, asked), encoded(*store, without(before, asked).sources)
    with monkeypatch.context() as patch:
        calls = Counter[str]()
        for name in ("replace", "unlink"):
            patch.setattr(Path, name, dying(getattr(Path, name), calls, done))
        with pytest.raises(KeyboardInterrupt):
            remove(*store, asked)
    between = read(*store)
    assert {*without(before, asked).sample_ids} <= {*between.sample_ids} <= {*before.sample_ids}
    assert len(before.labels) - len(between.labels) <= 2 * done
    remove(*store, asked)
    assert_same(read(*store), without(before, asked))
    assert not any(holds(store[1], lost) for lost in set(originals.values()) - set(others.values()))
    assert not list(store[1].rglob("*.part"))


def dying(real: Callable[..., Any], calls: Counter[str], done: int) -> Callable[..., Any]:
    """``real``, until it was called ``done`` times; then nothing works any more, as when a process dies."""

    def call(*args: Any, **options: Any) -> Any:
        calls["all"] += 1
        if calls["all"] > done:
            raise KeyboardInterrupt
        return real(*args, **options)

    return call


@pytest.mark.parametrize("erased", [0, 2])
def test_an_erased_class_stays_a_class(
    store: tuple[str, Path], erased: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read(*store)
    asked = [name for name, label in zip(before.sources, before.labels, strict=True) if label == erased]
    remove(*store, asked[::2])
    remove(*store, asked)
    assert_same(read(*store), without(before, asked))
    monkeypatch.chdir(tmp_path)
    section = {"source": store[0], "path": str(store[1]), "forget": {"kind": "random", "fraction": 0.4}}
    metrics = split(validate({**load(ROOT / "params.yaml").model_dump(), "split": section}))
    assert metrics["classes/count"] == 3
    assert metrics["test/count"] == 4


def test_a_file_without_any_row_left_is_read(tmp_path: Path) -> None:
    hub = write_hub(tmp_path / "hub")
    before, asked = read("parquet", hub), [f"{FILES[0]}#{row}" for row in range(6)]
    assert remove("parquet", hub, asked) == [hub / FILES[0]]
    assert_same(read("parquet", hub), without(before, asked))


def test_a_rewritten_file_keeps_its_form(tmp_path: Path) -> None:
    hub = write_hub(tmp_path / "hub")
    table = pq.read_table(hub / FILES[0])
    strict = table.schema.set(1, table.schema.field("label").with_nullable(False))
    codecs = {"image.bytes": "ZSTD", "image.path": "GZIP", "label": "NONE", "note": "SNAPPY"}
    pq.write_table(table.cast(strict), hub / FILES[0], row_group_size=4, compression=codecs)
    remove("parquet", hub, [f"{FILES[0]}#1", f"{FILES[0]}#4"])
    after, shape = pq.read_table(hub / FILES[0]), pq.ParquetFile(hub / FILES[0]).metadata
    rows = [None if row in (1, 4) else entry for row, entry in enumerate(table.to_pylist())]
    assert after.to_pylist() == [entry or dict.fromkeys(table.column_names) for entry in rows]
    assert after.schema.metadata[b"a"] == b"b"
    assert after.schema.types == table.schema.types
    assert [shape.row_group(group).num_rows for group in range(2)] == [4, 2]
    columns = [shape.row_group(1).column(column) for column in range(4)]
    assert [column.compression for column in columns] == ["ZSTD", "GZIP", "UNCOMPRESSED", "SNAPPY"]


def test_copies_keep_their_numbers_and_the_last_one_leaves_no_trace(tmp_path: Path) -> None:
    hub = write_hub(tmp_path / "hub", COPIES, named=False)
    before = read("parquet", hub)
    digest = before.sample_ids[1].split("/")[1]
    remove("parquet", hub, [before.sources[row] for row in (1, 7)])
    numbers = {name.split("/")[1] for name in read("parquet", hub).sample_ids[:10]}
    assert {f"{digest}-2", f"{digest}-4", f"{digest}-5"} < numbers
    assert holds(hub, digest.encode())
    assert len(remove("parquet", hub, [before.sources[row] for row in (4, 5)])) == 1
    assert remove("parquet", hub, [before.sources[8]]) == [hub / FILES[0], hub / FILES[1]]
    assert not holds(hub, digest.encode())
    assert_same(read("parquet", hub), without(before, [before.sources[row] for row in (1, 4, 5, 7, 8)]))


def test_ids_stay_made_of_bytes_when_the_path_that_stood_twice_leaves(tmp_path: Path) -> None:
    hub = write_hub(tmp_path / "hub")
    table = pq.read_table(hub / FILES[1])
    images = [{**image, "path": image["path"].replace("11", "0")} for image in table["image"].to_pylist()]
    pq.write_table(table.set_column(0, "image", pa.array(images, TYPE)), hub / FILES[1])
    before = read("parquet", hub)
    remove("parquet", hub, [f"{FILES[1]}#5"])
    assert_same(read("parquet", hub), without(before, [f"{FILES[1]}#5"]))


@pytest.mark.parametrize("inside", [True, False])
def test_a_linked_parquet_file_is_rewritten_in_the_folder_only(tmp_path: Path, inside: bool) -> None:
    hub = write_hub(tmp_path / "hub")
    (target := hub / "raw" if inside else tmp_path / "raw").mkdir()
    (hub / FILES[0]).rename(target / FILES[0])
    (hub / FILES[0]).symlink_to(target / FILES[0])
    lost = encoded("parquet", hub, [f"{FILES[0]}#2"])[f"{FILES[0]}#2"]
    remove("parquet", hub, [f"{FILES[0]}#2"])
    assert not holds(hub, lost)
    assert (hub / FILES[0]).is_symlink() == inside
    assert holds(target, lost) != inside


@pytest.mark.parametrize(
    "reference", ["../out.png", "train/../../out.png", "/out.png", "train/cat/../ant/000.png"]
)
@pytest.mark.parametrize("function", [encoded, remove])
def test_references_that_leave_the_folder_are_refused(
    tmp_path: Path, reference: str, function: Callable[..., Any]
) -> None:
    pets = write_folders(tmp_path / "pets")
    left = files(write_image(tmp_path / "out.png", colour()).parent)
    with pytest.raises(ExpungeError, match=r"leaves the folder; .* such as train/cat/001.png$"):
        function("image_folder", pets, ["train/cat/000.png", reference])
    assert files(tmp_path) == left
    assert function("parquet", write_hub(tmp_path / "hub"), [reference, f"../hub/{FILES[0]}#0"]) in ({}, [])


def test_sources_of_others_are_left_alone_and_say_why(tmp_path: Path) -> None:
    assert OWNED == ("image_folder", "parquet", "table")
    assert [why_kept(source) for source in OWNED] == [None] * 3
    for source, reference in (("digits", "sklearn.datasets.load_digits#1"), ("cifar10", "train#00001")):
        assert str(why_kept(source)).startswith("The originals are ")
        assert encoded(source, tmp_path, [reference]) == {}
        assert remove(source, tmp_path, [reference]) == []
    with pytest.raises(ExpungeError, match="'tiff' is not in tasks/datasets; known: cifar10, digits"):
        originals.remove(reading().model_copy(update={"source": "tiff"}), [])
