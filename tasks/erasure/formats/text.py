"""Text: cells of CSV, strings of JSON, lines, what stands between quotes, blanks, brackets and commas.

A name may hold any of these, so a text is taken apart in several ways, and every part is looked up. It is
done on the bytes, by what splits and replaces all of them at once; no loop runs over the parts.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

import numpy as np

from tasks.erasure.formats.base64_runs import search_base64
from tasks.erasure.formats.spellings import quoted, spelled_otherwise

if TYPE_CHECKING:
    from tasks.erasure.scan import Content, Scan

BLOCK = 1 << 22
"""Bytes of text that are read at a time, and then on to the end of the line."""

LINE = 1 << 16
"""Bytes in which a line ends; else the text is cut somewhere else."""

RUN = 1 << 26
"""Bytes of a line that are read together where it cannot be cut, as in Base64."""

OVERLAP = 1 << 12
"""Bytes that are read again where a line was cut: no name is longer."""

SPELLED = 2
"""How often a text is read anew because it may be spelled otherwise: JSON in JSON is escaped twice."""

EMPTY = b"\0" * 16
"""What is not used of a file; in no encoding it is a part of a name."""

BINARY = 4
"""Shortest name that is looked for in what is readable of a binary file."""

READABLE = re.compile(
    rb"(?:[\t\x20-\x7e]|[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}){4,}"
)
"""Text in a binary file: four characters of UTF-8 or more."""

ASCII = bytes(byte if 0x20 <= byte <= 0x7E or byte == 0x09 else 0x0A for byte in range(256))
"""Keeps what is readable without UTF-8, many times faster."""

WIDE = re.compile(rb"(?:[\x20-\x7e\xa0-\xff]\0){4,}")
WIDE_BIG = re.compile(rb"(?:\0[\x20-\x7e\xa0-\xff]){4,}")
"""Text of UTF-16 in a binary file, as far as it is Latin."""

CUT = re.compile(rb"[\0\"'\n<>{}\[\]]")
"""Where a line that does not end can be cut."""

NEWLINES = b"\r\n\x0b\x0c"
QUOTES = b"\"'`"


def _cutting(separators: bytes) -> bytes:
    separators += NEWLINES
    return bytes.maketrans(separators, b"\n" * len(separators))


LINES = _cutting(b"")
BETWEEN_QUOTES = _cutting(QUOTES)
SPANS = _cutting(QUOTES + b",\t=")
TOKENS = _cutting(QUOTES + b" \t,;:=|()[]{}<>")
CELLS = {delimiter: _cutting(delimiter) for delimiter in (b",", b";", b"\t", b"|")}

INDENT = re.compile(rb"\n[ \t]+")
TRAIL = re.compile(rb"[ \t]+\n")
STOPS = re.compile(rb"[.!?]+\n")
BOMS = {
    codecs.BOM_UTF32_LE: "utf-32-le", codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be",
}  # fmt: skip
"""Of UTF-32 first: its mark begins like that of UTF-16."""


def read(content: Content, scan: Scan) -> bool:
    """Search a content as text, whatever it is."""
    if not (scan.by_name or scan.by_image):
        return True
    encoding = _wide_encoding(content)
    if encoding:
        decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
        rest = b""
        for raw in content.blocks(BLOCK):
            text = rest + decoder.decode(raw).encode(errors="replace")
            end = text.rfind(b"\n") + 1
            if len(text) - end > LINE:
                end = len(text)
            search_block(text[:end], scan)
            rest = text[end:] if end < len(text) else text[-OVERLAP:]
        search_block(rest, scan)
        return True
    for block in _blocks(content):
        search_block(block, scan)
    return True


def search_block(block: bytes, scan: Scan) -> None:
    """Search bytes in which there is text: names in any spelling, and what is encoded in it."""
    if b"\0" in block:
        runs = _readable(block, scan)
        block = b"\n".join(runs)
        if scan.by_name:  # a length before a text can be a letter, too
            scan.names(_candidates(b"\n".join(run[1:] for run in runs)), weak=True)
    _search(block, scan, 0)


def _readable(block: bytes, scan: Scan) -> list[bytes]:
    """Return the texts in a binary block."""
    for _ in range(2):
        block = block.replace(EMPTY, b"\0")
    if scan.sought.ascii:
        least = max(BINARY, scan.sought.shortest)  # no spelling is shorter than the name
        runs = [run for run in block.translate(ASCII).split(b"\n") if len(run) >= least]
    else:
        runs = READABLE.findall(block)
    zero = np.frombuffer(block, np.uint8) == 0
    if (zero[:-6] & zero[2:-4] & zero[4:-2] & zero[6:] & ~zero[1:-5] & ~zero[3:-3]).any():
        for pattern, encoding in ((WIDE, "utf-16-le"), (WIDE_BIG, "utf-16-be")):
            runs += [run.decode(encoding).encode() for run in pattern.findall(block)]
    return runs


def search_names(candidates: Collection[bytes], scan: Scan) -> None:
    """Look names up in the ways in which Unicode and Windows may spell them."""
    found = set(candidates)
    found |= {each.replace(b"\\", b"/") for each in found if b"\\" in each}
    for each in [each for each in found if not each.isascii()]:
        found.update(_composed(each))
    scan.names(found)


def _search(block: bytes, scan: Scan, spelled: int) -> None:
    if scan.by_name:
        found = _candidates(block)
        if not block.isascii() or b"\\" in block:
            for each in [each for each in found if not each.isascii() and len(each) <= OVERLAP]:
                found.update(_composed(each))
        scan.names(found)
    search_base64(block, scan)
    if spelled < SPELLED:
        for other in spelled_otherwise(block):
            _search(other, scan, spelled + 1)


def _composed(name: bytes) -> Iterator[bytes]:
    try:
        text = name.decode()
    except UnicodeDecodeError:  # of an older encoding, as spreadsheets write it
        text = name.decode("cp1252", errors="replace")
        yield text.encode()
    yield unicodedata.normalize("NFC", text).encode()
    yield unicodedata.normalize("NFD", text).encode()


def _candidates(text: bytes) -> set[bytes]:
    """Everything in a text that may be a name."""
    text = b"\n" + text.replace(codecs.BOM_UTF8, b"\n") + b"\n"
    found: set[bytes] = set()
    done: list[bytes] = []
    for table in (TOKENS, LINES, SPANS, *(table for delimiter, table in CELLS.items() if delimiter in text)):
        parts = text.translate(table)
        if parts in done:
            continue
        done.append(parts)
        found.update(parts.split(b"\n"))
        if table is TOKENS:
            if any(stop in parts for stop in (b".\n", b"!\n", b"?\n")):
                found.update(STOPS.sub(b"\n", parts).split(b"\n"))
            continue
        if table is SPANS and b": " in parts:
            parts = parts.replace(b": ", b"\n")
            found.update(parts.split(b"\n"))
        if b"\n " in parts or b" \n" in parts or b"\n\t" in parts:
            parts = TRAIL.sub(b"\n", INDENT.sub(b"\n", parts))
            found.update(parts.split(b"\n"))
        if b"\n- " in parts:
            found.update(parts.replace(b"\n- ", b"\n").split(b"\n"))
    if any(quote in text for quote in (b'"', b"'", b"`")):
        found.update(text.translate(BETWEEN_QUOTES).split(b"\n"))
        found.update(quoted(text))
    return found


def _blocks(content: Content) -> Iterator[bytes]:
    """Yield the content in blocks that end where a line does, or else where no name and no Base64 is cut."""
    place = 0
    while block := content.read(place, BLOCK):
        more = b""
        if len(block) == BLOCK:
            more = content.read(place + BLOCK, LINE)
            end = more.find(b"\n") + 1
            if end:
                more = more[:end]
            else:
                more = _on_to_a_cut(content, place + BLOCK, more)
                place -= OVERLAP
        yield block + more
        place += len(block) + len(more)


def _on_to_a_cut(content: Content, place: int, more: bytes) -> bytes:
    while not (cut := CUT.search(more)) and len(more) < RUN:
        further = content.read(place + len(more), BLOCK)
        if not further:
            return more
        more += further
    return more[: cut.end()] if cut else more


def _wide_encoding(content: Content) -> str | None:
    """Return how a text of UTF-16 or UTF-32 is encoded, known by its mark or by its zeros."""
    for mark, encoding in BOMS.items():
        if content.head.startswith(mark):
            return encoding
    sample = content.head[: len(content.head) // 2 * 2]
    even, odd = sample[::2], sample[1::2]
    if len(even) < BINARY:
        return None
    if odd.count(0) > 0.6 * len(odd) and even.count(0) == 0 and _is_text(even):
        return "utf-16-le"
    if even.count(0) > 0.6 * len(even) and odd.count(0) == 0 and _is_text(odd):
        return "utf-16-be"
    return None


def _is_text(letters: bytes) -> bool:
    return all(letter >= 0x20 or letter in b"\t\r\n" for letter in letters)
