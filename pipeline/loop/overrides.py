"""A key of params.yaml with another value for one run, put back afterwards, whatever happens.

dvc reads parameters from that file alone, and a promotion inside the run snapshots it as it was used. Only
the key's line is changed, comments stay (ruamel.yaml keeps comments, too, but writes every null anew). What
it was is noted down first: if the process is killed, the next cycle puts it back, unless the file was edited
meanwhile.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import ConfigError
from pipeline.files import write_text
from pipeline.params import Params

NOTES = Path(".evergreen")
AS_OF, REFRESH_OF = ("collect", "as_of"), ("finetune", "refresh_of")
KEYS = (AS_OF, REFRESH_OF)
"""Those that a run may set, in the order in which it does."""


@contextmanager
def overridden(root: Path, key: tuple[str, str], value: str | None) -> Iterator[None]:
    """params.yaml says `value` for `key` = (section, name) inside, and what it said before afterwards."""
    path = root / "params.yaml"
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    during = with_value(before, key, value)
    write_text(_note(root, key), json.dumps({"before": before, "during": during}))
    try:
        write_text(path, during)
        Params.load(path)
        yield
    finally:
        _undo(root, key)


def undo_all(root: Path) -> list[str]:
    """Put back what a killed run left; the keys that could not be, as somebody edited the file since."""
    return [".".join(key) for key in reversed(KEYS) if not _undo(root, key)]


def set_values(root: Path, assignments: Sequence[str]) -> None:
    """Write `section.key=value` into params.yaml, for good, as `dvc exp run -S` does; all of them or none.

    Raises ConfigError for what params.yaml may not say.
    """
    path = root / "params.yaml"
    before = text = path.read_text(encoding="utf-8")
    for assignment in assignments:
        name, sign, value = assignment.partition("=")
        section, _, key = name.strip().rpartition(".")
        if not sign or not key or "." in section:
            raise ConfigError(f"-S {assignment}: write section.key=value, or edit params.yaml")
        try:
            meant = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(
                f"-S {assignment}: {value} is no YAML: quote a text of signs, close every bracket"
            ) from None
        text = with_value(text, (section, key), meant)
    write_text(path, text)
    try:
        Params.load(path)
    except BaseException:
        write_text(path, before)
        raise


def with_value(text: str, key: tuple[str, str], value: Any) -> str:
    """params.yaml with another value for the key (its section empty: outside of all sections).

    Raises ConfigError if it has no such line.
    """
    section_name, name = key
    start_of, indent = (rf"^{re.escape(section_name)}:[^\n]*\n", r"[ \t]+") if section_name else ("", "")
    section = re.search(
        start_of + r"(?:[ \t#][^\n]*\n|\n)*" if start_of else r"(?s).*", text + "\n", re.MULTILINE
    )
    there = r"([ \t]*(?:\"[^\"\n]*\"|'[^'\n]*'|[^\s#]+))?"
    line = section and re.search(rf"^({indent}{re.escape(name)}:){there}", section[0], re.MULTILINE)
    if not section or not line:
        raise ConfigError(f"params.yaml: {'.'.join(filter(None, key))}: no such line: {_remedy(key)}")
    start, end = section.start() + line.start(), section.start() + line.end()
    return f"{text[:start]}{line[1]} {json.dumps(value)}{text[end:]}"


def _remedy(key: tuple[str, str]) -> str:
    """The line to add if the key is one of ours, else the one that is called most like it."""
    section, name = key
    known = {
        f"{one}.{inner}" if hasattr(field.annotation, "model_fields") else one
        for one, field in Params.model_fields.items()
        for inner in getattr(field.annotation, "model_fields", [""])
    }
    full = f"{section}.{name}" if section else name
    if full in known:
        return f"add `{name}: null` to the section {section}" if section else f"add `{name}: ...`"
    near = get_close_matches(full, known, 1)
    return f"did you mean {near[0]}?" if near else "write section.key=value of a key there"


def _note(root: Path, key: tuple[str, str]) -> Path:
    return root / NOTES / f"params-before-{key[1].replace('_', '-')}.json"


def _undo(root: Path, key: tuple[str, str]) -> bool:
    note, path = _note(root, key), root / "params.yaml"
    if not note.is_file():
        return True
    noted: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
    text = path.read_text(encoding="utf-8")
    if text == noted["during"]:
        write_text(path, noted["before"])
    note.unlink()
    return text in (noted["during"], noted["before"])
