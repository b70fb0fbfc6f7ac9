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
    """Yield the lines that may spell a name otherwise, as they read without it."""
    if b"\\" in text:
        lines = b"\n".join(_lines(text, b"\\"))
        yield unescaped(lines)
        yield lines.replace(b"\\\\", b"/").replace(b"\\", b"/")
    if b"%" in text and PERCENT.search(text):
        lines = b"\n".join(_lines(text, b"%"))
        yield unquote_to_bytes(lines)
        if b"+" in lines:
            yield unquote_to_bytes(lines.replace(b"+", b" "))
    if b"&" in text and ENTITY.search(text):
        lines = b"\n".join(_lines(text, b"&"))
        yield html.unescape(lines.decode(errors="replace")).encode(errors="replace")


def unescaped(text: bytes) -> bytes:
    """Resolve the escapes of JSON, and those by which Git and Python write bytes."""
    return ESCAPE.sub(_letter, text)


def _letter(match: re.Match[bytes]) -> bytes:
    escape = match.group()
    if escape[1:2] == b"u":
        pairs = bytes.fromhex(escape.replace(b"\\u", b"").decode())
        return pairs.decode("utf-16-be", errors="replace").encode()
    if escape[1:2] == b"x" and len(escape) > 2:
        return bytes([int(escape[2:], 16)])
    if escape[1:2].isdigit() and len(escape) > 2:
        return bytes([int(escape[1:], 8)])
    return CONTROLS.get(escape[1:], escape[1:])


def _lines(text: bytes, mark: bytes) -> Iterator[bytes]:
    return (line for line in text.split(b"\n") if mark in line)
