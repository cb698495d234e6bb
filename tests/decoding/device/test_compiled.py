"""What is compiled on a GPU can be traced: each step as one graph, for whatever decoders hand to it."""

import functools
import importlib
import pkgutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import pytest
import torch

import padrec.decoding
import padrec.drafts
from padrec.catalog import SemanticIDVocabulary
from padrec.decoding import (
    AutoregressiveDecoder,
    BeamDecoder,
    BoundedVerification,
    CatalogBeamDraft,
    CatalogDraft,
    Chain,
    Decoder,
    DynamicTree,
    ItemTree,
    ListRequest,
    Prompts,
    Sampling,
    SpeculativeBeamDecoder,
    SpeculativeDecoder,
    TransformersRunner,
    compiled,
)
from padrec.drafts import ItemEAGLE
from padrec.drafts.retrieval import CombinedDraft, PromptGroups, RetrievalDraft, RetrievalTree, TokenPool
from tests.stubs import random_catalog, random_network_draft, random_prompts, tiny_target

_SIZES, _K = (5, 6, 4), 2
_CATALOG = random_catalog(_SIZES, 30)


def compiled_functions() -> Iterator[tuple[ModuleType, str, Callable[..., Any]]]:
    """Every decorated function: its module, its name, and the function itself."""
    code = getattr(compiled(len), "__code__")  # noqa: B009  # the same for all that the decorator returns
    for room in (padrec.decoding, padrec.drafts):
        for found in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):
            if ".triton_" in found.name or ".kernels" in found.name:  # kernels and their launchers
                continue
            module = importlib.import_module(found.name)
            for name, value in vars(module).items():
                if getattr(value, "__code__", None) is code:
                    yield module, name, value.__wrapped__


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Traces all of them, without compiling the graphs, and counts the calls."""
    calls: Counter[str] = Counter()

    def counting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        graph = torch.compile(function, backend="eager", dynamic=False, fullgraph=True)

        def count() -> int:
            calls[name] += 1
            return calls[name]

        # Counted while tracing: a graph that counts is traced again for each count.
        count_once = torch.compiler.assume_constant_result(count)

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> object:
            count_once()
            return (function if torch.compiler.is_compiling() else graph)(*args, **kwargs)

        return call

    for module, name, function in list(compiled_functions()):
        # One name for a function, wherever it is imported.
        place = f"{function.__module__}.{name}"
        calls.setdefault(place, 0)
        monkeypatch.setattr(module, name, counting(place, function))
    return calls


def assert_same(
    decoders: Sequence[Decoder], runner: TransformersRunner, request: ListRequest, prompts: Prompts
) -> None:
    """All of them generate the same, and again in the tensors of the first time."""
    sessions = [decoder.bind(runner, request) for decoder in decoders]
    lists = [
        session.decode(prompts, torch.Generator().manual_seed(0))[0].tokens for session in sessions for _ in range(2)
    ]
    assert all(torch.equal(found, lists[0]) for found in lists)


def grouped_pool() -> TokenPool:
    pool = TokenPool(100, n_groups=2)
    pool.add([4, 9, 15])
    vectors = torch.ones(SemanticIDVocabulary(_SIZES).size, 1)
    PromptGroups(vectors, torch.tensor([[0.0], [1.0]])).into_pool(pool)
    return pool


def test_every_compiled_step_is_one_graph(traced: Counter[str]) -> None:
    vocabulary = SemanticIDVocabulary(_SIZES)
    model = tiny_target(vocabulary)
    prompts = random_prompts(_CATALOG, vocabulary, [3, 0])
    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=256, accumulated_recompile_limit=2048):
        for sampling, constrained in ((Sampling(), False), (Sampling(1.0), True)):
            request = ListRequest.build(_CATALOG, vocabulary, _K, constrained=constrained, sampling=sampling)
            retrieval, exact = RetrievalDraft(grouped_pool(), context=2, places=3), BoundedVerification(max_relaxed=0)
            item = ItemEAGLE(n_heads=3, rank=8)
            mixed = CombinedDraft({"retrieval": retrieval, "catalog": CatalogDraft()})
            decoders: list[Decoder] = [
                AutoregressiveDecoder(),
                AutoregressiveDecoder(forced_tokens=True),
                SpeculativeDecoder(random_network_draft(model, vocabulary), Chain(2)),
                SpeculativeDecoder(random_network_draft(model, vocabulary), DynamicTree(2, 2, 6)),
                SpeculativeDecoder(
                    random_network_draft(model, vocabulary, architecture=item), ItemTree(6, 2, 6, item_length=4)
                ),
                SpeculativeDecoder(retrieval, RetrievalTree(2, 6)),
                SpeculativeDecoder(mixed, DynamicTree(2, 2, 6), verification=exact),
            ]
            runner = TransformersRunner(model)
            assert_same(decoders, runner, request, prompts)
            if constrained:
                assert_same([BeamDecoder(), SpeculativeBeamDecoder(CatalogBeamDraft(), 3)], runner, request, prompts)
    torch._dynamo.reset()
    assert len(traced) > 5
    assert all(traced.values()), f"never called: {[name for name, n in traced.items() if n == 0]}"


def test_on_the_cpu_functions_run_as_they_are() -> None:
    def double(x: torch.Tensor, times: int = 2) -> torch.Tensor:
        """What it does."""
        assert not torch.compiler.is_compiling()
        return x * times

    function = compiled(double)
    assert function(torch.ones(2), times=3).tolist() == [3, 3]
    assert (function.__name__, function.__doc__) == ("double", "What it does.")
