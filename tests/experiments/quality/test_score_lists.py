import json
import math
from pathlib import Path

import pytest

from experiments.quality.item_ids import write_item_ids
from experiments.quality.score_lists import score_lists
from padrec import InputError, LCRecReader

_INDEX = {str(item): [f"<a_{item // 2}>", "<b_0>"] for item in range(6)}  # pairs of items share their codes
_ROWS = {"u": ["0", "1", "2", "3"], "v": ["5", "4", "3", "2"]}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "Toy.index.json").write_text(json.dumps(_INDEX))
    (folder / "Toy.inter.json").write_text(json.dumps(_ROWS))
    return folder


def lists(folder: Path, rows: dict[str, list[str]]) -> Path:
    path = folder / "lists.jsonl"
    lines = [json.dumps({"user": user, "history": ["0"], "items": items}) for user, items in rows.items()]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_lists_are_scored_by_item_in_any_order_of_users(data: Path, tmp_path: Path) -> None:
    # v's truth is second for the test; u's stands nowhere, only the item that shares its codes does.
    path = lists(tmp_path, {"v": ["0", "2", "1", "4", "5"], "u": ["2", "1", "0", "4", "5"]})
    found = score_lists(data, path, "test")
    assert found["recall@5"] == found["recall@10"] == 0.5
    assert found["ndcg@10"] == pytest.approx(0.5 / math.log2(3))
    assert score_lists(data, path, "validation")["ndcg@5"] == pytest.approx(0.5)  # u's item 2 is first


def test_every_user_needs_a_list(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1 lists, expected one for each of the 2 users"):
        score_lists(data, lists(tmp_path, {"u": ["2"]}), "test")


def test_item_ids_are_one_code_for_each_item(data: Path, tmp_path: Path) -> None:
    write_item_ids(data, tmp_path / "item")
    found = LCRecReader(str(tmp_path / "item")).read()
    assert found.catalog.codes.tolist() == [[item] for item in range(6)]
    assert found.catalog.n_leaves == 6
    assert found.interactions.user_keys == ("u", "v")
