"""The tables' columns, named once; their schemas; reading and writing Parquet with checks.

Same content gives the same bytes: fixed writer options, no index, no clock. Whoever reads a table through
`read_parquet` gets the types of the contract or a DataError that names file and column.
Importing this module costs nothing: pandas, pyarrow and pandera are loaded by the functions that need them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import DataError
from pipeline.files import renamed

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

USER, ITEM, TIME, EVENT, VALUE, TEXT = "user_id", "item_id", "timestamp", "event", "value", "text"
TITLE, CATEGORIES = "title", "categories"
AVAILABLE_FROM, AVAILABLE_UNTIL = "available_from", "available_until"
YEAR, TAGS, TAG_TIMES = "year", "tags", "tag_times"  # further columns of items that some sources have
HEAD, RELATION, TAIL = "head", "relation", "tail"
VECTOR = "_vector"  # end of the names of columns of items that are modalities
GRAPH_RELATIONS, GRAPH_ENTITIES = "graph_relations", "graph_entities"  # of items: lists of one length
KEYWORDS, ENTITIES = "keywords", "entities"  # of items: lists of what their texts are about

INTERACTIONS = [USER, ITEM, TIME, EVENT, VALUE, TEXT]
ITEMS = [ITEM, TITLE, TEXT, CATEGORIES, AVAILABLE_FROM, AVAILABLE_UNTIL]
USERS = [USER]
RELATIONS = [HEAD, RELATION, TAIL]
GRAPH = [GRAPH_RELATIONS, GRAPH_ENTITIES]
WORDS = [KEYWORDS, ENTITIES]
POINTS = ["point_id", USER, ITEM, TIME]
COLUMNS = {"interactions": INTERACTIONS, "items": ITEMS, "users": USERS, "relations": RELATIONS}

MOMENT = "datetime64[us, UTC]"
ROWS_A_GROUP = 1 << 20  # of Parquet


def check(frame: pd.DataFrame, table: str, where: str) -> pd.DataFrame:
    """`frame` itself if it is a valid "interactions", "items" or "users" table.

    Further columns are allowed. Raises DataError naming `where` and every offending column.
    """
    from pandera.errors import SchemaErrors

    try:
        _schema(table).validate(frame, lazy=True)
    except SchemaErrors as error:
        cases = error.failure_cases
        problems = dict.fromkeys(_problem(case, frame) for case in cases.to_dict("records"))
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise DataError(f"{where}: {'; '.join(list(problems)[:3])}{more}") from None
    return frame


def write_parquet(frame: pd.DataFrame | pa.Table, path: Path) -> None:
    """Write beside `path`, then rename: a reader sees the old file or the whole new one.

    List columns become lists of strings (`tag_times`: of moments), other objects what Arrow makes of them.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = frame if isinstance(frame, pa.Table) else to_arrow(frame)
    path.parent.mkdir(parents=True, exist_ok=True)
    with renamed(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", version="2.6", row_group_size=ROWS_A_GROUP)


def read_parquet(path: Path, table: str | None = None, columns: list[str] | None = None) -> pd.DataFrame:
    """A file, or the folder of monthly partitions in order of time; checked as `table` if that is named.

    Lists come as Python lists. Raises DataError if the file is missing, damaged or fails the check.
    """
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted(path.glob("**/*.parquet")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path}: no table in this folder: run `dvc repro`")
    parts = []
    for file in files:
        try:
            parts.append(pq.ParquetFile(file).read(columns=columns))
        except FileNotFoundError:
            raise DataError(f"{file}: no such table: run `dvc repro`") from None
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"{file}: not a readable Parquet file ({reason}): run `dvc repro`") from None
    # Joined as Arrow: pandas would make numbers of text columns that are empty in some month.
    frame = pa.concat_tables(parts, promote_options="permissive").to_pandas()
    absent = [name for name in columns or [] if name not in frame]
    if absent:
        raise DataError(f"{path}: no column {absent[0]}: run `dvc repro`")
    for name in [name for name in frame if frame[name].dtype == object]:
        frame[name] = pd.Series([_plain(cell) for cell in frame[name]], frame.index, dtype=object)
    return check(frame, table, str(path)) if table and columns is None else frame


def _plain(cell: Any) -> Any:
    """An array that Parquet gave, as a list; its times as UTC."""
    import pandas as pd

    if not hasattr(cell, "tolist"):
        return cell
    return list(pd.to_datetime(cell, utc=True)) if cell.dtype.kind == "M" else cell.tolist()


def to_arrow(frame: pd.DataFrame) -> pa.Table:
    """The columns of the contract in its types; of the others, what Arrow infers, or else text."""
    import pyarrow as pa

    frame = frame.copy(deep=False)
    fields = []
    for name in frame.columns:
        wanted = _arrow_types().get(name)
        # `tags` of users, or of interactions, are whatever they are.
        if wanted is None or (pa.types.is_list(wanted) and frame[name].dtype != object):
            frame[name], wanted = _settled(frame[name])
            if name.endswith(VECTOR) and wanted == pa.list_(pa.float64()):
                wanted = pa.list_(pa.float32())
        elif wanted == pa.large_string():
            frame[name] = frame[name].astype("str")  # not object: the type is part of the written metadata
        fields.append(pa.field(name, wanted))
    return pa.Table.from_pandas(frame, schema=pa.schema(fields), preserve_index=False)


def _arrow_types() -> dict[str, pa.DataType]:
    import pyarrow as pa

    text, moment = pa.large_string(), pa.timestamp("us", "UTC")
    moments = dict.fromkeys((TIME, AVAILABLE_FROM, AVAILABLE_UNTIL), moment)
    texts = dict.fromkeys((USER, ITEM, EVENT, TEXT, TITLE), text)
    lists = dict.fromkeys((CATEGORIES, TAGS, *GRAPH), pa.list_(text)) | {TAG_TIMES: pa.list_(moment)}
    return {**moments, **texts, **lists, VALUE: pa.float64()}


def _settled(column: pd.Series) -> tuple[pd.Series, pa.DataType]:
    """A further column and its Arrow type; mixed objects become text."""
    import pyarrow as pa

    if column.dtype == object:
        try:
            kind = pa.array(column, from_pandas=True).type
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            column, kind = column.map(str, na_action="ignore"), pa.large_string()
        if pa.types.is_null(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
            return column.astype("str"), pa.large_string()
        return column, kind
    return column, pa.Schema.from_pandas(column.to_frame("x"), preserve_index=False).field("x").type


def _schema(table: str) -> Any:
    import pandas as pd
    import pandera.pandas as pa

    moment = pd.DatetimeTZDtype("us", "UTC")
    filled = pa.Check(lambda ids: ids != "", error="empty id")
    lists = pa.Check(_are_lists_of_text, error="not a list of strings")
    if table == "interactions":
        columns = {
            USER: pa.Column(str, filled),
            ITEM: pa.Column(str, filled),
            TIME: pa.Column(moment),
            EVENT: pa.Column(str),
            VALUE: pa.Column(float, nullable=True),
            TEXT: pa.Column(str, nullable=True),
        }
    elif table == "items":
        columns = {
            ITEM: pa.Column(str, filled, unique=True),
            TITLE: pa.Column(str, nullable=True),
            TEXT: pa.Column(str, nullable=True),
            CATEGORIES: pa.Column(object, lists),
            AVAILABLE_FROM: pa.Column(moment, nullable=True),
            AVAILABLE_UNTIL: pa.Column(moment, nullable=True),
        }
    else:
        columns = {USER: pa.Column(str, filled, unique=True)}
    return pa.DataFrameSchema(columns)


def _are_lists_of_text(column: pd.Series) -> bool:
    return all(isinstance(cell, list) and all(isinstance(text, str) for text in cell) for cell in column)


def _problem(case: dict[str, Any], frame: pd.DataFrame) -> str:
    """One failure case of pandera in our words."""
    check_name, cell = str(case["check"]), case["failure_case"]
    if check_name == "column_in_dataframe":
        return f"no column {cell}"
    column = case["column"]
    if check_name.startswith("dtype"):
        return f"column {column}: type {frame[column].dtype}, should be {_wanted(check_name)}"
    if check_name == "not_nullable":
        return f"column {column}: empty cells"
    if check_name == "field_uniqueness":
        return f"column {column}: {cell!r} occurs more than once"
    return f"column {column}: {check_name}"


def _wanted(check_name: str) -> str:
    name = check_name.removeprefix("dtype('").removesuffix("')")
    return "str" if name.startswith("str") else name
