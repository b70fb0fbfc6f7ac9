from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tasks.core.errors import ExpungeError
from tasks.core.files import only_writer
from tasks.datasets.parquet import remove
from tasks.requests.catalogue import Catalogue
from tasks.requests.copies import Copies
from tasks.requests.desk import Desk
from tasks.requests.keys import KeyStore
from tasks.requests.ledger import Ledger
from tasks.requests.schema import Kind, Named
from tasks.requests.settings import Settings
from tasks.samples.unicode_forms import forms
from tasks.split import split
from tests.datasets.building import encoded, grey, reading, write_hub_file
from tests.requests.conftest import LIFE, Clock, go_on, submission
from tests.small_split import parameters

PROJECT = Path(__file__).parents[2]


def test_a_sample_is_found_by_every_name(catalogue: Catalogue) -> None:
    names: list[tuple[Kind, str | int]] = [("id", "train/3.png"), ("path", "train.parquet#3"), ("index", 3)]
    for kind, value in names:
        assert list(catalogue.ids(Named(kind, value, 0))) == ["train/3.png"]
        assert catalogue.problem(Named(kind, value, 0)) is None


def test_a_test_sample_is_found_by_id_and_path(catalogue: Catalogue) -> None:
    names: list[tuple[Kind, str | int]] = [("id", "test/0.png"), ("path", "test.parquet#0")]
    for kind, value in names:
        assert list(catalogue.ids(Named(kind, value, 0))) == ["test/0.png"]
        assert catalogue.problem(Named(kind, value, 0)) is None
    assert catalogue.is_own_test("test/0.png")
    assert not catalogue.is_own_test("train/10.png")
    assert list(catalogue.rows_of({"test/0.png", "train/10.png"})) == [
        ("train/10.png", "train.parquet#10", "val", "cat"), ("test/0.png", "test.parquet#0", "test", "cat"),
    ]  # fmt: skip


def test_a_test_part_that_was_taken_is_not_the_sources_own(root: Path) -> None:
    (root / "data/split/metrics.json").write_text('{"test/taken": 2}')
    assert not Catalogue.load().is_own_test("test/0.png")


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
        ("path", "train/3.png", "is no file or row of the source"),
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


def test_the_names_of_a_sample_are_its_id_its_path_and_its_row(catalogue: Catalogue) -> None:
    assert catalogue.names_for("train/3.png") == [
        ("id", "train/3.png"), ("path", "train.parquet#3"), ("index", "3"),
    ]  # fmt: skip


@pytest.fixture
def sharded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Parquet set of three training files, of 3, 4 and 5 rows, split once."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "pets"
    seed = 0
    for number, rows in enumerate((3, 4, 5)):
        images = [encoded(grey(seed + row)) for row in range(rows)]
        write_hub_file(
            folder / f"train-{number:05d}-of-00003.parquet", images, [row % 2 for row in range(rows)]
        )
        seed += rows
    write_hub_file(folder / "test-00000-of-00001.parquet", [encoded(grey(90)), encoded(grey(91))], [0, 1])
    divide(folder)
    return folder


def divide(folder: Path) -> Catalogue:
    forget = {"kind": "random", "fraction": 0.5}
    section = {"source": "parquet", "path": str(folder), "val_fraction": 0.3, "forget": forget}
    split(parameters(split=section))
    return Catalogue.load()


def by_index(catalogue: Catalogue) -> dict[int, str]:
    found = {}
    for index in range(12):
        for name in catalogue.ids(Named("index", index, 0)):
            found[index] = catalogue.sources[name]
    return found


ALL = {
    index: f"train-{file:05d}-of-00003.parquet#{row}"
    for index, (file, row) in enumerate(
        [(0, r) for r in range(3)] + [(1, r) for r in range(4)] + [(2, r) for r in range(5)]
    )
}


def test_an_index_counts_through_all_files(sharded: Path) -> None:
    catalogue = Catalogue.load()
    assert by_index(catalogue) == ALL
    assert catalogue.problem(Named("index", 12, 0)) == "is no row of the source's training part"
    for index, source in ALL.items():
        (name,) = catalogue.ids(Named("index", index, 0))
        assert catalogue.names_for(name) == [("id", name), ("path", source), ("index", str(index))]


@pytest.mark.parametrize(
    "leaving", [[0], [2, 3], [0, 1, 2], [3, 4, 5, 6], [8, 9, 10, 11], [1, 5, 11]], ids=str
)
def test_an_index_means_the_same_row_after_others_were_erased(sharded: Path, leaving: list[int]) -> None:
    remove(sharded, [ALL[index] for index in leaving], reading())
    catalogue = divide(sharded)
    assert by_index(catalogue) == {index: source for index, source in ALL.items() if index not in leaving}
    for index in leaving:
        assert catalogue.problem(Named("index", index, 0)) == "is no row of the source's training part"


def test_a_row_that_was_erased_is_known_by_its_index(sharded: Path, tmp_path: Path) -> None:
    keys = KeyStore(tmp_path / "keys", sharded)
    desk = Desk(Ledger("sqlite:///ledger.db", Clock()), keys, Settings(), Clock())
    first = desk.submit(submission(samples={"index": [5]}), "a.json", Catalogue.load(), channel="cli").request
    go_on(desk, first, *LIFE)
    remove(sharded, [ALL[5]], reading())
    catalogue = divide(sharded)
    again = desk.submit(submission(samples={"index": [5]}), "a.json", catalogue, channel="cli").request
    assert (again.state.status, again.first) == ("duplicate", first.id)
    # row 2 of the second file was row 2 before indices counted through all files
    other = desk.submit(submission(samples={"index": [2]}), "a.json", catalogue, channel="cli").request
    assert other.state.status == "validated"


def test_a_source_of_files_has_no_rows(root: Path) -> None:
    Path("data/split/rows.json").write_text("[]")
    with Path("data/split/samples.csv").open("a") as file:
        file.write("train/cat/#1.png,train/cat/#1.png,0,train\n")
    catalogue = Catalogue.load()
    assert catalogue.problem(Named("index", 3, 0)) == "the source has no rows to count; use id or path"
    assert catalogue.names_for("train/cat/#1.png") == [
        ("id", "train/cat/#1.png"), ("path", "train/cat/#1.png"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "rows.json is missing; run the stage that writes it"),
        ("{}", "is no list of files"),
        ("[1]", "is no list of files"),
        ('[{"file": "a"}]', "is no list of files"),
        ('[{"file": "a", "rows": -1}]', "is no list of files"),
        ('[{"file": "a", "rows": 1}, {"file": "a", "rows": 1}]', "is no list of files"),
        ("null", "is no list of files"),
    ],
)
def test_without_the_count_of_rows_there_is_no_catalogue(
    root: Path, content: str | None, reason: str
) -> None:
    path = Path("data/split/rows.json")
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(ExpungeError, match=reason):
        Catalogue.load()


COPIES = """sample_id,same,alike
train/1.png,0,1
train/3.png,1,1
train/4.png,1,1
train/10.png,0,1
test/1.png,1,1
train/7.png,2,2
train/8.png,2,2
"""


def test_copies_are_told_apart_by_how_near_they_are_and_whether_they_can_be_asked_for(root: Path) -> None:
    Path("data/split/copies.csv").write_text(COPIES)
    catalogue = Catalogue.load()
    found = catalogue.copies_of({"train/3.png", "train/5.png"})
    assert found == Copies(
        same=("train/4.png",), alike=("train/1.png", "train/10.png"), tests=("test/1.png",)
    )
    assert len(found) == 4
    assert catalogue.copies_of({"train/3.png", "train/4.png", "train/1.png", "train/10.png"}) == Copies(
        tests=("test/1.png",)
    )
    assert catalogue.copies_of({"train/7.png", "train/8.png"}) == Copies()
    assert catalogue.copies_of({"train/1.png"}) == Copies(
        alike=("train/3.png", "train/4.png", "train/10.png"), tests=("test/1.png",)
    )


def test_a_split_of_before_copies_were_looked_for_tells_none_and_says_so(root: Path) -> None:
    Path("data/split/copies.csv").unlink()
    assert Catalogue.load().copies_of({"train/3.png"}) is None


def test_copies_of_another_split_are_refused(root: Path) -> None:
    Path("data/split/copies.csv").write_text("sample_id,same,alike\ntrain/99.png,1,1\n")
    with pytest.raises(ExpungeError, match=r"samples\.csv and copies\.csv are of different splits"):
        Catalogue.load()


def test_rows_of_another_split_are_refused(root: Path) -> None:
    Path("data/split/rows.json").write_text('[{"file": "train.parquet", "rows": 3}]')
    with pytest.raises(ExpungeError, match="are of different splits"):
        Catalogue.load().ids(Named("index", 3, 0))


COMPOSED, DECOMPOSED = "train/caf\u00e9.png", "train/cafe\u0301.png"


@pytest.mark.parametrize(("stored", "asked"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_composed_and_decomposed_names_are_one(root: Path, stored: str, asked: str) -> None:
    with Path("data/split/samples.csv").open("a", encoding="utf-8") as file:
        file.write(f"{stored},{stored}.png,0,train\n")
    Path("data/split/classes.json").write_text(json.dumps([stored, "dog"]), encoding="utf-8")
    catalogue = Catalogue.load()
    names: list[tuple[Kind, str]] = [("id", asked), ("path", f"{asked}.png"), ("class", asked)]
    for kind, name in names:
        assert stored in catalogue.ids(Named(kind, name, 0))
        assert catalogue.problem(Named(kind, name, 0)) is None
    assert catalogue.names_for(stored) == [("id", stored), ("path", f"{stored}.png")]
    assert stored in forms(asked)
    assert forms(asked)[0] == asked


def test_of_two_files_whose_names_differ_in_form_alone_the_very_one_is_meant(root: Path) -> None:
    kelvin, ring, plain = "train/\u212b.png", "train/\u00c5.png", "train/A\u030a.png"
    with Path("data/split/samples.csv").open("a", encoding="utf-8") as file:
        file.write(f"{kelvin},1,0,train\n{plain},2,0,train\n")
    catalogue = Catalogue.load()
    assert list(catalogue.ids(Named("id", kelvin, 0))) == [kelvin]
    assert list(catalogue.ids(Named("id", plain, 0))) == [plain]
    problem = catalogue.problem(Named("id", ring, 0))
    assert problem == "means 2 samples; write one as it stands in data/split/samples.csv"


def test_what_was_erased_is_known_in_either_form(root: Path, desk: Desk) -> None:
    samples = Path("data/split/samples.csv")
    before = samples.read_text()
    samples.write_text(f"{before}{DECOMPOSED},x,0,train\n", encoding="utf-8")
    first = desk.submit(
        submission(samples={"id": [COMPOSED]}), "a.json", Catalogue.load(), channel="cli"
    ).request
    assert first.state.status == "validated"
    go_on(desk, first, *LIFE)
    samples.write_text(before)
    for form in (COMPOSED, DECOMPOSED):
        again = desk.submit(
            submission(samples={"id": [form]}), "a.json", Catalogue.load(), channel="cli"
        ).request
        assert (again.state.status, again.first) == ("duplicate", first.id)


def test_a_class_of_which_nothing_is_left_is_told_from_one_that_never_was(root: Path) -> None:
    Path("data/split/classes.json").write_text('["cat", "dog", "emu"]')
    problem = Catalogue.load().problem(Named("class", "emu", 0))
    assert problem == "is a class of which no samples are left"


def test_reasons_hold_no_name(root: Path) -> None:
    """They are kept in the ledger for ever."""
    kinds: tuple[Kind, ...] = ("id", "path", "class")
    told = " ".join(str(Catalogue.load().problem(Named(kind, "nobody", 0))) for kind in kinds)
    assert not {"cat", "dog", "nobody", "train/0.png", "train.parquet#0"} & set(
        told.replace(",", " ").split()
    )


def test_a_hundred_thousand_samples_are_found_in_a_second(root: Path) -> None:
    header, *_ = Path("data/split/samples.csv").read_text().splitlines()
    rows = "\n".join(f"train/{row}.png,train.parquet#{row},{row % 2},train" for row in range(100_000))
    Path("data/split/samples.csv").write_text(f"{header}\n{rows}\n")
    Path("data/split/rows.json").write_text('[{"file": "train.parquet", "rows": 100000}]')
    start = time.process_time()
    catalogue = Catalogue.load()
    kinds: tuple[Kind, ...] = ("id", "path", "index")
    for kind in kinds:
        for number in range(100):
            value = {"id": f"train/{number}.png", "path": f"train.parquet#{number}"}.get(kind, number)
            assert catalogue.problem(Named(kind, value, 0)) is None
    assert time.process_time() - start < 2


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


def test_the_reason_why_there_is_no_catalogue_is_told(root: Path) -> None:
    found, reason = Catalogue.load_or_none()
    assert found is not None
    assert reason == ""
    samples = root / "data/split/samples.csv"
    samples.write_bytes(b"\xff")
    assert Catalogue.load_or_none()[0] is None
    assert "samples.csv is not UTF-8 text" in Catalogue.load_or_none()[1]
    samples.unlink()
    assert "samples.csv is missing" in Catalogue.load_or_none()[1]
    samples.mkdir()
    assert "samples.csv cannot be read" in Catalogue.load_or_none()[1]


def test_the_process_that_holds_the_pipeline_does_not_wait_for_itself(root: Path) -> None:
    (root / "data/split/samples.csv").unlink()
    start = time.monotonic()
    with only_writer(Path("pipeline")):
        assert Catalogue.load_or_none()[0] is None
    assert time.monotonic() - start < 5


def test_the_pipeline_of_another_process_is_waited_for(root: Path) -> None:
    path = root / "data/split/samples.csv"
    text = path.read_text()
    path.unlink()
    held = (
        "import time; from pathlib import Path; from tasks.core.files import only_writer\n"
        "with only_writer(Path('pipeline')): print(flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    with subprocess.Popen([sys.executable, "-c", held], stdout=subprocess.PIPE, env=environment) as other:
        try:
            assert other.stdout is not None
            other.stdout.readline()
            timer = threading.Timer(1.0, path.write_text, [text])
            timer.start()
            assert Catalogue.load_or_none()[0] is not None
            timer.join()
        finally:
            other.kill()


def test_taking_a_request_needs_no_arrays(root: Path) -> None:
    script = (
        "import sys, tasks.requests.inbox; from tasks.requests.catalogue import Catalogue; Catalogue.load(); "
        "print(*sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert not {"numpy", "pyarrow", "torch", "pandas", "PIL", "mlflow", "holidays"} & set(done.stdout.split())
