"""What lies in archives, compressed files, pages and tables is found; what is not opened is counted."""

from __future__ import annotations

import base64
import bz2
import gzip
import hashlib
import io
import json
import lzma
import pickle
import tarfile
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.orc
import pyarrow.parquet as pq
import pytest
import torch

from tasks.erasure.search import Found, Limits, Sought, Unread, find
from tests.erasure.formats.samples import GREYS, IMAGES, KEPT, NAME, encoded, erased, picture_digest

PNG = encoded(IMAGES[3])
IMAGE = Found(pixels=1, files=1)


def zipped(content: bytes, name: str = "a.bin") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
        archive.writestr("other/", b"")
    return file.getvalue()


def tarred(content: bytes, name: str = "a.bin", mode: str = "w", form: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode, format=form) as archive:  # type: ignore[call-overload]
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def zstd(content: bytes) -> bytes:
    return bytes(pa.compress(content, codec="zstd", asbytes=True))


def lz4(content: bytes) -> bytes:
    file = io.BytesIO()
    with pa.CompressedOutputStream(file, "lz4") as stream:
        stream.write(content)
        stream.flush()
        stream.close()
        return file.getvalue() if not file.closed else b""


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "zip": zipped,
    "tar": tarred,
    "old tar": lambda content: tarred(content, form=tarfile.USTAR_FORMAT),
    "tar.gz": lambda content: tarred(content, mode="w:gz"),
    "tar.bz2": lambda content: tarred(content, mode="w:bz2"),
    "tar.xz": lambda content: tarred(content, mode="w:xz"),
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda content: lzma.compress(content, lzma.FORMAT_ALONE),
    "zlib": zlib.compress,
    "zstd": zstd,
    "zip in tar.gz": lambda content: tarred(zipped(content), mode="w:gz"),
    "pickle": lambda content: pickle.dumps({"image": content}),
    "torch": lambda content: torched({"image": content}),
    "old torch": lambda content: torched({"image": content}, zipped=False),
    "page": lambda content: (
        f'<img src="data:image/png;base64,{base64.b64encode(content).decode()}">'.encode()
    ),
    "notebook": lambda content: json.dumps({"image/png": base64.encodebytes(content).decode()}).encode(),
    "mail": lambda content: b"x\n\n" + base64.encodebytes(content) + b"\n--\n",
    "URL-safe": lambda content: b"image=" + base64.urlsafe_b64encode(content) + b"&x",
    "JSON with slashes escaped": lambda content: (
        json.dumps([base64.b64encode(content).decode()]).replace("/", "\\/").encode()
    ),
    "page in zip": lambda content: zipped(
        b"<img src='data:image/png;base64," + base64.b64encode(content) + b"'>"
    ),
}


def torched(value: object, *, zipped: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


@pytest.mark.parametrize("pack", PACKED)
def test_an_image_is_found_in_whatever_holds_it(pack: str, others: Sought) -> None:
    content = PACKED[pack](PNG)
    assert find(content, erased(IMAGES[3])) == IMAGE
    assert not find(content, others)
    assert not find(PACKED[pack](encoded(IMAGES[2])), erased(IMAGES[3]))


@pytest.mark.parametrize("pack", [each for each in PACKED if "page" not in each])
def test_a_name_is_found_in_whatever_holds_it(pack: str, others: Sought) -> None:
    text = f"id,label\n{KEPT},1\n{NAME},2\n".encode() * 5
    assert find(PACKED[pack](text), erased(IMAGES[3])) == Found(names=1)
    assert not find(PACKED[pack](text), others)


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_the_name_of_a_member_is_a_name(pack: Callable[[bytes, str], bytes]) -> None:
    assert find(pack(b"x", NAME), erased(IMAGES[3])) == Found(names=1)
    assert find(pack(b"x", f"pets/{NAME}"), erased(IMAGES[3])).by_end
    assert not find(pack(b"x", KEPT), erased(IMAGES[3]))


def table() -> pa.Table:
    structs = [{"bytes": encoded(image), "path": f"{row}.png"} for row, image in enumerate(IMAGES)]
    return pa.table(
        {
            "image": structs,
            "ids": [[NAME, "x"] if row == 5 else [] for row in range(len(IMAGES))],
            "label": [0] * len(IMAGES),
        }
    )


def test_every_member_is_searched() -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for number, content in enumerate([PNG, b"x", f"{NAME}\n".encode(), zipped(encoded(GREYS[4]))]):
            member = tarfile.TarInfo(f"{number}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    assert find(file.getvalue(), erased(IMAGES[3], GREYS[4])) == Found(names=1, pixels=2, files=2)


def feather() -> bytes:
    file = io.BytesIO()
    pyarrow.feather.write_feather(table(), file, compression="zstd")
    return file.getvalue()


def parquet() -> bytes:
    file = io.BytesIO()
    pq.write_table(table(), file)
    return file.getvalue()


def orc() -> bytes:
    file = io.BytesIO()
    pyarrow.orc.write_table(table(), file)
    return file.getvalue()


def arrow_stream() -> bytes:
    file = io.BytesIO()
    with pa.ipc.new_stream(file, table().schema) as writer:
        writer.write_table(table())
    return file.getvalue()


@pytest.mark.parametrize("write", [parquet, orc, arrow_stream, feather])
def test_samples_are_found_in_columns(write: Callable[[], bytes], others: Sought, search: Sought) -> None:
    content = write()
    found = find(content, erased(IMAGES[3]))
    assert found == Found(names=1, pixels=1, files=1)
    assert not found.unread
    assert find(content, search) == found
    assert not find(content, others)


@pytest.mark.parametrize("kind", ["png", "bmp", "tiff", "gif", "webp", "ppm", "jpeg2000"])
def test_the_same_picture_is_found_in_another_encoding(kind: str, others: Sought) -> None:
    options = {"lossless": True} if kind == "webp" else {}
    image = GREYS[4] if kind in ("gif", "jpeg2000") else IMAGES[3]
    content = encoded(image, kind, **options)
    found = find(content, erased(IMAGES[3], GREYS[4]))
    assert (found.pixels, found.whole) == (found.pixels, True) and found.pixels  # noqa: PT018
    assert find(content, Sought.of_samples([], pictures=[_picture(image)])) == Found(pixels=1, whole=True)
    assert not find(content, others)


def _picture(image: np.ndarray) -> str:

    return picture_digest(image)


def test_a_jpeg_that_was_saved_again_without_loss_is_found() -> None:
    from PIL import Image

    first = encoded(IMAGES[3], "jpeg", quality=90)
    pixels = np.asarray(Image.open(io.BytesIO(first))).transpose(2, 0, 1)
    commented = first[:2] + b"\xff\xfe\x00\x07hello" + first[2:]
    sought = Sought.of_samples([], pictures=[_picture(pixels)], files=[hashlib.sha256(first).hexdigest()])
    assert find(commented, sought) == Found(pixels=1, whole=True)
    assert find(first, sought) == Found(pixels=1, files=1, whole=True)
    assert not find(encoded(IMAGES[3], "jpeg", quality=89), sought)


def test_a_comment_in_an_image_is_text() -> None:
    content = encoded(IMAGES[2], "gif", comment=NAME.encode())
    assert find(content, erased(IMAGES[3])) == Found(names=1)


def test_a_frame_of_a_moving_image_is_found() -> None:
    from PIL import Image

    file = io.BytesIO()
    frames = [Image.fromarray(image.transpose(1, 2, 0)) for image in IMAGES]
    frames[0].save(file, "tiff", save_all=True, append_images=frames[1:])
    assert find(file.getvalue(), erased(IMAGES[3])) == Found(pixels=1)


def test_an_image_of_a_size_that_no_sample_has_is_not_decoded() -> None:
    sought = Sought.of_samples([], pictures=[_picture(IMAGES[3])], sizes=[(99, 99)])
    assert not find(PNG, sought)
    assert find(PNG, Sought.of_samples([], pictures=[_picture(IMAGES[3])], sizes=[(6, 8)]))


def test_a_bomb_is_cut_off_and_said_to_be() -> None:
    limits = Limits(unpacked=1 << 20, allowed=1 << 20)
    zeros = gzip.compress(b"\0" * (1 << 24))
    for bomb in (
        zeros,
        zipped(b"\0" * (1 << 24)),
        tarred(zeros, mode="w:gz"),
        bz2.compress(b"\0" * (1 << 24)),
    ):
        found = find(bomb, erased(IMAGES[3]), limits)
        assert found.unread[Unread.CUT] >= 1
        assert not find(bomb, erased(IMAGES[3])).unread


def test_what_lies_before_the_cut_is_searched() -> None:
    content = gzip.compress(f"{NAME}\n".encode() + b"\0" * (1 << 24))
    found = find(content, erased(IMAGES[3]), Limits(unpacked=1 << 20))
    assert found == Found(names=1)
    assert found.unread == {Unread.CUT: 1}


def test_archives_in_archives_are_opened_as_deep_as_the_limit() -> None:
    content = f"{NAME}\n".encode()
    for _ in range(4):
        content = zipped(content)
    assert find(content, erased(IMAGES[3])) == Found(names=1)
    cut = find(content, erased(IMAGES[3]), Limits(depth=3))
    assert not cut
    assert cut.unread == {Unread.DEEP: 1}


def test_a_limit_of_members_is_said() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(20):
            archive.writestr(f"{number}.txt", NAME if number == 19 else "x")
    assert find(file.getvalue(), erased(IMAGES[3])) == Found(names=1)
    cut = find(file.getvalue(), erased(IMAGES[3]), Limits(members=5))
    assert not cut
    assert cut.unread == {Unread.CUT: 1}


def test_what_is_not_opened_is_counted_by_kind() -> None:
    for head in (b"\x89HDF\r\n\x1a\n", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07\x01\0", b"FEA1", b"%PDF-1.7\n"):
        assert find(head + b"\0\1\2" * 99, erased(IMAGES[3])).unread == {Unread.UNKNOWN: 1}
    encrypted = bytearray(zipped(PNG))
    for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        encrypted[encrypted.find(mark) + place] |= 1
    assert find(bytes(encrypted), erased(IMAGES[3])).unread == {Unread.ENCRYPTED: 1}
    assert find(b"plain text", erased(IMAGES[3])).unread == {}
    damaged = PNG[:60]
    assert find(damaged, erased(IMAGES[3])).unread == {Unread.PICTURE: 1}


def test_nothing_of_a_pickle_is_executed(tmp_path) -> None:  # type: ignore[no-untyped-def]
    class Harmful:
        def __reduce__(self) -> tuple[object, ...]:
            return (open, (str(tmp_path / "made"), "w"))

    content = pickle.dumps([Harmful(), NAME])
    assert find(content, erased(IMAGES[3])) == Found(names=1)
    assert not (tmp_path / "made").exists()
    member = io.BytesIO()
    with zipfile.ZipFile(member, "w") as archive:
        archive.writestr("archive/data.pkl", content)
    assert find(member.getvalue(), erased(IMAGES[3])) == Found(names=1)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("pack", PACKED)
def test_damaged_containers_never_raise(pack: str) -> None:
    content = PACKED[pack](PNG)
    random = np.random.default_rng(3)
    sought = erased(IMAGES[3])
    for length in random.integers(0, len(content), 8).tolist():
        find(content[:length], sought)
    for _ in range(20):
        damaged = bytearray(content)
        for place in random.integers(0, len(content), 6).tolist():
            damaged[place] = int(random.integers(0, 256))
        find(bytes(damaged), sought)


@pytest.mark.parametrize("write", [parquet, orc, arrow_stream, feather])
def test_damaged_columns_never_raise(write: Callable[[], bytes]) -> None:
    content = write()
    random = np.random.default_rng(3)
    for _ in range(30):
        damaged = bytearray(content)
        for place in random.integers(0, len(content), 6).tolist():
            damaged[place] = int(random.integers(0, 256))
        find(bytes(damaged), erased(IMAGES[3]))
