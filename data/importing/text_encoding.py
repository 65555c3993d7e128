"""In which letters a file of text is written: UTF-8, or what historians and spreadsheets write.

A file that is not UTF-8 is recoded while it is read, so that everything behind sees UTF-8. A byte that
is no letter becomes the replacement character: only its cell is bad.
"""

from __future__ import annotations

import codecs
from typing import Any

from penstock.errors import SourceError

UTF8, WINDOWS, UTF16 = "utf-8", "cp1252", "utf-16"
_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def encoding_of(head: bytes) -> str:
    """UTF-16 by its mark, else UTF-8 where `head` is that, else Windows-1252: in it nearly every byte is a letter.

    `head` is a file's beginning; it may end in the middle of a letter.
    """
    if head.startswith(_MARKS):
        return UTF16
    try:
        codecs.getincrementaldecoder(UTF8)().decode(head)
    except UnicodeDecodeError:
        return WINDOWS
    return UTF8


def known_encoding(name: str) -> str:
    """Python's name of an encoding. Raises SourceError where there is none of this name."""
    try:
        return codecs.lookup(name).name
    except LookupError:
        raise SourceError(f"unknown encoding {name!r}; allowed: such as utf-8, cp1252, latin-1 or utf-16") from None


def decoded(raw: bytes, *, guessed: bool) -> str:
    """A text that should be UTF-8; of a file whose encoding was `guessed` from its beginning it may be cp1252."""
    try:
        return raw.decode(UTF8)
    except UnicodeDecodeError:
        return raw.decode(WINDOWS if guessed else UTF8, "replace")


class Recoded:
    """A stream of bytes in another encoding, read as UTF-8."""

    def __init__(self, stream: Any, encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)("replace")

    def read(self, size: int) -> bytes:
        """About `size` bytes of UTF-8; none at the end only."""
        while raw := self._stream.read(size):
            if text := self._decoder.decode(raw):
                return text.encode(UTF8)
        return self._decoder.decode(b"", True).encode(UTF8)
