from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.core.errors import ExpungeError
from tasks.datasets.image_folder import LAYOUT, MARK, image_folder, remove
from tasks.samples.check import check
from tests.datasets.building import colour, encoded, grey, reading, write_folders, write_image


def refusal(path: Path) -> str:
    with pytest.raises(ExpungeError) as caught:
        check(image_folder(path, reading()), str(path))
    message = str(caught.value)
    assert "\n" not in message
    message.encode()  # can be printed, whatever the file names are
    return message


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return write_folders(tmp_path / "pets")


def test_folders_become_classes_and_paths_ids(pets: Path) -> None:
    of = check(image_folder(pets, reading()), "pets")
    assert of.classes == ("cat", "dog")
    assert len(of.labels) == 12
    assert list(of.sample_ids) == sorted(of.sample_ids)
    assert of.sources == of.sample_ids
    row = of.sample_ids.index("train/dog/002.png")
    assert np.array_equal(of.images[row], colour(102).transpose(2, 0, 1))
    assert of.labels[row] == 1
    assert [name.startswith("test/") for name in of.sample_ids] == of.is_test.tolist()


def test_folders_below_a_class_belong_to_it(pets: Path) -> None:
    write_image(pets / "train/dog/small/terrier/1.png", colour(7))
    of = image_folder(pets, reading())
    assert of.labels[of.sample_ids.index("train/dog/small/terrier/1.png")] == 1


@pytest.mark.parametrize("name", ["a.PNG", "b.Jpg", "c.jpeg", "d.bmp", "e.webp", "f.GIF", "g.tif", "h.tiff"])
def test_extensions_are_known_in_either_case(pets: Path, name: str) -> None:
    write_image(pets / "train/cat" / name, colour())
    assert f"train/cat/{name}" in image_folder(pets, reading()).sample_ids


def test_hidden_files_and_litter_are_passed_over(pets: Path) -> None:
    litter = ["train/.DS_Store", "train/cat/Thumbs.db", "train/cat/._1.png", "test/dog/desktop.ini"]
    for name in (*litter, "train/.ipynb_checkpoints/1.png"):
        (pets / name).parent.mkdir(parents=True, exist_ok=True)
        (pets / name).write_bytes(b"litter")
    (pets / "README.txt").write_text("beside train and test anything may lie")
    (pets / "raw").mkdir()
    assert len(image_folder(pets, reading()).labels) == 12


def test_what_systems_leave_behind_is_passed_over_in_any_case_and_counted(
    pets: Path, caplog: pytest.LogCaptureFixture
) -> None:
    litter = (
        *("train/cat/thumbs.db", "train/Desktop.ini", "train/__MACOSX/x.png", "train/cat/lost+found/1.png"),
        *("test/lost+found/1.png", "train/cat/@eaDir/000.png/SYNOPHOTO_THUMB_M.jpg"),
    )
    before = image_folder(pets, reading())
    assert caplog.text == ""
    for name in litter:
        (pets / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(pets / name, colour()) if name.endswith("g") else (pets / name).write_bytes(b"litter")
    after = image_folder(pets, reading())
    assert (after.sample_ids, after.classes) == (before.sample_ids, before.classes)
    assert (
        "passed over: @eaDir (1), Desktop.ini (1), __MACOSX (1), lost+found (2), thumbs.db (1)" in caplog.text
    )


def test_ids_survive_when_other_files_leave(pets: Path) -> None:
    before = image_folder(pets, reading())
    assert before.row_counts == ()
    (pets / "train/cat/000.png").unlink()
    after = image_folder(pets, reading())
    assert set(before.sample_ids) - set(after.sample_ids) == {"train/cat/000.png"}


def test_names_that_differ_in_case_only_are_different_samples(pets: Path) -> None:
    write_image(pets / "train/cat/x.png", colour(1))
    write_image(pets / "train/cat/X.png", colour(2))
    assert {"train/cat/x.png", "train/cat/X.png"} <= set(image_folder(pets, reading()).sample_ids)


def test_names_with_commas_blanks_and_any_script_are_read(pets: Path) -> None:
    write_image(pets / "train/cat/a, b 猫.png", colour())
    assert "train/cat/a, b 猫.png" in image_folder(pets, reading()).sample_ids


def test_the_path_may_end_in_a_slash_be_relative_or_be_a_link(
    pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = image_folder(pets, reading()).sample_ids
    (pets.parent / "link").symlink_to(pets)
    monkeypatch.chdir(pets.parent)
    for path in (Path("pets/"), Path("link"), Path("./pets/../pets")):
        assert image_folder(path, reading()).sample_ids == expected


def test_grey_and_colour_files_make_a_colour_set_and_sizes_need_resize(pets: Path) -> None:
    write_image(pets / "train/cat/grey.png", grey())
    assert image_folder(pets, reading()).images.shape == (13, 3, 9, 7)
    write_image(pets / "train/cat/wide.png", grey(0, 9, 30))
    message = refusal(pets)
    assert "test/cat/000.png is 7×9, but train/cat/wide.png is 30×9; set split.resize" in message
    assert image_folder(pets, reading(8)).images.shape == (14, 3, 8, 8)


def test_a_truncated_jpeg_is_listed_with_its_file(pets: Path) -> None:
    content = encoded(Image.fromarray(colour(0, 64, 64)), "JPEG")
    (pets / "train/dog/cut.jpg").write_bytes(content[: len(content) // 2])
    assert "1 unusable file(s): train/dog/cut.jpg (damaged: image file is truncated" in refusal(pets)


def test_everything_unusable_is_listed_together(pets: Path, tmp_path: Path) -> None:
    (pets / "train/cat/empty.png").touch()
    (pets / "train/cat/notes.txt").write_text("x")
    (pets / "train/stray.png").write_bytes(encoded(colour()))
    (pets / "test/cat/broken.png").symlink_to("nowhere.png")
    (pets / "test/cat/self.png").symlink_to("self.png")
    (pets / "test/dog/out.png").symlink_to(write_image(tmp_path / "elsewhere.png", colour()))
    os.mkfifo(pets / "test/dog/pipe.png")
    message = refusal(pets)
    for expected in (
        "7 unusable file(s)",
        "train/cat/empty.png (not a JPEG, PNG, BMP, WebP, GIF, TIFF, AVIF or HEIC image)",
        "train/cat/notes.txt (not an image file; known are .png .jpg",
        "train/stray.png (lies outside a class folder)",
        "test/cat/broken.png (broken link)",
        "test/cat/self.png (broken link)",
        "test/dog/out.png (link that leaves the folder)",
        "test/dog/pipe.png (neither a file nor a folder)",
    ):
        assert expected in message


def test_a_linked_folder_outside_is_refused(pets: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "pets-more/1.png", colour())
    (pets / "train/cat/more").symlink_to(tmp_path / "pets-more")
    assert "train/cat/more (link that leaves the folder)" in refusal(pets)


def test_a_linked_part_outside_is_refused(pets: Path, tmp_path: Path) -> None:
    (pets / "test").rename(tmp_path / "test")
    (pets / "test").symlink_to(tmp_path / "test")
    assert "test (link that leaves the folder)" in refusal(pets)


def test_links_within_the_folder_are_followed(pets: Path) -> None:
    write_image(pets / "pool/1.png", colour(50))
    write_image(pets / "more/2.png", colour(51))
    (pets / "train/cat/linked.png").symlink_to("../../pool/1.png")
    (pets / "train/dog/more").symlink_to("../../more")
    of = image_folder(pets, reading())
    assert np.array_equal(
        of.images[of.sample_ids.index("train/cat/linked.png")], colour(50).transpose(2, 0, 1)
    )
    assert "train/dog/more/2.png" in of.sample_ids


@pytest.mark.parametrize("target", [".", "..", "../..", "../../test/cat"])
def test_links_to_folders_that_are_read_anyway_are_refused(pets: Path, target: str) -> None:
    (pets / "train/cat/again").symlink_to(target)
    assert "link to a folder that is read already" in refusal(pets)


def test_names_with_control_characters_or_not_utf8_are_listed_printably(pets: Path) -> None:
    write_image(pets / "train/cat/a\nb.png", colour())
    with Path(os.fsdecode(bytes(pets) + b"/train/dog/\xff.png")).open("wb") as file:
        file.write(encoded(colour()))
    message = refusal(pets)
    assert (
        "2 unusable file(s): 'train/cat/a\\nb.png' (name is not UTF-8 or holds control characters)" in message
    )
    assert "'train/dog/\\udcff.png' (name is not UTF-8" in message


def test_a_class_with_a_control_character_is_refused(pets: Path) -> None:
    write_image(pets / "train/bi\trd/1.png", colour())
    assert "'train/bi\\trd' (name is not UTF-8 or holds control characters)" in refusal(pets)


def test_a_missing_training_part_is_refused(pets: Path) -> None:
    (pets / "train").rename(pets / "other")
    assert refusal(pets).endswith(f"pets has no folder train (found: other, test); {LAYOUT}")
    (pets / "train").write_text("a file")
    assert "has no folder train" in refusal(pets)


def test_a_missing_or_empty_folder_is_refused(tmp_path: Path) -> None:
    assert "missing has no folder" in refusal(tmp_path / "missing")
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    assert "/train has no class folders; train/<class>/…" in refusal(tmp_path)


@pytest.mark.parametrize("folder", ["train/bird", "test/cat", "train/dog"])
def test_an_empty_class_folder_is_refused(pets: Path, folder: str) -> None:
    (pets / folder).mkdir(exist_ok=True)
    for file in (pets / folder).iterdir():
        file.unlink()
    (pets / folder / "empty").mkdir()
    assert refusal(pets).endswith(f"class folder {folder} holds no images")


def test_a_class_that_only_test_has_is_refused(pets: Path) -> None:
    write_image(pets / "test/bird/1.png", colour())
    assert refusal(pets).endswith("test/bird is a class that train lacks; train has cat, dog")


def test_a_class_that_only_train_has_is_read(pets: Path) -> None:
    write_image(pets / "train/bird/1.png", colour())
    assert check(image_folder(pets, reading()), "pets").classes == ("bird", "cat", "dog")


def test_what_a_link_leads_to_is_erased_with_the_last_that_needs_it(pets: Path) -> None:
    pool, links = write_image(pets / "pool/1.png", colour(50)), ["train/cat/a.png", "test/dog/b.png"]
    for link in links:
        (pets / link).symlink_to("../../pool/1.png")
    assert remove(pets, links[:1], reading()) == [pets / links[0]]
    assert pool.exists()
    assert remove(pets, links[1:], reading()) == [pool.resolve(), pets / links[1]]


def test_what_a_link_that_is_kept_leads_to_is_not_erased(pets: Path) -> None:
    (pets / "train/cat/link.png").symlink_to("../dog/000.png")
    with pytest.raises(
        ExpungeError, match=r"dog/000.png cannot be erased while train/cat/link.png, which is kept"
    ):
        remove(pets, ["train/cat/000.png", "train/dog/000.png"], reading())
    assert len(image_folder(pets, reading()).labels) == 13
    assert len(remove(pets, ["train/cat/link.png", "train/dog/000.png"], reading())) == 2
    assert len(image_folder(pets, reading()).labels) == 11


def test_nothing_outside_the_folder_is_erased(pets: Path, tmp_path: Path) -> None:
    pool = write_image(pets / "pool/1.png", colour(50))
    (tmp_path / "out.png").symlink_to(pool)
    (pets / "train/cat/a.png").symlink_to(tmp_path / "out.png")
    assert remove(pets, ["train/cat/a.png"], reading()) == [pool.resolve(), pets / "train/cat/a.png"]
    assert (tmp_path / "out.png").is_symlink()


def test_an_interrupted_erasure_of_a_link_is_finished(pets: Path) -> None:
    write_image(pets / "pool/1.png", colour(50)).unlink()
    (pets / "train/cat/link.png").symlink_to("../../pool/1.png")
    assert remove(pets, ["train/cat/link.png"], reading()) == [pets / "train/cat/link.png"]
    assert len(image_folder(pets, reading()).labels) == 12


def test_only_a_class_folder_that_is_left_empty_is_marked(pets: Path) -> None:
    remove(pets, ["train/cat/000.png", *(f"test/dog/{index:03d}.png" for index in range(2))], reading())
    assert list(pets.rglob(MARK)) == [pets / "test/dog" / MARK]


def test_an_empty_test_part_is_refused(tmp_path: Path) -> None:
    write_folders(tmp_path)
    (tmp_path / "test").rename(tmp_path / "old")
    (tmp_path / "test").mkdir()
    assert refusal(tmp_path).endswith(f"/test has no class folders; {LAYOUT}")


def test_one_class_only_is_refused(tmp_path: Path) -> None:
    assert "1 class (cat); a classifier needs at least 2" in refusal(write_folders(tmp_path, ["cat"]))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_and_folder_are_listed(pets: Path) -> None:
    (pets / "train/cat/000.png").chmod(0)
    (pets / "test/dog").chmod(0)
    message = refusal(pets)
    (pets / "test/dog").chmod(0o755)
    assert "train/cat/000.png (Permission denied)" in message
    assert "test/dog (Permission denied)" in message
