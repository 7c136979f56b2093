"""collect.pseudonyms: users' ids become keyed hashes before anything is written, their texts lose addresses.

A pseudonym is ~, four digits that tell the key, and HMAC-SHA256 of the id under the key, cut to 128 bits
(hex): who has the key can find a known person's rows, nobody else can, and no two people share one. What is
a pseudonym of the same key already stays as it is, so that events which the service kept come in as they are.
The key is text in EVERGREEN_PSEUDONYM_KEY, or in the file that EVERGREEN_PSEUDONYM_KEY_FILE names; it belongs
neither into the repository nor beside the data.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data import tables
from pipeline.data.ids import as_ids, id_faults
from pipeline.data.values import as_text
from pipeline.errors import ConfigError, DataError
from pipeline.params import Params
from pipeline.sources import RAW, Tables

KEY, KEY_FILE = "EVERGREEN_PSEUDONYM_KEY", "EVERGREEN_PSEUDONYM_KEY_FILE"
LEAST = 32  # characters of a key: `openssl rand -hex 32` gives 64
FORM = re.compile(r"~([0-9a-f]{4})[0-9a-f]{32}")
PREPARED = Path("data/prepared/train.parquet")
WITHHELD = "withheld: collect.pseudonyms"
# In place of a user's cell that is no id: it is refused for the same reason, and shows nothing.
_LIKE = {"user_id_is_a_list_or_object": "[]", "no_user_id": ""}
_ROUNDED = "0E+00"

# At most as long as RFC 5321 lets it be: without the bound a long word costs the square of its length.
_ADDRESS = re.compile(
    r"(?:\"[^\"\n]{1,62}\"|[\w.!#$%&'*+/=?^`{|}~-]{1,64})[@\uff20\ufe6b][\w-]+(?:\.[\w-]+)+"
)
_CARD = re.compile(
    r"(?<!\d)(?<!\d-)(?:\d(?:[ -]?\d){12,18}"
    # As cards show it, with whatever lies between the groups.
    r"|\d{4}(?P<between>[^\w,;:]{1,3})(?:\d{4}(?P=between)\d{4}(?P=between)\d{1,7}|\d{6}(?P=between)\d{4,5})"
    r")(?!-?\d)"
)
_ABROAD = re.compile(r"(?<![\d+.,])00(?=[1-9])")  # as most of the world dials what others write with a +
_REGIONS = (None, "US")  # with a country's code, and as North Americans write them


@dataclass(frozen=True)
class Pseudonyms:
    """Of one key."""

    key: bytes

    @classmethod
    def from_environment(cls) -> Pseudonyms:
        """Raises ConfigError where there is no key, two, or one that can be guessed."""
        given, file = os.environ.get(KEY), os.environ.get(KEY_FILE)
        if given and file:
            raise ConfigError(f"collect.pseudonyms: both {KEY} and {KEY_FILE} are set: unset one")
        if file:
            try:
                given = Path(file).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"{KEY_FILE}: {file}: {error}: it holds one line, the key") from None
        if not given:
            raise ConfigError(
                f"collect.pseudonyms: the environment has no {KEY}: set it, or {KEY_FILE}, to a key made by "
                "`openssl rand -hex 32`, and keep it where neither data nor repository are"
            )
        if len(given) < LEAST:
            raise ConfigError(f"collect.pseudonyms: the key has {len(given)} characters: {LEAST} at least")
        return cls(given.encode())

    @property
    def number(self) -> str:
        """Four hex digits that tell this key from another."""
        return self._digest("the number of this key")[:4]

    def of(self, user_id: str) -> str:
        """The pseudonym of an id as `as_ids` has it. Raises DataError for one of another key."""
        if (match := FORM.fullmatch(user_id)) is not None:
            if match[1] != self.number:
                raise DataError(
                    f"{user_id}: a pseudonym of another key than {KEY}: set the key that made it, or see "
                    "docs/privacy.md on changing keys"
                )
            return user_id
        return f"~{self.number}{self._digest(user_id)[:32]}"

    def _digest(self, text: str) -> str:
        return hmac.new(self.key, text.encode(), hashlib.sha256).hexdigest()

    def hide(self, read: Tables) -> Tables:
        """What a source found, without anybody's id; columns of its own are whoever's chose to bring them."""

        def hidden(chunks: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
            yield from map(self._frame, chunks)

        return replace(
            read,
            interactions=hidden(read.interactions),
            users=None if read.users is None else self._frame(read.users),
            feedback=hidden(read.feedback),
        )

    def _frame(self, frame: pd.DataFrame) -> pd.DataFrame:
        frame = frame.copy(deep=False)
        if tables.USER in frame:
            ids = as_ids(frame[tables.USER])
            faults = id_faults(frame[tables.USER], tables.USER, ids)
            names = {user: self.of(user) for user in ids.dropna().unique()}
            frame[tables.USER] = ids.map(names).where(
                ids.notna(), faults.map(lambda fault: _LIKE.get(fault, _ROUNDED))
            )
        if tables.TEXT in frame:
            texts = as_text(frame[tables.TEXT])
            frame[tables.TEXT] = texts.map(scrubbed, na_action="ignore")
        if RAW in frame:
            frame[RAW] = frame[RAW].where(frame[RAW].isna(), WITHHELD)
        return frame


def wanted(root: Path) -> Pseudonyms | None:
    """Of a project; None where collect.pseudonyms is false. Raises ConfigError where there is no key."""
    params = root / "params.yaml"
    if not params.is_file() or not Params.load(params).collect.pseudonyms:
        return None
    return Pseudonyms.from_environment()


def of_data(root: Path) -> Pseudonyms | None:
    """As `wanted`, for who asks data/prepared for people.

    Raises ConfigError where the data were made with another key, or without: everybody would be a stranger.
    """
    hidden, made = wanted(root), _number_in(root / PREPARED)
    if made is not None and made != (hidden.number if hidden else ""):
        by = f"with key {made}" if made else "without pseudonyms"
        now = f"the environment has key {hidden.number}" if hidden else "collect.pseudonyms is false"
        raise ConfigError(
            f"{PREPARED} was made {by}, and {now}: nobody in it would be known. Set that back, or collect "
            "anew with `evergreen cycle`; see docs/privacy.md on changing keys"
        )
    return hidden


def _number_in(table: Path) -> str | None:
    """Of the key whose pseudonyms a table holds; empty: it holds ids; None: it has no row."""
    try:
        batches = pq.ParquetFile(table).iter_batches(1, columns=[tables.USER])
        first = next((str(user) for batch in batches for user in batch.column(0).to_pylist()), None)
    except (OSError, pa.ArrowException):
        return None
    if first is None:
        return None
    return match[1] if (match := FORM.fullmatch(first)) else ""


def scrubbed(text: str) -> str:
    """Without e-mail addresses, numbers of payment cards (by Luhn's check) and of telephones."""
    if not {"@", "\uff20", "\ufe6b"}.isdisjoint(text):
        text = _ADDRESS.sub("[e-mail]", text)
    if sum(character.isdigit() for character in text) < 7:
        return text
    import phonenumbers  # a fifth of a second, which only texts with long numbers need

    text = _CARD.sub(lambda match: "[card]" if _by_luhn(match[0]) else match[0], text)
    for region in _REGIONS:
        dialled = _ABROAD.sub("+ ", text)  # of the same length
        for match in reversed(list(phonenumbers.PhoneNumberMatcher(dialled, region))):
            text = f"{text[: match.start]}[phone]{text[match.end :]}"
    return text


def _by_luhn(number: str) -> bool:
    digits = [int(sign) for sign in number if sign.isdigit()][::-1]
    return (sum(digits[::2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])) % 10 == 0
