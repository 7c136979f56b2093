"""Text as people typed it -> text a model can read: `clean`, and `Template` for texts of several fields.

In: any string, also 100 kB of markup. Out: one line of Unicode NFKC without HTML, control characters or runs
of white space, at most so many characters. Every step is linear in the length of its input.
"""

from __future__ import annotations

import html
import re
import string
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from html.entities import html5

from pipeline.errors import ConfigError

_ROUNDS = 8  # an escaped tag inside an escaped tag ...: real text needs two
_MARKS = 30  # combining marks in a row, as in Unicode's stream-safe format (UAX 15, 13)
_UNSAFE_LENGTH = 1000  # shorter texts cannot make normalisation slow

# Names of tags. Removing an inline one must not part a word; any other becomes a space.
_SHORT_INLINE = "a|b|i|q|s|u"
_INLINE = (
    "abbr|acronym|bdi|bdo|big|cite|code|del|dfn|em|font|ins|kbd|mark|samp|small|span|strike|strong|sub|sup|tt"
    "|var|wbr"
)
_BLOCK = (
    "address|applet|area|article|aside|audio|base|blockquote|body|br|button|canvas|caption|center|col|colgroup"
    "|datalist|dd|details|dialog|dir|div|dl|dt|embed|fieldset|figcaption|figure|footer|form|frame|frameset|h[1-6]"
    "|head|header|hgroup|hr|html|iframe|img|input|label|legend|li|link|main|map|menu|meta|meter|nav|noframes"
    "|noscript|object|ol|optgroup|option|output|param|picture|pre|progress|script|section|select|source|style"
    "|summary|svg|table|tbody|td|template|textarea|tfoot|th|thead|time|title|tr|track|ul|video"
)
_SHORT = f"{_SHORT_INLINE}|p"
_LONG = f"{_INLINE}|{_BLOCK}"
_VALUE = r"""(?:"[^"]{0,500}+"|'[^']{0,500}+'|["']?[^\s<>"']*+["']?)"""
_ATTRIBUTE = rf"[\s/]++[\w:@.-]++\s*+=\s*+{_VALUE}"
_TAG = re.compile(
    # Closed, also with attributes that have no value; then cut short, where a name of one letter needs an
    # attribute: "a <b and c" is no tag.
    rf"<(?=[/a-z!?])/?+(?:"
    rf"(?P<closed>{_LONG})(?![\w:-])(?:{_ATTRIBUTE}|\s++[\w-]++)*+\s*+/?>"
    rf"|(?P<short>{_SHORT})(?![\w:-])(?:{_ATTRIBUTE})*+\s*+/?>"
    rf"|(?P<cut>{_LONG})(?![\w:-])(?:{_ATTRIBUTE})*+\s*+/?"
    rf"|(?P<cut_short>{_SHORT})(?![\w:-])(?:{_ATTRIBUTE})++"
    rf")|</[a-z][\w:-]*+\s*+>|<!doctype[^<>]*+>|<\?xml[^<>]*+>|<!\[CDATA\[|\]\]>",
    re.IGNORECASE,
)
_HIDDEN = re.compile(r"<(?:(!--)|(script|style)(?![\w:-])[^<>]*+>)", re.IGNORECASE)
_HIDDEN_ENDS = {
    "!--": re.compile(r"--!?>"),
    "script": re.compile(r"</script[^<>]*+>?", re.IGNORECASE),
    "style": re.compile(r"</style[^<>]*+>?", re.IGNORECASE),
}
_ESCAPED_AMPERSAND = re.compile(r"&(?:(?:amp|#38|#x26);)++", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# Soft hyphens, directions, byte order marks; not the joiners that emoji and Indic scripts need.
INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]")


def clean(text: str | None, max_characters: int) -> str:
    """One line of plain text, at most `max_characters` long; "" for none. clean(clean(x)) == clean(x).

    NFKC; HTML entities resolved, also escaped ones; tags and comments removed, broken ones too, and script
    and style with their contents ("a < b" and "I <3 you" stay); control characters are spaces; runs of white
    space are one. Cut at a word's end where there is one (see `cut`).
    """
    if not isinstance(text, str):  # None, or a table's NaN
        return ""
    for _ in range(_ROUNDS):
        cleaned = cut(_clean_once(text), max_characters)
        if cleaned == text:
            return cleaned
        text = cleaned
    # Markup made so that removing it leaves markup: take away what markup begins with.
    return cut(_clean_once(re.sub("[<&]", " ", text)), max_characters)


def cut(text: str, max_characters: int) -> str:
    """At most `max_characters`, ended at a space in the second half, else anywhere (as in Chinese)."""
    if len(text) <= max_characters:
        return text
    end = text.rfind(" ", max_characters // 2, max_characters + 1)
    return text[: end if end > 0 else max_characters].rstrip()


def _clean_once(text: str) -> str:
    text = unicodedata.normalize("NFKC", _without_long_marks(text))
    if "&" in text:
        text = _ENTITY.sub(_character, _ESCAPED_AMPERSAND.sub("&", text))
    if "<" in text:
        text = _TAG.sub(_gap_of_tag, _without_hidden(text))
    text = _CONTROL.sub(" ", INVISIBLE.sub("", text))
    return " ".join(text.split())


def _without_long_marks(text: str) -> str:
    # Normalisation sorts runs of combining marks in quadratic time: 100 kB of them took 26 s.
    if len(text) <= _UNSAFE_LENGTH or text.isascii():
        return text
    return _long_marks().sub(r"\1", text)


@lru_cache(maxsize=1)
def _long_marks() -> re.Pattern[str]:
    marks = "".join(
        character for character in map(chr, range(0x300, 0x1F000)) if unicodedata.combining(character)
    )
    return re.compile(f"([{marks}]{{{_MARKS}}})[{marks}]+")


def _character(entity: re.Match[str]) -> str:
    name = entity[0][1:]
    return html.unescape(entity[0]) if name[0] == "#" else html5.get(name, entity[0])


def _gap_of_tag(tag: re.Match[str]) -> str:
    name = tag["closed"] or tag["short"] or tag["cut"] or tag["cut_short"] or ""
    return "" if re.fullmatch(f"{_SHORT_INLINE}|{_INLINE}", name, re.IGNORECASE) else " "


def _without_hidden(text: str) -> str:
    """Without comments, scripts and styles; one that is never closed reaches to the end, as in a browser."""
    kept, position = [], 0
    while opening := _HIDDEN.search(text, position):
        kept.append(text[position : opening.start()])
        closing = _HIDDEN_ENDS[(opening[1] or opening[2]).lower()].search(text, opening.end())
        position = closing.end() if closing else len(text)
    return " ".join([*kept, text[position:]])


# In a skeleton a field is one private-use character: its number, or _ABSENT where it has no value.
_FIRST_FIELD, _ABSENT = 0xE000, "\ue0ff"
_SEPARATOR = r"[.,;:!?…|/·•–—-]"
_LABEL = re.compile(rf"\w[\w'’ -]*:?\s*{_ABSENT}")
_EMPTY_BRACKET = re.compile(rf"[(\[{{](?:\s|{_SEPARATOR}|{_ABSENT})*[)\]}}]")
_BRACKET_START = re.compile(rf"([(\[{{])(?:\s|{_SEPARATOR})*{_ABSENT}(?:\s|{_SEPARATOR}|{_ABSENT})*")
_BRACKET_END = re.compile(rf"(?:\s|{_SEPARATOR})*{_ABSENT}(?:\s|{_SEPARATOR}|{_ABSENT})*([)\]}}])")
_GAP = re.compile(rf"(?:\s|{_SEPARATOR})*{_ABSENT}(?:\s|{_SEPARATOR}|{_ABSENT})*")


def bare(name: str) -> str:
    """What two spellings of a name share: its letters and digits, in one case."""
    return re.sub(r"[\W_]", "", name.casefold())


@dataclass(frozen=True)
class Template:
    """A text with fields in braces. A field without a value takes its brackets, label and separator along."""

    parts: tuple[tuple[str, str | None], ...]  # (text before, field or None at the end)

    @classmethod
    def parse(cls, template: str, known: Collection[str], key: str) -> Template:
        """Raises ConfigError naming `key` for unbalanced braces, formats, and fields that are not `known`."""
        try:
            parsed = list(string.Formatter().parse(template))
        except ValueError as error:
            raise ConfigError(
                f"{key}: {error} in {template!r}: write a field as {{title}} and a brace as {{{{ or }}}}"
            ) from None
        for _, field, spec, conversion in parsed:
            if field is not None and (spec or conversion):
                raise ConfigError(f"{key}: field {{{field}}} has a format: write {{{field}}} alone")
        unknown = sorted({field for _, field, _, _ in parsed if field is not None and field not in known})
        if unknown:
            names = ", ".join(f"{{{field}}}" for field in unknown)
            raise ConfigError(f"{key}: unknown field {names}: the items have {', '.join(sorted(known))}")
        return cls(tuple((literal, field) for literal, field, _, _ in parsed))

    @property
    def fields(self) -> tuple[str, ...]:
        """In the order of the text, each once."""
        return tuple(dict.fromkeys(field for _, field in self.parts if field is not None))

    def render(self, values: Mapping[str, str]) -> str:
        """The text; "" if no field has a value. Values go in as they are."""
        skeleton = _skeleton(self.parts, frozenset(field for field in self.fields if values.get(field)))
        text: list[str] = []
        for character in skeleton:
            number = ord(character) - _FIRST_FIELD
            if 0 <= number < len(self.parts):
                text.append(values[self.parts[number][1] or ""])
            elif not (character == "." and text and text[-1].endswith((".", "!", "?", "…"))):
                text.append(character)  # "Who?" and the template's full stop make "Who?"
        return "".join(text)


@lru_cache(maxsize=4096)
def _skeleton(parts: tuple[tuple[str, str | None], ...], present: frozenset[str]) -> str:
    """The template with a character for each present field and no trace of the absent ones.

    Working here, not on the filled text, leaves the punctuation inside values alone.
    """
    if not present:
        return ""
    text = ""
    for number, (literal, field) in enumerate(parts):
        text += literal
        if field is not None:
            text += chr(_FIRST_FIELD + number) if field in present else _ABSENT
    text = _LABEL.sub(_ABSENT, text)
    while (shorter := _EMPTY_BRACKET.sub(_ABSENT, text)) != text:
        text = shorter
    text = _BRACKET_END.sub(r"\1", _BRACKET_START.sub(r"\1", text))
    return " ".join(_GAP.sub(_bridge, text).split())


def _bridge(gap: re.Match[str]) -> str:
    """What stays between the neighbours of absent fields: a full stop if there was one, or one separator."""
    if gap.start() == 0:
        return ""
    at_end = gap.end() == len(gap.string)
    if full_stop := re.search("[.!?…]", gap[0]):
        return full_stop[0] + ("" if at_end else " ")
    if at_end:
        return ""
    separator = re.search(_SEPARATOR, gap[0])
    if separator is None or gap.string[gap.end()] in "([{":
        return " "
    return f"{separator[0]} " if separator[0] in ",;:" else f" {separator[0]} "
