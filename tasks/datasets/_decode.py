"""From the bytes of image files to one ``uint8`` array, with every unusable file named."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from tasks.core.errors import ExpungeError
from tasks.samples.pictures import fingerprint_of_picture, stacked

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF")
MAX_SIDE = 4096
"""An image may have ``MAX_SIDE²`` pixels; more is refused before it is decoded."""

GREY_MODES = frozenset({"1", "L", "LA"})
COLOUR_MODES = frozenset({"P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})
SHOWN = 20
"""How many unusable files a message names."""


class UnusableImageError(ValueError):
    """Why one file cannot be used; :class:`Decoder` collects these."""


def decode(file: BinaryIO, resize: int | None = None) -> NDArray[np.uint8]:
    """Decode one still image and scale it.

    Parameters
    ----------
    file, resize
        As :func:`still` takes it, and the side in pixels of the square to scale to (bilinear,
        antialiased), or None.

    Returns
    -------
    NDArray[np.uint8]
        ``[C, H, W]``; C is 1 for grey, else 3.

    Raises
    ------
    UnusableImageError
        As :func:`still`.
    """
    image = still(file)
    return _planes(np.asarray(image if resize is None else _scaled(image, resize)))


def _scaled(image: Image.Image, side: int) -> Image.Image:
    return image.resize((side, side), Image.Resampling.BILINEAR)


def _planes(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """``[H, W]`` or ``[H, W, 3]`` as ``[C, H, W]``."""
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def still(file: BinaryIO) -> Image.Image:
    """Decode one still image at the size that it has, to mode L or RGB.

    EXIF orientation is applied. 16-bit grey keeps its upper 8 bits. CMYK becomes RGB, a palette of
    greys becomes grey, and an alpha channel is dropped where it is opaque everywhere.

    Parameters
    ----------
    file
        An open JPEG, PNG, BMP, WebP, GIF or TIFF file.

    Raises
    ------
    UnusableImageError
        If the file is truncated or no image, has several frames, transparent pixels, more than
        ``MAX_SIDE²`` pixels, or values that 8 bits cannot hold.
    """
    try:
        # Pillow warns of large or oddly tagged files; what matters is checked here.
        with warnings.catch_warnings(action="ignore"), Image.open(file, formats=FORMATS) as image:
            _refuse_large_or_moving(image)
            ImageOps.exif_transpose(image, in_place=True)
            return _grey_or_rgb(image)
    except UnusableImageError:
        raise
    except UnidentifiedImageError:
        raise UnusableImageError("not a JPEG, PNG, BMP, WebP, GIF or TIFF image") from None
    except Image.DecompressionBombError:
        raise UnusableImageError(f"more than {MAX_SIDE}×{MAX_SIDE} pixels") from None
    except Exception as error:  # malformed bytes make Pillow's readers raise nearly anything
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise UnusableImageError(f"damaged: {reason}") from None


def _refuse_large_or_moving(image: Image.Image) -> None:
    if image.width * image.height > MAX_SIDE**2:
        raise UnusableImageError(f"{image.width}×{image.height}, more than {MAX_SIDE}×{MAX_SIDE} pixels")
    # A camera's MPO file is a JPEG with a preview behind it: its first frame is the picture.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise UnusableImageError("animated or of several pages")


def _grey_or_rgb(image: Image.Image) -> Image.Image:
    """Convert to mode L or RGB without loss of what a classifier sees."""
    if image.mode.startswith("I"):
        return _upper_eight_bits(image)
    if image.mode not in GREY_MODES | COLOUR_MODES:
        raise UnusableImageError(f"pixel mode {image.mode}; 8-bit grey, palette, RGB or CMYK, or 16-bit grey")
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
        raise UnusableImageError("has transparent pixels; flatten it onto a background")
    if image.mode in GREY_MODES:
        return image.convert("L")
    rgb = image.convert("RGB")
    if image.mode in ("P", "PA"):
        red, green, blue = rgb.split()
        if red.tobytes() == green.tobytes() == blue.tobytes():
            return red
    return rgb


def _upper_eight_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise UnusableImageError(f"values {values.min()} … {values.max()}; grey has at most 16 bits")
    if np.any(values == image.info.get("transparency", -1)):
        raise UnusableImageError("has transparent pixels; flatten it onto a background")
    return Image.fromarray((values >> 8).astype(np.uint8))


class Decoder:
    """Fills one array with images, one by one, and reports all unusable ones at once.

    The array is grey as long as every image is; the first colour image widens it. Its size is that of
    the first image, so memory never holds the set twice, except for the moment of widening.

    Parameters
    ----------
    count
        Number of images to come, N.
    resize
        Side in pixels to scale every image to, or None to demand equal sizes.
    where
        The source, for messages.
    """

    def __init__(self, count: int, resize: int | None, where: Path) -> None:
        self._count, self._resize, self._where = count, resize, where
        self._images: NDArray[np.uint8] | None = None
        self._done = 0
        self._pictures: list[bytes] = []
        self._unusable: list[str] = []
        self._first = ""
        self._other_size: str | None = None

    def add(self, file: BinaryIO, name: str) -> None:
        """Decode the next image; ``name`` is how messages call it."""
        try:
            image = still(file)
        except UnusableImageError as error:
            self.refuse(name, str(error))
            return
        native = np.asarray(image)
        self._pictures.append(fingerprint_of_picture(native))
        scaled = native if self._resize is None else np.asarray(_scaled(image, self._resize))
        self._store(_planes(scaled), name)

    def refuse(self, name: str, reason: str) -> None:
        """Count a file as unusable without decoding it."""
        self._unusable.append(f"{name if name.isprintable() else ascii(name)} ({reason})")

    @property
    def pictures(self) -> NDArray[np.uint8]:
        """Fingerprints ``uint8 [N, 32]`` of the images as they were before they were scaled."""
        return stacked(self._pictures)

    def finish(self) -> NDArray[np.uint8]:
        """Return the ``uint8 [N, C, H, W]`` array.

        Raises
        ------
        ExpungeError
            If a file was unusable (the first of them are named), or if sizes differ.
        """
        if self._unusable:
            named = "; ".join(self._unusable[:SHOWN])
            more = f"; and {len(self._unusable) - SHOWN} more" if len(self._unusable) > SHOWN else ""
            raise ExpungeError(f"{self._where}: {len(self._unusable)} unusable file(s): {named}{more}")
        if self._other_size:
            raise ExpungeError(
                f"{self._where}: {self._first}, but {self._other_size}; "
                "set split.resize to the side in pixels that all are to have"
            )
        if self._images is None or self._done != self._count:
            raise ExpungeError(f"{self._where}: {self._done} images where {self._count} were announced")
        return self._images

    def _store(self, image: NDArray[np.uint8], name: str) -> None:
        channels, height, width = image.shape
        if self._images is None:
            self._images = self._room_for(channels, height, width)
            self._first = f"{name} is {width}×{height}"
        if (height, width) != self._images.shape[2:]:
            self._other_size = self._other_size or f"{name} is {width}×{height}"
            return
        if channels > self._images.shape[1]:
            grey = self._images[: self._done]
            self._images = self._room_for(channels, height, width)
            self._images[: self._done] = grey
        self._images[self._done] = image  # a grey image is repeated over three channels
        self._done += 1

    def _room_for(self, channels: int, height: int, width: int) -> NDArray[np.uint8]:
        try:
            return np.empty((self._count, channels, height, width), dtype=np.uint8)
        except MemoryError:
            size = self._count * channels * height * width / 2**30
            raise ExpungeError(
                f"{self._where}: {self._count} images of {width}×{height} need {size:.0f} GiB of memory; "
                "set split.resize to a smaller side in pixels"
            ) from None


def resized(images: NDArray[np.uint8], side: int | None) -> NDArray[np.uint8]:
    """Scale ``uint8 [N, C, H, W]`` to ``side`` × ``side`` as :func:`decode` does; None keeps the size."""
    if side is None:
        return images
    scaled = np.empty((*images.shape[:2], side, side), dtype=np.uint8)
    for planes, into in zip(images, scaled, strict=True):
        for plane, target in zip(planes, into, strict=True):
            target[:] = _scaled(Image.fromarray(plane), side)
    return scaled
