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
    mark = next((mark for mark in _MARKS if head.startswith(mark)), None)
    if mark and encoding == UTF_8:
        encoding = _MARKS[mark]
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
