"""Pools of texts: frequencies, eviction, the bound, and files."""

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from padrec.catalog import InputError
from padrec.drafts.retrieval import TokenPool

_TEXTS = st.lists(st.tuples(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.integers(0, 1)), max_size=30)


def stored(pool: TokenPool) -> list[tuple[tuple[int, ...], int]]:
    """Texts and groups, oldest first."""
    texts = pool.texts
    parts = texts.tokens.split(texts.lengths.tolist())
    return [(tuple(part[:-1].tolist()), group) for part, group in zip(parts, texts.groups.tolist(), strict=True)]


@settings(max_examples=50, deadline=None)
@given(added=_TEXTS)
def test_equal_texts_of_a_group_are_one_with_a_count(added: list[tuple[list[int], int]]) -> None:
    pool = TokenPool(1000, n_groups=2)
    for text, group in added:
        pool.add(text, group)
    expected = Counter((tuple(text), group) for text, group in added)
    assert dict(zip(stored(pool), pool.texts.counts.tolist(), strict=True)) == expected
    # The newest copy counts as the text's age.
    last = {(tuple(text), group): place for place, (text, group) in enumerate(added)}
    assert stored(pool) == sorted(last, key=lambda text: last[text])


def test_a_full_pool_gives_up_what_proposed_least_and_of_that_the_oldest() -> None:
    pool = TokenPool(32)
    for first in range(10):
        pool.add([first, 9])
    assert [text for text, _ in stored(pool)] == [(first, 9) for first in range(10)]
    pool.credit(torch.tensor([6, 0, 0, 0, 0, 0, 0, 0, 0, 2]))
    for first in range(10, 14):
        pool.add([first, 9])
    kept = [text[0] for text, _ in stored(pool)]
    assert kept == [0, *range(15 - len(kept), 14)]
    assert 0 < int(pool.texts.hits[0]) < 6, "old merits fade"
    assert len(pool.texts.tokens) <= 32


def test_the_bound_holds_over_many_insertions() -> None:
    pool, generator = TokenPool(2_000), torch.Generator().manual_seed(0)
    texts = torch.randint(50, (20_000, 7), generator=generator).tolist()
    for place, text in enumerate(texts):
        pool.add(text)
        assert len(pool.settled.tokens) + pool.waiting <= 2_000 * 9 / 8
        if place % 1000 == 0:
            assert len(pool.texts.tokens) <= 2_000
    assert stored(pool)[-1][0] == tuple(texts[-1])


def test_a_text_longer_than_the_pool_is_cut() -> None:
    pool = TokenPool(5)
    pool.add(list(range(9)))
    assert stored(pool) == [((0, 1, 2, 3), 0)]


@pytest.mark.parametrize(("text", "group"), [([], 0), ([1, -1], 0), ([1], 1), ([1], -1)])
def test_what_is_no_text_is_refused(text: list[int], group: int) -> None:
    with pytest.raises(InputError, match="expected tokens of at least 0 and a group of 0"):
        TokenPool(10).add(text, group)


def test_a_saved_pool_comes_back(tmp_path: Path) -> None:
    pool = TokenPool(100, n_groups=2)
    for text, group in (([1, 2, 3], 0), ([1, 2, 3], 1), ([4], 0), ([4], 0)):
        pool.add(text, group)
    pool.settings, pool.tensors = {"own_answers": False}, {"table": torch.ones(2)}
    pool.save(tmp_path / "pool.safetensors")
    found = TokenPool.load(tmp_path / "pool.safetensors")
    assert stored(found) == stored(pool)
    assert found.texts.counts.tolist() == [1, 1, 2]
    assert (found.max_tokens, found.n_groups, found.settings) == (100, 2, {"own_answers": False})
    assert found.tensors["table"].tolist() == [1, 1]
    with pytest.raises(InputError, match="there already"):
        pool.save(tmp_path / "pool.safetensors")
    found.add([7])
    found.save(tmp_path / "pool.safetensors", overwrite=True)
    assert len(TokenPool.load(tmp_path / "pool.safetensors").texts.lengths) == 4


def test_a_damaged_pool_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "pool.safetensors"
    pool = TokenPool(100)
    pool.add([1, 2, 3])
    pool.save(file)
    whole = file.read_bytes()
    for damaged in (whole[:-1], whole[:-9] + b"\x07" + whole[-8:], b"", b"no pool"):
        file.write_bytes(damaged)
        with pytest.raises(InputError, match=r"pool\.safetensors"):
            TokenPool.load(file)


_WRITER = """
import sys
from padrec.drafts.retrieval import TokenPool
pool = TokenPool(300_000)
for first in range(100):
    pool.add([first, *range(2000)])
print("begin", flush=True)
while True:
    pool.save(sys.argv[1], overwrite=True)
    print("saved", flush=True)
"""


def test_a_kill_in_the_middle_of_a_write_leaves_the_old_pool(tmp_path: Path) -> None:
    file = tmp_path / "pool.safetensors"
    old = TokenPool(10)
    old.add([5])
    old.save(file)
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, file], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "begin\n"
    part = tmp_path / "pool.safetensors.partial" / "pool.safetensors"
    while not part.exists():
        pass
    os.kill(writer.pid, signal.SIGKILL)
    saved = "saved" in writer.communicate()[0]
    assert len(TokenPool.load(file).texts.lengths) == (100 if saved else 1)
    old.save(file, overwrite=True)  # what the killed one left is in nobody's way
    assert len(TokenPool.load(file).texts.lengths) == 1
