"""A text file's bytes as lines that end in LF, whatever wrote them: UTF-16, old Macs, another encoding."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import IO, Any

from pipeline.errors import DataError

UTF_8 = "utf-8"
KEY = "collect.files.encoding"
_PIECE = 1 << 20  # bytes
_HEAD = 1 << 16
# What files of another kind begin with -> (what it is, what to do).
_OTHERS = {
    b"\x1f\x8b": ("gzip", "rename it to end in .gz"),
    b"PK\x03\x04": ("a workbook or a zip archive", "rename it to end in .xlsx, or unpack it"),
    b"PAR1\x15": ("Parquet", "rename it to end in .parquet"),
    b"\xd0\xcf\x11\xe0": ("an old workbook", "save it as .xlsx"),
    b"BZh91AY&SY": ("a bzip2 archive", "unpack it"),
    b"\xfd7zXZ": ("an xz archive", "unpack it"),
    b"\x28\xb5\x2f\xfd": ("a Zstandard archive", "unpack it"),
    b"SQLite format 3": ("a database", "use collect.source: sql"),
}
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark begins like it
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def readable(stream: IO[bytes], file: str, encoding: str) -> tuple[IO[bytes], str]:
    """(the stream, its encoding), in which a line break is one byte.

    Reading it raises DataError where the encoding is surely another one.
    """
    head = stream.read(_HEAD)
    _refuse_others(head, file)
    mark = next((mark for mark in _MARKS if head.startswith(mark)), None)
    if mark and encoding == UTF_8:
        encoding = _MARKS[mark]
    elif encoding == UTF_8:
        _refuse_unmarked(head, file)
    pieces: Iterator[bytes] = chain([head], iter(lambda: stream.read(_PIECE), b""))
    if re.match(r"utf.?(16|32)", encoding, re.IGNORECASE):
        pieces, encoding = _decoded(pieces, file, encoding), UTF_8
        head = next(pieces, b"")
        pieces = chain([head], pieces)
    elif codecs.lookup(encoding).name not in (UTF_8, "ascii"):
        pieces = _not_utf8(pieces, file, encoding)
    if _ends_in_cr(head):
        pieces = (piece.replace(b"\r", b"\n") for piece in pieces)
    return io.BufferedReader(_Pieces(pieces), _PIECE), encoding


def _refuse_others(head: bytes, file: str) -> None:
    """Raises DataError where the bytes are no text."""
    for start, (what, remedy) in _OTHERS.items():
        if head.startswith(start):
            raise DataError(f"{file}: {what}, not text: {remedy}")


def _refuse_unmarked(head: bytes, file: str) -> None:
    """Raises DataError where the bytes are those of UTF-16 without its mark."""
    odd, even, many = head[1::2].count(0), head[::2].count(0), 0.4 * len(head)
    if name := "utf-16-le" if odd > many and not even else "utf-16-be" if even > many and not odd else None:
        raise DataError(f"{file}: its text seems to be {name}: set {KEY} to {name}")


def _ends_in_cr(head: bytes) -> bool:
    """The first line holds a CR, though not in quotes nor before its LF, as old Macs end lines."""
    first = head.partition(b"\n")[0].removesuffix(b"\r")
    return b"\r" in re.sub(rb'"[^"]*"', b"", first) if b"\n" in head else b"\r" in head.rstrip(b"\r")


def _decoded(pieces: Iterable[bytes], file: str, encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        for piece in pieces:
            yield decoder.decode(piece).encode(UTF_8)
        yield decoder.decode(b"", True).encode(UTF_8)
    except UnicodeError as error:
        raise DataError(f"{file}: no {encoding} text ({error}): bring it again, or correct {KEY}") from None


def _not_utf8(pieces: Iterable[bytes], file: str, encoding: str) -> Iterator[bytes]:
    """The pieces. Raises DataError at their end if all is UTF-8, and not ASCII alone.

    Of another encoding that is next to impossible; each of its characters would be misread as several.
    """
    decoder, plain, valid = codecs.getincrementaldecoder(UTF_8)(), True, True
    for piece in pieces:
        plain = plain and piece.isascii()
        try:
            if valid:
                decoder.decode(piece)
        except UnicodeDecodeError:
            valid = False
        yield piece
    if valid and not plain:
        raise DataError(
            f"{file}: its characters are UTF-8, not {encoding}: correct {KEY}, "
            f"where files differ by table, like {{items: {encoding}}}"
        )


class _Pieces(io.RawIOBase):
    """Bytes that come in pieces of any length."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = piece
        part, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)
