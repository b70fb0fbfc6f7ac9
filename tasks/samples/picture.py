"""The digest of a picture, whatever file or array it lies in."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def picture_digest(image: NDArray[np.uint8]) -> str:
    r"""SHA-256 of a picture as it is seen, in hex.

    It is taken over ``b"picture\0"``, the size as ``repr((H, W))`` and the bytes of the contiguous
    ``uint8 [H, W, 3]`` picture; grey becomes three equal channels. So it is the same for a PNG, a BMP and
    an array of any layout that hold the same pixels.

    Parameters
    ----------
    image
        ``uint8`` ``[H, W]``, ``[C, H, W]`` or ``[H, W, C]`` with C = 1 or 3. Where both of the latter are
        possible, the first axis is taken for the channels.

    Raises
    ------
    ValueError
        If the array is not one of these.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3):
        raise ValueError(
            f"{image.dtype} {list(image.shape)} is no picture; uint8 [H, W] or [C, H, W] is right"
        )
    if image.ndim == 2:
        image = image[None]
    if image.shape[0] in (1, 3):
        image = image.transpose(1, 2, 0)
    height, width, channels = image.shape
    if channels not in (1, 3):
        raise ValueError(f"uint8 {list(image.shape)} is no picture; 1 or 3 channels are right")
    pixels = np.ascontiguousarray(np.broadcast_to(image, (height, width, 3)))
    return hashlib.sha256(b"picture\0" + repr((height, width)).encode() + pixels.tobytes()).hexdigest()
