"""What is looked for costs no more with more requests, lies on the disk as digests, and can be merged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tasks.core.errors import ExpungeError
from tasks.erasure.search import Found, Sought, Wanted, find, named
from tests.erasure.formats.samples import GREYS, IMAGES, NAME, ODD, by_digests, encoded, erased, saved


def names(count: int) -> list[str]:
    return [f"train/dog/{number:06d}.png" for number in range(count)]


def table(rows: int) -> bytes:
    return b"id,source,label\n" + b"".join(
        b"train/cat/%06d.png,a/b#%d,3\n" % (row, row) for row in range(rows)
    )


def test_a_search_makes_as_many_digests_for_many_requests_as_for_one(tmp_path: Path) -> None:
    made = []
    for count in (1, 100, 10_000):
        sought = saved(tmp_path / "sought.json", Sought.of_samples(names(count)))
        assert not find(table(2000), sought)
        made.append(sought.digests_made)
        in_the_clear = Sought.of_samples(names(count))
        assert not find(table(2000), in_the_clear)
        assert in_the_clear.digests_made == 0
    assert made[0] == made[1] == made[2] > 0


def test_the_digests_that_a_search_makes_grow_with_what_is_read(tmp_path: Path) -> None:
    made = []
    for rows in (1000, 2000, 4000):
        sought = saved(tmp_path / "sought.json", Sought.of_samples(names(10)))
        find(table(rows), sought)
        made.append(sought.digests_made)
    assert made[1] / made[0] == pytest.approx(2, rel=0.02)
    assert made[2] / made[0] == pytest.approx(4, rel=0.02)
    assert made[0] <= 4 * 1000


def test_a_content_is_searched_once(tmp_path: Path) -> None:
    sought = saved(tmp_path / "sought.json", Sought.of_samples([*names(10), "train/cat/000003.png"]))
    (tmp_path / "a").write_bytes(table(1000))
    (tmp_path / "b").write_bytes(table(1000))
    first = find(tmp_path / "a", sought)
    made = sought.digests_made
    assert find(tmp_path / "b", sought) == first == Found(names=1)
    assert sought.digests_made - made <= 1  # of the file as a whole
    (tmp_path / "b").write_bytes(table(2))
    assert not find(tmp_path / "b", sought)


def test_an_image_that_lies_in_two_tables_is_decoded_once() -> None:
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    def parquet(label: int) -> bytes:
        file = io.BytesIO()
        cells = [encoded(image) for image in IMAGES]
        pq.write_table(pa.table({"image": cells, "label": [label] * len(cells)}), file)
        return file.getvalue()

    sought = erased(IMAGES[3])
    assert find(parquet(1), sought) == find(parquet(2), sought) == Found(pixels=1, files=1)
    assert len(sought.seen) == 2 + len(IMAGES) - 1


def test_on_the_disk_are_digests_and_no_names(tmp_path: Path) -> None:
    path = tmp_path / "sought.json"
    erased(IMAGES[3]).save(path)
    text = path.read_text()
    assert "0001" not in text
    assert "train" not in text
    assert path.stat().st_mode & 0o077 == 0
    erased(IMAGES[3]).save(tmp_path / "again")
    assert not set(json.loads(text)["lenses"][0]["name"]) & set(
        json.loads((tmp_path / "again").read_text())["lenses"][0]["name"]
    )


def test_what_was_saved_finds_the_same(tmp_path: Path) -> None:
    before = Sought.of_samples(
        [NAME, ODD], weights=["w"], flow_runs=["f"], roots=["data/pets"], sizes=[(8, 6)]
    )
    after = saved(tmp_path / "b", saved(tmp_path / "a", before))
    for text in (NAME, ODD, f"data/pets/{NAME}", f"x/{NAME}", "train/cat/0002.png"):
        assert find(text.encode(), after) == find(text.encode(), before)
    assert (after.weights, after.flow_runs, after.sizes) == (before.weights, before.flow_runs, before.sizes)


def test_a_damaged_or_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "sought.json"
    with pytest.raises(ExpungeError, match=r"sought\.json is missing"):
        Sought.load(path)
    erased(IMAGES[3]).save(path)
    for damaged in (path.read_text()[:-9], "{}", "[]", '{"lenses": [{"key": "zz"}]}'):
        path.write_text(damaged)
        with pytest.raises(ExpungeError, match=r"sought\.json is damaged"):
            Sought.load(path)


def test_keys_of_requests_are_written_nowhere(tmp_path: Path) -> None:
    for sought in (by_digests(IMAGES[3]), Sought.merged([erased(IMAGES[3]), by_digests(IMAGES[3])])):
        with pytest.raises(ValueError, match="key store alone"):
            sought.save(tmp_path / "sought.json")
    assert not list(tmp_path.iterdir())


def test_merged_finds_what_each_finds(tmp_path: Path) -> None:
    each = [
        Sought.of_samples([NAME]),
        Sought.of_samples([ODD], sizes=[(8, 6)]),
        saved(tmp_path / "a", erased(IMAGES[3], names=("saved",))),
        by_digests(GREYS[4], names=("of a request",)),
    ]
    merged = Sought.merged(each)
    assert len(merged.lenses) == 3
    assert merged.sizes is None
    for content in (
        NAME.encode(),
        ODD.encode(),
        b"saved",
        b"of a request",
        encoded(IMAGES[3]),
        encoded(GREYS[4]),
    ):
        assert find(content, merged)
    assert not find(b"train/cat/0002.png", merged)
    assert not Sought.merged([])


def test_the_digests_of_requests_cost_one_key_each() -> None:
    one, two = by_digests(IMAGES[3]), Sought.merged([by_digests(IMAGES[3]), by_digests(IMAGES[3])])
    find(table(100), one)
    find(table(100), two)
    assert two.digests_made == 2 * one.digests_made > 0


def test_a_path_tells_whether_it_is_a_name_or_ends_with_one() -> None:
    sought = Sought.of_samples([NAME], roots=["/data/pets"])
    assert named(NAME, sought) == named(f"/data/pets/{NAME}", sought) == Found(names=1)
    assert named(f"/other/{NAME}", sought).by_end
    assert not named(f"{NAME}/x", sought)
    assert not named(f"\udcff{NAME}", sought)
    assert named("\udcff/x", Sought.of_samples(["\udcff/x"]))


def test_an_empty_request_finds_nothing() -> None:
    nothing = Sought.of_requests([Wanted(b"k" * 32, frozenset(), frozenset(), frozenset())])
    assert not nothing
    assert not find(table(10), nothing)
    assert not find(np.arange(3).tobytes(), Sought.of_samples([]))


def test_a_search_needs_no_pytorch() -> None:
    code = (
        "import sys, tasks.erasure.search as s; s.find(b'a,b', s.Sought.of_samples(['x']));"
        "sys.exit(bool({'torch', 'pyarrow', 'PIL', 'mlflow', 'dvc'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
