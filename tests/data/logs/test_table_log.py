import datetime
import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from padrec.catalog import InputError
from padrec.data import TableLog
from padrec.data.logs.source import ItemText
from tests.data.logs.log_samples import logged, texts

CSV = 'who,what,"note, free",when,stars\nann,7,x,10,4\nbob,8,"a\nb",20.5,3.5\n'
EXPECTED = [("ann", "7", 10_000_000, 4.0), ("bob", "8", 20_500_000, 3.5)]


def named(path: Path, time_column: str = "when", rating: str | None = "stars") -> TableLog:
    return TableLog([str(path)], user="who", item="what", time=time_column, rating=rating)


def write_parquet(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("compressed", [False, True])
def test_columns_of_csv_are_found_by_name(compressed: bool, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(gzip.compress(CSV.encode()) if compressed else CSV.encode())
    assert logged(named(path)) == EXPECTED


def test_columns_of_parquet_are_found_by_name(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "log.parquet", stars=[4, 3.5], what=[7, 8], when=[10, 20.5], who=["ann", "bob"])
    assert logged(named(path)) == EXPECTED


def test_files_are_read_one_after_another_without_ratings(tmp_path: Path) -> None:
    first, second = tmp_path / "1.csv", tmp_path / "2.parquet"
    first.write_text("user,item,time\na,x,1\n")
    write_parquet(second, user=["b"], item=["y"], time=[0])
    source = TableLog([str(first), str(second)])
    assert logged(source) == [("a", "x", 1_000_000, None), ("b", "y", 0, None)]
    assert list(source.files()) == [first, second]


def test_a_file_without_header_has_its_columns_named(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text("ann\tx\t5.0\t10\n")
    source = TableLog([str(path)], rating="rating", delimiter="\t", columns=["user", "item", "rating", "time"])
    assert logged(source) == [("ann", "x", 10_000_000, 5.0)]


@pytest.mark.parametrize(("unit", "micros"), [("s", 7_000_000), ("ms", 7_000), ("us", 7)])
def test_times_are_counted_in_the_unit_named(unit: str, micros: int, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item,time\na,x,7\n")
    assert logged(TableLog([str(path)], time_unit=unit))[0][2] == micros  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["1970-01-01T00:00:01", "1970-01-01 00:00:01", "1970-01-01T00:00:01Z"])
def test_dates_in_csv_are_times(text: str, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(f"user,item,time\na,x,{text}\n")
    assert logged(TableLog([str(path)]))[0][2] == 1_000_000


@pytest.mark.parametrize("kind", [pa.timestamp("ns"), pa.timestamp("s", "UTC"), pa.timestamp("ms"), pa.date32()])
def test_timestamps_in_parquet_need_no_unit(kind: pa.DataType, tmp_path: Path) -> None:
    days = pa.array([datetime.datetime(1970, 1, 2)], pa.timestamp("s")).cast(kind)
    path = write_parquet(tmp_path / "log.parquet", user=["a"], item=["x"], time=days)
    assert logged(TableLog([str(path)], time_unit="ms"))[0][2] == 86_400_000_000


def test_texts_are_read_from_an_item_table(tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "items.parquet", item=[1, 2], name=["Lamp", None], maker=["Lux", ""], tags=[["Home", "Light"], None]
    )
    source = TableLog(["log.csv"], items=str(path), title="name", brand="maker", categories="tags")
    assert texts(source) == [
        ItemText("1", "Lamp", brand="Lux", categories=("Home", "Light")),
        ItemText("2"),
    ]
    years = write_parquet(tmp_path / "years.parquet", item=["a", "b"], title=[1984, None], maker=[2.5, 3.0])
    source = TableLog(["log.csv"], items=str(years), brand="maker", categories="maker")
    assert texts(source) == [
        ItemText("a", "1984", brand="2.5", categories=("2.5",)),
        ItemText("b", "", brand="3", categories=("3",)),
    ]
    (tmp_path / "items.csv").write_text("item,title,text\nx,A pot &amp;  pan,Of clay\n")
    source = TableLog(["log.csv"], items=str(tmp_path / "items.csv"), description="text")
    assert texts(source) == [ItemText("x", "A pot & pan", "Of clay")]
    assert texts(TableLog(["log.csv"])) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty, expected a header line"),
        ("user,item,time\n", "a table without rows, expected at least one"),
        ("user,item\na,x\n", "no column 'time' among user, item; expected each named column once"),
        ("user,item,time,user\na,x,1,b\n", "2 columns 'user' among"),
        ("user,item,time\na,x,1\n,x,2\n", "row 2: no user, expected a key"),
        ("user,item,time\na,x,1\nb,,2\n", "row 2: no item, expected a key"),
        ("user,item,time\na,x,1\nb,y,soon\n", "row 2: time is 'soon', expected a number .time_unit: s. or a date"),
        ("user,item,time\na,x,20240501\n", "row 1: time is 20240501, expected a date as 2024-05-01, or seconds"),
        ("user,item,time\na,x,1\nb,y,\n", "row 2: time is '', expected a number"),
        ("user,item,time\na,x,1\nb,y,99999999999999\n", "row 2: time is '99999999999999', expected a number"),
        (
            "user,item,time\na,x,1\nb,y,2024-05-01T12:00:00\n",
            "row 2: time is '2024-05-01T12:00:00', expected a number .time_unit: s. or a date of the same kind as",
        ),
        ("user,item,time\na,x,1\nb,y\n", "line 3: 2 fields, expected 3"),
    ],
)
def test_a_wrong_table_is_refused_with_its_row(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"log\.csv(, |: ){message}"):
        logged(TableLog([str(path)]))


def test_wrong_columns_of_parquet_are_refused(tmp_path: Path) -> None:
    for columns, message in [
        ({"user": [1.5], "item": ["x"], "time": [1]}, "column 'user' is float64, expected strings or whole numbers"),
        ({"user": ["a", None], "item": ["x", "x"], "time": [1, 2]}, "row 2: no user"),
        ({"user": ["a", "b"], "item": ["x", "x"], "time": [1, None]}, "row 2: time is None, expected a number"),
        ({"user": ["a"], "item": ["x"], "time": [float("nan")]}, "row 1: time is nan"),
    ]:
        with pytest.raises(InputError, match=message):
            logged(TableLog([str(write_parquet(tmp_path / "log.parquet", **columns))]))


def test_wrong_ratings_and_missing_or_broken_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item,time,stars\na,x,1,good\n")
    with pytest.raises(InputError, match=r"log\.csv, row 1: stars is 'good', expected a number"):
        logged(TableLog([str(path)], rating="stars"))
    with pytest.raises(InputError, match=r"absent\.csv: no such file"):
        logged(TableLog([str(tmp_path / "absent.csv")]))
    broken = write_parquet(tmp_path / "log.parquet", user=["a"], item=["x"], time=[1])
    broken.write_bytes(broken.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"log\.parquet: broken"):
        logged(TableLog([str(broken)]))
    with pytest.raises(InputError, match="interactions names no file"):
        TableLog([])


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a,x,1400000000000,4\n", {}, "row 1: time is '1400000000000', .* before 2100; time_unit: ms fits"),
        ("a,x,1400000000000000,4\n", {}, "row 1: time is '1400000000000000', .* before 2100; time_unit: us fits"),
        ("a,x,1,4\na,y,1,'3,5'\n", {"quote": "'"}, "row 2: stars is '3,5', expected a number, with a point"),
        ("a,x,1,4\na,y,1,\n", {}, "row 2: stars is '', expected a number"),
        ('a,x,1,4\nb,"y,2,3\nc,z,3,2\n', {}, "line 3: a quotation mark that is not closed"),
        ("a,x,1,4\n", {"delimiter": ";"}, "no column 'user' among user,item,time,stars"),
        ("\u00e9,x,1,4\n", {}, "line 2: not UTF-8"),
    ],
)
def test_frequent_mistakes_get_one_clear_message(
    text: str, options: dict[str, str], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item,time,stars\n" + text, encoding="latin-1")
    with pytest.raises(InputError, match=rf"log\.csv(, |: ){message}"):
        logged(TableLog(str(path), rating="stars", **options))  # type: ignore[arg-type]


def test_a_wrong_delimiter_or_quote_is_refused() -> None:
    with pytest.raises(InputError, match="delimiter is '', expected one to four characters"):
        TableLog("log.csv", delimiter="")
    with pytest.raises(InputError, match="quote is '<>', expected one character, or an empty string"):
        TableLog("log.csv", quote="<>")


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("user::item::time\na::x::1\n", {"delimiter": "::"}),
        ("user\titem\ttime\na\tx\t1\n", {"delimiter": r"\t"}),
        ("user,item,time\ra,x,1\r", {}),
        ("user,item,time\r\na,x,1\r\n", {}),
        ("\ufeffuser,item,time\na,x,1\n", {}),
    ],
)
def test_other_delimiters_and_line_ends_are_read(text: str, options: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(text.encode())
    assert logged(TableLog(str(path), **options)) == [("a", "x", 1_000_000, None)]  # type: ignore[arg-type]


def test_quoting_can_be_switched_off(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text('user,item,time\na,"x,1\n')
    assert logged(TableLog(str(path), quote="")) == [("a", '"x', 1_000_000, None)]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_all_string_types_of_parquet_are_read(kind: pa.DataType, tmp_path: Path) -> None:
    users = pa.array(["a"]).cast(kind)
    path = write_parquet(tmp_path / "log.parquet", user=users, item=["x"], time=[1])
    assert logged(TableLog(str(path))) == [("a", "x", 1_000_000, None)]
