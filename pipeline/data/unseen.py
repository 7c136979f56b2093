"""What nobody sees in a cell or a column's name, and what is left without it.

Zero-width signs, byte-order marks, blanks that do not break: files that look alike differ in them.
"""

from __future__ import annotations

import re
import unicodedata

import pandas as pd

from pipeline.data.text import INVISIBLE

PLAIN = r"[\x20-\x7e]*"
# Joiners have a meaning within a word.
_UNSEEN = re.compile(
    rf"{INVISIBLE.pattern}|[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u034f\u061c\u180e]|^[\u200c\u200d]+|[\u200c\u200d]+$"
)


def tidied(text: pd.Series) -> pd.Series:
    """Without characters that nobody sees, in Unicode's NFC, any white space a blank, none at the ends."""
    odd = text.notna() & ~matching(text, PLAIN)
    if odd.any():
        text = text.mask(odd, text[odd].map(_seen).astype("str"))
    text = text.str.strip()
    return text.mask(text == "")


def tidy(cell: str) -> str:
    """The same of one text; empty if nothing is left."""
    return (cell if re.fullmatch(PLAIN, cell) else _seen(cell)).strip()


def _seen(cell: str) -> str:
    return unicodedata.normalize("NFC", re.sub(r"\s", " ", _UNSEEN.sub("", cell.strip())))


def matching(text: pd.Series, pattern: str) -> pd.Series:
    """Which cells the pattern fits as a whole; missing ones do not."""
    return text.str.fullmatch(pattern).fillna(False).astype(bool)
