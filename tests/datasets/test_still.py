"""What the settings of split do to one picture."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tasks.core.errors import ExpungeError
from tasks.datasets._reading.decode import Decoder
from tasks.datasets._reading.still import LARGE, Decoding, UnusableImageError, decode
from tasks.samples.pictures import fingerprint_of_picture
from tests.datasets.building import colour, encoded, grey

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")


def pixels(content: bytes, how: Decoding) -> NDArray[np.uint8]:
    return decode(io.BytesIO(content), how)[0]


def sixteen_bit_png(values: NDArray[np.uint16], kind: int = 0) -> bytes:
    """A PNG as it is written by hand, for kinds of which Pillow writes none; 0 is grey, 2 RGB, 6 RGBA."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("bits", "highest"), [(8, 255), (10, 1023), (12, 4095), (14, 16383), (15, 32767)])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_few_bits_in_sixteen_are_refused_and_scaled_if_told(bits: int, highest: int, kind: str) -> None:
    values = np.linspace(0, highest, 64).astype(np.uint16).reshape(8, 8)
    content = encoded(values, kind)
    if highest < 16384:
        with pytest.raises(
            UnusableImageError, match=rf"no value above {highest}: .*split\.bits .*\({bits}\?\)"
        ):
            pixels(content, Decoding())
    assert np.array_equal(pixels(content, Decoding(bits=bits)), (values >> (bits - 8))[None])
    assert pixels(content, Decoding(bits=bits)).max() == 255
    assert np.array_equal(pixels(content, Decoding(bits=16)), (values >> 8)[None])


def test_a_value_beyond_the_bits_is_refused_and_black_is_black() -> None:
    too_bright = np.full((4, 4), 4096, dtype=np.uint16)
    with pytest.raises(UnusableImageError, match="the value 4096 has more than 12 bits"):
        pixels(encoded(too_bright), Decoding(bits=12))
    assert pixels(encoded(np.zeros((4, 4), dtype=np.uint16)), Decoding()).max() == 0


@pytest.mark.parametrize(("kind", "channels"), [(2, 3), (6, 4)])
def test_colour_of_few_bits_in_sixteen_is_refused_never_shown_black(kind: int, channels: int) -> None:
    values = np.full((5, 6, channels), 4095, dtype=np.uint16)
    if channels == 4:
        values[..., 3] = 65535
    for bits in (None, 12):
        with pytest.raises(UnusableImageError, match=r"16-bit colour,? (of which|whose)"):
            pixels(sixteen_bit_png(values, kind), Decoding(bits=bits))
    assert pixels(sixteen_bit_png(values, kind), Decoding(bits=16)).max() == 15


def test_pictures_of_few_bits_are_told_apart_whatever_the_setting() -> None:
    rng = np.random.default_rng(0)
    one, other = (encoded(rng.integers(0, 256, (8, 8)).astype(np.uint16)) for _ in range(2))
    prints = {decode(io.BytesIO(one), Decoding(bits=bits))[1] for bits in (8, 12, 16)}
    assert len(prints) == 1
    assert decode(io.BytesIO(other), Decoding(bits=8))[1] not in prints


def test_a_background_shows_through_what_is_transparent() -> None:
    alpha = np.zeros((9, 7), dtype=np.uint8)
    alpha[0, 0], alpha[0, 1] = 255, 51
    content = encoded(np.dstack([colour(), alpha]))
    with pytest.raises(UnusableImageError, match=r"set split\.background"):
        pixels(content, Decoding())
    shown = pixels(content, Decoding(background=(10, 200, 30)))
    assert shown[:, 5, 5].tolist() == [10, 200, 30]
    assert shown[:, 0, 0].tolist() == colour()[0, 0].tolist()
    mixed = 0.2 * colour()[0, 1] + 0.8 * np.array([10, 200, 30])
    assert np.abs(shown[:, 0, 1] - mixed).max() <= 1


def test_grey_on_a_grey_background_stays_grey() -> None:
    alpha = np.zeros((9, 7), dtype=np.uint8)
    content = encoded(Image.merge("LA", (Image.fromarray(grey()), Image.fromarray(alpha))))
    assert pixels(content, Decoding(background=(255, 255, 255))).shape == (1, 9, 7)
    assert pixels(content, Decoding(background=(255, 0, 0))).shape == (3, 9, 7)


def test_cropping_takes_the_middle_and_padding_keeps_all() -> None:
    wide = np.zeros((20, 60, 3), dtype=np.uint8)
    wide[:, 20:40] = (200, 100, 50)
    assert np.all(pixels(encoded(wide), Decoding(20, "crop")) == np.array([200, 100, 50])[:, None, None])
    padded = pixels(encoded(wide), Decoding(60, "pad", background=(1, 2, 3)))
    assert padded.shape == (3, 60, 60)
    assert np.array_equal(padded[:, 20:40], wide.transpose(2, 0, 1))
    assert padded[:, 19, 30].tolist() == padded[:, 40, 30].tolist() == [1, 2, 3]
    assert pixels(encoded(wide), Decoding(60, "pad"))[:, 0, 0].tolist() == [0, 0, 0]


def test_a_grey_picture_is_padded_in_grey_or_becomes_colour() -> None:
    tall = np.full((30, 10), 77, dtype=np.uint8)
    assert pixels(encoded(tall), Decoding(30, "pad", (9, 9, 9)))[0, :, 0].tolist() == [9] * 30
    assert pixels(encoded(tall), Decoding(30, "pad", (9, 0, 0)))[:, 0, 0].tolist() == [9, 0, 0]


def photo(width: int = 2600, height: int = 2000) -> Image.Image:
    """A smooth picture of more than LARGE pixels."""
    assert width * height > LARGE
    small = Image.fromarray(colour(3, 12, 16))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def test_a_large_jpeg_is_reduced_while_it_is_decoded_and_looks_the_same() -> None:
    content = encoded(photo(), "JPEG", quality=95)
    exact = np.asarray(Image.open(io.BytesIO(content)).resize((64, 64), Image.Resampling.BILINEAR))
    reduced = pixels(content, Decoding(64))
    assert np.abs(reduced.astype(int) - exact.transpose(2, 0, 1)).max() <= 6


def test_a_large_jpeg_has_one_fingerprint_at_every_size_and_fit() -> None:
    content = encoded(photo(), "JPEG", quality=95)
    hows = [Decoding(), Decoding(64), Decoding(64, "crop"), Decoding(1000), Decoding(512, "pad")]
    prints = {decode(io.BytesIO(content), how)[1] for how in hows}
    assert len(prints) == 1
    other = encoded(photo().transpose(Image.Transpose.FLIP_LEFT_RIGHT), "JPEG", quality=95)
    assert decode(io.BytesIO(other), Decoding(64))[1] not in prints


def test_a_large_jpeg_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = pixels(encoded(photo(), "JPEG", quality=95, exif=exif), Decoding(64))
    plain = pixels(encoded(photo().rotate(-90, expand=True), "JPEG", quality=95), Decoding(64))
    assert np.abs(turned.astype(int) - plain.astype(int)).max() <= 8


def test_a_large_picture_in_another_format_keeps_the_fingerprint_of_all_its_pixels() -> None:
    _, picture = decode(io.BytesIO(encoded(photo(), "PNG", compress_level=1)), Decoding(32))
    assert picture == fingerprint_of_picture(np.asarray(photo()))


@pytest.mark.parametrize("kind", ["AVIF", "WEBP"])
def test_formats_of_the_web_are_read(kind: str) -> None:
    smooth = photo(2600, 2000).resize((64, 48))
    shown = pixels(encoded(smooth, kind, quality=95), Decoding())
    assert np.corrcoef(shown.ravel(), np.asarray(smooth).transpose(2, 0, 1).ravel())[0, 1] > 0.97


def test_heic_without_its_package_says_which() -> None:
    head = struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic"
    hidden = "import sys; sys.modules['pillow_heif'] = None; "
    asked = (
        f"{hidden}import io; from tasks.datasets._reading.still import decode as d; d(io.BytesIO({head!r}))"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=False)
    assert "HEIC, which takes one more package: pip install pillow-heif" in done.stderr


def test_processes_side_by_side_give_the_same_and_tell_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    contents = [encoded(colour(seed)) if seed % 50 else b"no image" for seed in range(400)]

    def decoded(worth: float) -> Decoder:
        monkeypatch.setattr("tasks.datasets._reading.decode.WORTH", worth)
        decoder = Decoder(len(contents), Decoding(8), Path("pets"))
        for number, content in enumerate(contents):
            decoder.add(content, f"{number}.png")
        return decoder

    alone, several = decoded(1e9), decoded(0.0)
    assert np.array_equal(alone.pictures, several.pictures)
    messages = []
    for decoder in (alone, several):
        with pytest.raises(ExpungeError, match="8 unusable") as caught:
            decoder.finish()
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
