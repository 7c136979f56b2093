"""What MovieLens files have in common: titles, genres, age groups and occupations in one spelling."""

from __future__ import annotations

import re

import pandas as pd

from pipeline.data import tables
from pipeline.data.values import as_text

NO_GENRE = {"(no genres listed)", "unknown"}
_YEAR = re.compile(r"\s*\((\d{4})(?:\s*[-–]\s*(?:\d{4})?)?\)\s*(?:\([IVX]+\)\s*)?$")
# "Matrix, The": the articles that stand behind the titles of MovieLens 100K to 32M.
_ARTICLES = "The|A|An|La|Le|Les|L'|Il|Lo|I|El|Los|Las|Der|Die|Das|Det|De|Den|En|Un|Une|Una|O|Os|Da"
_ARTICLE = re.compile(rf"^(?P<title>.+), (?P<article>{_ARTICLES})$")
_ARTICLE_INSIDE = re.compile(rf"^(?P<title>[^:]+), (?P<article>{_ARTICLES})(?P<rest>:.+)$")
_PART = re.compile(r"[^()]+")

# Codes of MovieLens 1M; ages of 100K fall into the same groups.
AGE_GROUPS = {
    1: "under 18",
    18: "18-24",
    25: "25-34",
    35: "35-44",
    45: "45-49",
    50: "50-55",
    56: "56 and over",
}
OCCUPATIONS = [
    "other",
    "educator",
    "artist",
    "clerical",
    "college student",
    "customer service",
    "healthcare",
    "executive",
    "farmer",
    "homemaker",
    "K-12 student",
    "lawyer",
    "programmer",
    "retired",
    "sales",
    "scientist",
    "self-employed",
    "engineer",
    "tradesman",
    "unemployed",
    "writer",
]


def split_year(title: str) -> tuple[str, int | None]:
    """ "Matrix, The (1999)" -> ("Matrix, The", 1999); of a range the first year."""
    match = _YEAR.search(title)
    return (title[: match.start()].strip(), int(match[1])) if match else (title.strip(), None)


def natural(title: str) -> str:
    """The article in front, in brackets too: "Cité, La (City, The)" -> "La Cité (The City)"."""
    return _PART.sub(lambda part: _article_first(part[0]), title).strip()


def _article_first(part: str) -> str:
    stripped = part.strip()
    match = _ARTICLE.match(stripped) or _ARTICLE_INSIDE.match(stripped)
    if not match:
        return part
    gap = "" if match["article"].endswith("'") else " "
    rest = match.groupdict().get("rest", "")
    return part.replace(stripped, f"{match['article']}{gap}{match['title']}{rest}")


def titles_and_years(titles: pd.Series) -> pd.DataFrame:
    """Published titles -> columns title and year (Int64)."""
    pairs = [(None, None) if pd.isna(title) else split_year(title) for title in as_text(titles)]
    return pd.DataFrame(
        {
            tables.TITLE: pd.Series(
                [title and natural(title) for title, _ in pairs], titles.index, dtype="str"
            ),
            tables.YEAR: pd.array([year for _, year in pairs], dtype="Int64"),
        },
        index=titles.index,
    )


def genres(cells: pd.Series, separator: str) -> pd.Series:
    """Cells like "Comedy|Drama" -> lists; what says that there is none gives []."""
    return pd.Series(
        [
            [] if pd.isna(cell) else [name for name in cell.split(separator) if name and name not in NO_GENRE]
            for cell in cells
        ],
        index=cells.index,
        dtype=object,
    )


def age_groups(ages: pd.Series) -> pd.Series:
    """Ages in years (or codes of MovieLens 1M) -> the groups of MovieLens 1M."""
    numbers = pd.to_numeric(ages, errors="coerce")
    limits = [0, *list(AGE_GROUPS)[1:], 1_000]
    return pd.cut(numbers, limits, right=False, labels=list(AGE_GROUPS.values())).astype("str")


def ages(column: pd.Series) -> pd.Series:
    return pd.to_numeric(column, errors="coerce").astype("Int64")
