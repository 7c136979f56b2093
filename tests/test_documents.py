"""Documents: what is read is what was written, or is named as missing or malformed; nothing is misread."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.documents.base import Document
from pipeline.documents.data import Manifest, Summary
from pipeline.documents.drift import Drift, Signal, Span
from pipeline.documents.evaluation import Difference, Evaluation
from pipeline.documents.model import Card, Claim
from pipeline.documents.promotion import Check, Identity, Promotion
from pipeline.documents.registry import Registry, TrainingRecord, VersionRecord
from pipeline.documents.retraining import Reason, Retraining
from pipeline.documents.runs import RunRecord
from pipeline.errors import ArtifactError

MOMENT = "1998-03-01T00:00:00+00:00"
SMALLEST: dict[type[Document], dict] = {
    Manifest: {"as_of": MOMENT, "rows": {"kept": 3}},
    Summary: {"train_end": MOMENT, "fit_end": MOMENT},
    Card: {"fit_end": MOMENT},
    Claim: {"version": "v1.0.0"},
    Drift: {"outcome": "no_champion", "drift": False, "signals": {}},
    Retraining: {"retrain": True, "mode": "full", "reasons": [{"signal": "champion", "text": "none yet"}]},
    Evaluation: {"k": 20, "models": {"challenger": {"all": {"ndcg@10": 0.1}}}},
    Promotion: {"promote": True, "checks": [], "challenger": {"artifact_hash": "c"}},
    Registry: {"champion": None, "versions": [], "trainings": []},
    TrainingRecord: {},
    VersionRecord: {"version": "v1.0.0"},
    RunRecord: {"run_id": "one", "dag": "cycle", "state": "running"},
}


@pytest.mark.parametrize("kind", SMALLEST, ids=lambda kind: kind.__name__)
def test_written_and_read_again(kind, tmp_path):
    document = kind.parse(json.dumps(SMALLEST[kind]))
    document.write(tmp_path / "new" / "one.json")
    assert kind.read(tmp_path / "new" / "one.json") == document
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["one.json"]


@pytest.mark.parametrize("kind", SMALLEST, ids=lambda kind: kind.__name__)
def test_what_cannot_be_read_is_named_with_its_remedy(kind, tmp_path):
    path = tmp_path / "one.json"
    for content in (None, "", "[", "null", "[]", "3", "\ufeff{", '{"a": '):
        if content is not None:
            path.write_text(content, encoding="utf-8")
        with pytest.raises(ArtifactError) as error:
            kind.read(path)
        assert str(error.value).startswith(f"{path}: ")
        assert str(error.value).endswith(kind.remedy)
        assert "\n" not in str(error.value)
        assert kind.find(path) is None


@pytest.mark.parametrize(
    ("kind", "content", "key"),
    [
        (Manifest, {"rows": {}}, "as_of"),
        (Manifest, {"as_of": "yesterday"}, "as_of"),
        (Manifest, {"as_of": 888888888}, "as_of"),
        (Manifest, {"as_of": MOMENT, "rows": {"kept": "3"}}, "rows.kept"),
        (Drift, {"outcome": "ok", "drift": "true"}, "drift"),
        (Drift, {"outcome": "fine", "drift": True}, "outcome"),
        (Drift, {"outcome": "ok", "drift": True, "signals": {"volume": {"flag": 1}}}, "signals.volume.flag"),
        (Retraining, {"retrain": True, "mode": "fully"}, "mode"),
        (Promotion, {"promote": True, "challenger": {}}, "checks"),
        (Promotion, {"promote": 1, "checks": [], "challenger": {}}, "promote"),
        (Evaluation, {"paired": {"popularity": {"low": "0.1"}}}, "paired.popularity.low"),
        (Registry, {"versions": [], "trainings": []}, "champion"),
    ],
)
def test_a_wrong_key_is_named_and_never_coerced(kind, content, key, tmp_path):
    path = tmp_path / "one.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ArtifactError, match=rf"one\.json: {key}.*: run `"):
        kind.read(path)


def test_nan_and_infinities_are_null_and_other_keys_are_left_out():
    text = '{"paired": {"ease": {"ndcg@10": NaN, "low": -Infinity, "high": 1e999, "new": 1}}, "further": []}'
    assert Evaluation.parse(text).paired["ease"] == Difference()
    assert Difference(ndcg=np.float32("nan"), low=np.float64(0.5)).to_dict()["ndcg@10"] is None
    assert Drift.parse('{"outcome": "ok", "drift": true, "alpha": NaN}').to_dict()["alpha"] is None


def test_code_may_not_invent_fields():
    with pytest.raises(ValidationError):
        Retraining.of({"retrain": True, "mode": "full", "reason": []})
    record = RunRecord(run_id="one", dag="cycle", state="running")
    assert record.but(state="failed").state == "failed"
    for wrong in ({"state": "green"}, {"stat": "failed"}):
        with pytest.raises(ValidationError):
            record.but(**wrong)


def test_moments_are_utc_to_the_microsecond():
    span = Span(start=pd.Timestamp("2024-01-01T00:00:00.000001"), end=None, rows=np.int64(3))
    assert span.to_dict() == {
        "from": "2024-01-01T00:00:00.000001+00:00",
        "to": None,
        "rows": 3,
        "users": None,
    }
    identity = Identity.of({"fit_end": "1998-03-01T02:00:00+02:00"})
    assert identity.to_dict()["fit_end"] == "1998-03-01T00:00:00+00:00"


def test_numbers_stay_what_they_are():
    check = Check(name="users", passed=True, value=30, limit=0.5, text="")
    assert (check.to_dict()["value"], check.to_dict()["limit"]) == (30, 0.5)
    assert Check(name="evaluation", passed=True, value=MOMENT, limit=None, text="").value == MOMENT
    assert Reason(signal="max_age_days", value=12.5, text="").to_dict()["value"] == 12.5
    assert Signal(flag=False, value=np.float64(2)).value == 2.0


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(drawn=st.data())
def test_nothing_that_a_file_holds_is_a_traceback(drawn, tmp_path_factory):
    kind = drawn.draw(st.sampled_from(list(SMALLEST)))
    content = dict(SMALLEST[kind])
    content[drawn.draw(st.sampled_from(sorted(kind.model_fields)))] = drawn.draw(JSON)
    path = tmp_path_factory.getbasetemp() / "fuzzed.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    found = kind.find(path)
    assert found is None or kind.parse(found.to_json()) == found


def test_a_half_written_document_is_never_seen(tmp_path, monkeypatch):
    path = tmp_path / "one.json"
    Claim(version="v1.0.0").write(path)
    monkeypatch.setattr(Path, "write_text", lambda self, *_, **__: (self.write_bytes(b"{"), 1 / 0))
    with pytest.raises(ZeroDivisionError):
        Claim(version="v2.0.0").write(path)
    assert Claim.read(path).version == "v1.0.0"
    assert [one.name for one in tmp_path.iterdir()] == ["one.json"]
