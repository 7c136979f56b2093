"""The evaluation page: harmless whatever the data holds, and whole whatever is missing."""

import math
from html.parser import HTMLParser
from typing import Any

import page_history
import pandas as pd
import pytest

from pipeline.evaluation.report import render

# nDCG@10 on all, warm, cold items; the rest of a model's figures follows from these.
FIGURES = {
    "challenger": (0.0812, 0.0849, 0.0310),
    "champion": (0.0774, 0.0811, 0.0268),
    "without_text": (0.0757, 0.0803, 0.0021),
    "frozen_text": (0.0779, 0.0815, 0.0244),
    "fine_tuned_encoder": (0.0171, 0.0166, 0.0192),
    "popularity": (0.0402, 0.0425, 0.0000),
    "recent_popularity": (0.0517, 0.0544, 0.0012),
    "item_knn": (0.0651, 0.0688, 0.0000),
    "ease": (0.0698, 0.0741, 0.0000),
    "ials": (0.0633, 0.0669, 0.0000),
    "content": (0.0211, 0.0209, 0.0192),
    "frozen_encoder": (0.0163, 0.0158, 0.0177),
}
COUNTS = {
    "all": (166, 2214),
    "warm": (90, 1320),
    "cold_items": (21, 64),
    "cold_users": (76, 830),
    "empty_history": (74, 74),
}
ITEM = {"item_id": "50", "title": "Star Wars (1977)"}


def scores(ndcg: float, users: int, points: int) -> dict[str, float]:
    wide = 0.11 * ndcg * math.sqrt(166 / users) + 0.002
    result: dict[str, float] = {"users": users, "points": points}
    for k, factor in ((5, 0.78), (10, 1.0), (20, 1.31)):
        recall = min(1.0, 2.1 * ndcg * factor)
        result |= {f"ndcg@{k}": ndcg * factor, f"recall@{k}": recall, f"precision@{k}": recall / k}
        result |= {f"mrr@{k}": 0.71 * ndcg * factor}
        result |= {f"ndcg@{k}_low": max(0.0, ndcg * factor - wide), f"ndcg@{k}_high": ndcg * factor + wide}
    return result | {"coverage@10": 0.12 + 4 * ndcg, "novelty@10": 3.1 - 9 * ndcg, "diversity@10": 0.71}


def slices(ndcg: float, warm: float, cold: float) -> dict[str, Any]:
    by_name = dict(zip(COUNTS, (ndcg, warm, cold, 0.8 * ndcg, 0.6 * ndcg), strict=True))
    result = {name: scores(value, *COUNTS[name]) for name, value in by_name.items()}
    result["all"]["popularity_bias@10"] = 0.31 - ndcg
    result["cold_items"] |= {"ndcg@10_item_low": 0.6 * cold, "ndcg@10_item_high": 1.5 * cold}
    return result


def pair(value: float, half: float = 0.004) -> dict[str, float]:
    return {"ndcg@10": value, "low": value - half, "high": value + half}


def evaluation() -> dict[str, Any]:
    """Made-up figures of twelve models in the shape of reports/evaluation.json."""
    ours = FIGURES["challenger"]
    buckets = ["0", "1–4", "5–19", "20–99", "100+"]
    history = {
        name: [
            scores(FIGURES[name][0] * (0.6 + 0.15 * place), 30 + place, 74 + 310 * place) | {"bucket": bucket}
            for place, bucket in enumerate(buckets)
        ]
        for name in ("challenger", "ease")
    }
    deciles = {
        name: [
            scores(FIGURES[name][0] * 0.02 * decile**2, 40, 20 + 9 * decile**2) | {"decile": decile}
            for decile in range(1, 11)
        ]
        for name in ("challenger", "ease")
    }
    window = {"users": 751, "items": 1616, "points": None}
    return {
        "as_of": "1998-04-22T23:10:38+00:00",
        "fit_end": "1998-03-08T02:14:11+00:00",
        "k": 20,
        "seed": 17,
        "data_hash": "sha256:9f2c41d07be3a8815c7a",
        "split": {
            "train": {
                "rows": 80_000,
                "first": "1997-09-20T03:05:10Z",
                "last": "1998-02-18T14:02:00Z",
                **window,
            },
            "validation": {"rows": 10_000, "first": "1998-02-18", "last": "1998-03-08", **window},
            "test": {
                "rows": 10_000,
                "first": "1998-03-08",
                "last": "1998-04-22",
                "users": 166,
                "points": 2214,
            },
            "repeats": 0,
            "capped_points": 3911,
        },
        "models": {name: slices(*figures) for name, figures in FIGURES.items()},
        "paired": {
            name: pair(ours[0] - figures[0]) for name, figures in FIGURES.items() if name != "challenger"
        },
        "paired_slices": {
            name: {"cold_items": pair(ours[2] - figures[2], 0.012), "warm": pair(ours[1] - figures[1])}
            for name, figures in FIGURES.items()
            if name != "challenger"
        },
        "tuned": {"ease": {"regularisation": 200.0, "half_life": 25}, "recent_popularity": {"days": 30}},
        "by_history_length": history,
        "by_popularity_decile": deciles,
        "best_baseline": "ease",
        "seconds": {name: 0.7 + place for place, name in enumerate(FIGURES)},
        "training": {"encoder": "all-MiniLM-L6-v2", "trainable_layers": 2, "seconds": 171.4, "epochs": 6}
        | {"peak_gib": 1.2, "seconds_by_phase": {"text": 44.0, "scorer (challenger)": 13.0}},
    }


def curves() -> pd.DataFrame:
    rows = [
        (phase, step, metric, start * math.exp(-step / 300) + end + 0.02 * start * math.sin(7 * step))
        for phase, metric, start, end in [
            ("encoder", "loss", 2.4, 3.1),
            ("encoder", "validation_ndcg@10", -0.04, 0.081),
            ("encoder", "learning_rate", 2e-4, 0.0),
            ("scorer", "loss", 0.3, 0.4),
            ("scorer", "validation_ndcg@10", -0.02, 0.084),
        ]
        for step in range(0, 1000, 100 if metric.startswith("validation") else 2)
    ]
    return pd.DataFrame(rows, columns=["phase", "step", "metric", "value"])


def single_items() -> dict[str, list[dict[str, Any]]]:
    fargo, brown = {"item_id": "1", "title": "Fargo (1996)"}, {"item_id": "8", "title": "Jackie Brown (1997)"}
    seen_by = [{"user_id": "0042", "history": [fargo, brown]}, {"user_id": "0043", "history": []}]
    return {
        "cold_items": [{"item": {"item_id": "77", "title": None}, "points": 12, "users": seen_by}],
        "moved": [{"item": fargo, "before": [brown], "after": [{"item_id": "9", "title": "Good Will"}]}],
    }


def examples() -> list[dict[str, Any]]:
    titles = [
        "Star Wars (1977)",
        "Fargo (1996)",
        "Return of the Jedi (1983)",
        "L.A. Confidential (1997)",
        "Cité des enfants perdus, La (1995)",
        "Wrong Trousers, The (1993)",
        "Good, The Bad and The Ugly, The (1966)",
        "Schindler's List (1993)",
        "Jackie Brown (1997)",
        "As Good As It Gets (1997)",
        "Good Will Hunting (1997)",
        "Hunt for Red October, The (1990)",
    ]
    items = [{"item_id": str(place), "title": title} for place, title in enumerate(titles)]
    return [
        {
            "user_id": f"{7 * user + 13:04d}",
            "timestamp": "1998-03-12T10:21:00+00:00",
            "slice": "warm" if user % 3 else "empty_history",
            "history_length": 14 * (user % 3),
            "history": items[user : user + 8] if user % 3 else [],
            "targets": [items[(user + 5 * (user if user % 2 else 11)) % 12]],
            "list": [
                items[(user + 5 * place) % 12] | {"reasons": ["near Fargo (1996)"]} for place in range(10)
            ],
        }
        for user in range(10)
    ]


HOSTILE = "</style></title></svg><script>alert(1)</script><img src=x onerror=alert(2)><b unclosed='"
SHOWN = {
    "html",
    "head",
    "meta",
    "title",
    "style",
    "body",
    "header",
    "main",
    "footer",
    "nav",
    "section",
    "article",
}
SHOWN |= {
    "div",
    "p",
    "h1",
    "h2",
    "h3",
    "h4",
    "ul",
    "ol",
    "li",
    "dl",
    "dt",
    "dd",
    "a",
    "b",
    "i",
    "bdi",
    "small",
}
SHOWN |= {"span", "strong", "table", "caption", "thead", "tbody", "tr", "th", "td", "details", "summary"}
SHOWN |= {"figure", "figcaption", "svg", "g", "line", "circle", "rect", "text", "polyline", "polygon"}


class Page(HTMLParser):
    """What a browser would see: elements, attributes, text, and whether every element was closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.stack: list[str] = []
        self.words: list[str] = []
        self.headings: list[str] = []
        self.hits: list[str] = []
        self.feed(html)
        self.close()
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag != "meta":  # the only element without an end that is not written <.../>
            self.stack.append("li.hit" if (tag, ("class", "hit")) == ("li", *attrs[:1]) else tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop().split(".")[0] == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.stack:
            return
        self.words.append(data)
        if self.stack[-1:] == ["h2"]:
            self.headings.append(data)
        if "li.hit" in self.stack and self.stack[-1] == "bdi":
            self.hits.append(data)


def assert_harmless(html: str) -> Page:
    page = Page(html)
    assert page.stack == []
    assert page.tags <= SHOWN
    names = {name for name, _ in page.attributes}
    assert not {name for name in names if name.startswith("on")} | names & {
        "src",
        "srcset",
        "style",
        "xlink:href",
    }
    assert all(value.startswith("#") for name, value in page.attributes if name == "href")
    return page


def replace_texts(value: Any, text: str) -> Any:
    """Every text of a structure replaced, but not the names of keys."""
    if isinstance(value, dict):
        return {key: replace_texts(one, text) for key, one in value.items()}
    if isinstance(value, list):
        return [replace_texts(one, text) for one in value]
    return text if isinstance(value, str) else value


def test_page_has_every_section_in_order() -> None:
    page = assert_harmless(render(evaluation(), examples(), curves()))
    assert page.headings == [
        "Did fine-tuning pay?",
        "Does the challenger beat the best baseline?",
        "What was trained on what",
        "Every model",
        "Slices",
        "Training curves",
        "By length of history and by popularity of the item",
        "Newcomers, and what fine-tuning moved",
        "Ten users, their history and their list",
        "How to read it",
    ]
    assert "Not in this evaluation" not in page.text


def test_page_opens_with_what_finetuning_brought_and_cost() -> None:
    text = assert_harmless(render(evaluation())).text
    begin = text.index("Did fine-tuning pay?")
    opening = text[begin : text.index("Does the challenger beat the best baseline?", begin)]
    for told in (
        "fine-tuned − frozen text is +0.003",
        "no text 0.076",
        "fine-tuned, text alone 0.017",
        "fine-tuned + scorer (challenger) 0.081",
        "Training, with what all of these share, took 171 s and 1.2 GiB of memory at most; "
        "fine-tuning the text took 44 s of it.",
    ):
        assert told in opening, opening
    assert opening.index("Training, s") < opening.index(" 57 ")  # the text's phase and the challenger's own


def test_after_a_refresh_the_page_opens_with_the_verdict() -> None:
    found = evaluation() | {"training": {"refresh_of": "v1.0.0"}}
    text = assert_harmless(render(found)).text
    assert text.index("Does the challenger beat the best baseline?") < text.index("Did fine-tuning pay?")


def test_two_points_have_no_interval() -> None:
    found = evaluation()
    for slices in found["models"].values():
        slices["cold_items"] = {
            "users": 2,
            "points": 2,
            "ndcg@10": 0.0,
            "ndcg@10_low": 0.0,
            "ndcg@10_high": 0.0,
        }
    text = assert_harmless(render(found)).text
    assert "0.000 [0.000" not in text
    assert "cold items item never in train 2 few users 2 0.000" in text


def test_page_says_what_was_trained_on_what() -> None:
    text = assert_harmless(render(evaluation())).text
    for fact in (
        "Encoder all-MiniLM-L6-v2",
        "Trained layers 2",
        "Training 171 s",
        "Seed 17",
        "9f2c41d07be3 ",
    ):
        assert fact in text
    assert "Data as of 1998-04-22 23:10 Fitted until 1998-03-08 02:14" in text
    assert "train 1997-09-20 03:05 1998-02-18 14:02 80,000 751 1,616 –" in text
    assert "12 models rank every available item at 2,214 points of 166 users." in text
    assert "capped points 3,911" in text


def test_page_loads_nothing_and_forbids_scripts() -> None:
    html = render(evaluation(), examples(), curves())
    policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    assert ("content", policy) in Page(html).attributes
    for address in ("http:", "https:", "//", "url(", "@import", "javascript:"):
        assert address not in html.replace("<!doctype html>", "")


def test_same_input_gives_the_same_page() -> None:
    assert render(evaluation(), examples(), curves()) == render(evaluation(), examples(), curves())


def test_hostile_texts_are_shown_escaped() -> None:
    page = assert_harmless(
        render(
            replace_texts(evaluation(), HOSTILE),
            replace_texts(examples(), HOSTILE),
            curves().assign(phase=HOSTILE, metric=HOSTILE),
        )
    )
    assert "<script>alert(1)</script><img src=x onerror=alert(2)>" in page.text


def test_hostile_names_of_models_slices_and_settings_are_shown_escaped() -> None:
    found = evaluation()
    found["models"][HOSTILE] = {HOSTILE: scores(0.05, 3, 9), "all": scores(0.05, 3, 9)}
    for name in ("ease", "challenger"):
        found["models"][name][HOSTILE] = scores(0.05, 3, 9)
    found["paired"][HOSTILE] = pair(0.02)
    found |= {"best_baseline": HOSTILE, "tuned": {HOSTILE: {HOSTILE: HOSTILE}}}
    found["split"][HOSTILE] = found["training"][HOSTILE] = {HOSTILE: [HOSTILE]}
    found["by_history_length"][HOSTILE] = [scores(0.05, 3, 9) | {"bucket": HOSTILE}]
    page = assert_harmless(render(found, examples(), curves()))
    assert page.text.count("<script>alert(1)</script>") >= 6


def test_very_long_title_is_cut_with_an_ellipsis() -> None:
    usual = render(evaluation(), examples(), curves())
    html = render(evaluation(), replace_texts(examples(), "long " * 20_000), curves())
    assert "long long…" in Page(html).text
    assert len(html) < 2 * len(usual)


def test_direction_overrides_and_controls_are_removed() -> None:
    bad = "abc\u202etxt.exe\u2066\u200f\x00\x1b[31m\ud800\u2028end"
    html = render(replace_texts(evaluation(), bad), replace_texts(examples(), bad), curves())
    assert "abctxt.exe[31mend" in assert_harmless(html).text
    assert not set(html) & set("\u202e\u2066\u200f\x00\x1b\ud800\u2028")
    html.encode("utf-8")


def test_right_to_left_and_joined_titles_survive() -> None:
    title = "قصة حب — می‌خواهم 👩‍👩‍👧 東京"
    html = render(evaluation(), [{"user_id": "1", "list": [{"item_id": "1", "title": title}]}])
    assert f"<bdi>{title}</bdi>" in html


@pytest.mark.parametrize("models", [{}, {"challenger": {}}, {"challenger": None}, {"ease": {"all": {}}}])
def test_models_alone_are_enough(models: dict[str, Any]) -> None:
    page = assert_harmless(render({"models": models}))
    assert len(page.headings) == 10
    for absent in ("counts and dates of the split", "paired differences", "training curves", "example users"):
        assert f"Not in this evaluation: {absent}." in page.text


@pytest.mark.parametrize("key", [key for key in evaluation() if key != "models"])
def test_any_other_key_may_be_absent_or_null(key: str) -> None:
    found = evaluation()
    assert_harmless(render(found | {key: None}, examples(), curves()))
    del found[key]
    assert_harmless(render(found, examples(), curves()))


@pytest.mark.parametrize("unknown", [None, math.nan, math.inf, "broken"])
def test_what_is_no_finite_number_shows_as_a_dash(unknown: Any) -> None:
    def blank(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: blank(one) for key, one in value.items()}
        return unknown if isinstance(value, float) else value

    found = evaluation()
    found |= {key: blank(found[key]) for key in ("models", "paired", "paired_slices", "seconds")}
    text = assert_harmless(render(found, examples(), curves().assign(value=math.nan))).text
    assert "ease – – – –" in text
    assert not {"nan", "inf", "None", "broken"} & set(text.replace("[", " ").replace(",", " ").split())


def test_cold_items_have_an_interval_by_items_too() -> None:
    text = assert_harmless(render(evaluation())).text
    assert "0.031 [0.019, 0.043] by items [0.019, 0.046]" in text  # 0.6 and 1.5 times 0.031


def test_few_users_are_flagged() -> None:
    text = assert_harmless(render(evaluation())).text
    assert "cold items item never in train 21 few users 64" in text
    assert "warm user and item seen in train 90 1,320" in text


def test_models_stand_best_first_with_interval_and_difference() -> None:
    text = assert_harmless(render(evaluation())).text
    assert "ease 0.070 [0.060, 0.079] 0.015 0.147 0.050" in text
    assert "ease +0.011 +0.007 to +0.015 better" in text
    table = text[text.index("At list length 10") :]
    assert table.index("challenger 0.081") < table.index("champion 0.077") < table.index("ease 0.070")


def test_hits_are_found_by_id_or_taken_from_the_list() -> None:
    other = {"item_id": "7", "title": "Other"}
    by_id = {"user_id": "0042", "targets": [ITEM], "list": [other, ITEM]}
    by_flag = {"user_id": "0043", "list": [other | {"hit": True}, ITEM | {"hit": False}]}
    page = assert_harmless(render(evaluation(), [by_id, by_flag]))
    assert page.hits == ["Star Wars (1977)", "Other"]
    assert "User 0042" in page.text


def test_item_without_title_shows_its_id() -> None:
    titles: list[Any] = [None, math.nan, "", " \u202e"]
    example = {
        "user_id": "1",
        "list": [{"item_id": f"00{n}", "title": title} for n, title in enumerate(titles)],
    }
    text = assert_harmless(render(evaluation(), [example])).text
    assert all(f"00{place} (no title)" in text for place in range(4))


def test_every_phase_and_metric_gets_a_curve_in_the_order_of_the_frame() -> None:
    html = render(evaluation(), curves=curves())
    labels = [value for name, value in Page(html).attributes if name == "aria-label" and "by step" in value]
    assert [label.split(" by step")[0] for label in labels] == [
        "encoder, loss",
        "encoder, validation ndcg@10",
        "encoder, learning rate",
        "scorer, loss",
        "scorer, validation ndcg@10",
    ]


def test_slices_show_the_difference_from_the_champion() -> None:
    found = evaluation()
    found["paired_slices"] = {"champion": {"cold_users": pair(-0.0123)}}
    assert "− champion" in render(found)
    assert "−0.012" in render(found)
    del found["models"]["champion"]
    assert "− champion" not in render(found)


def test_cold_items_and_moved_neighbours_are_shown_or_their_absence_said() -> None:
    html = assert_harmless(render(evaluation(), examples(), curves(), single_items())).text
    for text in ("77 (no title)", "0042", "nothing yet", "Nearest before", "Good Will"):
        assert text in html
    none = render(evaluation(), examples(), curves())
    assert "No list of ten holds an item that train never had." in none
    assert "Fine-tuning moved no item's nearest texts." in none.replace("&#39;", "'")
    assert_harmless(render(evaluation(), (), None, replace_texts(single_items(), HOSTILE)))
    assert_harmless(render(evaluation(), (), None, {"cold_items": [{}], "moved": [{}]}))


def test_the_source_of_the_items_is_credited_in_the_footer() -> None:
    found = evaluation()
    assert "<p>Works: A &amp; B.</p></footer>" not in render(found)
    found["split"]["credit"] = "Works: A & B"
    assert "<p>Works: A &amp; B.</p></footer>" in render(found)


def test_the_report_says_whether_reasons_are_true() -> None:
    figures = {"named": 0.32, "other": 0.01, "difference": 0.31, "low": 0.2, "high": 0.4, "items": 90}
    found = render(evaluation() | {"faithfulness": figures | {"users": 9}})
    section = found[found.index('id="reasons"') : found.index('id="setup"')]
    assert all(figure in section for figure in ("Yes", "+0.310", "+0.320", "90 listed items of 9 users"))
    none = {name: None for name in figures} | {"items": 0, "users": 0}
    assert 'id="reasons"' not in render(evaluation() | {"faithfulness": none})


def test_signals_stand_with_what_they_add_where_it_was_measured() -> None:
    rows = {"live state": pair(0.02), "graph": pair(0.001), "<b>": pair(-0.02), "odd": {"ndcg@10": None}}
    found = render(evaluation() | {"signals": rows})
    section = found[found.index('id="signals"') : found.index('id="setup"')]
    assert [section.count(word) for word in (">pays<", ">costs<", ">not distinguishable<")] == [1, 1, 1]
    assert "<b>" not in section
    assert "odd" not in section
    assert 'id="signals"' not in render(evaluation())


def test_what_people_made_of_a_services_lists_is_told() -> None:
    assert "What people made of the lists" not in render(evaluation())
    html = render(evaluation() | page_history.satisfaction())
    assert '<h2 id="served-title">What people made of the lists</h2>' in html
    assert '<tr><th scope="row">v2.0.0</th><td>1,234</td><td>31.2 %</td><td>90.0 %</td>' in html
    assert "+0.120 [+0.020, +0.220] a list, better." in html
    broken = evaluation() | {"satisfaction": {"by_version": [1], "lists": "many"}, "comparison": 3}
    assert "What people made of the lists" in render(broken)


def fairness(p: float) -> dict[str, Any]:
    ends = {"value": 0.9, "low": 0.85, "high": 0.95}
    group = {"group": "gender=<b>", "users": 40, "points": 90, "ndcg@10": 0.07, "gap": -0.01, "p": p}
    taken = {"group": "lower half", "items": 0.5, "relevance": 0.1, "exposure": {"challenger": 0.025}}
    lost = {"kind": "users", "name": "gender=<b>", "share": 0.2, "lost": 0.01, "low": 0.004, "high": 0.016}
    return {
        "fairness": {
            "users": [group | {"low": -0.02, "high": 0.0, "calibration": 0.8}],
            "exposure": {"popularity": {"awrf": {"challenger": ends}, "groups": [taken]}},
            "calibration": {"challenger": ends},
        },
        "comparison": {"fairness": [lost | {"p": p, "users": 40, "challenger": 0.1, "champion": 0.05}]},
    }


def test_groups_of_users_and_items_stand_with_their_figures() -> None:
    assert "Is anybody served worse?" not in render(evaluation())
    page = assert_harmless(html := render(evaluation() | fairness(0.9)))
    section = html[html.index('id="fairness"') : html.index('id="training"')]
    assert "Nobody surely loses" in section
    assert "surely behind" not in section
    assert "<td>50.0</td><td>10.0</td><td>2.5</td>" in section
    assert "gender=<b>" in page.text
    unfair = render(evaluation() | fairness(0.01))
    assert ("Look closer" in unfair, "surely behind" in unfair) == (True, True)  # it gains itself
    broken = fairness(0.9) | {"comparison": {"fairness": [{"kind": 3}]}}
    assert "There is no champion to compare with" in render(evaluation() | broken)
