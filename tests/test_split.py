from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.core.errors import ExpungeError
from tasks.core.params import Params, load, validate
from tasks.requests.high_water import MARK, extend, restore
from tasks.requests.keys import LIST_KEY, KeyStore, check_value
from tasks.requests.subjects import Subjects
from tasks.requests.suppression import Erased, lines_for
from tasks.samples.manifest import LoadedSplit, Manifest, load_split
from tasks.samples.pictures import read_pictures
from tasks.samples.table import COPIES, SPLIT, read_copies
from tasks.split import split
from tests.datasets.building import colour, grey, write_folders, write_image

ROOT = Path(__file__).parent.parent
EMBEDDED = ROOT / "data/fashion-mnist-10k"
DEFAULTS = load(ROOT / "params.yaml").model_dump()


def params(source: str, path: Path, forget: dict[str, Any] | None = None, **options: Any) -> Params:
    section = {
        "source": source,
        "path": str(path),
        "forget": forget or {"kind": "random", "fraction": 0.1},
        **options,
    }
    return validate({**DEFAULTS, "split": section})


@pytest.fixture
def pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An image folder of 2 × 40 training and 2 × 2 test images; its parent is the working directory."""
    monkeypatch.chdir(tmp_path)
    return write_folders(tmp_path / "pets", count=40)


def contents() -> dict[str, bytes]:
    return {
        file.relative_to("data/split").as_posix(): file.read_bytes()
        for file in Path("data/split").rglob("*")
        if file.is_file()
    }


def test_the_embedded_sample_is_split_as_documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    metrics = split(params("parquet", EMBEDDED))
    assert metrics == {
        "retain/count": 4050,
        "forget/count": 450,
        "val/count": 500,
        "test/count": 5000,
        "classes/count": 10,
        "leakage/near_copies": 1,  # a look at the pair confirms it
    }
    assert sorted(contents()) == [
        *(
            "classes.json",
            "copies.csv",
            "images/00000.npy",
            "images/slots.csv",
            "manifest.csv",
            "metrics.json",
            "pictures.npy",
        ),
        *("rows.json", "samples.csv", "subjects.csv"),
    ]
    assert json.loads(Path("data/split/metrics.json").read_text()) == metrics
    assert json.loads(Path("data/split/classes.json").read_text()) == [str(label) for label in range(10)]
    assert json.loads(Path("data/split/rows.json").read_text()) == [
        {"file": "train-00000-of-00001.parquet", "rows": 5000}
    ]
    loaded = load_split()
    assert loaded.images.shape == (10_000, 1, 28, 28)
    assert read_pictures(SPLIT, 10_000).shape == (10_000, 32)
    for role, count in (("retain", 405), ("forget", 45), ("val", 50), ("test", 500)):
        rows = loaded.manifest.indices(role)
        assert np.bincount(loaded.manifest.labels[rows]).tolist() == [count] * 10
        assert {loaded.samples.sample_ids[row].split("/")[0] for row in rows} == (
            {"test"} if role == "test" else {"train"}
        )


def test_the_images_of_an_earlier_version_do_not_stay_beside_the_shards(pets: Path) -> None:
    Path("data/split").mkdir(parents=True)
    Path("data/split/images.npy").write_bytes(b"pixels of somebody")
    split(params("image_folder", pets))
    assert sorted(name for name in contents() if "images" in name) == ["images/00000.npy", "images/slots.csv"]


def test_row_i_is_the_same_sample_in_every_file(pets: Path) -> None:
    split(params("image_folder", pets))
    with Path("data/split/manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    loaded = load_split()
    assert [row["sample_id"] for row in rows] == list(loaded.samples.sample_ids)
    row = next(index for index, entry in enumerate(rows) if entry["sample_id"] == "train/dog/007.png")
    expected = np.random.default_rng(107).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    assert np.array_equal(loaded.images[row], expected.transpose(2, 0, 1))
    assert rows[row]["label"] == "1"


def test_pictures_that_lie_there_twice_are_listed_whatever_they_are_called_and_wherever(pets: Path) -> None:
    split(params("image_folder", pets))
    before = read_copies(SPLIT / COPIES)
    (pets / "test/dog/again.png").write_bytes((pets / "train/cat/003.png").read_bytes())
    split(params("image_folder", pets))
    found = read_copies(SPLIT / COPIES)
    assert found.keys() - before.keys() == {"train/cat/003.png", "test/dog/again.png"}
    assert found["train/cat/003.png"] == found["test/dog/again.png"] > (0, 0)


def test_the_same_seed_gives_the_same_bytes_in_another_process(pets: Path) -> None:
    split(params("image_folder", pets))
    here = contents()
    script = (
        "import sys; from tasks.core.params import Params; from tasks.split import split; "
        "split(Params.model_validate_json(sys.argv[1], strict=False))"
    )
    subprocess.run(
        [sys.executable, "-c", script, params("image_folder", pets).model_dump_json()],
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"},
    )
    assert contents() == here


def test_another_seed_gives_another_split_of_the_same_samples(pets: Path) -> None:
    split(params("image_folder", pets))
    first = contents()
    split(params("image_folder", pets, seed=1))
    second = contents()
    assert {name for name in first if first[name] != second[name]} == {"samples.csv", "manifest.csv"}


def test_another_forget_set_changes_the_manifest_alone(pets: Path) -> None:
    split(params("image_folder", pets))
    before = contents()
    for forget in ({"kind": "random", "fraction": 0.3}, {"kind": "class", "classes": [1], "fraction": 0.2}):
        split(params("image_folder", pets, forget))
        after = contents()
        changed = {name for name in after if after[name] != before[name]}
        assert changed == {"manifest.csv", "metrics.json"}


def test_ids_from_a_file_are_forgotten(pets: Path) -> None:
    Path("ids.txt").write_text("# on request\ntrain/cat/003.png\ntrain/dog/031.png\n")
    metrics = split(params("image_folder", pets, {"kind": "ids", "ids_file": "ids.txt"}))
    assert metrics["forget/count"] == 2
    manifest = load_split().manifest
    named = {manifest.sample_ids[row] for row in manifest.indices("forget")}
    assert named == {"train/cat/003.png", "train/dog/031.png"}


def test_images_are_resized(pets: Path) -> None:
    split(params("image_folder", pets, resize=16))
    assert load_split().images.shape == (84, 3, 16, 16)


@pytest.mark.parametrize(
    ("source", "forget", "message"),
    [
        ("image_folder", {"kind": "class", "classes": [5]}, "no class 5; classes are 0 (cat) to 1 (dog)"),
        ("image_folder", {"kind": "class", "classes": [0, 1]}, "nothing is left to retain"),
        ("image_folder", {"kind": "ids", "ids_file": "missing.txt"}, "missing.txt cannot be read"),
        (
            "parquet",
            {"kind": "random", "fraction": 0.1},
            "pets holds no train-*.parquet (found: test, train)",
        ),
    ],
)
def test_a_refused_request_writes_nothing(
    pets: Path, source: str, forget: dict[str, Any], message: str
) -> None:
    with pytest.raises(ExpungeError) as caught:
        split(params(source, pets, forget))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not Path("data").exists()


def test_a_refused_request_leaves_the_last_split_as_it_was(pets: Path) -> None:
    split(params("image_folder", pets))
    before = contents()
    (pets / "train/cat/000.png").write_bytes(b"no image")
    with pytest.raises(ExpungeError, match=r"train/cat/000\.png"):
        split(params("image_folder", pets))
    assert contents() == before


def test_a_source_that_breaks_the_rules_is_named(pets: Path) -> None:
    for file in (pets / "test").rglob("*.png"):
        file.unlink()
    with pytest.raises(ExpungeError, match="class folder test/cat holds no images"):
        split(params("image_folder", pets))
    (pets / "test/cat").rmdir()
    (pets / "test/dog").rmdir()
    with pytest.raises(ExpungeError, match=f"^{pets}/test has no class folders"):
        split(params("image_folder", pets))


def test_whose_the_images_are_is_written_as_keyed_digests_and_leakage_is_counted(
    pets: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = KeyStore(tmp_path.parent / f"{tmp_path.name}-keys", tmp_path)
    people = [f"train/cat/{n:03d}.png,crm:{n % 20}" for n in range(40)]
    (pets / "subjects.csv").write_text(
        "\n".join(["path,subject", *people, "test/cat/001.png,crm:7;crm:99", ""])
    )
    metrics = split(params("image_folder", pets), keys)
    assert metrics["leakage/subjects"] == 1
    assert "1 of 4 test samples show a person that training or val has, too" in caplog.text
    assert not any(b"crm:" in content for content in contents().values())
    subjects = Subjects.read()
    assert subjects.of("crm:7", keys) == ["test/cat/001.png", "train/cat/007.png", "train/cat/027.png"]
    assert subjects.people["test/cat/001.png"] == 2
    assert subjects.of("crm:1000", keys) == []
    before = contents()
    split(params("image_folder", pets), keys)
    assert contents() == before
    keys.destroy("subjects")
    with pytest.raises(ExpungeError, match=r"subjects.csv names people under a key that is not in .*copy"):
        subjects.of("crm:7", keys)
    keys.create("subjects")
    with pytest.raises(ExpungeError, match="under another key than"):
        subjects.of("crm:7", keys)


def erasable(pets: Path, tmp_path: Path, **options: Any) -> tuple[KeyStore, Params]:
    """Keys beside the working directory, and parameters with an empty list of what was erased."""
    Erased(()).write(Path("erased.txt"))
    keys = KeyStore(tmp_path.parent / f"{tmp_path.name}-keys", tmp_path)
    return keys, params("image_folder", pets, **{"erased": "erased.txt", **options})


def erase(keys: KeyStore, loaded: LoadedSplit, rows: list[int]) -> None:
    """Enter rows of the split into the list, as a promotion does."""
    pictures = read_pictures(SPLIT, len(loaded.samples))
    ids = loaded.samples.sample_ids
    extend(Path("erased.txt"), keys, lambda key: lines_for(rows, ids, loaded.images, pictures, key))


def row_of(loaded: LoadedSplit, name: str) -> int:
    return loaded.samples.sample_ids.index(name)


def test_what_was_erased_returns_to_no_file_and_the_others_keep_their_roles(
    pets: Path, tmp_path: Path
) -> None:
    keys, asked = erasable(pets, tmp_path)
    split(asked, keys)
    before = load_split()
    chosen = [int(before.manifest.indices(role)[0]) for role in Manifest.groups]
    erase(keys, before, chosen)
    split(asked, keys)
    after = load_split()
    gone = {before.manifest.sample_ids[row] for row in chosen}
    assert len(gone) == 4
    assert set(before.manifest.sample_ids) - set(after.manifest.sample_ids) == gone
    roles = dict(zip(before.manifest.sample_ids, before.manifest.roles.tolist(), strict=True))
    changed = [
        sample_id
        for sample_id, role in zip(after.manifest.sample_ids, after.manifest.roles.tolist(), strict=True)
        if roles[sample_id] != role
    ]
    assert len(changed) <= 4  # who follows in rank where a taken sample has left
    shown = b"".join(content for name, content in contents().items() if not name.endswith(".npy"))
    assert not any(sample_id.encode() in shown for sample_id in gone)
    kept = [row for row in range(len(before.manifest)) if row not in chosen]
    np.testing.assert_array_equal(after.images, np.asarray(before.images)[kept])


def test_without_the_key_to_what_was_erased_nothing_is_split(pets: Path, tmp_path: Path) -> None:
    Erased((("id", "0" * 64),), check_value(b"1" * 32)).write(Path("erased.txt"))
    keys = KeyStore(tmp_path.parent / f"{tmp_path.name}-keys", tmp_path)
    with pytest.raises(ExpungeError, match="lacks the key that tells which"):
        split(params("image_folder", pets, erased="erased.txt"), keys)
    Path("erased.txt").unlink()
    with pytest.raises(ExpungeError, match=r"erased\.txt is missing; restore it: git checkout"):
        split(params("image_folder", pets, erased="erased.txt"), keys)
    assert not Path("data/split").exists()


@pytest.mark.parametrize("resize", [None, 9, 16])
def test_an_erased_picture_does_not_return_under_another_name_at_another_size(
    pets: Path, tmp_path: Path, resize: int | None
) -> None:
    keys, asked = erasable(pets, tmp_path)
    split(asked, keys)
    loaded = load_split()
    erase(keys, loaded, [row_of(loaded, "train/cat/003.png")])
    (pets / "train/cat/003.png").rename(pets / "train/cat/new.png")
    split(params("image_folder", pets, erased="erased.txt", resize=resize), keys)
    ids = load_split().samples.sample_ids
    assert "train/cat/new.png" not in ids
    assert len(ids) == 83


@pytest.mark.parametrize("grey_first", [True, False])
def test_an_erased_picture_does_not_return_when_the_set_turns_grey_or_colour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grey_first: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    pets = write_folders(tmp_path / "pets", count=4)
    for number, file in enumerate(sorted(pets.rglob("*.png"))):
        write_image(file, grey(number))
    odd = pets / "train/dog/odd.png"
    write_image(odd, grey(99) if grey_first else colour(99))
    keys, asked = erasable(pets, tmp_path)
    split(asked, keys)
    loaded = load_split()
    assert loaded.images.shape[1] == (1 if grey_first else 3)
    erase(keys, loaded, [row_of(loaded, "train/cat/003.png")])
    (pets / "train/cat/003.png").rename(pets / "train/cat/new.png")
    write_image(odd, colour(99) if grey_first else grey(99))
    split(asked, keys)
    after = load_split()
    assert after.images.shape[1] == (3 if grey_first else 1)
    assert "train/cat/new.png" not in after.samples.sample_ids
    assert len(after.samples) == len(loaded.samples) - 1


@pytest.mark.parametrize("resize", [None, 16])
def test_an_identical_twin_that_nobody_asked_for_stays_at_every_size(
    pets: Path, tmp_path: Path, resize: int | None
) -> None:
    (pets / "test/dog/twin.png").write_bytes((pets / "train/cat/003.png").read_bytes())
    keys, asked = erasable(pets, tmp_path)
    split(asked, keys)
    loaded = load_split()
    erase(keys, loaded, [row_of(loaded, "train/cat/003.png")])
    split(params("image_folder", pets, erased="erased.txt", resize=resize), keys)
    ids = load_split().samples.sample_ids
    assert set(loaded.samples.sample_ids) - set(ids) == {"train/cat/003.png"}


@pytest.mark.parametrize("state", ["older", "none", "other key", "lost mark", "merged", "null"])
def test_a_list_that_would_let_samples_back_is_refused_and_the_stage_exits_with_2(
    pets: Path, tmp_path: Path, state: str
) -> None:
    keys, asked = erasable(pets, tmp_path)
    split(asked, keys)
    loaded, path = load_split(), Path("erased.txt")
    erase(keys, loaded, [3])
    older = path.read_bytes()
    erase(keys, loaded, [4])
    split(asked, keys)
    before = contents()
    if state == "older":
        path.write_bytes(older)
    elif state == "none":
        path.write_text("# nothing\n")
    elif state == "other key":
        (keys.folder / f"{LIST_KEY}.key").write_bytes(b"2" * 32)
    elif state == "lost mark":
        (keys.folder / MARK).unlink()
    elif state == "merged":
        path.write_bytes(path.read_bytes() + older)
    text = DEFAULTS | {"split": asked.split.model_dump() | ({"erased": None} if state == "null" else {})}
    ours = {"PYTHONPATH": str(ROOT), "EXPUNGE_KEYS": str(keys.folder), "EXPUNGE_TRACKING": "off"}
    Path("params.yaml").write_text(json.dumps(text))
    done = subprocess.run(
        [sys.executable, "-m", "tasks.split"],
        env={**os.environ, **ours},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done
    (line,) = done.stderr.splitlines()
    assert line.startswith("expunge split: ")
    assert contents() == before


def test_after_restoring_the_list_the_split_is_what_it_was(pets: Path, tmp_path: Path) -> None:
    keys, asked = erasable(pets, tmp_path)
    split(asked, keys)
    older = Path("erased.txt").read_bytes()
    erase(keys, load_split(), [10, 60])
    split(asked, keys)
    before = contents()
    Path("erased.txt").write_bytes(older)
    with pytest.raises(ExpungeError, match="lacks 6 of the 6 lines"):
        split(asked, keys)
    restore(Path("erased.txt"), keys)
    split(asked, keys)
    assert contents() == before


@pytest.mark.parametrize("gone", [True, False], ids=["original deleted", "original still there"])
@pytest.mark.parametrize("named", [["003"], ["003", "004"]])
def test_ids_of_the_users_own_file_that_were_erased_are_passed_over(
    pets: Path, tmp_path: Path, gone: bool, named: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    Path("ids.txt").write_text("".join(f"train/cat/{number}.png\n" for number in named))
    forget = {"kind": "ids", "ids_file": "ids.txt"}
    keys, asked = erasable(pets, tmp_path, forget=forget)
    split(asked, keys)
    loaded = load_split()
    erase(keys, loaded, [row_of(loaded, "train/cat/003.png")])
    if gone:
        (pets / "train/cat/003.png").unlink()
    metrics = split(asked, keys)
    assert metrics["forget/count"] == len(named) - 1
    assert f"ids.txt: 1 of {len(named)} samples were erased and are passed over" in caplog.text
    assert ("nothing is left to forget" in caplog.text) == (len(named) == 1)
    assert "003" not in caplog.text
    with Path("ids.txt").open("a") as file:
        file.write("train/cat/999.png\n")
    with pytest.raises(ExpungeError, match=r"line \d 'train/cat/999\.png' is no sample id"):
        split(asked, keys)


def test_an_erased_sample_that_came_back_under_another_name_is_passed_over_by_that_name_too(
    pets: Path, tmp_path: Path
) -> None:
    Path("ids.txt").write_text("train/cat/new.png\ntrain/cat/004.png\n")
    keys, asked = erasable(pets, tmp_path)
    split(asked, keys)
    loaded = load_split()
    erase(keys, loaded, [row_of(loaded, "train/cat/003.png")])
    (pets / "train/cat/003.png").rename(pets / "train/cat/new.png")
    forget = {"kind": "ids", "ids_file": "ids.txt"}
    metrics = split(params("image_folder", pets, forget, erased="erased.txt"), keys)
    assert metrics["forget/count"] == 1


@pytest.mark.parametrize("classes", [[0], [0, 1]])
def test_a_class_that_was_erased_is_passed_over(
    pets: Path, tmp_path: Path, classes: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    for index in range(4):
        write_image(pets / f"train/fox/{index}.png", colour(500 + index))
    write_image(pets / "test/fox/0.png", colour(600))
    keys, asked = erasable(pets, tmp_path, forget={"kind": "class", "classes": classes, "fraction": 0.5})
    split(asked, keys)
    loaded = load_split()
    erase(keys, loaded, [row for row, name in enumerate(loaded.samples.sample_ids) if "train/cat" in name])
    metrics = split(asked, keys)
    assert metrics["forget/count"] == (18 if 1 in classes else 0)
    assert "class 0 (cat) was erased and is passed over" in caplog.text
    assert ("nothing is left to forget" in caplog.text) == (classes == [0])
