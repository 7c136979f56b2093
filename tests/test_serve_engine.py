"""Lists of a running service over a champion that was really trained, on the tiny world of two tastes."""

from __future__ import annotations

import json
import shutil
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import served
from waiting import until

pytest.importorskip("sqlalchemy")

from pipeline.data.histories import load_prepared
from pipeline.models.asked import Asked
from pipeline.models.parts import stacked
from pipeline.models.private import Budget
from pipeline.models.recommender import Recommender
from pipeline.params import Params, Positive
from pipeline.serve import engine as engines
from pipeline.serve.engine import Engine
from pipeline.serve.events import Row, Store, StoreError
from pipeline.serve.listing import Unknown
from pipeline.serve.messages import Question
from pipeline.serve.single import One
from pipeline.training.private import train_privately
from pipeline.training.recipe import Serving
from pipeline.training.task import Run


@pytest.fixture(scope="module")
def project_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return served.once(tmp_path_factory)


@pytest.fixture
def project(project_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(project_once, tmp_path / "project"))


@pytest.fixture
def engine(project: Path) -> Iterator[Engine]:
    found = Engine(project, Store(f"sqlite:///{project}/events.db"))
    with pytest.MonkeyPatch.context() as patch:  # of the tests' own million objects none would go
        patch.setattr(engines, "_give_back_memory", lambda: None)
        found.load()
    yield found
    found.close()
    found.store.close()


def row(
    number: int, user: str, item: str, time_: int, event: str = "click", value: float | None = None
) -> Row:
    return Row(f"e{number}", user, item, event, value, None, time_, None)


def ids(engine: Engine, **question: object) -> list[str]:
    answer, _ = engine.recommend(Question.model_validate(question))
    return [listed.item_id for listed in answer.items]


def test_a_known_user_gets_items_it_has_not_had(engine: Engine) -> None:
    answer, shown = engine.recommend(Question(user_id="u20", k=5))
    assert answer.version == "v1.0.0"
    assert answer.fallback is None
    history = {engine.world.model.catalogue.ids[item] for item in engine.world.present.rows(20).item}
    listed = [item.item_id for item in answer.items]
    assert len(listed) == 5
    assert not history & set(listed)
    assert [item.rank for item in answer.items] == [1, 2, 3, 4, 5]
    kept = json.loads(shown.items)
    assert [each[0] for each in kept] == listed
    assert shown.user_id == "u20"


def test_feedback_is_in_the_next_list(engine: Engine) -> None:
    first = ids(engine, user_id="u20", k=24)
    now = engine.moment()
    engine.store.append([[row(1, "u20", first[0], now)]])
    second = ids(engine, user_id="u20", k=24)
    assert first[0] not in second
    assert len(second) == len(first) - 1


def test_a_row_counts_once_under_any_event_id(engine: Engine, project: Path) -> None:
    world, now = engine.world, engine.moment()
    item, of_raw = int(world.log.item[0]), int(world.log.time[0])
    raw_user, raw_item = str(world.user_ids[world.log.user[0]]), str(world.model.catalogue.ids[item])
    before = len(world.present.rows(int(world.log.user[0])))
    twice = [row(1, "twice", "i03", now), row(2, "twice", "i03", now), row(3, "twice", "i03", now, "view")]
    engine.store.append([[*twice, row(4, raw_user, raw_item, of_raw)]])  # the last as `collect` joined it
    engine.follow()
    assert len(world.present.rows(world.present.user("twice"))) == 2
    assert len(world.present.rows(int(world.log.user[0]))) == before
    engine.load()  # as after a start
    assert len(engine.world.present.rows(engine.world.present.user("twice"))) == 2


def test_what_others_take_moves_everybody(engine: Engine) -> None:
    before = engine.recommend(Question(user_id="nobody", k=24))[0]
    assert before.fallback == "unknown_user"
    least = before.items[-1]
    now = engine.moment()
    engine.store.append([[row(n, f"new{n}", least.item_id, now + n) for n in range(40)]])
    after = {item.item_id: item for item in engine.recommend(Question(user_id="nobody", k=24))[0].items}
    assert after[least.item_id].score != least.score
    lately = engine.world.model.parts.living.lately(np.array([engine.moment()]), 1)
    assert engine.world.model.catalogue.ids[lately[0, 0]] == least.item_id


def test_two_workers_know_the_same(engine: Engine, project: Path) -> None:
    other = Engine(project, Store(f"sqlite:///{project}/events.db"))
    other.load()
    engine.store.append(
        [[row(1, "someone", "i03", engine.moment()), row(2, "someone", "i05", engine.moment())]]
    )
    assert ids(engine, user_id="someone") == ids(other, user_id="someone")
    assert other.world.present.user("someone") >= 0


def test_it_lists_what_the_evaluation_would_list(engine: Engine, project: Path) -> None:
    """The present state, asked for one point, retrieves and scores as the log's does at that moment."""
    agree(engine, project)


def agree(engine: Engine, project: Path) -> None:
    world, now = engine.world, engine.world.end
    then = Recommender.load(project / "models/champion", world.model.catalogue.items, world.log)
    for user in range(0, 30, 5):
        points = world.log.points(np.array([user], np.int32), np.full(1, -1, np.int32), np.array([now]))
        asked = Asked(points, len(then.catalogue))
        items = then.parts.candidates(asked)
        names = then.card["features"]
        expected = then.scorer.score(stacked(then.parts.columns(asked, items), names))[0]
        present = world.present.rows(user).points(user, now, False)
        mine = One(present, len(then.catalogue))
        lists, its_lists = world.model.parts.retrieve(mine), then.parts.retrieve(asked)
        assert lists.keys() == its_lists.keys()
        for name, its_list in its_lists.items():  # in any order: of equal scores the rounding decides
            assert set(lists[name][0]) == set(its_list[0]), name
        columns, its_columns = world.model.parts.columns(mine, items), then.parts.columns(asked, items)
        assert columns.keys() == its_columns.keys()
        for name, column in its_columns.items():
            np.testing.assert_allclose(columns[name], column, rtol=1e-3, atol=1e-4, err_msg=name)
        scores = world.model.scorer.score(stacked(columns, names))[0]
        np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)


def test_in_a_private_model_others_move_nobody(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_give_back_memory", lambda: None)
    settings, prepared = Params.load(project / "params.yaml"), load_prepared(project / "data/prepared")
    run = Run(settings.finetune, 1, project / "checkpoints")
    served.put(project, train_privately(prepared, run, Budget(1000, 1e-5), Serving()), "v2.0.0")
    engine = Engine(project, Store(f"sqlite:///{project}/events.db"))
    engine.load()
    agree(engine, project)
    asked = [Question(user_id=user, k=24, explain=True) for user in ("u20", "nobody")]
    before = [engine.recommend(question)[0].items for question in asked]
    assert len(before[0]) >= 5
    least, now = before[1][-1].item_id, engine.moment()
    engine.store.append([[row(n, f"new{n}", least, now + n) for n in range(40)]])
    assert [engine.recommend(question)[0].items for question in asked] == before
    engine.close()
    engine.store.close()


def test_a_history_given_in_place_and_two_clicks_agree(engine: Engine) -> None:
    given = ids(engine, history=[{"item_id": "i01"}, {"item_id": "i03"}], k=6)
    assert not {"i01", "i03"} & set(given)
    assert sum(int(item[1:]) % 2 for item in given) >= 4  # the taste of odd items


def test_a_history_without_events_is_taken_by_its_values(engine: Engine) -> None:
    lister = engine._listing
    how = replace(engine.world.preparation, positive=Positive(events=["rating"], min_value=4))
    lister.world = replace(engine.world, preparation=how)
    cells = ({"value": 1}, {"value": 5}, {}, {"event": "view", "value": 5})
    given = [{"item_id": f"i0{place}"} | cell for place, cell in enumerate(cells)]
    question = Question.model_validate({"history": given})
    assert lister.rows(question, engine.moment())[1].positive.tolist() == [False, True, True, False]


def test_a_text_lists_what_is_described_so(engine: Engine) -> None:
    answer, _ = engine.recommend(Question(text="red thing", k=6))
    assert answer.fallback is None
    assert all(item.categories == ["red"] for item in answer.items)
    both, _ = engine.recommend(Question(text="red thing", user_id="u20", k=6))
    assert all(item.categories == ["red"] for item in both.items)


def test_a_text_lists_what_the_command_line_lists(engine: Engine, project: Path) -> None:
    from pipeline.models.questions import recommend

    text = "red thing number 13"
    told = recommend(project / "models/champion", project / "data/prepared", text=text, k=6)
    answer, _ = engine.recommend(Question(text=text, k=6))
    assert [item.item_id for item in answer.items] == [row["item_id"] for row in told]
    assert [item.reasons[0].text for item in answer.items] == [row["reasons"][0] for row in told]
    assert "13" in answer.items[0].reasons[0].text  # the matching word is named
    both, _ = engine.recommend(Question(text=text, user_id="u20", k=6))
    assert all(item.reasons[0].text.startswith("its text") for item in both.items)


def test_filters_hold(engine: Engine) -> None:
    blue = ids(engine, user_id="u21", categories=["blue"], k=24)
    assert blue
    assert all(int(item[1:]) % 2 == 0 for item in blue)
    assert blue[0] not in ids(engine, user_id="u21", exclude=[blue[0]], k=24)
    assert ids(engine, user_id="u21", categories=["green"]) == []


def test_a_diverse_list_mixes(engine: Engine) -> None:
    asked = {"history": [{"item_id": "i01"}], "k": 4}
    plain = engine.recommend(Question.model_validate(asked))[0].items
    mixed = engine.recommend(Question.model_validate(asked | {"diversity": 0.95}))[0].items
    assert len({tuple(item.categories) for item in mixed}) == 2
    assert len({item.item_id for item in mixed}) == 4
    assert plain[0].item_id == mixed[0].item_id


def test_reasons_name_facts(engine: Engine) -> None:
    answer, _ = engine.recommend(Question(user_id="u20", k=5))
    history = {str(engine.world.model.catalogue.ids[item]) for item in engine.world.present.rows(20).item}
    named = {reason.item_id for item in answer.items for reason in item.reasons if reason.item_id}
    assert all(item.reasons for item in answer.items)
    assert named <= history
    assert not any(item.reasons for item in engine.recommend(Question(user_id="u20", explain=False))[0].items)


def test_lines_of_text_need_a_model_and_change_nothing_else(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Question(user_id="u20", k=15, explain="copy")
    with pytest.raises(Unknown, match=r"serve\.copy_model"):
        engine.recommend(asked)
    settings = engine._settings.now.model_copy(update={"copy_model": "some model"})
    monkeypatch.setattr(engine._settings, "now", settings)
    monkeypatch.setattr(engine._copywriter, "lines", lambda rows: [f"Try {row.title}." for row in rows])
    told, plain = engine.recommend(asked)[0], engine.recommend(Question(user_id="u20", k=15))[0]
    lines = [item.line for item in told.items]
    assert len(lines) > 10
    assert lines[:10] == [f"Try {item.title}." for item in plain.items[:10]]
    assert not any(lines[10:])
    same = [item.model_copy(update={"line": None}) for item in told.items]
    assert [item.model_copy(update={"score": None}) for item in same] == [
        item.model_copy(update={"score": None}) for item in plain.items
    ]


def test_the_list_of_a_moment(engine: Engine) -> None:
    world = engine.world
    rows = world.present.rows(20)
    early = np.datetime64(int(rows.time[2]) + 1, "us").astype(object).isoformat() + "Z"
    listed = ids(engine, user_id="u20", as_of=early, k=24)
    later = {str(world.model.catalogue.ids[item]) for item in rows.item[3:]}
    assert later & set(listed)
    before = engine.recommend(Question.model_validate({"user_id": "u20", "as_of": "2019-01-01"}))[0]
    assert before.fallback == "unknown_user"
    with pytest.raises(Unknown, match="as_of"):
        ids(engine, user_id="u20", as_of="2026-01-01T00:00:00Z")


def test_what_nobody_has_is_named(engine: Engine) -> None:
    with pytest.raises(Unknown, match=r"history\.1\.item_id: no item 'x'"):
        ids(engine, history=[{"item_id": "i01"}, {"item_id": "x"}])


def test_an_item_withdrawn_and_put(engine: Engine) -> None:
    first = ids(engine, user_id="u20", k=3)[0]
    engine.store.put_item(first, None, engine.moment())
    assert first not in ids(engine, user_id="u20", k=24)
    now = engine.moment()
    engine.store.put_item(first, {"title": "red thing number 1", "categories": ["red"]}, now)
    engine.store.put_item("new", {"title": "red thing number 99", "categories": ["red"]}, now)
    engine.follow()
    engine.renew()
    assert "new" in ids(engine, text="red thing", k=24)
    assert first in ids(engine, user_id="u20", k=24)


def test_a_store_that_is_gone_leaves_the_lists(engine: Engine) -> None:
    engine.store.close()
    engine.store = Store("sqlite:////nowhere/at/all/events.db", create=False)
    assert ids(engine, user_id="u20")
    assert engine.store_problem is not None


def test_a_store_whose_file_is_taken_away_acknowledges_nothing(engine: Engine, project: Path) -> None:
    engine.store.append([[row(1, "someone", "i03", engine.moment())]])
    path = project / "events.db"
    path.rename(project / "moved.db")
    with pytest.raises(StoreError, match=r"events\.db is gone"):
        engine.store.append([[row(2, "someone", "i05", engine.moment())]])
    assert ids(engine, user_id="u20")
    assert "is gone" in str(engine.whole_problem)
    (project / "moved.db").rename(path)
    assert engine.store.append([[row(2, "someone", "i05", engine.moment())]]) == [(1, 0)]
    engine.follow()
    assert engine.whole_problem is None
    # Another file, whose numbers begin anew.
    path.rename(project / "old.db")
    for rest in project.glob("events.db-*"):
        rest.unlink()
    other = Store(f"sqlite:///{path}")
    other.append([[row(9, "another", "i07", engine.moment())]])
    other.close()
    engine.follow()
    engine.renew()
    assert engine.world.present.user("another") >= 0
    assert engine.world.present.user("someone") == -1


def test_a_new_champion_takes_over_and_a_broken_one_is_refused(engine: Engine, project: Path) -> None:
    folder = project / "models" / "champion"
    engine.store.append([[row(1, "someone", "i03", engine.moment())]])
    claim = json.loads((folder / "version.json").read_text())
    (folder / "version.json").write_text(json.dumps(claim | {"version": "v2.0.0"}))
    old = weakref.ref(engine.world)
    engine.renew()
    assert engine.version == "v2.0.0"
    assert old() is None  # its memory is free again
    assert engine.swaps == 1
    assert engine.world.present.user("someone") >= 0
    (folder / "version.json").write_text(json.dumps(claim | {"version": "v3.0.0", "artifact_hash": "0" * 64}))
    engine.renew()
    assert engine.version == "v2.0.0"
    assert engine.refused == 1
    assert "refused" in str(engine.problem)
    assert ids(engine, user_id="u20")
    (folder / "version.json").write_text(json.dumps(claim | {"version": "v4.0.0"}))
    engine.renew()
    assert (engine.version, engine.problem) == ("v4.0.0", None)


def test_similar_items_share_the_taste(engine: Engine) -> None:
    listed = engine.similar("i01", 5)
    assert len(listed) == 5
    assert "i01" not in {item.item_id for item in listed}
    assert sum(int(item.item_id[1:]) % 2 for item in listed) >= 4


def test_the_clock_goes_on_from_the_end_of_old_data(engine: Engine) -> None:
    first = engine.moment()
    assert 0 <= first - engine.world.end < 60_000_000  # data of 2020
    engine.store.append([[row(1, "u20", "i03", first + 10**12)]])
    engine.follow()
    assert engine.moment() > first + 10**12


def test_the_clock_goes_on_behind_the_newest_change_of_an_item(engine: Engine, project: Path) -> None:
    """At a next start, too: what was put days ago would be to come, and what was withdrawn still on offer."""
    later = engine.moment() + 10**12
    gone = ids(engine, user_id="u20")[0]
    engine.store.put_item("fresh", {"title": "Fresh", "categories": ["novel"]}, later)
    engine.store.put_item(gone, None, later)
    engine.follow()
    assert engine.moment() > later
    again = Engine(project, engine.store)
    again.load()
    assert again.moment() > later
    assert ids(again, user_id="u20", categories=["novel"]) == ["fresh"]
    assert gone not in ids(again, user_id="u20", k=100)


def test_the_thread_follows(engine: Engine) -> None:
    engine.start()
    engine.store.append([[row(1, "followed", "i03", engine.moment())]])
    until(lambda: engine.world.present.user("followed") >= 0)


def test_the_page_and_the_command_line_say_whose_the_items_are(
    engine: Engine, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipeline.lists import credit
    from pipeline.show import show_list

    assert engine.for_page()["credit"] is None
    assert credit(project) is None
    for path in (project / "data/raw/manifest.json", project / "data/prepared/summary.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"credit": "by IFDB, CC BY 3.0 US"}))
    assert engine.for_page()["credit"] == "by IFDB, CC BY 3.0 US"
    show_list([], credit(project))
    assert "by IFDB, CC BY 3.0 US" in capsys.readouterr().out
