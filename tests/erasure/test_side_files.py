"""Small copies that other programs lay beside an image are told by its name: their pixels are others."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tasks.erasure import side_files
from tasks.erasure.checklist import Outcome
from tasks.erasure.identity import of_data
from tasks.erasure.purge import verify
from tasks.erasure.sought import Sought
from tests.erasure.test_purge import (
    GONE,
    OTHER,
    Project,
    files,
    items,
    names_nobody,
    outcomes,
    project,
    tracked,
)

__all__ = ["project", "tracked"]

ROOT = "/data/images"
SOUGHT = Sought.of_samples(["train/0/000.png"], roots=[ROOT])


@pytest.mark.parametrize(
    "path",
    [
        "train/0/@eaDir/000.png/SYNOPHOTO_THUMB_M.jpg",
        "train/0/@eaDir/000.png@SynoEAStream",
        "train/0/.thumbnails/000.png",
        "train/0/.thumbnails/large/000.png",
        ".thumbnails/train/0/000.png",
        "train/0/._000.png",
        "train/0/.AppleDouble/000.png",
        "train/0/.picasaoriginals/000.png",
    ],
)
def test_what_lies_in_the_place_of_a_copy_is_told_and_goes(path: str) -> None:
    for whole in (path, f"{ROOT}/{path}"):
        assert side_files.is_copy(whole, SOUGHT)
        assert not side_files.is_copy(whole.replace("000.png", "001.png"), SOUGHT)
        assert not side_files.is_copy(whole.replace("000.png", "000.png.png"), SOUGHT)
    assert side_files.passed_over(path)
    assert not side_files.is_copy(f"/elsewhere/{path}", SOUGHT)
    assert side_files.named_after(f"/elsewhere/{path}", SOUGHT).by_end


@pytest.mark.parametrize(
    "path",
    [
        "train/0/000_thumb.jpg",
        "train/0/000-150x150.png",
        "train/0/thumb_000.png",
        "train/0/000.png.xmp",
        "train/0/000.png.thumb.jpg",
        "train/0/.@__thumb/s100000.png",
        "train/0/.thumbnails/000.jpg",
    ],
)
def test_what_is_only_named_like_one_is_told_and_stays(path: str) -> None:
    found = side_files.named_after(f"{ROOT}/{path}", SOUGHT)
    assert found
    assert not found.by_end
    assert not side_files.is_copy(f"{ROOT}/{path}", SOUGHT)


@pytest.mark.parametrize("path", ["train/0/000.txt", "train/0/0000.png", "train/0/000/1.png", "000x.png"])
def test_other_names_tell_nothing(path: str) -> None:
    assert not side_files.named_after(f"{ROOT}/{path}", SOUGHT)


def thumbnail(of: str, path: Path, **text: str) -> bytes:
    """A reduced copy, which neither pixels nor bytes tell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    info = PngInfo()
    for key, value in text.items():
        info.add_text(key.replace("_", "::"), value)
    with Image.open(Path("data/images", of)) as image:
        image.resize((3, 3)).save(path, format="PNG", pnginfo=info)
    return path.read_bytes()


def test_thumbnails_in_the_source_leave_with_the_original_and_others_stay(
    project: Project, tmp_path: Path
) -> None:
    folder = Path("data/images/train/0")
    gone = {
        thumbnail(GONE, folder / "@eaDir/000.png/SYNOPHOTO_THUMB_M.jpg"),
        thumbnail(GONE, folder / ".thumbnails/000.png", Software="x"),
    }
    kept = thumbnail(OTHER, folder / "@eaDir/001.png/SYNOPHOTO_THUMB_M.jpg")
    project.repository.dvc("add", "--quiet", "data/images")
    project.repository.dvc("repro", "--quiet", "split")
    project.repository.commit("a Synology's thumbnails")
    project.repository.dvc("push", "--quiet")
    reported = thumbnail(GONE, Path("data/images_thumbs/x.png"))
    shutil.copytree(folder / "@eaDir", project.root / "data/copy/train/0/@eaDir")
    home = project.root.parent / ".cache/thumbnails/normal"
    uri = (project.root / "data/images" / GONE).as_uri()
    name = f"{hashlib.md5(uri.encode()).hexdigest()}.png"
    thumbnail(GONE, home / name, Thumb_URI=uri, Thumb_MTime="1")
    thumbnail(OTHER, home / "other.png", Thumb_URI=uri.replace("000.png", "001.png"))
    Path("data/Thumbs.db").write_bytes(bytes.fromhex("d0cf11e0a1b11ae1") + bytes(504))
    request = project.promoted(GONE)
    identity = of_data([request], project.desk, project.purge().params.split)
    assert side_files.is_copy("train/0/.thumbnails/000.png", identity.sought)
    planned = project.purge().plan([request])
    assert {
        each.outcome
        for each in planned
        if "eaDir" in each.item and "000.png" in each.item and "copy" not in each.item
    } == {Outcome.DELETED}
    checklist = project.purge().carry_out([request])
    request = project.record(request, checklist)
    for place in (Path("data/images"), Path(".dvc/cache"), project.store):
        left = set(files(place).values())
        assert gone.isdisjoint(left)
        assert kept in left
    assert not (folder / "@eaDir/000.png").exists()
    assert kept in files(project.clone(tmp_path / "clone").root / "data/images").values()
    assert project.repository.git("status", "--porcelain", "-uno") == ""
    (line,) = [each for each in checklist if each.store == "source" and "thumbnails" in each.scope]
    assert (line.outcome, line.count) == (Outcome.DELETED, 2)
    assert items(checklist, "workspace", Outcome.NAMED_ALIKE) == {
        str(project.root / "data/copy/train/0/@eaDir/000.png/SYNOPHOTO_THUMB_M.jpg")
    }
    assert items(checklist, "thumbnails of this user", Outcome.KEPT_REPORTED) == {str(home / name)}
    assert any(each.outcome is Outcome.NOT_OPENED and "thumbnails" in each.detail for each in checklist)
    assert reported in files(Path("data")).values()  # nothing tells of whom it is
    assert names_nobody(checklist)
    again = verify(project.purge(), [request])
    assert outcomes(again, "thumbnails of this user") == {Outcome.KEPT_REPORTED}
