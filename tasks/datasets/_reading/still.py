"""From the bytes of one image file to one picture of 8-bit grey or RGB, as the settings say."""

from __future__ import annotations

import io
import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from tasks.core.params import Split
from tasks.samples.pictures import fingerprint_of_picture

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "AVIF")
"""As Pillow calls them."""

MEGAPIXEL = 1_000_000
LARGE = 4 * MEGAPIXEL
"""Pixels above which a picture that is to be scaled is reduced while it is decoded."""

REDUCED = 8
"""By what a large JPEG is reduced for its fingerprint: the most that its format offers."""

HEIC = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"})
"""Brands by which a file of the HEIF family says that it is no AVIF."""

GREY_MODES = frozenset({"1", "L", "LA"})
COLOUR_MODES = frozenset({"P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})
ORIENTED = frozenset({"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"})
"""Where a file may say that it is to be turned."""

DARK = 1 << 14
"""A 16-bit picture without a value so high would be nearly black."""

OPAQUE = (255, 255)

REDUCING_GAP = 3.0
"""Pillow's own advice for a result that is hardly told from the exact one."""


class UnusableImageError(ValueError):
    """Why one file cannot be used."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """How image files are read.

    Attributes
    ----------
    side, fit
        Side in pixels of the square to scale to, or None, and how a picture that is no square gets there.
    background
        RGB that shows through what is transparent and fills what padding adds; None refuses transparency.
    bits
        Used bits of pictures with 16 bits a value; None takes 16, and refuses what would be nearly black.
    max_pixels
        Pixels of a picture above which it is refused before it is decoded.
    as_jpeg
        Whether what was decoded and scaled is encoded as JPEG, and lies so.
    """

    side: int | None = None
    fit: Literal["stretch", "crop", "pad"] = "stretch"
    background: tuple[int, int, int] | None = None
    bits: int | None = None
    max_pixels: int = 128 * MEGAPIXEL
    as_jpeg: bool = False

    @classmethod
    def of(cls, split: Split) -> Decoding:
        """Take the settings from the section of ``params.yaml``."""
        limit = int(split.max_megapixels * MEGAPIXEL)
        return cls(split.resize, split.fit, split.rgb, split.bits, limit, split.store == "jpeg")


def decode(file: BinaryIO, how: Decoding = Decoding()) -> tuple[NDArray[np.uint8], bytes]:
    """Decode one still image and scale it.

    EXIF orientation is applied. 16-bit grey keeps the upper 8 of its used bits. CMYK becomes RGB, a palette
    of greys becomes grey, and an alpha channel is dropped where it is opaque everywhere.

    Pillow's warnings of large or oddly tagged files are the caller's to ignore: what matters is checked here.

    Parameters
    ----------
    file
        An open JPEG, PNG, BMP, WebP, GIF, TIFF, AVIF or HEIC file.
    how
        Size, background, used bits and limits.

    Returns
    -------
    pixels
        ``uint8 [C, H, W]``; C is 1 for grey, else 3.
    picture
        :func:`~tasks.samples.pictures.fingerprint_of_picture` of the picture before it was scaled; of a
        JPEG of more than :data:`LARGE` pixels, of the picture at an eighth of its size.

    Raises
    ------
    UnusableImageError
        If the file is truncated or no image, has several frames, transparent pixels and no background, too
        many pixels, or values that cannot be shown in 8 bits.
    """
    formats: tuple[str, ...] = FORMATS
    if _is_heic(file):
        if not _reads_heic():
            raise UnusableImageError("HEIC, which takes one more package: pip install pillow-heif")
        formats = ("HEIF",)
    try:
        with Image.open(file, formats=formats) as image:
            return _decoded(image, file, how)
    except UnusableImageError:
        raise
    except UnidentifiedImageError:
        raise UnusableImageError("not a JPEG, PNG, BMP, WebP, GIF, TIFF, AVIF or HEIC image") from None
    except Image.DecompressionBombError:
        raise UnusableImageError(_too_large("more", how)) from None
    except MemoryError:
        raise UnusableImageError("too large for the memory that is left") from None
    except Exception as error:  # malformed bytes make Pillow's readers raise nearly anything
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise UnusableImageError(f"damaged: {reason}") from None


def _is_heic(file: BinaryIO) -> bool:
    """Whether a file begins as one of a phone's HEIC pictures does; it is left at its beginning."""
    head = file.read(12)
    file.seek(0)
    return head[4:8] == b"ftyp" and head[8:] in HEIC


@cache
def _reads_heic() -> bool:
    """Let Pillow read HEIC, if the package for it is installed."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def _decoded(image: Image.Image, file: BinaryIO, how: Decoding) -> tuple[NDArray[np.uint8], bytes]:
    _refuse_large_or_moving(image, how)
    is_large = image.width * image.height > LARGE
    reduces = is_large_jpeg(image)
    eighth = (-(-image.width // REDUCED), -(-image.height // REDUCED))
    if reduces and how.side is not None:
        image.draft(None, _least(image.size, how.side, how.fit))
    size, is_deep = image.size, any(";16" in str(tile) for tile in getattr(image, "tile", ()))
    shown, known = _grey_or_rgb(_upright(image), how, is_deep=is_deep)
    fingerprint = reduced_fingerprint(file) if reduces and size != eighth else fingerprint_of_picture(known)
    if how.side is not None:
        gap = REDUCING_GAP if is_large else None
        return planes(np.asarray(fitted(shown, how.side, how.fit, how.background, gap=gap))), fingerprint
    return planes(known if shown is image else np.asarray(shown)), fingerprint


def _refuse_large_or_moving(image: Image.Image, how: Decoding) -> None:
    if image.width * image.height > how.max_pixels:
        raise UnusableImageError(_too_large(f"{image.width}×{image.height}", how))
    # A camera's MPO file is a JPEG with a preview behind it: its first frame is the picture.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise UnusableImageError("animated or of several pages")


def _too_large(size: str, how: Decoding) -> str:
    limit = how.max_pixels / MEGAPIXEL
    return f"{size}, more than {limit:g} megapixels; raise split.max_megapixels if it is no bomb"


def _least(size: tuple[int, int], side: int, fit: str) -> tuple[int, int]:
    """Width and height below which a picture must not be reduced before it is scaled."""
    if fit == "stretch":
        return side, side
    edge = min(size) if fit == "crop" else max(size)
    return max(1, size[0] * side // edge), max(1, size[1] * side // edge)


def is_large_jpeg(image: Image.Image) -> bool:
    """Whether an opened picture is known by its look at an eighth of its size."""
    return image.width * image.height > LARGE and image.format in ("JPEG", "MPO")


def whole_fingerprint(content: bytes) -> bytes | None:
    """Fingerprint of all pixels of a JPEG that is known by an eighth of its size; None of any other file.

    In another format, where nothing is reduced while it is decoded, it is known by this one.
    """
    if not content.startswith(b"\xff\xd8\xff"):
        return None
    with (
        warnings.catch_warnings(action="ignore"),
        suppress(Exception),  # what was split could be decoded; it may have changed since
        Image.open(io.BytesIO(content), formats=("JPEG",)) as image,
    ):
        if is_large_jpeg(image):
            return fingerprint_of_picture(_grey_or_rgb(_upright(image), Decoding())[1])
    return None


def reduced_fingerprint(file: BinaryIO) -> bytes:
    """Fingerprint of a JPEG at an eighth of its size."""
    file.seek(0)
    with Image.open(file, formats=FORMATS) as image:
        image.draft(None, (max(1, image.width // REDUCED), max(1, image.height // REDUCED)))
        return fingerprint_of_picture(_grey_or_rgb(_upright(image), Decoding())[1])


def _upright(image: Image.Image) -> Image.Image:
    image.load()  # a PNG may say at its end how it is to be turned
    if image.format in ("TIFF", "MPO") or not ORIENTED.isdisjoint(image.info):
        return ImageOps.exif_transpose(image)
    return image


def _grey_or_rgb(
    image: Image.Image, how: Decoding, *, is_deep: bool = False
) -> tuple[Image.Image, NDArray[np.uint8]]:
    """Convert to mode L or RGB without loss of what a classifier sees.

    Parameters
    ----------
    is_deep
        Whether the file has 16 bits a value.

    Returns
    -------
    shown
        The picture as the settings want it.
    known
        ``uint8 [H, W]`` or ``[H, W, 3]``, by which it is known again whatever the settings are.
    """
    if image.mode.startswith("I"):
        return _of_sixteen_bits(image, how)
    if image.mode not in GREY_MODES | COLOUR_MODES:
        raise UnusableImageError(f"pixel mode {image.mode}; 8-bit grey, palette, RGB or CMYK, or 16-bit grey")
    flat = _flat(image)
    if is_deep:
        _refuse_lost_bits(flat, how)
    known = np.asarray(flat)
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != OPAQUE:
        if how.background is None:
            raise UnusableImageError("has transparent pixels; set split.background, or flatten it")
        return _composed(image.convert("RGBA"), how.background), known
    return flat, known


def _flat(image: Image.Image) -> Image.Image:
    """Mode L or RGB without the alpha channel."""
    if image.mode in ("L", "RGB"):
        return image
    if image.mode in GREY_MODES:
        return image.convert("L")
    rgb = image.convert("RGB")
    return _grey_if_equal(rgb) if image.mode in ("P", "PA") else rgb


def _grey_if_equal(rgb: Image.Image) -> Image.Image:
    red, green, blue = rgb.split()
    return red if red.tobytes() == green.tobytes() == blue.tobytes() else rgb


def _composed(rgba: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """Lay a picture onto a background; grey on grey stays grey."""
    below = Image.new("RGBA", rgba.size, (*background, 255))
    return _grey_if_equal(Image.alpha_composite(below, rgba).convert("RGB"))


def _of_sixteen_bits(image: Image.Image, how: Decoding) -> tuple[Image.Image, NDArray[np.uint8]]:
    values = np.asarray(image)
    highest = int(values.max())
    if values.min() < 0 or highest > 0xFFFF:
        raise UnusableImageError(f"values {values.min()} … {highest}; grey has at most 16 bits")
    if how.bits is not None and highest >> how.bits:
        raise UnusableImageError(f"the value {highest} has more than {how.bits} bits, which split.bits says")
    if how.bits is None and 0 < highest < DARK:
        raise UnusableImageError(
            f"16 bits, but no value above {highest}: it would be nearly black; set split.bits to the bits in "
            f"use ({max(8, highest.bit_length())}?), or to 16 to take it as it is"
        )
    shown = Image.fromarray((values >> ((how.bits or 16) - 8)).astype(np.uint8))
    transparent = values == image.info.get("transparency", -1)
    if np.any(transparent):
        if how.background is None:
            raise UnusableImageError("has transparent pixels; set split.background, or flatten it")
        alpha = Image.fromarray(np.where(transparent, 0, 255).astype(np.uint8))
        shown = _composed(Image.merge("LA", (shown, alpha)).convert("RGBA"), how.background)
    return shown, eight_bits(values)


def eight_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Reduce 16-bit grey values to 8 bits by which a picture is known again, ``uint8`` of the same shape.

    The upper 8 bits, or, of a picture that would be nearly black, the upper 8 of the bits that it uses.
    """
    highest = int(values.max(initial=0))
    return (values >> (8 if highest >= DARK else max(0, highest.bit_length() - 8))).astype(np.uint8)


def _refuse_lost_bits(flat: Image.Image, how: Decoding) -> None:
    """Refuse 16-bit colour, of which Pillow reads the upper 8 bits, if those are not what is in use."""
    if how.bits not in (None, 16):
        raise UnusableImageError(
            f"16-bit colour, of which only the upper 8 bits can be read, not split.bits {how.bits}; "
            "convert it to 8 bits"
        )
    highest = int(np.asarray(flat).max())
    if how.bits is None and highest < DARK >> 8:
        raise UnusableImageError(
            f"16-bit colour whose upper 8 bits are {highest} at most: it would be nearly black; convert it "
            "to 8 bits, or set split.bits to 16 to take it as it is"
        )


def fitted(
    image: Image.Image,
    side: int,
    fit: str,
    background: tuple[int, int, int] | None = None,
    *,
    gap: float | None = None,
) -> Image.Image:
    """Scale to a square, bilinear and antialiased.

    Parameters
    ----------
    side
        Of the square, in pixels.
    fit
        ``stretch`` to it, ``crop`` its middle out of the picture, or ``pad`` the picture to it.
    background
        RGB of the padding; black if None.
    gap
        Pillow's ``reducing_gap``: faster for large pictures.
    """
    how = Image.Resampling.BILINEAR
    width, height = image.size
    if fit == "crop":
        edge = min(width, height)
        left, top = (width - edge) / 2, (height - edge) / 2
        return image.resize((side, side), how, (left, top, left + edge, top + edge), gap)
    if fit == "stretch" or width == height:
        return image.resize((side, side), how, reducing_gap=gap)
    edge = max(width, height)
    inner = max(1, round(width * side / edge)), max(1, round(height * side / edge))
    colour = background or (0, 0, 0)
    if image.mode == "L" and len(set(colour)) > 1:
        image = image.convert("RGB")
    canvas = Image.new(image.mode, (side, side), colour[0] if image.mode == "L" else colour)
    canvas.paste(image.resize(inner, how, reducing_gap=gap), ((side - inner[0]) // 2, (side - inner[1]) // 2))
    return canvas


def planes(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """``[H, W]`` or ``[H, W, 3]`` as ``[C, H, W]``."""
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
