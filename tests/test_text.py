import time
import unicodedata
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import slowness

from pipeline.data.text import Template, clean, cut
from pipeline.errors import ConfigError

DEFAULT = "{title} ({year}). {categories}. {description} {tags}"
FIELDS = {"title", "year", "categories", "description", "tags"}
TAGS = ["<", ">", "<b", "</", "/", "<script>", "</script>", "<!--", "-->", "a=", "p", "=", '"', "'"]
ENTITIES = ["&", "&amp;", "&lt;", "#38;", ";"]
ODD = [" ", "\n", "\x00", "\u200b", "＜", "ﬁ", "e\u0301", "\u0301", "汉字", "word"]
MARKUP = st.lists(st.sampled_from(TAGS + ENTITIES + ODD), max_size=40).map("".join)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("a < b", "a < b"),
        ("I <3 you", "I <3 you"),
        ("a <b and c", "a <b and c"),
        ("List<String> of x<y", "List<String> of x<y"),
        ("<b>bold</b>ly", "boldly"),
        ("one<br>two<p>three</p>", "one two three"),
        ("<a href=\"x>y\" title='q'>link</a>", "link"),
        ("<img src=x onerror=alert(1)>Photo", "Photo"),
        ("<svg/onload=alert(1)>Icon", "Icon"),
        ('<div class="open Hello', "Hello"),
        ("<b>never closed", "never closed"),
        ("cut short <br", "cut short"),
        ("<script>alert('x')</script>Toy <STYLE type=a>p{}</STYLE >Story", "Toy Story"),
        ("Toy <script>alert('x')", "Toy"),
        ("before<!-- hidden -->after", "before after"),
        ("Tom &amp; Jerry", "Tom & Jerry"),
        ("Tom &amp;amp; Jerry", "Tom & Jerry"),
        ("&lt;i&gt;it&lt;/i&gt; &#8217;s &eacute;", "it ’s é"),
        ("AT&T R&D rock&notes &unknown;", "AT&T R&D rock&notes &unknown;"),
        ("Ｆｕｌｌ ﬁne Cafe\u0301", "Full fine Café"),
        ("a\x00b\tc\r\n\u2028d\u00a0e", "a b c d e"),
        ("soft\u00adhyphen zero\u200bwidth \ufeffmark", "softhyphen zerowidth mark"),
        ("  \n ", ""),
        ("", ""),
        (None, ""),
        (float("nan"), ""),
    ],
)
def test_clean(text: str | None, expected: str) -> None:
    assert clean(text, 200) == expected


@given(st.one_of(st.text(), MARKUP), st.integers(1, 60))
@settings(max_examples=200)
def test_clean_is_idempotent_bounded_and_free_of_control_characters(text: str, length: int) -> None:
    cleaned = clean(text, length)
    assert len(cleaned) <= length
    assert clean(cleaned, length) == cleaned
    assert not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in cleaned)
    assert cleaned == " ".join(cleaned.split())


@given(st.text(alphabet="abcdefghij .,!?-'", max_size=80))
def test_clean_leaves_plain_words_alone(text: str) -> None:
    assert clean(text, 200) == " ".join(text.split())


def test_cut_ends_at_a_word() -> None:
    assert cut("one two three", 9) == "one two"
    assert cut("one two three", 7) == "one two"
    assert cut("one two", 7) == "one two"


def test_cut_is_hard_where_there_are_no_spaces() -> None:
    assert cut("汉字" * 10, 5) == "汉字汉字汉"
    assert cut("a " + "b" * 20, 10) == "a bbbbbbbb"  # the only space would lose most of it


@pytest.mark.parametrize(
    "text",
    [
        "word " * 20_000,
        "汉字" * 50_000,
        "<" * 100_000,
        "<b " * 33_000,
        '<a x="' * 17_000,
        "<!--" * 25_000,
        "<script>" * 12_500,
        "&" + "amp;" * 25_000,
        "<" * 50_000 + "b>" * 50_000,
        "a" + "\u0301" * 50_000 + "\u0316" * 50_000,
        "\ufdfa" * 33_000,
        "<div" + " a = " * 20_000,
    ],
    ids=lambda text: ascii(text[:6]),
)
def test_100_kilobytes_are_fast(text: str) -> None:
    start = time.process_time()
    cleaned = clean(text, 1000)
    assert time.process_time() - start < 2 * slowness()  # seconds; a quadratic step takes 10 and more
    assert len(cleaned) <= 1000


def render(template: str = DEFAULT, **values: str) -> str:
    return Template.parse(template, FIELDS | {"brand"}, "preprocess.item_text").render(values)


def test_template_with_every_value() -> None:
    text = render(title="Toy Story", year="1995", categories="A, B", description="Toys live.", tags="pixar")
    assert text == "Toy Story (1995). A, B. Toys live. pixar"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, ""),
        ({"title": ""}, ""),
        ({"title": "Toy Story"}, "Toy Story."),
        (
            {"title": "Toy Story", "year": "1995", "categories": "Animation, Children's, Comedy"},
            "Toy Story (1995). Animation, Children's, Comedy.",
        ),
        ({"title": "Who?", "categories": "Drama"}, "Who? Drama."),
        ({"title": "E.T.", "categories": "Drama"}, "E.T. Drama."),
        ({"title": "A", "tags": "t"}, "A. t"),
        ({"year": "1995"}, "(1995)."),
        ({"categories": "Drama", "tags": "t"}, "Drama. t"),
        ({"description": "Only this."}, "Only this."),
        ({"title": "()", "tags": "- ."}, "(). - ."),  # a value's own punctuation stays
    ],
)
def test_absent_values_leave_no_debris(values: dict[str, str], expected: str) -> None:
    assert render(**values) == expected


@pytest.mark.parametrize(
    ("template", "values", "expected"),
    [
        ("{title} - {brand} ({year}, {tags})", {"title": "T"}, "T"),
        ("{title} - {brand} ({year}, {tags})", {"title": "T", "tags": "t"}, "T (t)"),
        ("{title} - {brand} ({year}, {tags})", {"brand": "B", "year": "1"}, "B (1)"),
        ("{title} by {brand}, {year}", {"title": "T", "year": "1"}, "T, 1"),
        ("Genre: {categories}. Tags: {tags}", {"tags": "t"}, "Tags: t"),
        ("Genre: {categories}. Tags: {tags}", {"categories": "c"}, "Genre: c."),
        ("[{brand}] {title} | {year}", {"title": "T"}, "T"),
        ("{title}, {brand}, {year}.", {"title": "T", "year": "1"}, "T, 1."),
        ("{{{title}}} {year}", {"title": "T"}, "{T}"),
        ("no field", {}, ""),
    ],
)
def test_other_templates(template: str, values: dict[str, str], expected: str) -> None:
    assert render(template, **values) == expected


def test_no_combination_leaves_debris() -> None:
    for template in (
        DEFAULT,
        "{title} - {brand}; {year} | {tags}: {description}",
        "({title}) [{brand}, {year}]",
    ):
        fields = Template.parse(template, FIELDS | {"brand"}, "key").fields
        for present in (some for size in range(len(fields) + 1) for some in combinations(fields, size)):
            text = render(template, **dict.fromkeys(present, "X"))
            for debris in (
                "()",
                "[]",
                "( ",
                " )",
                "(,",
                ",)",
                " .",
                "..",
                ". .",
                " ,",
                " ;",
                "  ",
                "- -",
                "; |",
            ):
                assert debris not in text, (template, present, text)
            assert text.count("X") == len(present)
            assert not text or text[0] in "X([", text
            assert not text or text[-1] in "X)].", text


def test_unknown_field_lists_the_known() -> None:
    with pytest.raises(
        ConfigError, match=r"item_text: unknown field \{genre\}, \{maker\}: .* brand, categories"
    ):
        render("{title} {maker} {genre}")


@pytest.mark.parametrize("template", ["{title", "title}", "{title} {"])
def test_unbalanced_brace_is_one_clear_line(template: str) -> None:
    with pytest.raises(ConfigError, match=r"preprocess.item_text: .* write a field as \{title\}") as error:
        render(template)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("template", ["{}", "{0}", "{title.upper}", "{title[0]}"])
def test_only_names_are_fields(template: str) -> None:
    with pytest.raises(ConfigError, match="unknown field"):
        render(template)


@pytest.mark.parametrize("template", ["{year:04d}", "{title!r}"])
def test_formats_are_refused(template: str) -> None:
    with pytest.raises(ConfigError, match="has a format"):
        render(template)
