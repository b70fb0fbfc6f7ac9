"""Encoded images: the same pixels are the same sample, whatever they are encoded in."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.erasure.formats import arrays
from tasks.erasure.found import Unread

if TYPE_CHECKING:
    from PIL.Image import Image

    from tasks.erasure.scan import Content, Scan

MARKS = (
    b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+",
    b"P5\n", b"P6\n", b"P5 ", b"P6 ", b"\0\0\x01\0", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51", b"qoif",
)  # fmt: skip
BITMAP = b"BM"
FILE = 1 << 28
"""Bytes of a file that is read to be decoded."""

ORIENTED = frozenset({"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"})
"""Where a file may say that it is to be turned."""

FRAMES = 1000
"""Pictures in one file that are looked at."""


def matches(head: bytes) -> bool:
    """Whether it begins as an image does that Pillow reads."""
    return (
        head.startswith(MARKS)
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
        or head[4:12] in (b"ftypavif", b"ftypavis")
        or (head.startswith(BITMAP) and head[6:10] == b"\0\0\0\0")
    )


def read(content: Content, scan: Scan) -> bool:
    """Decode an image and look for its pixels; its comments are read as text."""
    if not (scan.by_image or scan.by_name):
        return True
    if content.size > FILE:
        scan.unread[Unread.LARGE] += 1
        return True
    from PIL import Image

    data = content.read()
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data)) as image:
            _comments(image, scan)
            if scan.by_image and scan.sought.of_size(image.height, image.width):
                met = _reduced(image, data, scan) | _decoded(image, scan)
                scan.whole |= met and scan.depth == 0 and getattr(image, "n_frames", 1) == 1
    except Image.DecompressionBombError:
        scan.unread[Unread.LARGE] += 1
    except Exception:  # malformed bytes make Pillow's readers raise nearly anything
        scan.unread[Unread.PICTURE] += 1
        return False
    return True


def _reduced(image: Image, data: bytes, scan: Scan) -> bool:
    """Look for a photo that is known by an eighth of its size."""
    from tasks.datasets._reading.still import is_large_jpeg, reduced_fingerprint

    if not (scan.by_picture and is_large_jpeg(image)):
        return False
    return scan.image(set(), {reduced_fingerprint(io.BytesIO(data)).hex().encode()})


def _decoded(image: Image, scan: Scan) -> bool:
    count = getattr(image, "n_frames", 1)
    if count > FRAMES:
        scan.unread[Unread.CUT] += 1
    met = False
    for number in range(min(count, FRAMES)):
        if count > 1:
            image.seek(number)
        met |= arrays.search_image(_pixels(_upright(image)), scan)
    return met


def _upright(image: Image) -> Image:
    from PIL import ImageOps

    image.load()  # a PNG may say at its end how it is to be turned
    if image.format in ("TIFF", "MPO") or not ORIENTED.isdisjoint(image.info):
        return ImageOps.exif_transpose(image)
    return image


def _pixels(image: Image) -> NDArray[np.uint8]:
    """Return ``uint8 [H, W]`` or ``[H, W, 3]`` as the sources decode it; what is transparent is dropped."""
    if image.mode.startswith("I"):
        from tasks.datasets._reading.still import eight_bits

        return eight_bits(np.asarray(image))
    if image.mode in ("1", "L", "LA"):
        return np.asarray(image.convert("L"))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _comments(image: Image, scan: Scan) -> None:
    if not scan.by_name:
        return
    texts = []
    for key, value in image.info.items():
        if isinstance(value, bytes) and key not in ("icc_profile", "transparency"):
            texts.append(value)
        elif isinstance(value, str):
            texts.append(value.encode(errors="replace"))
    if texts:
        scan.text(b"\n".join(texts))
