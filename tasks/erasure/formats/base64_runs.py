"""Base64 in a text, as HTML pages and notebooks hold images: decoded and searched."""

from __future__ import annotations

import base64
import io
import re
from typing import TYPE_CHECKING

from tasks.erasure.found import Unread

if TYPE_CHECKING:
    from tasks.erasure.scan import Scan

SHORTEST = 80
"""Characters of a run: the smallest image files have 60 bytes or more, and digests in hex have 64 digits."""

ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_"
OTHERS = bytes.maketrans(
    bytes(byte for byte in range(256) if byte not in ALPHABET), b"\n" * (256 - len(ALPHABET))
)
WRAPPED = re.compile(
    rb"(?<![A-Za-z0-9+/])(?:(?:[A-Za-z0-9+/]{76}\s{1,3})+|(?:[A-Za-z0-9+/]{64}\s{1,3})+)[A-Za-z0-9+/]*"
)
WIDTHS = frozenset({64, 76})
"""Lines of equal length, as PEM and MIME have them."""

BLANK = re.compile(rb"\s+")


def search_base64(text: bytes, scan: Scan) -> None:
    """Decode what may be Base64 in a text, and search it."""
    if scan.depth >= scan.limits.depth:
        return
    words = set(text.translate(OTHERS).split(b"\n"))
    lengths = set(map(len, words))
    runs = {word for word in words if len(word) >= SHORTEST} if max(lengths, default=0) >= SHORTEST else set()
    if not WIDTHS.isdisjoint(lengths):
        runs |= {BLANK.sub(b"", run) for run in WRAPPED.findall(text)}
    for run in runs:
        plain = run.translate(bytes.maketrans(b"-_", b"+/"))
        data = base64.b64decode(
            plain[: len(plain) // 4 * 4 + (len(plain) % 4 > 1) * (len(plain) % 4)] + b"=="
        )
        scan.left -= len(data)
        if scan.left > 0:
            scan.inside(io.BytesIO(data))
        else:
            scan.unread[Unread.CUT] += 1
