from __future__ import annotations

import contextlib
import hashlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tasks.core.errors import ExpungeError
from tasks.datasets._reading.decode import Decoder, resized
from tasks.datasets._reading.still import Decoding, UnusableImageError, decode
from tests.datasets.building import colour, encoded, grey

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")


def decoded(content: bytes, resize: int | None = None) -> NDArray[np.uint8]:
    return decode(io.BytesIO(content), Decoding(resize))[0]


def noise(mode: str, side: int = 64) -> Image.Image:
    return Image.fromarray(colour(1, side, side)).convert(mode)


def test_grey_and_rgb_files_keep_their_pixels() -> None:
    assert np.array_equal(decoded(encoded(grey())), grey()[None])
    assert np.array_equal(decoded(encoded(colour())), colour().transpose(2, 0, 1))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
def test_every_lossless_format_gives_the_same_pixels(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(decoded(encoded(colour(), kind, **options)), colour().transpose(2, 0, 1))


def test_one_bit_images_become_black_and_white() -> None:
    bits = grey() > 127
    assert np.array_equal(decoded(encoded(Image.fromarray(bits))), np.where(bits, 255, 0)[None])


def test_a_palette_of_colours_becomes_rgb_and_a_palette_of_greys_grey() -> None:
    picture = noise("RGB").quantize(16)
    assert np.array_equal(decoded(encoded(picture)), np.asarray(picture.convert("RGB")).transpose(2, 0, 1))
    greys = Image.fromarray(grey()).convert("P")
    assert np.array_equal(decoded(encoded(greys)), grey()[None])


def test_opaque_alpha_is_dropped() -> None:
    opaque = np.dstack([colour(), np.full((9, 7), 255, dtype=np.uint8)])
    assert np.array_equal(decoded(encoded(opaque)), colour().transpose(2, 0, 1))
    grey_opaque = np.dstack([grey(), np.full((9, 7), 255, dtype=np.uint8)])
    assert np.array_equal(decoded(encoded(Image.fromarray(grey_opaque, mode=None))), grey()[None])


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_one_transparent_pixel_is_refused(mode: str) -> None:
    picture = noise(mode)
    picture.putalpha(Image.fromarray(np.where(np.arange(4096).reshape(64, 64) == 77, 254, 255).astype("u1")))
    with pytest.raises(UnusableImageError, match="transparent"):
        decoded(encoded(picture))


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_a_transparent_colour_is_refused_where_it_occurs_and_ignored_elsewhere(mode: str) -> None:
    picture = Image.new("L", (4, 4), 10).convert(mode)
    key, other = {"L": (10, 11), "RGB": ((10, 10, 10), (1, 2, 3)), "P": (picture.getpixel((0, 0)), 200)}[mode]
    with pytest.raises(UnusableImageError, match="transparent"):
        decoded(encoded(picture, transparency=key))
    assert np.all(decoded(encoded(picture, transparency=other)) == 10)


def test_cmyk_becomes_rgb() -> None:
    picture = noise("CMYK")
    assert np.array_equal(
        decoded(encoded(picture, "TIFF")), np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
    )
    # An Adobe JPEG stores CMYK inverted; plain white must come out white, not black.
    assert decoded(encoded(Image.new("CMYK", (16, 16), (0, 0, 0, 0)), "JPEG")).min() > 250


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_keeps_all_its_levels(kind: str) -> None:
    values = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    pixels = decoded(encoded(values, kind))
    assert np.array_equal(pixels, (values // 256)[None])
    assert len(np.unique(pixels)) == 256


def test_big_endian_sixteen_bit_tiff_is_read_in_its_own_byte_order() -> None:
    values = np.array([[0, 255, 256], [4660, 32768, 65535]], dtype=">u2")
    picture = Image.frombytes("I;16B", (3, 2), values.tobytes())
    assert decoded(encoded(picture, "TIFF")).tolist() == [[[0, 0, 1], [18, 128, 255]]]


def test_sixteen_bit_rgb_keeps_its_upper_bytes() -> None:
    values = np.array([[[0, 256, 65535], [4660, 255, 32768]]], dtype=">u2")

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    png += chunk(b"IDAT", zlib.compress(b"\0" + values.tobytes())) + chunk(b"IEND", b"")
    assert np.array_equal(decoded(png), (values // 256).transpose(2, 0, 1))


def test_a_transparent_sixteen_bit_level_is_refused() -> None:
    values = np.full((4, 4), 20_000, dtype=np.uint16)
    with pytest.raises(UnusableImageError, match="transparent"):
        decoded(encoded(values, transparency=20_000))


def test_values_beyond_sixteen_bits_and_floats_are_refused() -> None:
    assert np.all(decoded(encoded(np.full((4, 4), 65535, dtype=np.int32), "TIFF")) == 255)
    for wrong in (65536, -1):
        with pytest.raises(UnusableImageError, match="16 bits"):
            decoded(encoded(np.full((4, 4), wrong, dtype=np.int32), "TIFF"))
    with pytest.raises(UnusableImageError, match="pixel mode F"):
        decoded(encoded(np.full((4, 4), 0.5, dtype=np.float32), "TIFF"))


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda a: a),
        (2, np.fliplr),
        (3, lambda a: np.rot90(a, 2)),
        (4, np.flipud),
        (5, np.transpose),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: np.rot90(a, 2).T),
        (8, np.rot90),
    ],
)
def test_exif_orientation_turns_the_picture_upright(orientation: int, upright: object) -> None:
    assert callable(upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(decoded(encoded(grey(), exif=exif))[0], upright(grey()))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_several_frames_are_refused(kind: str) -> None:
    frames = [Image.fromarray(colour(seed)) for seed in range(3)]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    with pytest.raises(UnusableImageError, match="animated or of several pages"):
        decoded(content)


def test_a_still_gif_is_read() -> None:
    assert np.array_equal(decoded(encoded(Image.fromarray(grey()), "GIF")), grey()[None])


def test_a_camera_jpeg_with_a_preview_behind_it_is_its_first_picture() -> None:
    picture, preview = noise("RGB"), noise("RGB", 16)
    content = encoded(picture, "MPO", save_all=True, append_images=[preview])
    assert decoded(content).shape == (3, 64, 64)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF"])
def test_a_truncated_file_is_refused_wherever_it_is_cut(kind: str) -> None:
    content = encoded(noise("RGB"), kind)
    for share in range(0, 95, 5):
        with pytest.raises(UnusableImageError):
            decoded(content[: len(content) * share // 100])


@pytest.mark.parametrize("content", [b"", b"label\n3\n", b"%PDF-1.7", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_refused(content: bytes) -> None:
    with pytest.raises(UnusableImageError, match="not a JPEG, PNG, BMP, WebP, GIF, TIFF, AVIF or HEIC"):
        decoded(content)


def test_damaged_bytes_never_escape_as_another_error() -> None:
    rng = np.random.default_rng(3)
    for kind in ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF"):
        content = np.frombuffer(encoded(noise("RGB", 16), kind), dtype=np.uint8)
        for _ in range(60):
            damaged = content.copy()
            damaged[rng.integers(0, len(content), 4)] = rng.integers(0, 256, 4)
            with contextlib.suppress(UnusableImageError):  # damage to pixels may go unnoticed
                assert decoded(damaged.tobytes()).dtype == np.uint8


@pytest.mark.parametrize("size", [(16_001, 8000), (20_000, 20_000)])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(size: tuple[int, int]) -> None:
    content = encoded(Image.new("1", size))
    with pytest.raises(UnusableImageError, match=r"more than 128 megapixels; raise split\.max_megapixels"):
        decoded(content[:2000])  # decoding would complain of the missing rest


def test_the_limit_against_bombs_can_be_set() -> None:
    content = encoded(Image.new("1", (1000, 1001)))
    assert decode(io.BytesIO(content), Decoding(8, max_pixels=1_001_000))[0].shape == (1, 8, 8)
    with pytest.raises(UnusableImageError, match="1000×1001, more than 1 megapixels"):
        decode(io.BytesIO(content), Decoding(8, max_pixels=1_000_000))


def test_resizing_averages_instead_of_picking_pixels() -> None:
    stripes = np.tile(np.array([0, 255], dtype=np.uint8), (64, 32))
    inner = decoded(encoded(stripes), resize=8)[0, 1:-1, 1:-1].astype(int)
    assert abs(inner - 127.5).max() <= 16  # picking every 8th pixel would give 0 or 255
    assert decoded(encoded(colour()), resize=12).shape == (3, 12, 12)


def test_arrays_are_resized_like_files() -> None:
    images = np.stack([colour(seed).transpose(2, 0, 1) for seed in range(3)])
    expected = np.stack([decoded(encoded(colour(seed)), resize=16) for seed in range(3)])
    assert np.array_equal(resized(images, Decoding(16)), expected)
    assert resized(images, Decoding()) is images


def decoder_of(contents: list[bytes], resize: int | None = None) -> Decoder:
    decoder = Decoder(len(contents), Decoding(resize), Path("pets"))
    for index, content in enumerate(contents):
        decoder.add(content, f"{index}.png")
    return decoder


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (1, 0, 2)])
def test_one_colour_image_makes_the_set_colour(order: tuple[int, ...]) -> None:
    kinds = [grey(0), grey(1), colour(2)]
    images = decoder_of([encoded(kinds[index]) for index in order]).finish()
    expected = [np.dstack([kinds[i]] * 3) if kinds[i].ndim == 2 else kinds[i] for i in order]
    assert np.array_equal(images, np.stack(expected).transpose(0, 3, 1, 2))


def test_the_same_picture_has_the_same_fingerprint_at_every_size_in_every_file_and_set() -> None:
    pixels = np.dstack([grey(0)] * 3)
    whole = hashlib.sha256(repr((9, 7, 3)).encode() + pixels.tobytes()).digest()
    files = [
        encoded(grey(0)),
        encoded(pixels),
        encoded(grey(0), "BMP"),
        encoded(pixels, "TIFF"),
    ]
    for resize in (None, 8, 16):
        for others in ([], [encoded(colour(2))], [encoded(grey(1))]):
            found = decoder_of([*others, *files], resize).pictures[len(others) :]
            assert found.dtype == np.uint8
            assert [row.tobytes() for row in found] == [whole] * 4


def test_another_picture_has_another_fingerprint() -> None:
    tall = grey(0).reshape(7, 9)  # the same bytes in another shape
    pictures = decoder_of([encoded(grey(0)), encoded(grey(1)), encoded(colour(0)), encoded(tall)], 8).pictures
    assert pictures.shape == (4, 32)
    assert len({row.tobytes() for row in pictures}) == 4


def test_grey_images_make_a_grey_set() -> None:
    images = decoder_of([encoded(grey(0)), encoded(grey(1))]).finish()
    assert np.array_equal(images, np.stack([grey(0), grey(1)])[:, None])


def test_different_sizes_name_two_files_and_the_parameter() -> None:
    decoder = decoder_of([encoded(grey(0)), encoded(grey(1, 20, 10)), encoded(grey(1, 30, 10))])
    with pytest.raises(ExpungeError, match=r"^pets: 0\.png is 7×9, but 1\.png is 10×20; set split\.resize"):
        decoder.finish()
    assert decoder_of([encoded(grey(0)), encoded(grey(1, 20, 10))], resize=8).finish().shape == (2, 1, 8, 8)


def test_all_unusable_files_are_counted_and_the_first_twenty_named() -> None:
    contents = [encoded(grey()), *[b"no image"] * 23, encoded(grey())]
    with pytest.raises(ExpungeError) as caught:
        decoder_of(contents).finish()
    message = str(caught.value)
    assert message.startswith("pets: 23 unusable file(s): 1.png (not a JPEG")
    assert "20.png" in message
    assert "21.png" not in message
    assert message.endswith("; and 3 more")
    assert "\n" not in message
