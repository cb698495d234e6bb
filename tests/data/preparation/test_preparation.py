import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import sleep
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from padrec.catalog import InputError
from padrec.data import LeaveLastOut, Preparation, SplitRule, TableLog, TimeSplit
from padrec.data.logs.source import ItemText
from padrec.data.preparation import queries
from padrec.data.preparation.engine import DuckDBEngine, SparkEngine
from padrec.data.preparation.prepared_folder import PreparedFolder
from padrec.data.preparation.stages import StageFolder
from tests.data.preparation.made_up_log import MadeUpLog, random_log
from tests.data.preparation.reference_preparation import Event, reference_sequences


@pytest.fixture
def log(tmp_path: Path) -> MadeUpLog:
    texts = [ItemText("i3", "A lamp", "Old.", "Lux", ("Home", "Light")), ItemText("i3", "Another"), ItemText("x")]
    return MadeUpLog(random_log(), tmp_path / "log", texts)


def sequences(folder: Path) -> dict[str, list[tuple[str, int, str]]]:
    """What a prepared folder says of each user, by the users' and items' own keys."""
    files = PreparedFolder(folder)
    users = pq.read_table(files.users)["user"].to_pylist()
    items = pq.read_table(files.items)["item"].to_pylist()
    found: dict[str, list[tuple[str, int, str]]] = {user: [] for user in users}
    table = pq.read_table(files.interactions)
    rows = zip(
        *(table[name].to_pylist() for name in ("user", "item", "split")), table["time"].cast("int64"), strict=True
    )
    for user, item, split, time in rows:
        found[users[user]].append((items[item], time.as_py(), split))
    return found


def summary(folder: Path) -> dict[str, Any]:
    return PreparedFolder(folder).read_summary()


@pytest.mark.parametrize(
    ("min_rating", "deduplicate", "user_core", "item_core"),
    [(1, True, 3, 1), (3, True, 5, 5), (2, False, 9, 20), (4, True, 4, 8)],
)
def test_what_is_prepared_is_what_a_plain_program_prepares(
    min_rating: float,
    deduplicate: bool,
    user_core: int,
    item_core: int,
    log: MadeUpLog,
    tmp_path: Path,
) -> None:
    expected = reference_sequences(log.events, min_rating, deduplicate, user_core, item_core)
    Preparation(log, str(tmp_path / "out"), min_rating, deduplicate, user_core, item_core).run()
    found = sequences(tmp_path / "out")
    assert {user: [(item, time) for item, time, _ in rows] for user, rows in found.items()} == expected
    for rows in found.values():
        assert [split for _, _, split in rows] == ["train"] * (len(rows) - 2) + ["validation", "test"]
    counts = summary(tmp_path / "out")["counts"]
    assert counts["read"] == len(log.events)
    assert counts["rated"] == sum(rating >= min_rating for *_, rating in log.events)
    assert counts["interactions"] == sum(map(len, expected.values()))
    assert (counts["users"], counts["validation"], counts["test"]) == (len(expected),) * 3
    assert counts["items"] == len({item for rows in expected.values() for item, _ in rows})


def test_a_split_by_time_deals_out_the_whole_log(log: MadeUpLog, tmp_path: Path) -> None:
    Preparation(log, str(tmp_path / "out"), user_core=1, item_core=1, split=TimeSplit((0.6, 0.2, 0.2))).run()
    times: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for rows in sequences(tmp_path / "out").values():
        for _, time, split in rows:
            times[split].append(time)
    assert max(times["train"]) < min(times["validation"]) <= max(times["validation"]) < min(times["test"])
    counts = summary(tmp_path / "out")["counts"]
    assert {name: counts[name] for name in times} == {name: len(found) for name, found in times.items()}
    assert 0.5 < len(times["train"]) / counts["interactions"] < 0.65


def test_items_keep_the_first_of_their_texts(log: MadeUpLog, tmp_path: Path) -> None:
    Preparation(log, str(tmp_path / "out"), item_core=1).run()
    rows = {row["item"]: row for row in pq.read_table(tmp_path / "out" / "items.parquet").to_pylist()}
    assert rows["i3"] == {
        "item": "i3",
        "title": "A lamp",
        "description": "Old.",
        "brand": "Lux",
        "categories": ["Home", "Light"],
    }
    assert rows["i4"] == {"item": "i4", "title": "", "description": "", "brand": "", "categories": []}
    assert "x" not in rows
    assert summary(tmp_path / "out")["counts"]["items_without_text"] == len(rows) - 1


def test_the_summary_says_what_was_read_and_how(log: MadeUpLog, tmp_path: Path) -> None:
    Preparation(log, str(tmp_path / "out"), min_rating=2, split=LeaveLastOut(2)).run()
    found = summary(tmp_path / "out")
    assert found["split"] == {"class": "LeaveLastOut", "count": 2}
    assert (found["min_rating"], found["deduplicate"], found["user_core"], found["item_core"]) == (2, True, 5, 5)
    (file,) = found["files"]
    assert (file["name"], file["bytes"], len(file["sha256"])) == ("log", log.file.stat().st_size, 64)
    assert set(found["versions"]) == {"python", "padrec", "pyarrow", "ibis-framework", "duckdb"}
    assert not list(tmp_path.glob("*.unfinished"))


def test_the_same_log_gives_the_same_files(log: MadeUpLog, tmp_path: Path) -> None:
    for name in ("a", "b"):
        Preparation(log, str(tmp_path / name)).run()
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_what_is_prepared_already_is_left_alone(log: MadeUpLog, tmp_path: Path) -> None:
    Preparation(log, str(tmp_path / "out")).run()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    Preparation(log, str(tmp_path / "out")).run()
    assert log.reads == 1
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before


def test_an_output_of_other_settings_or_files_is_refused(log: MadeUpLog, tmp_path: Path) -> None:
    out = tmp_path / "out"
    Preparation(log, str(out)).run()
    before = (out / "prepared.json").read_bytes()
    with pytest.raises(InputError, match=r"out: prepared with split\.count 1, expected 2; nothing is overwritten"):
        Preparation(log, str(out), split=LeaveLastOut(2)).run()
    log.file.write_text("changed")
    with pytest.raises(InputError, match=r"out: prepared with files\.0\.bytes \d+, expected 7"):
        Preparation(log, str(out)).run()
    assert (out / "prepared.json").read_bytes() == before


def test_a_folder_of_something_else_is_refused(log: MadeUpLog, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match=r"out: no prepared\.json, expected a folder written by `padrec prepare`"):
        Preparation(log, str(tmp_path / "out")).run()
    (tmp_path / "other.unfinished").mkdir()
    (tmp_path / "other.unfinished" / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"other\.unfinished: holds other files"):
        Preparation(log, str(tmp_path / "other")).run()
    assert (tmp_path / "other.unfinished" / "thesis.tex").exists()


class KilledError(Exception):
    """Stands for a kill."""


STAGES = ("read_log", "order_log", "find_core", "write_interactions", "write_items")


@pytest.mark.parametrize("stage", STAGES)
def test_an_interrupted_preparation_goes_on_after_its_last_stage(
    stage: str, log: MadeUpLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def count(name: str) -> None:
        original = getattr(queries, name)

        def run(*args: Any) -> Any:  # noqa: ANN401
            calls.append(name)
            result = original(*args)
            if name == stage and calls.count(name) == 1:
                raise KilledError  # all is written, but not finished
            return result

        monkeypatch.setattr(queries, name, run)

    for name in STAGES:
        count(name)
    out = tmp_path / "out"
    with pytest.raises(KilledError):
        Preparation(log, str(out)).run()
    assert not out.exists()
    first = list(calls)
    Preparation(log, str(out)).run()
    assert {name for name in STAGES if calls.count(name) > 1} == {stage}
    assert first == calls[: len(first)]
    Preparation(log, str(tmp_path / "whole")).run()
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (out / path.name).read_bytes(), path.name
    assert not (tmp_path / "out.unfinished").exists()


def test_an_interruption_at_the_very_end_loses_nothing(
    log: MadeUpLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if target == tmp_path / "out":
            raise KilledError
        return original(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        with pytest.raises(KilledError):
            Preparation(log, str(tmp_path / "out")).run()
    Preparation(log, str(tmp_path / "out")).run()
    assert log.reads == 1
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "padrec.sha256",
        "interactions.parquet",
        "items.parquet",
        "prepared.json",
        "users.parquet",
    }


def broken(reader: object) -> Iterator[Any]:
    raise KilledError
    yield


def test_unfinished_stages_of_other_settings_are_refused(
    log: MadeUpLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "item_texts", broken)
    with pytest.raises(KilledError):
        Preparation(log, str(tmp_path / "out")).run()
    with pytest.raises(InputError, match=r"out\.unfinished: an unfinished preparation with item_core 5, expected 2"):
        Preparation(log, str(tmp_path / "out"), item_core=2).run()


def test_where_no_stage_is_finished_settings_and_files_may_change(
    log: MadeUpLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(log, "interactions", broken)
        with pytest.raises(KilledError):
            Preparation(log, str(tmp_path / "out")).run()
    log.file.write_text("corrected")
    Preparation(log, str(tmp_path / "out"), item_core=2).run()
    assert summary(tmp_path / "out")["item_core"] == 2


def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    first, second = (StageFolder(tmp_path / "work", {"k": 5}) for _ in range(2))
    with first.locked(), pytest.raises(InputError, match="another process is writing it"), second.locked():
        pass


def test_wrong_arguments_are_refused_before_anything_is_read(log: MadeUpLog, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    with pytest.raises(InputError, match="user_core is 4, expected at least 5: LeaveLastOut needs as many"):
        Preparation(log, out, user_core=4, split=LeaveLastOut(2))
    with pytest.raises(InputError, match="item_core is 0, expected at least 1"):
        Preparation(log, out, item_core=0)
    assert log.reads == 0


def test_a_log_of_which_nothing_is_left_is_refused(log: MadeUpLog, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"log(, .*)?: 900 interactions, none with a rating of 6"):
        Preparation(log, str(tmp_path / "a"), min_rating=6).run()
    with pytest.raises(InputError, match=r"none of \d+ interactions is left with user_core 500 and item_core 5"):
        Preparation(log, str(tmp_path / "b"), user_core=500).run()
    log.events[100] = (*log.events[100][:3], None)  # type: ignore[assignment]
    with pytest.raises(InputError, match=r"log, row 101: no rating, expected one as min_rating is given"):
        Preparation(log, str(tmp_path / "c"), min_rating=1).run()


def test_a_prepared_folder_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent: no such folder, expected a folder written by `padrec prepare`"):
        summary(tmp_path / "absent")
    (tmp_path / "prepared.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(InputError, match=r"prepared\.json: format 99, expected 1: prepare it again"):
        summary(tmp_path)
    (tmp_path / "prepared.json").write_text("{")
    with pytest.raises(InputError, match=r"prepared\.json: no valid JSON"):
        summary(tmp_path)


def test_the_core_says_what_it_drops(log: MadeUpLog, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log.events.append(("u1", "rare", 5, 5))
    Preparation(log, str(tmp_path / "out"), item_core=2).run()
    assert "25 of 26 items kept, 1 dropped" in capfd.readouterr().err
    assert summary(tmp_path / "out")["counts"]["items_dropped"] == 1


@pytest.mark.parametrize("split", [LeaveLastOut(), TimeSplit()])
def test_every_engine_gives_the_same_tables(split: SplitRule, log: MadeUpLog, tmp_path: Path) -> None:
    pytest.importorskip("pyspark", reason="needs PySpark")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java, which is not installed")
    spark = SparkEngine("local[2]", {"spark.sql.shuffle.partitions": "2", "spark.ui.enabled": "false"})
    for name, engine in {"duckdb": DuckDBEngine(threads=1), "threads": DuckDBEngine(threads=2), "spark": spark}.items():
        Preparation(log, str(tmp_path / name), 2, user_core=3, split=split, engine=engine).run()
    for table in ("interactions", "users", "items"):
        expected = pq.read_table(tmp_path / "duckdb" / f"{table}.parquet")
        for name in ("threads", "spark"):
            assert pq.read_table(tmp_path / name / f"{table}.parquet").equals(expected), f"{name}: {table}"


EVENTS = st.tuples(
    st.sampled_from(["ann", "bob", "cid", "di\u0301"]), st.sampled_from("uvwxyz"), st.integers(-3, 9), st.integers(1, 5)
)


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=st.lists(EVENTS, min_size=20, max_size=60), item_core=st.integers(1, 4), deduplicate=st.booleans())
def test_random_logs_are_prepared_as_by_a_plain_program(
    events: list[Event], item_core: int, deduplicate: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("random")
    expected = reference_sequences(events, 2, deduplicate, 3, item_core)
    preparation = Preparation(MadeUpLog(events, folder / "log"), str(folder / "out"), 2, deduplicate, 3, item_core)
    if not expected:
        with pytest.raises(InputError, match=r"is left with user_core 3|none with a rating of 2"):
            preparation.run()
        return
    preparation.run()
    found = sequences(folder / "out")
    assert {user: [(item, time) for item, time, _ in rows] for user, rows in found.items()} == expected


def test_what_a_kill_after_the_last_step_left_is_removed(log: MadeUpLog, tmp_path: Path) -> None:
    Preparation(log, str(tmp_path / "out")).run()
    (tmp_path / "out.unfinished" / "read").mkdir(parents=True)
    Preparation(log, str(tmp_path / "out")).run()
    assert not (tmp_path / "out.unfinished").exists()


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_read(log: MadeUpLog) -> None:
    with pytest.raises(InputError, match=r"out: cannot be written \(Not a directory\)"):
        Preparation(log, str(log.file / "out")).run()
    assert log.reads == 0


def test_a_kill_at_any_time_leaves_what_a_later_run_completes(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item,time\n" + "".join(f"{user},{item},{time}\n" for user, item, time, _ in random_log()))
    program = "import sys; from padrec import data; data.Preparation(data.TableLog(sys.argv[1]), sys.argv[2]).run()"
    command = [sys.executable, "-c", program, str(path), str(tmp_path / "out")]
    draw = random.Random(0)
    for stage in ("fingerprint", "read", "order", "core", "split", "items"):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(f"padrec prepare: {stage}: started"):
                break
        sleep(draw.random() / 10)
        process.kill()
        process.communicate()
    Preparation(TableLog(str(path)), str(tmp_path / "out")).run()
    Preparation(TableLog(str(path)), str(tmp_path / "whole")).run()
    for name in ("interactions.parquet", "users.parquet", "items.parquet", "prepared.json", "padrec.sha256"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (tmp_path / "out.unfinished").exists()
