"""The ways in which a text spells a name: escaped, percent-encoded, with backslashes, in HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

STRING = re.compile(rb"""(["'])((?:[^\\\n]|\\.)*?)\1""")
DOUBLED = re.compile(rb'"((?:[^"\n]|"")*)"')
ESCAPE = re.compile(rb"(?:\\u[0-9a-fA-F]{4})+|\\x[0-9a-fA-F]{2}|\\[0-3][0-7]{2}|\\.")
PERCENT = re.compile(rb"%[0-9A-Fa-f]{2}")
ENTITY = re.compile(rb"&(?:#\d|#[xX][0-9a-fA-F]|[a-zA-Z]{2,8};)")
OF_ADDRESSES = bytes.maketrans(b"&?=#;\"'<> \t", b"\n" * 11)
OF_TAGS, OF_ATTRIBUTES = bytes.maketrans(b"<>", b"\n\n"), bytes.maketrans(b'<>"', b"\n\n\n")
CONTROLS = {b"n": b"\n", b"r": b"\n", b"t": b"\t", b"b": b"\n", b"f": b"\n"}


def quoted(text: bytes) -> Iterator[bytes]:
    """Yield strings in quotes that hold a quote themselves: escaped as in JSON, doubled as in CSV."""
    if b"\\" in text:
        for line in _lines(text, b"\\"):
            yield from (unescaped(string) for _, string in STRING.findall(line) if b"\\" in string)
    if b'""' in text:
        for line in _lines(text, b'""'):
            yield from (cell.replace(b'""', b'"') for cell in DOUBLED.findall(line) if b'""' in cell)


def spelled_otherwise(text: bytes) -> Iterator[bytes]:
    """Yield the lines that may spell a name otherwise, as they read without it.

    What separates names there is cut first, for what is spelled otherwise may hold the very same letters.
    """
    if b"\\" in text:
        lines = b"\n".join(_lines(text, b"\\"))
        strings = (string for _, string in STRING.findall(lines) if b"\\" in string)
        yield unescaped(lines) + b"\n" + b"\n".join(map(unescaped, strings))
        yield lines.replace(b"\\\\", b"/").replace(b"\\", b"/")
    if b"%" in text and PERCENT.search(text):
        lines = b"\n".join(_lines(text, b"%"))
        yield unquote_to_bytes(lines)
        parts = lines.translate(OF_ADDRESSES)
        yield unquote_to_bytes(parts.replace(b"+", b" ") + b"\n" + parts if b"+" in parts else parts)
    if b"&" in text and ENTITY.search(text):
        lines = b"\n".join(_lines(text, b"&"))
        parts = b"\n".join([lines, lines.translate(OF_TAGS), lines.translate(OF_ATTRIBUTES)])
        yield html.unescape(parts.decode(errors="replace")).encode(errors="replace")


def unescaped(text: bytes) -> bytes:
    """Resolve the escapes of JSON, and those by which Git and Python write bytes."""
    return ESCAPE.sub(_letter, text)


def _letter(match: re.Match[bytes]) -> bytes:
    escape = match.group()
    if escape[1:2] == b"u":
        pairs = bytes.fromhex(escape.replace(b"\\u", b"").decode())
        return pairs.decode("utf-16-be", errors="replace").encode()
    if escape[1:2] == b"x" and len(escape) > 2:
        return bytes.fromhex(escape[2:].decode())
    if escape[1:2].isdigit() and len(escape) > 2:
        return bytes([int(escape[1:], 8)])
    return CONTROLS.get(escape[1:], escape[1:])


def _lines(text: bytes, mark: bytes) -> Iterator[bytes]:
    return (line for line in text.split(b"\n") if mark in line)
