import json
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pandas as pd
import pytest
from collecting import DATA, interactions, items, rejected, run, settings, written

from pipeline.data.tables import read_parquet
from pipeline.errors import ConfigError, DataError, Unavailable
from pipeline.sources import _download, movielens
from pipeline.sources._movies import age_groups, natural, split_year

YEARS = {"1": 1999, "2": 1995, "3": None}
TITLES = {"1": "The Matrix", "2": "Les Misérables", "3": "Babylon 5"}
GENRES = {"1": ["Action", "Sci-Fi"], "2": ["Drama"], "3": []}


def users_of(raw: Path) -> pd.DataFrame:
    return read_parquet(raw / "users.parquet", "users").set_index("user_id")


def layout_csv(folder: Path) -> None:
    written(
        folder / "ratings.csv", "userId,movieId,rating,timestamp", "1,1,4.0,964982703", "2,2,0.5,964982704"
    )
    written(
        folder / "movies.csv",
        "movieId,title,genres",
        '1,"Matrix, The (1999)",Action|Sci-Fi',
        '2,"Misérables, Les (1995)",Drama',
        "3,Babylon 5,(no genres listed)",
    )
    written(
        folder / "tags.csv",
        "userId,movieId,tag,timestamp",
        '1,1,"so, so",1139045764',
        "2,1, pixar ,1139045763",
        "2,1,,1",
    )
    written(folder / "links.csv", "movieId,imdbId,tmdbId", "1,0133093,603", "2,0113828,")


def layout_dat(folder: Path, encoding: str = "latin-1") -> None:
    written(folder / "ratings.dat", "1::1::4::964982703", "2::2::0.5::964982704")
    movies = "1::Matrix, The (1999)::Action|Sci-Fi\n2::Misérables, Les (1995)::Drama\n"
    movies += "3::Babylon 5::(no genres listed)\n"
    (folder / "movies.dat").write_bytes(movies.encode(encoding))
    written(folder / "users.dat", "1::F::1::10::48067", "2::M::56::16::70072")
    written(folder / "tags.dat", "2::1::pixar::1139045763", "1::1::so, so::1139045764")


def layout_100k(folder: Path, genres: bool = True) -> None:
    written(folder / "u.data", "1\t1\t4\t964982703", "2\t2\t1\t964982704")
    names = "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy Film-Noir "
    names += "Horror Musical Mystery Romance Sci-Fi Thriller War Western"

    def row(number: int, title: str, *own: str) -> str:
        flags = "|".join(str(int(name in own)) for name in names.split())
        return f"{number}|{title}|01-Jan-1995||http://us.imdb.com/|{flags}\n"

    rows = row(1, "Matrix, The (1999)", "Action", "Sci-Fi") + row(2, "Misérables, Les (1995)", "Drama")
    (folder / "u.item").write_bytes((rows + row(3, "Babylon 5", "unknown")).encode("latin-1"))
    written(folder / "u.user", "1|24|M|technician|85711", "2|56|F|other|94043")
    if genres:
        written(folder / "u.genre", *(f"{name}|{number}" for number, name in enumerate(names.split())), "")


@pytest.mark.parametrize("layout", [layout_csv, layout_dat, layout_100k])
@pytest.mark.parametrize("packed", ["folder", "inner folder", "zip", "zip with folder"])
def test_every_layout_gives_the_same_tables(tmp_path: Path, layout: object, packed: str) -> None:
    folder = tmp_path / "data" / "ml"
    folder.mkdir(parents=True)
    layout(folder)  # type: ignore[operator]
    path = folder.parent if packed == "inner folder" else folder
    if packed.startswith("zip"):
        path = tmp_path / "ml.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in folder.iterdir():
                archive.write(file, f"ml/{file.name}" if "folder" in packed else file.name)
            archive.writestr("__MACOSX/ml/._u.data", b"junk")
    raw = run(tmp_path, settings(source="movielens", path=str(path)))
    frame = interactions(raw)
    assert frame[["user_id", "item_id", "event"]].values.tolist() == [
        ["1", "1", "rating"],
        ["2", "2", "rating"],
    ]
    assert frame["value"].iloc[0] == 4.0
    assert frame["timestamp"].iloc[0] == pd.Timestamp(964982703, unit="s", tz="UTC")
    found = items(raw)
    assert found["title"].to_dict() == TITLES
    assert found["year"].astype(object).where(found["year"].notna(), None).to_dict() == YEARS
    assert found["categories"].to_dict() == GENRES
    assert not len(rejected(raw))


def test_tags_stay_with_the_items_in_order_of_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    layout_csv(tmp_path)
    found = items(run(tmp_path, settings(source="movielens", path=str(tmp_path))))
    assert found.loc["1", "tags"] == ["pixar", "so, so"]
    assert [moment.timestamp() for moment in found.loc["1", "tag_times"]] == [1139045763, 1139045764]
    assert found.loc["2", "tags"] is None
    assert "1 tags without text, movie or time are left out" in caplog.text
    assert found["imdb_id"].fillna("").to_dict() == {"1": "0133093", "2": "0113828", "3": ""}
    assert found["tmdb_id"].fillna("").to_dict() == {"1": "603", "2": "", "3": ""}


def test_tags_of_10m_and_its_utf8(tmp_path: Path) -> None:
    layout_dat(tmp_path, encoding="utf-8")
    found = items(run(tmp_path, settings(source="movielens", path=str(tmp_path))))
    assert found["title"].to_dict() == TITLES
    assert found.loc["1", "tags"] == ["pixar", "so, so"]


def test_users_of_1m_are_told_in_words(tmp_path: Path) -> None:
    layout_dat(tmp_path)
    assert users_of(run(tmp_path, settings(source="movielens", path=str(tmp_path)))).to_dict("index") == {
        "1": {"age_group": "under 18", "gender": "F", "occupation": "K-12 student"},
        "2": {"age_group": "56 and over", "gender": "M", "occupation": "self-employed"},
    }


def test_users_of_100k_and_a_missing_list_of_genres(tmp_path: Path) -> None:
    layout_100k(tmp_path, genres=False)
    raw = run(tmp_path, settings(source="movielens", path=str(tmp_path)))
    assert users_of(raw).to_dict("index") == {
        "1": {"age": 24, "age_group": "18-24", "gender": "M", "occupation": "technician"},
        "2": {"age": 56, "age_group": "56 and over", "gender": "F", "occupation": "other"},
    }
    assert items(raw)["categories"].to_dict() == GENRES


def test_a_broken_row_is_rejected_not_fatal(tmp_path: Path) -> None:
    layout_csv(tmp_path)
    with (tmp_path / "ratings.csv").open("a") as file:
        file.write("1,2\n3,1,5.0,964982705\n")
    raw = run(tmp_path, settings(source="movielens", path=str(tmp_path), max_rejected_share=0.25))
    assert len(interactions(raw)) == 3
    assert rejected(raw)["place"].tolist() == ["ratings.csv:4"]


@pytest.mark.parametrize(
    ("published", "title", "year"),
    [
        ("Usual Suspects, The (1995)", "The Usual Suspects", 1995),
        ("City of Lost Children, The (Cité des enfants perdus, La) (1995)",
         "The City of Lost Children (La Cité des enfants perdus)", 1995),
        ("Avventura, L' (Adventure, The) (1960)", "L'Avventura (The Adventure)", 1960),
        ("Crow, The: Wicked Prayer (2005)", "The Crow: Wicked Prayer", 2005),
        ("Godfather: Part II, The (1974)", "The Godfather: Part II", 1974),
        ("Death Note: Desu nôto (2006–2007)", "Death Note: Desu nôto", 2006),
        ("Land Before Time III: The Time of the Great Giving (1995) (V)",
         "Land Before Time III: The Time of the Great Giving", 1995),
        ("Runaway Brain (1995) ", "Runaway Brain", 1995),
        ("2001: A Space Odyssey (1968)", "2001: A Space Odyssey", 1968),
        ("Bye Bye, Love", "Bye Bye, Love", None),
        ("Paris, France (1993)", "Paris, France", 1993),
        ("Seven (Se7en) (1995)", "Seven (Se7en)", 1995),
    ],
)  # fmt: skip
def test_titles(published: str, title: str, year: int | None) -> None:
    bare, found = split_year(published)
    assert (natural(bare), found) == (title, year)


def test_age_groups_at_their_limits() -> None:
    ages = pd.Series(["1", "17", "18", "24", "25", "49", "50", "55", "56", "73", "x"])
    assert age_groups(ages).fillna("").tolist() == [
        "under 18", "under 18", "18-24", "18-24", "25-34", "45-49", "50-55", "50-55",
        "56 and over", "56 and over", "",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("empty", r"empty: no MovieLens layout: wanted ratings\.csv and movies\.csv, or .*; found nothing"),
        ("none", r"none: no such file or folder: correct collect\.path"),
        ("text.zip", r"text\.zip: neither a folder nor a zip archive"),
    ],
)
def test_a_wrong_path_is_named(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.zip").write_text("no archive")
    with pytest.raises(DataError, match=message):
        movielens.read(settings(source="movielens", path=str(tmp_path / name)))


def test_neither_path_nor_url() -> None:
    with pytest.raises(ConfigError, match=r"collect\.path: null; name the data to read"):
        movielens.read(settings(source="movielens"))


def test_the_fingerprint_follows_the_files_read(tmp_path: Path) -> None:
    layout_csv(tmp_path)
    section = settings(source="movielens", path=str(tmp_path))
    before = movielens.fingerprint(section)
    written(tmp_path / "README.txt", "other")
    assert movielens.fingerprint(section) == before
    written(tmp_path / "links.csv", "movieId,imdbId,tmdbId")
    assert movielens.fingerprint(section) != before


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def archive(folder: Path) -> Path:
    (folder / "ml").mkdir()
    layout_csv(folder / "ml")
    path = folder / "ml-tiny.zip"
    with zipfile.ZipFile(path, "w") as packed:
        for file in sorted((folder / "ml").iterdir()):
            packed.write(file, f"ml-tiny/{file.name}")
    return path


def test_an_archive_is_downloaded_once(in_folder: Path) -> None:
    path = archive(in_folder)
    checksum = _download._sha256(path)
    section = settings(source="movielens", url=path.as_uri(), sha256=checksum.upper())
    assert movielens.fingerprint(section) == checksum
    assert not (in_folder / ".evergreen").exists()
    assert len(interactions(run(in_folder, section))) == 2
    path.unlink()
    assert len(interactions(run(in_folder, section))) == 2  # from the cache
    assert movielens.fingerprint(section.model_copy(update={"sha256": None})) == movielens.digest_of(
        (in_folder / ".evergreen/downloads").iterdir()
    )


def test_a_wrong_checksum_leaves_nothing(in_folder: Path) -> None:
    url = archive(in_folder).as_uri()
    with pytest.raises(DataError, match=rf"{url}: sha256 is [0-9a-f]{{64}}, collect\.sha256 says 00:"):
        movielens.read(settings(source="movielens", url=url, sha256="00"))
    assert not list((in_folder / ".evergreen/downloads").iterdir())


def test_no_network_is_said_plainly(in_folder: Path) -> None:
    url = "http://127.0.0.1:9/ml.zip"  # nobody listens on the port `discard`
    with pytest.raises(DataError, match=r"not reachable .*: is there a network\? Or .* set collect\.path"):
        movielens.read(settings(source="movielens", url=url))
    with pytest.raises(ConfigError, match=r"collect\.url: 'ml\.zip' is no web address"):
        movielens.read(settings(source="movielens", url="ml.zip"))


def test_a_refusal_and_a_lost_connection_are_said_plainly(in_folder: Path) -> None:
    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response({"/none.zip": 404, "/busy.zip": 503}.get(self.path, 200))
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"half")

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Server)
    Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    try:
        said = r"none\.zip: the server says 404 Not Found: correct collect\.url"
        with pytest.raises(DataError, match=said) as refused:
            _download.download(f"{address}/none.zip", None)
        assert refused.value.permanent
        with pytest.raises(Unavailable, match=r"the server says 503 Service Unavailable: try again later"):
            _download.download(f"{address}/busy.zip", None)
        with pytest.raises(Unavailable, match="connection lost after 4 of 100 bytes"):
            _download.download(f"{address}/half.zip", None)
    finally:
        server.shutdown()
        server.server_close()
    assert not list((in_folder / ".evergreen/downloads").iterdir())


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "ml-latest-small").is_dir(), reason="no ml-latest-small")
def test_ml_latest_small(tmp_path: Path) -> None:
    raw = run(tmp_path, settings(source="movielens", path=str(DATA / "ml-latest-small")))
    manifest = json.loads((raw / "manifest.json").read_text())
    assert manifest["rows"] == {
        "read": 100_836, "kept": 100_836, "rejected": 0, "duplicates": 0, "after_as_of": 0
    }  # fmt: skip
    assert (manifest["users"], manifest["items"], manifest["item_rows"]["kept"]) == (610, 9_724, 9_742)
    found = items(raw)
    assert found["year"].isna().sum() == 12  # no year in "Ready Player One" and eleven others
    assert sum(len(tags) for tags in found["tags"].dropna()) == 3_683
    assert (found["categories"].str.len() == 0).sum() == 34
    assert not found["title"].str.contains(r", The(?:$|[):])|\(\d{4}\)$", regex=True).any()
