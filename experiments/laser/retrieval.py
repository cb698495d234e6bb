"""Time and memory of a pool's suffix array on made-up texts, beside LASER's tries and a suffix automaton.

From the repository's root: python -m experiments.laser.retrieval --output runs/laser/retrieval
"""

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from experiments.laser.references import NGramTrie, SuffixAutomaton
from experiments.speed.timing import Timing, Work, interleaved_seconds, timed
from experiments.study import check_positive, chosen_device, circumstances, report_markdown, resident_bytes, run_command
from padrec import DynamicTree, InputError, Prompts, RetrievalDraft, RetrievalTree, TokenPool, TransformersRunner
from padrec.decoding import CapturedGraph, DraftPlan, TextRequest, TreeContext, TreeExpansion, TreeOperations
from padrec.drafts.retrieval import RetrievalSession, SuffixIndex
from padrec.drafts.retrieval.token_pool import PoolTexts
from padrec.evaluation.report import check_writable, markdown_table, write_report

_TEXT_TOKENS, _CONTEXT, _FOLLOWERS = 200, 8, 6
_TREE, _RETRIEVAL_TREE = DynamicTree(depth=8, width=6, nodes=32), RetrievalTree(depth=8, nodes=32)


def measure(
    output: Path,
    tokens: Sequence[int] = (100_000, 1_000_000),
    reference_tokens: int = 100_000,
    vocabulary: int = 49_152,
    batches: Sequence[int] = (1, 32),
    places: int = 64,
    repeats: int = 50,
    device: str | None = None,
    seed: int = 0,
) -> None:
    """Index pools of several sizes, look contexts up in them, and grow trees; writes report.json and report.md.

    Args:
        output: folder of the report, new or without one.
        tokens: sizes of the pools.
        reference_tokens: the largest pool that the two other structures hold; they are plain Python.
        vocabulary: of the texts.
        batches: rows that are looked up together.
        places: that are followed in a round.
        repeats: of every measurement.
        device: that searches, by default a GPU where there is one.
        seed: of the texts.

    Raises:
        InputError: a size below 1, a wrong device, or a report that is already there.
    """
    check_positive(tokens=tokens, batches=batches, repeats=[repeats], places=[places])
    if vocabulary <= _FOLLOWERS:
        raise InputError(f"vocabulary {vocabulary}: expected more than {_FOLLOWERS} tokens")
    check_writable(output)
    place, dtype = chosen_device(device)
    content = circumstances("experiments.laser.retrieval", place, dtype, seed)
    content |= {"vocabulary": vocabulary, "places": places, "pools": {}}
    runner = small_runner(vocabulary, place)
    for number, size in enumerate(tokens):
        texts = made_up_texts(size, vocabulary, seed)
        asked = made_up_texts(max(batches) * _TEXT_TOKENS, vocabulary, seed + 1)
        found = _array(texts, asked, runner, batches, places, repeats, with_logits=number == 0)
        if size <= reference_tokens:
            found |= _references(texts, asked)
        content["pools"][str(size)] = found
    write_report(output, content, _markdown(content))


def made_up_texts(n_tokens: int, vocabulary: int, seed: int) -> list[list[int]]:
    """Texts in which few tokens follow each one, some of them often, the same in texts of every seed."""
    followers = torch.randint(vocabulary, (vocabulary, _FOLLOWERS), generator=torch.Generator().manual_seed(0))
    shares = 1 / torch.arange(1.0, _FOLLOWERS + 1)
    generator = torch.Generator().manual_seed(seed)
    n_texts = -(-n_tokens // (_TEXT_TOKENS + 1))
    token = torch.randint(vocabulary // 64 + 1, (n_texts,), generator=generator)
    rows = [token]
    for _ in range(_TEXT_TOKENS - 1):
        token = followers[token, torch.multinomial(shares, n_texts, replacement=True, generator=generator)]
        rows.append(token)
    found: list[list[int]] = torch.stack(rows, 1).tolist()
    return found


def small_runner(vocabulary: int, device: torch.device) -> TransformersRunner:
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    return TransformersRunner(LlamaForCausalLM(config).eval().to(device))


def _array(
    texts: list[list[int]],
    asked: list[list[int]],
    runner: TransformersRunner,
    batches: Sequence[int],
    places: int,
    repeats: int,
    with_logits: bool,
) -> dict[str, Any]:
    device, pool = runner.model.device, PoolTexts.of(texts, [0] * len(texts))
    index = SuffixIndex(len(pool.tokens), 1, 16, device)
    index.load(pool)  # warm
    _, build = timed(partial(index.load, pool), device)
    found: dict[str, Any] = {"build_seconds": build, "bytes_per_token": _bytes(index) / len(pool.tokens)}
    holder = TokenPool(len(pool.tokens))
    for text in texts:
        holder.add(text)
    draft = RetrievalDraft(holder, context=_CONTEXT, places=places)
    for batch in batches:
        found_works = _works(draft, runner, asked[:batch], with_logits and batch == batches[0])
        calls = 20 if device.type == "cuda" else 1
        works = {name: Work(CapturedGraph(work, device), calls) for name, work in found_works.items()}
        for name, seconds in interleaved_seconds(works, device, repeats).items():
            found[f"{name}_batch_{batch}"] = Timing.of(seconds * 1000).to_dict("ms")
    return found


def _bytes(index: SuffixIndex) -> int:
    return sum(value.nbytes for value in vars(index).values() if isinstance(value, Tensor))


def _works(
    draft: RetrievalDraft, runner: TransformersRunner, asked: list[list[int]], with_logits: bool
) -> dict[str, Callable[[], None]]:
    """The look-up of a round, and a whole tree; one from logits takes as long for any pool."""
    request = TextRequest(int(runner.model.config.vocab_size), 64)
    plan = DraftPlan(runner, request, len(asked), 512, _TREE.draft_rows, _TREE.depth)
    session = draft.bind(runner, request)(plan)
    assert isinstance(session, RetrievalSession)
    tokens = torch.tensor(asked, device=runner.model.device)
    root, lengths = tokens[:, -1], torch.full_like(tokens[:, 0], tokens.shape[1])
    session.begin(Prompts(tokens, tokens, lengths), torch.empty(0), root, lengths)
    constraint: Any = request.constraint
    state, choice = constraint.initial(len(asked), root.device), request.sampling.choice(lengths, lengths, 8, 1)

    def look_up() -> None:
        session.retrieve()

    def grow(expansion: TreeExpansion) -> None:
        expansion.expand(TreeContext(root, state, constraint, choice, session, TreeOperations()))

    works: dict[str, Callable[[], None]] = {"look_up": look_up, "retrieval_tree": partial(grow, _RETRIEVAL_TREE)}
    if with_logits:
        works["tree"] = partial(grow, _TREE)
    return works


def _references(texts: list[list[int]], asked: list[list[int]]) -> dict[str, Any]:
    """Build seconds, bytes per token and look-up milliseconds of the two other structures."""
    found: dict[str, Any] = {}
    kinds: dict[str, tuple[type[NGramTrie | SuffixAutomaton], int]] = {
        "trie": (NGramTrie, 2),
        "automaton": (SuffixAutomaton, _CONTEXT),
    }
    for name, (kind, longest) in kinds.items():
        gc.collect()
        before, start = resident_bytes(), time.perf_counter()
        structure = kind(texts)
        found[f"{name}_build_seconds"] = time.perf_counter() - start
        found[f"{name}_bytes_per_token"] = (resident_bytes() - before) / sum(map(len, texts))
        look_up = Work(partial(_look_up, structure, asked, longest))
        seconds = interleaved_seconds({name: look_up}, torch.device("cpu"), 5)[name]
        found[f"{name}_look_up"] = Timing.of(seconds / len(asked) * 1000).to_dict("ms")
        del structure
    return found


def _look_up(structure: NGramTrie | SuffixAutomaton, asked: list[list[int]], longest: int) -> None:
    for text in asked:
        structure.find(text, longest)


def _markdown(content: Mapping[str, Any]) -> str:
    names = list(dict.fromkeys(name for found in content["pools"].values() for name in found))
    rows = [[name, *(_cell(found.get(name)) for found in content["pools"].values())] for name in names]
    title = "# Retrieval from pools of made-up texts"
    about = f"A vocabulary of {content['vocabulary']:,} tokens, {content['places']} places; times of one batch in ms."
    header = ["measured", *(f"{int(size):,} tokens" for size in content["pools"])]
    return report_markdown(content, title, about, markdown_table(header, rows))


def _cell(value: object) -> str:
    if isinstance(value, dict):
        low, high = value["ms_ci95"]
        return f"{value['ms']:.3f} ({low:.3f} … {high:.3f})"
    return "–" if value is None else f"{value:.3g}"


if __name__ == "__main__":
    run_command(measure)
