"""Texts, years and tags of items."""

from typing import Any

import pandas as pd
import pytest
from small_data import DAY, START, catalogue

from pipeline.data.items import complete, count_items, parse_template, with_text
from pipeline.errors import ConfigError, DataError

DEFAULT = "{title} ({year}). {categories}. {description} {tags}"


def described(template: str = DEFAULT, max_characters: int = 200, **columns: Any) -> pd.DataFrame:
    """Two items, a and b; train ends on day 5."""
    items, seen = catalogue(["b", "a"]), pd.DataFrame({"item_id": ["a"], "first_seen": [pd.Timestamp(START)]})
    for name, values in columns.items():
        items[name] = pd.Series(values, dtype="str" if name in ("title", "text") else None)
    parsed = parse_template(template, items.columns)
    return with_text(complete(items, seen), parsed, max_characters, pd.Timestamp(START + 5 * DAY))


def texts(template: str = DEFAULT, max_characters: int = 200, **columns: Any) -> list[str]:
    """Of b and a, as given."""
    return described(template, max_characters, **columns)["item_text"].tolist()[::-1]


def test_texts_from_the_template() -> None:
    categories = [["Animation", "Comedy", "Animation"], []]
    assert texts(title=["Toy Story (1995)", "<b>Heat</b> &amp; Dust"], categories=categories) == [
        "Toy Story (1995). Animation, Comedy.",
        "Heat & Dust.",
    ]
    assert texts(title=["Toy Story (1995)", None], template="{title}") == ["Toy Story (1995)", ""]


def test_year_from_the_title_or_the_column() -> None:
    table = described(title=["Heat (1995) ", "1984"])
    assert str(table["year"].dtype) == "Int64"
    assert table["year"].tolist() == [pd.NA, 1995]
    assert table["title"].tolist() == ["1984", "Heat (1995) "]  # kept as it was
    assert described(title=["Heat (1995)", "Dune (1984)"], year=["1996", "?"])["year"].tolist() == [
        1984,
        1996,
    ]


def test_further_columns_enter_the_text() -> None:
    template = "{title} ({year}) by {brand}, {weight} kg, {sold}: {description}"
    assert texts(
        template,
        year=[1990.0, None],
        brand=["Acme"] * 2,
        weight=[2.0, 2.0],
        sold=[pd.Timestamp(START)] * 2,
        text=["Nice.", None],
    ) == ["Item b (1990) by Acme, 2 kg, 2020-01-01: Nice.", "Item a by Acme, 2 kg, 2020-01-01"]


def test_tags_after_train_do_not_enter_the_text() -> None:
    day = [START + n * DAY for n in range(7)]
    tags = {"tags": [["Fun", "fun", "toys", "at end", "later"], []]}
    assert texts(**tags, tag_times=[[day[1], day[2], day[1], day[5], day[6]], []]) == [
        "Item b. Fun, toys",
        "Item a.",
    ]
    counts = count_items(described(**tags, tag_times=[[*day[1:6]], []]), 2, pd.Timestamp(START + 5 * DAY))
    assert (counts["tags"], counts["tags_not_before_train_end"]) == (5, 1)


def test_tags_are_the_ten_most_frequent() -> None:
    tags = [[f"t{n:02d}" for n in range(12)] + ["t11", "t11", "t05"], []]
    assert texts("{tags}", tags=tags) == ["t11, t05, t00, t01, t02, t03, t04, t06, t07, t08", ""]


def test_tags_and_times_that_do_not_pair() -> None:
    with pytest.raises(DataError, match="column tag_times: item 'b' has 2 tags and 1 times"):
        texts(tags=[["x", "y"], []], tag_times=[[START], []])


def test_an_item_with_two_rows() -> None:
    with pytest.raises(DataError, match="column item_id: 'a' has two rows"):
        complete(catalogue(["a", "b", "a"]), pd.DataFrame({"item_id": [], "first_seen": []}))


def test_unicode_and_100_kilobyte_titles() -> None:
    assert texts(title=["汉字" * 50_000, "🎬 Film"], max_characters=50) == ["汉字" * 25, "🎬 Film."]
    assert texts(title=["a" * 100_000, "<script>" + "x" * 100_000], max_characters=50) == ["a" * 50, ""]


def test_unknown_field_of_the_template() -> None:
    with pytest.raises(
        ConfigError, match=r"item_text: unknown field \{genre\}: .*available_until, categories"
    ):
        texts("{title} {genre}")


def test_what_no_model_may_see_is_left_out() -> None:
    items, seen = catalogue(["a"]), pd.DataFrame({"item_id": ["a"], "first_seen": [pd.Timestamp(START)]})
    items["title"], items["owner"], items["face_vector"] = "Heat (1995)", "she", [[0.5, 1.0]]
    items["graph_relations"], items["graph_entities"] = [["gender", "genre"]], [["f", "crime"]]
    never = ["owner", "face_vector", "gender", "year", "nowhere"]
    table = complete(items, seen, never)
    assert not {"owner", "face_vector"} & set(table.columns)
    assert (table["graph_relations"][0], table["graph_entities"][0]) == (["genre"], ["crime"])
    assert table["year"].isna().all()
    assert complete(items, seen)["graph_entities"][0] == ["f", "crime"]
    with pytest.raises(ConfigError, match=r"item_text: \{owner\} is a column that preprocess.never_features"):
        parse_template("{title} by {owner}", items.columns, never)
