"""Decodes for minutes with drafts that return anything, and watches lists and memory.

From the repository's root: python -m experiments.reliability.soak --output runs/reliability/soak
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.study import circumstances, peak_bytes, report_markdown, run_command
from padrec import (
    AutoregressiveDecoder,
    BeamDecoder,
    Chain,
    DynamicTree,
    ListRequest,
    Prompts,
    Sampling,
    SemanticIDVocabulary,
    SpeculativeBeamDecoder,
    SpeculativeDecoder,
    StaticTree,
    SyntheticReader,
    TransformersRunner,
)
from padrec.catalog import InputError
from padrec.decoding import BeamDraft, Branches, Decoder, Draft, DraftPlan, Observation, Request, SessionOpener
from padrec.decoding.beam.beam_draft import BeamDraftOpener, BeamDraftSession
from padrec.decoding.trees.draft import DraftSession
from padrec.evaluation.report import check_writable, markdown_table, write_report
from padrec.targets import build_backbone, to_precision

_CODES, _ITEMS, _LIST_LENGTH = (12, 12, 12), 300, 5
_SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
_WARM_UP = 0.2  # share of the time after which memory should no longer grow


def measure(output: Path, minutes: float = 10, seed: int = 0) -> None:
    """Compare lists and beams with those of decoders without a draft; writes report.json and report.md.

    Args:
        output: folder of the report, new or without one.
        minutes: how long.
        seed: of weights, prompts, draws and what the drafts return.

    Raises:
        InputError: no time, or a report that is already there.
    """
    if not 0 < minutes < float("inf"):
        raise InputError(f"minutes {minutes}: expected more than 0")
    check_writable(output)
    place = torch.device("cpu")
    catalog = SyntheticReader(n_users=1, n_items=_ITEMS, codebook_sizes=_CODES, seed=seed).read().catalog
    vocabulary = SemanticIDVocabulary(list(_CODES))
    torch.manual_seed(seed)
    model = build_backbone({"model_type": "llama", "max_position_embeddings": 128, **_SIZES}, vocabulary)
    to_precision(model, torch.float64)
    runner = TransformersRunner(model.eval().requires_grad_(False))
    counts: dict[str, list[int]] = {}
    start, warm, sizes = time.monotonic(), 0.0, (1, 2, 4)
    while (passed := (time.monotonic() - start) / (60 * minutes)) < 1:
        if passed >= _WARM_UP and warm == 0:
            warm = peak_bytes() / 2**20
        for temperature in (0.0, 1.0):
            sampling = Sampling(temperature)
            request = ListRequest.build(catalog, vocabulary, _LIST_LENGTH, sampling=sampling)
            prompts = _prompts(vocabulary, request, sizes[int(torch.randint(len(sizes), ()))])
            key = int(torch.randint(2**31, ()))
            for name, differing in _differing(runner, request, prompts, key).items():
                found = counts.setdefault(f"{name}, temperature {temperature:g}", [0, 0])
                found[0] += len(prompts.tokens)
                found[1] += differing
    content = circumstances("experiments.reliability.soak", place, torch.float64, seed) | {
        "minutes": minutes,
        "megabytes_after_warm_up": warm,
        "megabytes": peak_bytes() / 2**20,
        "rows": [{"decoder": name, "lists": n, "differing": wrong} for name, (n, wrong) in counts.items()],
    }
    write_report(output, content, _markdown(content))


def _differing(runner: TransformersRunner, request: ListRequest, prompts: Prompts, key: int) -> dict[str, int]:
    """Rows that differ from the decoder without a draft, by decoder."""
    lists: dict[str, Decoder] = {
        "dynamic tree": SpeculativeDecoder(_WildDraft(), DynamicTree(4, 3, 12)),
        "chain": SpeculativeDecoder(_WildDraft(), Chain(4)),
        "static tree": SpeculativeDecoder(_WildDraft(), StaticTree([[0], [1], [0, 0], [0, 1], [0, 0, 0]])),
    }
    beams: dict[str, Decoder] = {"speculative beam": SpeculativeBeamDecoder(_WildBeamDraft(), 6)}

    def leaves(decoder: Decoder) -> Tensor:
        return decoder.bind(runner, request).decode(prompts, torch.Generator().manual_seed(key))[0].leaves

    wrong = {}
    for reference, others in ((AutoregressiveDecoder(), lists), (BeamDecoder(), beams)):
        expected = leaves(reference)
        for name, decoder in others.items():
            wrong[name] = int((leaves(decoder) != expected).any(1).sum())
    return wrong


def _prompts(vocabulary: SemanticIDVocabulary, request: ListRequest, batch: int) -> Prompts:
    """Random histories of up to seven items, one length for the batch."""
    n_items = int(torch.randint(1, 8, ()))
    items = torch.randint(request.catalog.n_items, (batch * n_items,))
    history = vocabulary.encode(request.catalog.codes[items]).view(batch, -1)
    tokens = torch.cat([torch.full((batch, 1), vocabulary.bos_token), history], 1)
    slots = vocabulary.sequence_slots(tokens.shape[1]).expand(batch, -1)
    return Prompts(tokens, slots, torch.full((batch,), tokens.shape[1]))


def _wild(shape: tuple[int, ...]) -> Tensor:
    """Logits of one of many kinds: usual ones, huge ones, NaN, infinities, a mixture."""
    usual = torch.randn(shape, dtype=torch.float64)
    kinds: list[Callable[[], Tensor]] = [
        lambda: usual,
        lambda: usual * 1e300,
        lambda: torch.full_like(usual, torch.nan),
        lambda: torch.full_like(usual, torch.inf),
        lambda: torch.full_like(usual, -torch.inf),
        lambda: usual.masked_fill(usual > 1, torch.nan).masked_fill(usual < -1, torch.inf),
        lambda: torch.zeros_like(usual),
    ]
    return kinds[int(torch.randint(len(kinds), ()))]()


class _WildDraft(Draft):
    def bind(self, runner: TransformersRunner, request: Request[Any]) -> SessionOpener:
        return _WildSession


class _WildSession(DraftSession):
    def __init__(self, plan: DraftPlan) -> None:
        self._batch, self._size = plan.batch, plan.request.vocabulary_size

    def begin(self, prompts: Prompts, features: Tensor, first: Tensor, first_slot: Tensor) -> None:
        """Ignore the prompts."""

    def root_logits(self) -> Tensor:
        return _wild((self._batch, self._size))

    def extend(self, tokens: Tensor, parents: Tensor, slots: Tensor, depth: int) -> Tensor:
        return _wild((*tokens.shape, self._size))

    def observe(self, observation: Observation) -> None:
        """Ignore the list."""


class _WildBeamDraft(BeamDraft):
    def bind(self, runner: TransformersRunner, request: ListRequest) -> BeamDraftOpener:
        return partial(_WildBeamSession, int(runner.model.config.vocab_size))


class _WildBeamSession(BeamDraftSession):
    def __init__(self, size: int, *_: object) -> None:
        self._size = size

    def begin(self, prompts: Prompts, features: Tensor | None) -> Tensor:
        return _wild((len(prompts.tokens), self._size))

    def extend(self, branches: Branches, nodes: Tensor) -> Tensor:
        return _wild((*nodes.shape, self._size))


def _markdown(content: Mapping[str, Any]) -> str:
    table = markdown_table(
        ["decoder", "lists", "that differ"],
        [[row["decoder"], str(row["lists"]), str(row["differing"])] for row in content["rows"]],
    )
    memory = (
        f"{content['minutes']:g} minutes; peak memory {content['megabytes_after_warm_up']:.0f} MB after a fifth, "
        f"{content['megabytes']:.0f} MB at the end."
    )
    return report_markdown(content, "# Decoding with drafts that return anything", table, memory)


if __name__ == "__main__":
    run_command(measure)
