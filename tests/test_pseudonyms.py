"""With collect.pseudonyms no id of a user is in anything that is written."""

import re
import shutil
import time
from pathlib import Path

import collecting
import pandas as pd
import pytest
import served
import yaml
from fastapi.testclient import TestClient
from test_serve_app import ready
from waiting import slowness

from pipeline.check import command as checking
from pipeline.data import tables
from pipeline.data.pseudonyms import FORM, KEY, KEY_FILE, Pseudonyms, of_data, scrubbed
from pipeline.errors import ConfigError, DataError
from pipeline.params import Params
from pipeline.serve.app import create
from pipeline.serve.events import Store

SECRET = "of no use beyond these tests, and long enough"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> Pseudonyms:
    monkeypatch.setenv(KEY, SECRET)
    monkeypatch.delenv(KEY_FILE, raising=False)
    return Pseudonyms.from_environment()


def everything_written(folder: Path) -> str:
    """Every cell of every table, and every other file as it is."""
    texts = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.suffix == ".parquet":
            texts.append(pd.read_parquet(path).to_csv())
        else:
            texts.append(path.read_bytes().decode(errors="replace"))
    return "\n".join([*texts, *(str(path) for path in folder.rglob("*"))])


def source(folder: Path) -> dict[str, object]:
    rows = [f"anna-{n % 3},i{n % 4},2026-01-{1 + n % 28:02d},fine" for n in range(40)]
    rows += [
        "anna-0,i1,no time,fine",
        '"[""anna-7"", ""anna-8""]",i1,2026-01-05,two at once',
        "anna-1,i2,2026-01-06,write to anna-1@example.com or +49 30 901820 (card 4111 1111 1111 1111)",
        "anna-9,i2,2026-01-06,one,cell,too,many",
    ]
    users = collecting.written(folder / "users.csv", "user_id,age", "anna-0,31", "anna-2,40", "anna-5,25")
    file = collecting.written(folder / "rows.csv", "user_id,item_id,timestamp,text", *rows)
    return {"interactions": file, "users": users, "max_rejected_share": 0.5}


def test_nobody_is_named_in_what_collect_writes(tmp_path: Path, key: Pseudonyms) -> None:
    settings = collecting.of_files(**source(tmp_path), pseudonyms=True)
    raw = collecting.run(tmp_path / "project", settings)
    text = everything_written(raw)
    assert not [secret for secret in ("anna", "901820", "4111") if secret in text]
    found = collecting.interactions(raw)
    assert set(found["user_id"]) == {key.of(f"anna-{n}") for n in range(3)}
    assert "write to [e-mail] or [phone] (card [card])" in set(found["text"])
    users = pd.read_parquet(raw / "users.parquet").set_index("user_id")
    assert users.loc[key.of("anna-5"), "age"] == 25
    reasons = pd.read_parquet(raw / "rejected.parquet")["reason"]
    assert {"unreadable_timestamp", "user_id_is_a_list_or_object"} <= set(reasons)


def test_rows_are_those_of_a_run_without_pseudonyms(tmp_path: Path, key: Pseudonyms) -> None:
    given = source(tmp_path)
    plain = collecting.interactions(collecting.run(tmp_path / "a", collecting.of_files(**given)))
    hidden = collecting.interactions(
        collecting.run(tmp_path / "b", collecting.of_files(**given, pseudonyms=True))
    )
    columns = ["user_id", "item_id", "timestamp"]
    expected = plain.assign(user_id=plain["user_id"].map(key.of))[columns].sort_values(columns)
    pd.testing.assert_frame_equal(
        hidden[columns].sort_values(columns).reset_index(drop=True), expected.reset_index(drop=True)
    )


def test_nobody_is_named_by_check(tmp_path: Path) -> None:
    params = collecting.params_file(tmp_path, collecting.of_files(**source(tmp_path), pseudonyms=True))
    checking.write(checking.check(Params.load(params)), tmp_path / "reports")
    assert "anna" not in everything_written(tmp_path / "reports")


def test_the_same_key_gives_the_same_and_another_is_told(
    key: Pseudonyms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = key.of("anna")
    assert FORM.fullmatch(name)
    assert key.of(name) == name != key.of("Anna")
    file = tmp_path / "key"
    file.write_text(f"{SECRET}\n")
    monkeypatch.delenv(KEY)
    monkeypatch.setenv(KEY_FILE, str(file))
    assert Pseudonyms.from_environment().of("anna") == name
    other = Pseudonyms(b"another key, which is as long as it has to be")
    assert other.of("anna") != name
    with pytest.raises(DataError, match="another key"):
        other.of(name)


@pytest.mark.parametrize("bad", [{}, {KEY: "short"}, {KEY: SECRET, KEY_FILE: "also"}, {KEY_FILE: "/nowhere"}])
def test_without_a_key_nothing_is_written(
    bad: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY)
    for name, value in bad.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"KEY|key"):
        collecting.run(tmp_path / "project", collecting.of_files(**source(tmp_path), pseudonyms=True))
    assert not (tmp_path / "project" / "raw" / "interactions").exists()


def test_scrubbing_leaves_other_numbers() -> None:
    kept = "Room 101, 12,000 people, 2026-11-28, 1234567890123, ISBN 978-3-16-148410-0, 5 of 5"
    assert scrubbed(kept) == kept
    assert scrubbed("call (212) 555-2368 or +44 20 7946 0958") == "call [phone] or [phone]"
    assert scrubbed(dates := "10.10.2010 11.11.2011, 1.0049301234567 of 2001–2002–2003–2004") == dates


@pytest.mark.parametrize("between", ["", " ", "  ", "-", ".", "/", "–", " - ", "\u00a0"])
def test_cards_and_numbers_are_found_however_they_are_parted(between: str) -> None:
    card = between.join(["4111", "1111", "1111", "1111"])
    assert scrubbed(f"mine: {card}-") == "mine: [card]-"


def test_addresses_and_foreign_prefixes_are_found_whole() -> None:
    assert scrubbed('o\'brien+x@example.com, "my own"@example.org, b＠example.com') == (
        "[e-mail], [e-mail], [e-mail]"
    )
    assert scrubbed("call 0049 30 901820") == "call [phone]"
    begin = time.process_time()
    scrubbed("a" * 50_000 + " @")
    assert time.process_time() - begin < 5 * slowness()  # 20 s where each letter is a beginning of its own


def test_the_service_calls_people_what_collect_calls_them(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, key: Pseudonyms
) -> None:
    root = tmp_path / "project"
    shutil.copytree(served.once(tmp_path_factory), root)
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["collect"]["pseudonyms"] = True
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(ConfigError, match="made without pseudonyms"):
        create(root, f"sqlite:///{root}/events.db")
    renamed(root / "data/prepared", key)
    event = {"event_id": "e1", "user_id": "anna", "item_id": "i03", "event": "click"}
    with TestClient(create(root, f"sqlite:///{root}/events.db")) as client:
        ready(client)
        item = client.post("/recommend", json={"user_id": "anna"}).json()["items"][0]["item_id"]
        sent = event | {"item_id": item, "text": "thanks, anna@example.com"}
        assert client.post("/feedback", json=sent).json()["accepted"] == 1
        by_id = client.post("/recommend", json={"user_id": "anna"}).json()
        by_name = client.post("/recommend", json={"user_id": key.of("anna")}).json()
        assert by_id["fallback"] is None
        assert [row["item_id"] for row in by_id["items"]] == [row["item_id"] for row in by_name["items"]]
        assert client.post("/recommend", json={"user_id": "~ffff" + "0" * 32}).status_code == 422
        assert client.delete("/users/anna").json()["events"] == 1
        assert not [path for path in root.glob("events.db*") if b"anna" in path.read_bytes()]


def renamed(folder: Path, key: Pseudonyms) -> None:
    """As if it had been collected with the key."""
    for path in folder.glob("*.parquet"):
        table = pd.read_parquet(path)
        if "user_id" in table:
            tables.write_parquet(table.assign(user_id=table["user_id"].map(key.of)), path)


def test_data_of_another_key_or_of_none_are_refused(tmp_path: Path, key: Pseudonyms) -> None:
    shutil.copy(collecting.ROOT / "params.yaml", tmp_path)
    assert of_data(tmp_path) is None  # no data yet
    (tmp_path / "data/prepared").mkdir(parents=True)
    table = tmp_path / "data/prepared/train.parquet"
    pd.DataFrame({"user_id": ["anna"]}).to_parquet(table)
    assert of_data(tmp_path) is None
    pd.DataFrame({"user_id": [key.of("anna")]}).to_parquet(table)
    with pytest.raises(ConfigError, match=r"false.*evergreen cycle"):
        of_data(tmp_path)
    text = (tmp_path / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("pseudonyms: false", "pseudonyms: true"))
    assert of_data(tmp_path) == key
    pd.DataFrame({"user_id": [Pseudonyms(b"another key").of("anna")]}).to_parquet(table)
    with pytest.raises(ConfigError, match="made with key"):
        of_data(tmp_path)


def test_the_page_on_privacy_names_every_place() -> None:
    page = (collecting.ROOT / "docs" / "privacy.md").read_text()
    stages = yaml.safe_load((collecting.ROOT / "dvc.yaml").read_text())["stages"]
    places = [
        out if isinstance(out, str) else next(iter(out))
        for stage in stages.values()
        for kind in ("outs", "metrics", "plots")
        for out in stage.get(kind, [])
    ]
    with_tables = Store("sqlite://", create=False).metadata.tables
    assert not [place for place in [*places, *with_tables] if f"`{place}`" not in page]


def test_the_page_on_privacy_names_every_file_that_the_code_names() -> None:
    page = (collecting.ROOT / "docs" / "privacy.md").read_text()
    named = {name.rstrip("/") for name in re.findall(r"`([^` ]+)`", page)}
    code = [*(collecting.ROOT / "pipeline").rglob("*.py"), *(collecting.ROOT / "dags").rglob("*.py")]
    literal = re.compile(r'"((?:data|reports|recommendations|\.evergreen)/[a-z0-9_./-]+[a-z0-9])"')
    written = {found for file in code for found in literal.findall(file.read_text(encoding="utf-8"))}
    assert "data/registry.json" in written

    def there(path: str) -> bool:
        return path in named or ("/" in path and there(path.rpartition("/")[0]))

    assert not {path for path in written if not there(path)}
