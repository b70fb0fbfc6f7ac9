"""The working copy of the embedded images: made once, whole, without what was erased."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tasks import sample as stage
from tasks.core.errors import ExpungeError
from tasks.core.params import Params, load, validate
from tasks.datasets.parquet import parquet, remove
from tasks.requests.high_water import extend
from tasks.requests.keys import LIST_KEY, KeyStore
from tasks.requests.suppression import Erased, lines_for
from tasks.sample import COPY, EMBEDDED, PART, sample
from tests.datasets.building import reading
from tests.functional.repository import write_embedded

ROOT = Path(__file__).parents[1]
DEFAULTS = load(ROOT / "params.yaml").model_dump()
LIST = Path("data/requests/erased.txt")


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeyStore:
    """An empty key store, beside the working directory, which has embedded images and an empty list."""
    root = tmp_path / "project"
    write_embedded(root / EMBEDDED)
    monkeypatch.chdir(root)
    Erased(()).write(LIST)
    return KeyStore(tmp_path / "keys", root)


def params(**split: Any) -> Params:
    return validate({**DEFAULTS, "split": {**DEFAULTS["split"], **split}})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def erase(keys: KeyStore, *rows: int) -> list[str]:
    """Enter rows of the embedded images into the list of what was erased; return their ids."""
    images = parquet(EMBEDDED, reading())
    arrays = (images.sample_ids, images.images, images.pictures)
    extend(LIST, keys, lambda key: lines_for(rows, *arrays, key))
    return [images.sample_ids[row] for row in rows]


def test_the_copy_has_the_images_to_the_byte_and_the_licence_but_is_not_called_public(keys: KeyStore) -> None:
    assert sample(params(), keys)
    expected = contents(EMBEDDED)
    del expected["PUBLIC"]
    assert contents(COPY) == expected
    assert {"LICENSE", "train-00000-of-00001.parquet", "test-00000-of-00001.parquet"} == set(expected)
    assert not PART.exists()


def test_a_copy_that_is_there_stays_as_it_is(keys: KeyStore) -> None:
    sample(params(), keys)
    remove(COPY, ["train-00000-of-00001.parquet#3"], reading())
    (COPY / "LICENSE").unlink()
    before = contents(COPY)
    assert not sample(params(), keys)
    assert contents(COPY) == before


def test_an_empty_folder_is_no_copy(keys: KeyStore) -> None:
    COPY.mkdir()
    assert sample(params(), keys)
    assert len(contents(COPY)) == 3


def test_a_new_copy_is_without_what_was_erased(keys: KeyStore) -> None:
    gone = erase(keys, 4, 17)
    before = contents(EMBEDDED)
    assert sample(params(), keys)
    every, left = parquet(EMBEDDED, reading()), parquet(COPY, reading())
    assert [name for name in every.sample_ids if name not in gone] == list(left.sample_ids)
    assert len(left.sample_ids) == len(every.sample_ids) - 2
    assert contents(EMBEDDED) == before


@pytest.mark.parametrize("split", [{"resize": 12}, {"resize": 12, "path": "data/images"}])
def test_what_was_erased_is_recognised_whatever_size_split_works_with(
    keys: KeyStore, split: dict[str, Any]
) -> None:
    (gone,) = erase(keys, 4)
    assert sample(params(**split), keys)
    assert gone not in parquet(COPY, reading()).sample_ids


def test_without_the_key_to_what_was_erased_no_copy_is_made(keys: KeyStore) -> None:
    erase(keys, 4)
    keys.destroy(LIST_KEY)
    with pytest.raises(ExpungeError, match="lacks the key that tells which"):
        sample(params(), keys)
    assert not COPY.exists()


def test_a_copy_that_was_cut_short_is_made_anew(keys: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:10])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", killed)
        with pytest.raises(KeyboardInterrupt):
            sample(params(), keys)
    assert not COPY.exists()
    (PART / "of a third process").write_text("")
    assert sample(params(), keys)
    assert "of a third process" not in contents(COPY)
    assert not PART.exists()


def test_missing_embedded_images_are_one_line_that_says_what_to_do(keys: KeyStore) -> None:
    shutil.rmtree(EMBEDDED)
    with pytest.raises(
        ExpungeError, match=r"^data/fashion-mnist-10k holds no Parquet file; restore it: git "
    ):
        sample(params(), keys)


def test_git_ignores_the_copy_whole_or_not() -> None:
    for path in (stage.COPY / "train-00000-of-00001.parquet", stage.PART / "LICENSE"):
        assert subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT, check=False).returncode == 0


def test_the_shipped_files_are_those_that_public_names() -> None:
    lines = (ROOT / EMBEDDED / "PUBLIC").read_text().splitlines()
    parts = [line.split("  ") for line in lines if not line.startswith("#")]
    named = {name: sha256 for sha256, name in parts}
    files = (ROOT / EMBEDDED).glob("*.parquet")
    assert named == {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
