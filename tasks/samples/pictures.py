"""Fingerprints of pictures: the same picture has the same one, whatever the set's size and colours.

A fingerprint is made of the picture as it was decoded, before it is scaled, and always as RGB. So it does
not change with ``split.resize``, nor when a colour image makes a set of grey ones a set of colour.
``data/split/pictures.npy`` holds them, row i of the sample that is row i of the images.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.core.errors import RESTORE, ExpungeError
from tasks.core.files import write_whole

SIZE = 32
"""Bytes of a fingerprint, a SHA-256."""

NAME = "pictures.npy"


def fingerprint_of_picture(pixels: NDArray[np.uint8]) -> bytes:
    """SHA-256 of a picture's shape and pixels as RGB.

    Parameters
    ----------
    pixels
        ``uint8 [H, W]`` of a grey picture, ``[H, W, 1]`` or ``[H, W, 3]``. A grey picture is the RGB
        picture whose channels are equal.
    """
    planes = pixels[..., None] if pixels.ndim == 2 else pixels
    shape = (*planes.shape[:2], 3)
    rgb = planes if planes.shape[2] == 3 else np.repeat(planes, 3, axis=2)
    return hashlib.sha256(repr(shape).encode() + rgb.tobytes()).digest()


def fingerprints_of(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Fingerprints ``uint8 [N, 32]`` of ``uint8 [N, C, H, W]`` that were not scaled."""
    return stacked([fingerprint_of_picture(image) for image in images.transpose(0, 2, 3, 1)])


def stacked(fingerprints: list[bytes]) -> NDArray[np.uint8]:
    """Return N fingerprints as ``uint8 [N, 32]``."""
    return np.frombuffer(b"".join(fingerprints), dtype=np.uint8).reshape(-1, SIZE)


def hexes(pictures: NDArray[np.uint8]) -> list[str]:
    """Fingerprints ``uint8 [N, 32]`` in hex."""
    return [row.hex() for row in map(bytes, np.ascontiguousarray(pictures))]


def write_pictures(pictures: NDArray[np.uint8], folder: Path) -> None:
    """Write the fingerprints beside the images of a split, whole."""
    with write_whole(folder / NAME) as file:
        np.save(file, pictures, allow_pickle=False)


def read_pictures(folder: Path, rows: int) -> NDArray[np.uint8]:
    """Read the fingerprints of a split.

    Parameters
    ----------
    rows
        Number of samples that the split has.

    Raises
    ------
    ExpungeError
        If the file is missing, damaged, or of another split.
    """
    path = folder / NAME
    try:
        with path.open("rb") as file:
            pictures: NDArray[np.uint8] = np.lib.format.read_array(file, allow_pickle=False)
    except FileNotFoundError:
        raise ExpungeError(f"{path} is missing; run the stage that writes it: dvc repro split") from None
    except (ValueError, EOFError) as error:
        raise ExpungeError(f"{path} is damaged ({error}); {RESTORE}") from None
    if pictures.dtype != np.uint8 or pictures.shape != (rows, SIZE):
        raise ExpungeError(
            f"{path} holds {pictures.dtype} {list(pictures.shape)}, not uint8 [{rows}, {SIZE}]; {RESTORE}"
        )
    return pictures
