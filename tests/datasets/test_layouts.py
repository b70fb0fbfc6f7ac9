"""Folders of images as people have them: parts of other names, side files, links, whose the images are."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from tasks.core import dvc_cache
from tasks.core.errors import ExpungeError
from tasks.core.params import Forget
from tasks.datasets.image_folder import image_folder, remove
from tasks.samples.check import check
from tasks.samples.roles import assign_roles
from tests.datasets.building import colour, reading, write_folders, write_image


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return write_folders(tmp_path / "pets")


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_a_validation_part_is_used_as_it_is(pets: Path, name: str) -> None:
    for label in ("cat", "dog"):
        for index in range(3):
            write_image(pets / name / label / f"{index}.png", colour(500 + index + 10 * (label == "dog")))
    of = check(image_folder(pets, reading()), "pets")
    parts, roles = assign_roles(of, reading())
    held_out = {row for row, sample_id in enumerate(of.sample_ids) if sample_id.startswith(f"{name}/")}
    assert set(np.flatnonzero(parts == "val").tolist()) == held_out
    assert len(held_out) == 6
    assert (
        np.count_nonzero(roles == "forget") == 2 * 0 + 1
    )  # a tenth of four a class is none; then one is taken


def test_two_validation_parts_are_refused(pets: Path) -> None:
    write_image(pets / "val/cat/1.png", colour())
    write_image(pets / "valid/cat/1.png", colour())
    with pytest.raises(ExpungeError, match="has val and valid: two validation parts; keep one"):
        image_folder(pets, reading())


@pytest.mark.parametrize("seed", range(4))
def test_without_a_test_part_a_share_of_every_class_is_taken(tmp_path: Path, seed: int) -> None:
    pets = write_folders(tmp_path / "pets", count=20)
    (pets / "test").rename(pets / "other")
    of = check(image_folder(pets, reading()), "pets")
    split = reading(seed=seed, test_fraction=0.25, val_fraction=0.2)
    parts, _ = assign_roles(of, split)
    for label in range(2):
        own = parts[of.labels == label]
        assert [np.count_nonzero(own == part) for part in ("train", "val", "test")] == [12, 3, 5]
    smaller = of.subset(np.flatnonzero(np.arange(len(of.labels)) != int(np.flatnonzero(parts == "test")[0])))
    again = dict(zip(smaller.sample_ids, assign_roles(smaller, split)[0], strict=True))
    changed = [name for name, part in zip(of.sample_ids, parts, strict=True) if again.get(name, part) != part]
    assert len(changed) <= 3


def test_a_named_sample_is_never_put_into_a_test_part_that_is_taken(tmp_path: Path) -> None:
    pets = write_folders(tmp_path / "pets", count=20)
    (pets / "test").rename(pets / "other")
    of = image_folder(pets, reading())
    (tmp_path / "ids.txt").write_text("\n".join(of.sample_ids[::3]) + "\n")
    forget = Forget(kind="ids", ids_file=str(tmp_path / "ids.txt"))
    _, roles = assign_roles(of, reading().model_copy(update={"forget": forget}))
    assert set(roles[::3]) == {"forget"}
    assert np.any(roles == "test")


@pytest.mark.parametrize("name", ["a.jfif", "b.JPE", "c.avif", "d.jpeg"])
def test_further_names_of_image_files_are_known(pets: Path, name: str) -> None:
    from PIL import Image

    kind = "AVIF" if name.endswith("avif") else "JPEG"
    Image.fromarray(colour(1)).save(pets / "train/cat" / name, kind)
    assert f"train/cat/{name}" in image_folder(pets, reading()).sample_ids


@pytest.mark.parametrize(
    "name",
    [
        *(
            "THUMBS.DB",
            "Thumbs.db:encryptable",
            "ehthumbs_vista.db",
            "Picasa.ini",
            "#recycle/1.png",
            "@Recycle/2.png",
        ),
        *(
            "LOST.DIR/3.png",
            ".thumbnails/4.png",
            ".@__thumb/5.png",
            "._6.png",
            "System Volume Information/7.png",
        ),
        *(
            "cat_boxes.txt",
            "metadata.csv",
            "metadata.jsonl",
            "README.md",
            "LICENSE",
            "000.jpg.xmp",
            "000.AAE",
        ),
        *("001.png.json", "000.png:Zone.Identifier", "@eaDir/000.png/SYNOPHOTO_THUMB_M.jpg"),
    ],
)
def test_side_files_are_no_samples_and_are_counted(
    pets: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = image_folder(pets, reading()).sample_ids
    write_image(pets / "pool.png", colour()).replace(pets / "side.png")
    target = pets / "train/cat" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes((pets / "side.png").read_bytes())
    assert image_folder(pets, reading()).sample_ids == before
    assert "passed over: " in caplog.text


@pytest.mark.parametrize("name", ["notes.txt", "labels.json", "movie.mp4", "table.csv", "x.png.part"])
def test_files_that_no_list_knows_are_refused(pets: Path, name: str) -> None:
    (pets / "train/cat" / name).write_bytes(b"?")
    with pytest.raises(ExpungeError, match=r"1 unusable file\(s\): train/cat/.*not an image file"):
        image_folder(pets, reading())


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Tiny-ImageNet's layout, at toy size."""
    root = tmp_path / "tiny"
    for number, name in enumerate(("n01443537", "n01629819")):
        for index in range(6):
            write_image(root / f"train/{name}/images/{name}_{index}.png", colour(100 * number + index))
        lines = [f"{name}_{index}.png\t0\t0\t8\t6\n" for index in range(6)]
        (root / f"train/{name}/{name}_boxes.txt").write_text("".join(lines))
    labels = ["n01443537", "n01629819", "n01443537"]
    for index in range(3):
        write_image(root / f"val/images/val_{index}.png", colour(300 + index))
        write_image(root / f"test/images/test_{index}.png", colour(400 + index))
    lines = [f"val_{index}.png\t{label}\t0\t32\t44\t62\n" for index, label in enumerate(labels)]
    (root / "val/val_annotations.txt").write_text("".join(lines))
    (root / "wnids.txt").write_text("n01443537\nn01629819\n")
    return root


def test_tiny_imagenet_is_read_with_the_classes_of_its_text_file(
    tiny: Path, caplog: pytest.LogCaptureFixture
) -> None:
    of = check(image_folder(tiny, reading()), "tiny")
    assert of.classes == ("n01443537", "n01629819")
    of_val = {name: int(of.labels[row]) for row, name in enumerate(of.sample_ids) if name.startswith("val/")}
    assert of_val == {"val/images/val_0.png": 0, "val/images/val_1.png": 1, "val/images/val_2.png": 0}
    assert not any(name.startswith("test/") for name in of.sample_ids)
    assert "test, which has no classes" in caplog.text
    assert of.has_test is False
    assert of.is_val is not None
    assert of.is_val.sum() == 3


def test_the_lines_of_an_erased_image_leave_the_text_files(tiny: Path) -> None:
    asked = ["train/n01443537/images/n01443537_2.png", "val/images/val_1.png"]
    changed = remove(tiny, asked, reading())
    assert {file.name for file in changed} == {
        "n01443537_2.png", "val_1.png", "n01443537_boxes.txt", "val_annotations.txt"
    }  # fmt: skip
    assert "n01443537_2" not in (tiny / "train/n01443537/n01443537_boxes.txt").read_text()
    assert "val_1" not in (tiny / "val/val_annotations.txt").read_text()
    left = image_folder(tiny, reading()).sample_ids
    assert len(left) == 13
    assert not {*asked} & {*left}


def test_an_image_that_the_text_file_does_not_know_is_refused(tiny: Path) -> None:
    write_image(tiny / "val/images/val_9.png", colour())
    with pytest.raises(ExpungeError, match=r"val/images/val_9.png \(val_annotations.txt gives it no class"):
        image_folder(tiny, reading())


def test_links_into_dvcs_cache_are_read_and_others_are_not(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import subprocess
    import sys

    repository = tmp_path / "project"
    repository.mkdir()
    monkeypatch.chdir(repository)

    def dvc(*arguments: str) -> None:
        subprocess.run([sys.executable, "-m", "dvc", *arguments], check=True, capture_output=True)

    dvc("init", "--no-scm")
    dvc("config", "cache.type", "symlink")
    expected = image_folder(pets, reading()).sample_ids
    pets.rename(repository / "images")
    dvc("add", "images")
    assert (repository / "images/train/cat/000.png").is_symlink()
    target = (repository / "images/train/cat/000.png").resolve()
    dvc_cache.folder.cache_clear()
    assert image_folder(Path("images"), reading()).sample_ids == expected
    stranger = tmp_path / "files/md5/ab/0123456789abcdef0123456789abcd"
    stranger.parent.mkdir(parents=True)
    stranger.write_bytes(target.read_bytes())
    (repository / "images/train/cat/out.png").symlink_to(stranger)
    with pytest.raises(ExpungeError, match=r"out.png \(link that leaves the folder\)"):
        image_folder(Path("images"), reading())
    (repository / "images/train/cat/out.png").unlink()
    assert remove(Path("images"), ["train/cat/000.png"], reading()) == [Path("images/train/cat/000.png")]
    assert target.exists()  # it is DVC's; the purge knows what else needs it


def test_a_table_beside_the_images_says_whose_they_are(pets: Path, caplog: pytest.LogCaptureFixture) -> None:
    (pets / "subjects.csv").write_text(
        "path,subject\ntrain/cat/000.png,crm:1;crm:2\ntrain/dog/000.png,crm:1\ntrain/dog/000.png,crm:3\n"
        "train/cat/gone.png,crm:4\n"
    )
    of = image_folder(pets, reading())
    assert of.subjects is not None
    whose = dict(zip(of.sample_ids, of.subjects, strict=True))
    assert whose["train/cat/000.png"] == ("crm:1", "crm:2")
    assert whose["train/dog/000.png"] == ("crm:1", "crm:3")
    assert whose["train/cat/001.png"] == ()
    assert "1 of its paths are no images here" in caplog.text
    changed = remove(pets, ["train/cat/000.png"], reading())
    assert changed == [pets / "train/cat/000.png", pets / "subjects.csv"]
    assert "crm:2" not in (pets / "subjects.csv").read_text()


def test_the_table_of_subjects_may_spell_a_name_in_another_form(pets: Path) -> None:
    stored = unicodedata.normalize("NFD", "train/cat/café.png")
    write_image(pets / stored, colour())
    (pets / "whose.csv").write_text(f"subject,path\ncrm:1,{unicodedata.normalize('NFC', stored)}\n")
    of = image_folder(pets, reading(subject="whose.csv"))
    assert of.subjects is not None
    assert of.subjects[of.sample_ids.index(stored)] == ("crm:1",)
    remove(pets, [stored], reading(subject="whose.csv"))
    assert (pets / "whose.csv").read_text() == "path,subject\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,who\na,b\n", "line 1: the header is file,who; path,subject is right"),
        ("path,subject\na\n", "line 2: 1 cells; the header has 2"),
        (f"path,subject\na,{'x' * 257}\n", "line 2: a subject is one line of at most 256 characters"),
        ("", "line 1: the header is missing"),
    ],
)
def test_a_damaged_table_of_subjects_is_named_by_line(pets: Path, text: str, message: str) -> None:
    (pets / "subjects.csv").write_text(text)
    with pytest.raises(ExpungeError, match=message):
        image_folder(pets, reading())
