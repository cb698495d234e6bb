"""The measurement of retrieval, and its references beside the suffix array."""

import json
from pathlib import Path

import pytest
import torch

from experiments.laser.bound import measure as measure_bound
from experiments.laser.references import NGramTrie, SuffixAutomaton
from experiments.laser.retrieval import made_up_texts, measure
from experiments.study import run_command
from padrec.drafts.retrieval import SuffixIndex
from padrec.drafts.retrieval.token_pool import END, PoolTexts


def test_a_report_of_time_and_memory(tmp_path: Path) -> None:
    small = ["--tokens", "[400]", "--vocabulary", "50", "--batches", "[1,2]", "--repeats", "2", "--places", "4"]
    run_command(measure, ["--output", str(tmp_path), "--device", "cpu", *small])
    found = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["pools"]["400"]
    for name in ("look_up_batch_2", "tree_batch_1", "retrieval_tree_batch_2", "trie_look_up", "automaton_look_up"):
        assert found[name]["ms"] > 0
    assert found["bytes_per_token"] > 8
    assert "| look_up_batch_1 |" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_a_report_of_the_bound(tmp_path: Path) -> None:
    run_command(
        measure_bound, ["--output", str(tmp_path), "--insertions", "2000", "--text_tokens", "9", "--max_tokens", "1000"]
    )
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert all(row["tokens"] <= 1000 for row in report["samples"])
    assert report["most_tokens_with_waiting"] <= 1000 * 9 / 8


@pytest.mark.parametrize("longest", [2, 6])
def test_all_three_structures_find_the_same(longest: int) -> None:
    """So the library needs one of them. Where a context ends a text, the array finds `END`, and the others nothing."""
    texts, asked = made_up_texts(2_000, 60, 0), made_up_texts(400, 60, 1)
    stored = PoolTexts.of(texts, [0] * len(texts))
    index = SuffixIndex(len(stored.tokens), 1, 8, torch.device("cpu"))
    index.load(stored)
    trie, automaton = NGramTrie(texts, depth=longest + 1), SuffixAutomaton(texts)
    for text in asked:
        for place in range(1, len(text), 7):
            context = text[max(0, place - longest) : place]
            padded = torch.tensor([[0] * (longest - len(context)) + context])
            found = index.find(padded, torch.tensor([len(context)]), torch.tensor([0]), 5_000)
            following = index.tokens[found.places[0]]
            alive = (found.lengths[0] > 0) & (following != END)
            length = int(found.lengths[0][alive].max()) if bool(alive.any()) else 0
            tokens = following[alive & (found.lengths[0] == length)].tolist()
            counts = {token: tokens.count(token) for token in set(tokens)}
            assert (length, counts) == automaton.find(context, longest)
            assert (length, counts) == trie.find(context, longest)
