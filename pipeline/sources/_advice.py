"""What to do where a file has no column of a name: the line of params.yaml, or the step."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Collection
from difflib import get_close_matches


def likeliest(ours: str, names: list[str], used: Collection[str]) -> str:
    """The column that is called most like ours, else one that is not `used`."""
    lower = {name.lower().strip("#\"' "): name for name in names}
    if near := get_close_matches(ours, lower, 1):
        return lower[near[0]]
    return next((name for name in names if name not in used), "X")


def yaml_name(name: str) -> str:
    """The name as params.yaml has to write it: `user_id: #user` would mean null."""
    plain = re.fullmatch(r"[^\W\d][\w.()/ -]*", name) and not _deceives(name)
    return name if plain else json.dumps(name, ensure_ascii=_deceives(name))


def _deceives(name: str) -> bool:
    """It looks like another: it holds what nobody sees, or letters that look like Latin ones beside these."""
    unseen = any(unicodedata.category(sign) in ("Cf", "Cc") for sign in name)
    alphabets = {unicodedata.name(sign, "").partition(" ")[0] for sign in name if sign.isalpha()}
    return unseen or ("LATIN" in alphabets and bool(alphabets & {"CYRILLIC", "GREEK"}))


def without_field(missing: list[str], names: list[str]) -> str:
    """Advice where a name is that of a field in an object that has none."""
    heads = [name.partition(".")[0] for name in missing if "." in name]
    head = next((name for name in heads if name in names), None)
    return (
        f"; {head!r} has no such field, or holds lists: write a row for each of their parts" if head else ""
    )


def no_header(names: list[str], file: str) -> str:
    """Advice where a row seems to have been taken for the header."""
    text = re.search(r"\.(?:csv|tsv)(?:\.gz)?$", file, re.IGNORECASE)
    if not text and not re.search(r"\.xls[xm](?:\.gz)?$", file, re.IGNORECASE):
        return ""
    if any(re.fullmatch(r"[\d.,:/T Z+-]*\d[\d.,:/T Z+-]*", name) for name in names):
        return "; if the file has no header, name its columns in collect.files.header"
    if len(names) == 1 or re.match(r"[#%;]|//|--", names[0]):
        delimiter = "; if other signs part the fields, name them in collect.files.delimiter" if text else ""
        return f"; if lines stand above the header, take them out{delimiter}"
    return ""


def listed(names: list[str]) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > 10 else ""
    return ", ".join(ascii(name) if _deceives(name) else name for name in names[:10]) + more
