"""Captured decoding, which needs a GPU, against eager decoding."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding import (
    AutoregressiveDecoder,
    BeamDecoder,
    BoundedVerification,
    CatalogBeamDraft,
    Chain,
    Decoder,
    DynamicTree,
    ItemTree,
    LanguageModelBeamDraft,
    ListRequest,
    RelaxedVerification,
    Sampling,
    SpeculativeBeamDecoder,
    SpeculativeDecoder,
    TransformersRunner,
    TreeExpansion,
)
from padrec.decoding.layers import prompt_shape
from padrec.decoding.lists.request import Recommendations
from padrec.decoding.rounds import captured_loop
from padrec.decoding.rounds.decoding_session import DecodingSession
from padrec.drafts import EAGLE, EAGLE3, DraftArchitecture, ItemEAGLE, NetworkBeamDraft
from padrec.drafts.retrieval import RetrievalDraft, RetrievalTree, TokenPool
from padrec.targets import build_backbone, to_precision
from tests.kernel_device import DEVICE, needs_gpu
from tests.stubs import random_catalog, random_network_draft, random_prompts

pytestmark = needs_gpu

_SIZES, _K = (5, 6, 4), 3
_CATALOG = random_catalog(_SIZES, 30)
_VOCABULARY = SemanticIDVocabulary(_SIZES)
_BATCHES = [[3, 1], [9, 0], [4, 1, 0], [6], [12, 30], [3, 1]]  # users, by the items of their histories
_PRECISIONS = pytest.mark.parametrize(
    ("head_size", "dtype"),
    [(8, torch.float32), (16, torch.float32), (16, torch.bfloat16)],
    ids=["plain operations", "kernels", "kernels bfloat16"],
)


def target(head_size: int, dtype: torch.dtype, seed: int = 0) -> PreTrainedModel:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "initializer_range": 0.3}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": head_size}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_backbone({"model_type": "qwen3", **sizes, **heads}, _VOCABULARY)
    to_precision(model, dtype)
    model.eval().requires_grad_(False).to(DEVICE)
    return model


def speculative(
    expansion: TreeExpansion,
    architecture: DraftArchitecture = EAGLE(),  # noqa: B008  # frozen
) -> Callable[[PreTrainedModel], Decoder]:
    def decoder(model: PreTrainedModel) -> Decoder:
        draft = random_network_draft(model, _VOCABULARY, architecture=architecture)
        draft.network.to(DEVICE)
        return SpeculativeDecoder(draft, expansion)

    return decoder


def retrieval_draft() -> RetrievalDraft:
    pool = TokenPool(500)
    for row in random_prompts(_CATALOG, _VOCABULARY, [9, 9, 9], seed=9).tokens.tolist():
        pool.add(row)
    return RetrievalDraft(pool, context=4, places=8)


_DECODERS: dict[str, Callable[[PreTrainedModel], Decoder]] = {
    "autoregressive": lambda model: AutoregressiveDecoder(),
    "forced": lambda model: AutoregressiveDecoder(forced_tokens=True),
    "chain": speculative(Chain(3)),
    "tree": speculative(DynamicTree(3, 3, 10)),
    "retrieval": lambda model: SpeculativeDecoder(retrieval_draft(), RetrievalTree(3, 10)),
    "relaxed": lambda model: SpeculativeDecoder(
        retrieval_draft(), DynamicTree(3, 3, 10), verification=RelaxedVerification()
    ),
    "bounded": lambda model: SpeculativeDecoder(
        retrieval_draft(), RetrievalTree(3, 10), verification=BoundedVerification()
    ),
    "deeper": speculative(Chain(3), EAGLE(n_layers=2)),
    "item": speculative(ItemTree(10, 3, 14, item_length=4), ItemEAGLE(n_heads=3, rank=16)),
    "eagle3": speculative(DynamicTree(3, 3, 10), EAGLE3(feature_layers=(0, 1, -1))),
}
_BEAMS: dict[str, Callable[[PreTrainedModel], Decoder]] = {
    "beam": lambda model: BeamDecoder(5, 512),
    "speculative beam": lambda model: SpeculativeBeamDecoder(CatalogBeamDraft(), 12),
}


class EagerGraph:
    """Runs the work without capturing it."""

    def __init__(self, function: Callable[[], None], device: torch.device) -> None:
        self._function = function

    def __call__(self) -> None:
        self._function()


def lists_of(session: DecodingSession[Recommendations], batch: int) -> list[Any]:
    prompts = random_prompts(_CATALOG, _VOCABULARY, _BATCHES[batch], seed=batch)
    lists, trace = session.decode(prompts.to(DEVICE), torch.Generator().manual_seed(batch))
    return [lists.tokens.tolist(), trace.target_passes.tolist(), trace.accepted.tolist(), trace.attempted.tolist()]


def assert_captured_equals_eager(
    decoder: Callable[[PreTrainedModel], Decoder], model: PreTrainedModel, request: ListRequest
) -> None:
    results = []
    for captured in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            if not captured:
                patch.setattr(captured_loop, "CapturedGraph", EagerGraph)
            session = decoder(model).bind(TransformersRunner(model), request)
            results.append([lists_of(session, batch) for batch in range(len(_BATCHES))])
            # Again in another order: batches do not disturb what was captured for others.
            again = [lists_of(session, batch) for batch in reversed(range(len(_BATCHES)))]
            assert again[::-1] == results[-1]
    assert results[0] == results[1]


@pytest.fixture
def uncompiled() -> Iterator[None]:
    """Compiling takes minutes, and captured work does not depend on it."""
    with torch.compiler.set_stance("force_eager"):
        yield


@_PRECISIONS
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(1.0)], ids=["greedy", "sampled"])
@pytest.mark.parametrize("constrained", [True, False], ids=["catalog", "free"])
@pytest.mark.parametrize("name", _DECODERS)
@pytest.mark.usefixtures("uncompiled")
def test_captured_decoding_equals_eager_decoding(
    name: str, constrained: bool, sampling: Sampling, head_size: int, dtype: torch.dtype
) -> None:
    model = target(head_size, dtype)
    request = ListRequest.build(_CATALOG, _VOCABULARY, _K, constrained=constrained, sampling=sampling, device=DEVICE)
    assert_captured_equals_eager(_DECODERS[name], model, request)


@_PRECISIONS
@pytest.mark.parametrize("renormalise", [False, True])
@pytest.mark.parametrize("look_ahead", [512, 0, 12])
@pytest.mark.usefixtures("uncompiled")
def test_captured_beam_search_equals_eager_beam_search(
    look_ahead: int, renormalise: bool, head_size: int, dtype: torch.dtype
) -> None:
    model = target(head_size, dtype)
    request = ListRequest.build(_CATALOG, _VOCABULARY, _K, device=DEVICE)
    assert_captured_equals_eager(lambda model: BeamDecoder(5, look_ahead, renormalise), model, request)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["plain operations", "kernels"])
@pytest.mark.parametrize("look_ahead", [None, 0, 12])
@pytest.mark.parametrize("width", [_K, 200])
@pytest.mark.usefixtures("uncompiled")
def test_captured_beam_search_ranks_as_on_a_cpu(width: int, look_ahead: int | None, dtype: torch.dtype) -> None:
    request = ListRequest.build(_CATALOG, _VOCABULARY, _K, device=DEVICE)
    session = BeamDecoder(width, look_ahead).bind(TransformersRunner(target(16, dtype)), request)
    on_cpu = TransformersRunner(target(16, torch.float64).cpu())
    reference = BeamDecoder(width).bind(on_cpu, ListRequest.build(_CATALOG, _VOCABULARY, _K))
    for batch, histories in enumerate(_BATCHES):
        prompts = random_prompts(_CATALOG, _VOCABULARY, histories, seed=batch)
        expected, _ = reference.decode(prompts, torch.Generator())
        # The second time everything is replayed.
        for _ in range(2):
            assert lists_of(session, batch)[0] == expected.tokens.tolist()


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(1.0)], ids=["greedy", "sampled"])
@pytest.mark.parametrize("draft_width", [_K, 12])
@pytest.mark.usefixtures("uncompiled")
def test_captured_speculative_beams_are_those_of_the_search_on_a_cpu(draft_width: int, sampling: Sampling) -> None:
    model = target(16, torch.float64)
    request = ListRequest.build(_CATALOG, _VOCABULARY, _K, sampling=sampling, device=DEVICE)
    on_cpu = ListRequest.build(_CATALOG, _VOCABULARY, _K, sampling=sampling)
    reference = BeamDecoder().bind(TransformersRunner(target(16, torch.float64).cpu()), on_cpu)
    network = random_network_draft(model, _VOCABULARY)
    network.network.to(DEVICE)
    drafts = CatalogBeamDraft(), NetworkBeamDraft(network), LanguageModelBeamDraft(TransformersRunner(model))
    for draft in drafts:
        session = SpeculativeBeamDecoder(draft, draft_width).bind(TransformersRunner(model), request)
        for batch, histories in enumerate(_BATCHES):
            prompts = random_prompts(_CATALOG, _VOCABULARY, histories, seed=batch)
            expected, _ = reference.decode(prompts, torch.Generator().manual_seed(batch))
            # The second time everything is replayed.
            for _ in range(2):
                assert lists_of(session, batch)[0] == expected.tokens.tolist()


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(1.0)], ids=["greedy", "sampled"])
@pytest.mark.parametrize("name", ["forced", "chain", "tree", "item"])
@pytest.mark.usefixtures("uncompiled")
def test_captured_speculation_equals_autoregression(name: str, sampling: Sampling) -> None:
    model = target(16, torch.float32)
    request = ListRequest.build(_CATALOG, _VOCABULARY, _K, sampling=sampling, device=DEVICE)
    runner = TransformersRunner(model)
    sessions = [arm.bind(runner, request) for arm in (_DECODERS[name](model), AutoregressiveDecoder())]
    for batch in range(len(_BATCHES)):
        found, expected = (lists_of(session, batch)[0] for session in sessions)
        assert found == expected


@pytest.mark.parametrize("head_size", [8, 16], ids=["plain operations", "kernels"])
@pytest.mark.parametrize("name", [*_DECODERS, *_BEAMS])
@pytest.mark.usefixtures("uncompiled")
def test_packed_prompts_get_the_lists_of_padded_ones(
    name: str, head_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = target(head_size, torch.float32)
    request = ListRequest.build(_CATALOG, _VOCABULARY, _K, device=DEVICE)
    results = []
    for step in (8, 1 << 20):  # so small that these batches are packed, and so large that they are not
        monkeypatch.setattr(prompt_shape, "_PACKED_STEP", step)
        session = (_DECODERS | _BEAMS)[name](model).bind(TransformersRunner(model), request)
        # The second time everything is replayed.
        results += [[lists_of(session, at)[0] for at in range(len(_BATCHES))] for _ in range(2)]
    assert all(lists == results[0] for lists in results)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(1.0)], ids=["greedy", "sampled"])
@pytest.mark.parametrize("name", ["autoregressive", "forced", "tree", "item", *_BEAMS])
def test_compiled_steps_change_no_list(name: str, sampling: Sampling) -> None:
    model = target(16, torch.float32)
    request = ListRequest.build(_CATALOG, _VOCABULARY, _K, sampling=sampling, device=DEVICE)
    results = []
    for stance in ("default", "force_eager"):
        with torch.compiler.set_stance(stance):
            session = (_DECODERS | _BEAMS)[name](model).bind(TransformersRunner(model), request)
            results.append(lists_of(session, 0))
    assert results[0] == results[1]
