"""collect.files of params.yaml: where the tables lie and how their text is written."""

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationInfo, field_validator


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _number_is_no_switch(cls, value: object, info: ValidationInfo) -> object:
        """`long_term_guard: true` would be 1, and let everything pass."""
        if _has_switch(value) and _numeric(cls.model_fields[str(info.field_name)].annotation):
            raise ValueError("write a number, or null where there is none: it is no switch")
        return value


def _has_switch(value: object) -> bool:
    return isinstance(value, bool) or (isinstance(value, dict) and any(map(_has_switch, value.values())))


def _numeric(annotation: object) -> bool:
    return annotation in (int, float) or any(map(_numeric, get_args(annotation)))


def _encoding(name: object) -> str:
    """Known to Python, with one byte for each sign that parts lines and fields; or UTF-16 or -32."""
    signs = '\n\r",;|\tA1'
    try:
        written = signs.encode(str(name))
    except (LookupError, UnicodeError):
        written = b""
    if written != signs.encode() and not re.fullmatch(r"utf.?(16|32).*|utf.?8.sig", str(name), re.IGNORECASE):
        raise ValueError("name an encoding of text, like utf-8, cp1252 or utf-16")
    return str(name)


def _delimiter(text: object) -> str:
    text = "\t" if text in ("\\t", "tab") else text  # as shells pass it on
    if not isinstance(text, str) or not text or re.search(r'[\w"\r\n]', text):
        raise ValueError('name the signs between two fields, like ";", "|" or "\\t"')
    return text


def _header(names: object) -> tuple[str, ...]:
    if not isinstance(names, list | tuple) or not names or len({str(name) for name in names}) < len(names):
        raise ValueError(
            "list the columns' names in their order, each once, like [user_id, item_id, timestamp]"
        )
    return tuple(map(str, names))


def _sheet(name: object) -> str:
    if isinstance(name, bool | list) or not str(name).strip():
        raise ValueError("write the name that stands on the sheet's tab")
    return str(name)


def _of_tables(check: Callable[[object], object]) -> Callable[[object], object]:
    """A setting of all files, or by table; a list of columns, unlike the others, fits one table alone."""

    def spread(value: object) -> object:
        if value is not None and not isinstance(value, dict):
            value = dict.fromkeys(("interactions",) if check is _header else TABLES, value)
        return {table: check(one) for table, one in (value or {}).items() if one is not None}

    return spread


Table = Literal["interactions", "items", "users", "relations"]
TABLES = get_args(Table)


class Files(Section):
    interactions: str | None
    """File or glob: .csv, .tsv, .jsonl, .parquet, also with .gz; .xlsx."""
    items: str | None
    """The same; may be the interactions file; null takes the item columns of the interactions."""
    users: str | None
    relations: str | None = None
    """head, relation, tail: a knowledge graph of the items."""
    columns: dict[str, Any]
    """Our column name -> the file's name, or {constant: value}."""
    encoding: Annotated[dict[Table, str], BeforeValidator(_of_tables(_encoding))] = {}
    """Of text files. null: UTF-8, or UTF-16 where the file begins with its mark."""
    delimiter: Annotated[dict[Table, str], BeforeValidator(_of_tables(_delimiter))] = {}
    """Of .csv and .tsv. null: as the first line shows."""
    decimal: Literal[".", ","] | None = None
    """Sign before decimals in text; the other may part thousands. null: a point, and no thousands."""
    header: Annotated[dict[Table, tuple[str, ...]], BeforeValidator(_of_tables(_header))] = {}
    """The names of the columns, of files that do not begin with them. A list means the interactions."""
    sheet: Annotated[dict[Table, str], BeforeValidator(_of_tables(_sheet))] = {}
    """Of workbooks. null: the only one that is not empty."""
