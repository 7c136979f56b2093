import json
from pathlib import Path

import pytest
import yaml

from pipeline.errors import ConfigError
from pipeline.loop.overrides import AS_OF, REFRESH_OF, overridden, set_values, undo_all, with_value


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("  as_of: null # a comment", '  as_of: "1998-03-01" # a comment'),
        ('  as_of: "1997-01-01"', '  as_of: "1998-03-01"'),
        ("  as_of: '1997-01-01'   # x", '  as_of: "1998-03-01"   # x'),
        ("  as_of:", '  as_of: "1998-03-01"'),
        ("  as_of: # none", '  as_of: "1998-03-01" # none'),
    ],
)
def test_one_line_changes_and_comments_stay(line, expected):
    text = "evaluate:\n  as_of: 1\ncollect: # x\n  source: files\n\n# as_of: 2\n{}\n\nlater:\n  as_of: 4\n"
    assert with_value(text.format(line), AS_OF, "1998-03-01") == text.format(expected)


@pytest.mark.parametrize("text", ["", "collect: {as_of: null}\n", "evaluate:\n  as_of: null\n"])
def test_no_such_line(text):
    with pytest.raises(ConfigError, match=r"params.yaml: collect.as_of: no such line: add `as_of: null`"):
        with_value(text, AS_OF, "1998-03-01")


def test_the_committed_params_have_the_lines():
    text = Path("params.yaml").read_text()
    assert 'refresh_of: "v2.0.0"' in with_value(text, REFRESH_OF, "v2.0.0")
    assert with_value(text, REFRESH_OF, None) == text


def test_value_is_put_back_even_after_an_error(tmp_path):
    before = Path("params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(before)
    with (
        pytest.raises(ConfigError, match=r"collect.as_of: 'soon' is no ISO"),
        overridden(tmp_path, AS_OF, "soon"),
    ):
        raise AssertionError("not reached")
    assert (tmp_path / "params.yaml").read_text() == before
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["params.yaml"]


def test_null_replaces_a_version_for_a_full_training(tmp_path):
    before = with_value(Path("params.yaml").read_text(), REFRESH_OF, "v3.0.0")
    (tmp_path / "params.yaml").write_text(before)
    with overridden(tmp_path, REFRESH_OF, None):
        assert "refresh_of: null" in (tmp_path / "params.yaml").read_text()
    assert (tmp_path / "params.yaml").read_text() == before


@pytest.mark.parametrize("killed_before", ["as_of", "refresh_of", "neither"])
def test_values_of_a_killed_run_are_put_back_by_the_next(tmp_path, killed_before):
    """One inside the other, as `evergreen cycle --as-of` refreshes; the notes stay if nobody tidies up."""
    before = Path("params.yaml").read_text()
    path = tmp_path / "params.yaml"
    path.write_text(before)
    (tmp_path / ".evergreen").mkdir()
    text = before
    for key, value in ((AS_OF, "1998-03-01"), (REFRESH_OF, "v1.0.0")):
        during = with_value(text, key, value)
        note = tmp_path / ".evergreen" / f"params-before-{key[1].replace('_', '-')}.json"
        note.write_text(json.dumps({"before": text, "during": during}))
        if killed_before == key[1]:
            break
        path.write_text(during)
        text = during
    assert undo_all(tmp_path) == []
    assert path.read_text() == before
    assert not list((tmp_path / ".evergreen").iterdir())


def test_file_that_was_edited_meanwhile_is_left_alone(tmp_path):
    before = Path("params.yaml").read_text()
    (tmp_path / ".evergreen").mkdir()
    during = with_value(before, AS_OF, "1998-03-01")
    note = tmp_path / ".evergreen" / "params-before-as-of.json"
    note.write_text(json.dumps({"before": before, "during": during}))
    (tmp_path / "params.yaml").write_text(during + "# mine\n")
    assert undo_all(tmp_path) == ["collect.as_of"]
    assert (tmp_path / "params.yaml").read_text() == during + "# mine\n"


def test_settings_are_written_for_good_line_by_line(tmp_path):
    before = Path("params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(before)
    set_values(tmp_path, ["collect.source=ifdb", "preprocess.test_share=0.2", "finetune.lora_rank=8"])
    after = (tmp_path / "params.yaml").read_text()
    content = yaml.safe_load(after)
    assert content["collect"]["source"] == "ifdb"
    assert (content["preprocess"]["test_share"], content["finetune"]["lora_rank"]) == (0.2, 8)
    changed = [line for line in after.splitlines() if line not in before.splitlines()]
    assert len(changed) == 3
    assert "# movielens-100k |" in changed[0]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("collect.source", "-S collect.source: write section.key=value"),
        ("collect=3", "params.yaml"),
        ("preprocess.positive.min_value=1", "write section.key=value, or edit params.yaml"),
        ("collect.sauce=x", "collect.sauce: no such line"),
        ("preprocess.test_share=2", "preprocess.test_share"),
        ("collect.as_of={a: [b", "is no YAML"),
    ],
)
def test_a_setting_that_cannot_be_changes_nothing(tmp_path, setting, message):
    before = Path("params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(before)
    with pytest.raises(ConfigError, match=message):
        set_values(tmp_path, ["collect.source=ifdb", setting])
    assert (tmp_path / "params.yaml").read_text() == before


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("collect.sourc_=files", r"did you mean collect\.source\?"),
        ("sed=3", r"did you mean seed\?"),
        ("finetune.positive.min_value=3", "edit params.yaml"),
        ("nope", "write section.key=value"),
    ],
)
def test_a_key_that_is_none_is_named_with_the_one_meant(tmp_path, assignment, said):
    (tmp_path / "params.yaml").write_text(Path("params.yaml").read_text())
    with pytest.raises(ConfigError, match=said):
        set_values(tmp_path, [assignment])


def test_a_key_outside_of_all_sections_may_be_set(tmp_path):
    (tmp_path / "params.yaml").write_text(Path("params.yaml").read_text())
    set_values(tmp_path, ["seed=23"])
    assert yaml.safe_load((tmp_path / "params.yaml").read_text())["seed"] == 23
