"""Tiny targets, prompts and drafts of known behaviour, shared by the tests of several rooms."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from padrec.catalog import Catalog, SemanticIDVocabulary
from padrec.decoding import (
    Constraint,
    Continuations,
    Draft,
    DraftPlan,
    DraftSession,
    DraftSteps,
    ItemDraftSteps,
    ListState,
    Observation,
    Prompts,
    Request,
    Sampling,
    SessionOpener,
    TokenTree,
    TransformersRunner,
    TreeContext,
    TreeExpansion,
)
from padrec.decoding.layers.runner import TransformersSession
from padrec.drafts import EAGLE, DraftArchitecture, NetworkDraft
from padrec.targets import build_backbone, to_precision


def random_catalog(sizes: Sequence[int], n_items: int, seed: int = 0) -> Catalog:
    """Random codes, some of them the same."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.stack([torch.randint(size, (n_items,), generator=generator) for size in sizes], 1)
    return Catalog(codes, [f"item {item}" for item in range(n_items)])


def tiny_target(
    vocabulary: SemanticIDVocabulary,
    *,
    model_type: str = "llama",
    kv_heads: int = 2,
    n_layers: int = 2,
    dtype: torch.dtype = torch.float64,
    attention: str = "sdpa",
    seed: int = 0,
) -> PreTrainedModel:
    """A random language model whose next-token distributions are far from uniform."""
    config = {
        "model_type": model_type,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": n_layers,
        "num_attention_heads": 4,
        "num_key_value_heads": kv_heads,
        "head_dim": 8,
        "max_position_embeddings": 256,
        "initializer_range": 0.3,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_backbone(config, vocabulary)
    model.set_attn_implementation(attention)
    to_precision(model, dtype)
    model.eval().requires_grad_(False)
    return model


def random_network_draft(
    model: PreTrainedModel,
    vocabulary: SemanticIDVocabulary,
    seed: int = 0,
    architecture: DraftArchitecture = EAGLE(),  # noqa: B008  # frozen
) -> NetworkDraft:
    """An untrained feature draft with every parameter of its position-aware part and its heads away from zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = architecture.network(model.config, n_slot_states=vocabulary.n_slot_states, n_steps=3)
        for parameter in network.position_aware.parameters():
            nn.init.normal_(parameter, std=0.5)
        for parameter in () if network.heads is None else network.heads.parameters():
            nn.init.normal_(parameter, std=0.3)
    to_precision(network, model.dtype)
    return NetworkDraft(network.eval().requires_grad_(False), vocabulary)


def random_prompts(
    catalog: Catalog, vocabulary: SemanticIDVocabulary, history_lengths: Sequence[int], seed: int = 0
) -> Prompts:
    """Prompts `<bos> item … item` of random items; a history length of 0 gives `<bos>` alone."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for n_items in history_lengths:
        items = torch.randint(catalog.n_items, (n_items,), generator=generator)
        tokens = vocabulary.encode(catalog.codes[items]).flatten()
        rows.append(torch.cat([torch.tensor([vocabulary.bos_token]), tokens]))
    lengths = torch.tensor([len(row) for row in rows])
    tokens = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=vocabulary.pad_token)
    column = torch.arange(tokens.shape[1])
    slots = vocabulary.sequence_slots(tokens.shape[1])
    slots = torch.where(column < lengths[:, None], slots, vocabulary.other_slot)
    return Prompts(tokens, slots, lengths)


def select_rows(prompts: Prompts, rows: Sequence[int]) -> Prompts:
    """Some rows of a batch, padded no more than they need."""
    chosen = prompts.map(itemgetter(list(rows)))
    width = int(chosen.lengths.max())
    return replace(chosen, tokens=chosen.tokens[:, :width], slots=chosen.slots[:, :width], packed=None)


class CountingRunner(TransformersRunner):
    """Counts the passes after the prefill that the host has asked for, and keeps the last tree."""

    passes = 0
    tree: TokenTree

    def open(self, batch: int, capacity: int, feature_layers: Sequence[int] = (-1,)) -> TransformersSession:
        session = super().open(batch, capacity, feature_layers)
        verify = session.verify

        def counted(tree: TokenTree) -> tuple[Tensor, Tensor]:
            self.passes += 1
            self.tree = tree
            return verify(tree)

        session.verify = counted  # type: ignore[method-assign]
        return session


class SlowGraph:
    """Takes its time to record, and counts."""

    seconds = 0.05
    made = 0

    def __init__(self, function: Callable[[], None], device: torch.device) -> None:
        time.sleep(self.seconds)
        SlowGraph.made += 1
        self._function = function

    def __call__(self) -> None:
        self._function()


class CountedCompiler:
    """Takes the place of `torch.compile`, which takes long: calls what it is given as it is, and counts the calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, forward: Callable[..., object], dynamic: bool) -> Callable[..., object]:
        assert dynamic

        def call(*arguments: object, **named: object) -> object:
            self.calls += 1
            return forward(*arguments, **named)

        return call


@dataclass(frozen=True)
class GivenKeys(Sampling):
    """Sampling with request keys given in advance, as they follow a user from batch to batch."""

    request_keys: tuple[int, ...] = ()

    def keys(self, batch: int, generator: torch.Generator, device: torch.device) -> Tensor:
        assert batch == len(self.request_keys)
        return torch.tensor(self.request_keys, device=device)


class StubDraft(Draft):
    """Proposes from `logits(position, depth, n_nodes)`, where it knows how long each list is."""

    def bind(self, runner: TransformersRunner, request: Request[Any]) -> SessionOpener:
        return partial(StubSession, self)

    def logits(self, position: Tensor, depth: int, n_nodes: int) -> Tensor:
        """Logits of the token after each node of one depth, `[B, n_nodes, V]`; lists have `position` tokens, `[B]`."""
        raise NotImplementedError


class StubSession(DraftSession):
    def __init__(self, draft: StubDraft, plan: DraftPlan) -> None:
        self._draft = draft
        self._position = torch.ones(plan.batch, dtype=torch.long, device=plan.runner.model.device)

    def begin(self, prompts: Prompts, features: Tensor, first: Tensor, first_slot: Tensor) -> None:
        self._position.fill_(1)

    def root_logits(self) -> Tensor:
        return self._draft.logits(self._position, 0, 1)[:, 0]

    def extend(self, tokens: Tensor, parents: Tensor, slots: Tensor, depth: int) -> Tensor:
        return self._draft.logits(self._position, depth, tokens.shape[1])

    def observe(self, observation: Observation) -> None:
        self._position += observation.count


class OracleDraft(StubDraft):
    """Always right: it looks the target's own lists up, `[B, T]`."""

    def __init__(self, lists: Tensor, vocabulary: SemanticIDVocabulary) -> None:
        self._lists = lists
        self._size = vocabulary.size

    def logits(self, position: Tensor, depth: int, n_nodes: int) -> Tensor:
        at = (position + depth).clamp(max=self._lists.shape[1] - 1)
        expected = self._lists.gather(1, at[:, None])  # [B, 1]
        return 20.0 * nn.functional.one_hot(expected, self._size).double().expand(-1, n_nodes, -1)


class ContraryDraft(OracleDraft):
    """Never right, grown `Unbound`: the target's own token is what it finds least likely."""

    def logits(self, position: Tensor, depth: int, n_nodes: int) -> Tensor:
        return -super().logits(position, depth, n_nodes)


class RandomDraft(StubDraft):
    """Random logits, new ones at every call."""

    def __init__(self, vocabulary: SemanticIDVocabulary, seed: int = 0) -> None:
        self._size = vocabulary.size
        self._generator = torch.Generator().manual_seed(seed)

    def logits(self, position: Tensor, depth: int, n_nodes: int) -> Tensor:
        return 2 * torch.randn(len(position), n_nodes, self._size, generator=self._generator, dtype=torch.float64)


class ItemStub(Draft):
    """A stub with one pass an item: logits depend on a list's position alone, wherever the passes are."""

    def __init__(self, draft: StubDraft, item_length: int) -> None:
        self._draft, self.item_length = draft, item_length

    def bind(self, runner: TransformersRunner, request: Request[Any]) -> SessionOpener:
        return partial(ItemStubSession, self._draft)


class ItemStubSession(StubSession, ItemDraftSteps):
    def root_logits(self) -> Tensor:
        self._depth = torch.zeros_like(self._position)
        return super().root_logits()

    def follow(self, tokens: Tensor, parents: Tensor, slots: Tensor) -> Tensor:
        self._depth = self._depth + (slots > 0)
        return self._draft.logits(self._position + self._depth, 0, tokens.shape[1])

    def read_firsts(self, tokens: Tensor, parents: Tensor, slots: Tensor, places: Tensor) -> Tensor:
        assert torch.equal(self._depth, places)
        return self.follow(tokens, parents, torch.ones_like(places))


class UnboundTree(TreeExpansion):
    """Another expansion, to which every token is allowed."""

    def __init__(self, expansion: TreeExpansion) -> None:
        self._expansion = expansion
        self.depth, self.nodes, self.leaves = expansion.depth, expansion.nodes, expansion.leaves
        self.draft_rows, self.draft_passes = expansion.draft_rows, expansion.draft_passes
        self.item_length = expansion.item_length

    def expand(self, context: TreeContext) -> TokenTree:
        return self._expansion.expand(replace(context, constraint=Unbound(context.constraint)))


class Unbound:
    """A constraint that allows everything, but still tracks the states of another one."""

    def __init__(self, constraint: Constraint[ListState]) -> None:
        self._constraint = constraint

    def initial(self, batch: int, device: torch.device) -> ListState:
        return self._constraint.initial(batch, device)

    @property
    def longest_run(self) -> int:
        return self._constraint.longest_run

    def continuations(self, state: ListState) -> Continuations | None:
        return None

    def allowed(self, state: ListState) -> Tensor | None:
        return None

    def forced(self, state: ListState) -> Tensor:
        return self._constraint.forced(state)

    def advance(self, state: ListState, token: Tensor) -> ListState:
        return self._constraint.advance(state, token)


class LoggingDraft(Draft):
    """Another draft, with everything it was told."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self.observations: list[Observation] = []
        self.feature_layers = draft.feature_layers

    def bind(self, runner: TransformersRunner, request: Request[Any]) -> SessionOpener:
        opener = self._draft.bind(runner, request)

        def opened(plan: DraftPlan) -> DraftSession:
            session = opener(plan)
            observe = session.observe

            def logged(observation: Observation) -> None:
                self.observations.append(observation)
                observe(observation)

            session.observe = logged  # type: ignore[method-assign]
            return session

        return opened


class PathSteps(DraftSteps):
    """Draft steps for one round whose logits are a function of a node's row and path alone, so that a plain reference
    can ask for them in any order. It follows the parents it is given, as a KV cache would."""

    def __init__(self, batch: int, vocabulary_size: int, seed: int, levels: int | None = None) -> None:
        self._size = vocabulary_size
        self._seed = seed
        self._levels = levels
        self._paths: list[list[tuple[int, ...]]] = [[()] for _ in range(batch)]
        self.calls: list[tuple[int, int, Tensor]] = []  # depth, nodes and slots of every call of `extend`

    def path_logits(self, row: int, path: tuple[int, ...]) -> Tensor:
        """Logits after a path of tokens below the root, `[V]`; with `levels`, one of few values each."""
        generator = torch.Generator().manual_seed(hash((self._seed, row, *path)) % 2**62)
        if self._levels is not None:
            return torch.randint(self._levels, (self._size,), generator=generator).double()
        return 2 * torch.randn(self._size, generator=generator, dtype=torch.float64)

    def root_logits(self) -> Tensor:
        return torch.stack([self.path_logits(row, ()) for row in range(len(self._paths))])

    def extend(self, tokens: Tensor, parents: Tensor, slots: Tensor, depth: int) -> Tensor:
        self.calls.append((depth, tokens.shape[1], slots))
        return self._extended(tokens, parents, [False] * len(tokens))

    def _extended(self, tokens: Tensor, parents: Tensor, stays: list[bool]) -> Tensor:
        self._paths = [
            [before[parent] + (token,) * (not stay) for parent, token in zip(row_parents, row_tokens, strict=True)]
            for before, row_parents, row_tokens, stay in zip(
                self._paths, parents.tolist(), tokens.tolist(), stays, strict=True
            )
        ]
        return torch.stack(
            [torch.stack([self.path_logits(row, path) for path in paths]) for row, paths in enumerate(self._paths)]
        )


class ItemPathSteps(PathSteps, ItemDraftSteps):
    """Path steps with one pass an item; `passes` has the places of each pass, `slots` the slots that calls gave."""

    def __init__(self, batch: int, vocabulary_size: int, seed: int) -> None:
        super().__init__(batch, vocabulary_size, seed)
        self.passes: list[list[int]] = []
        self.slots: list[Tensor] = []

    def follow(self, tokens: Tensor, parents: Tensor, slots: Tensor) -> Tensor:
        self.slots.append(slots)
        return self._extended(tokens, parents, (slots == 0).tolist())

    def read_firsts(self, tokens: Tensor, parents: Tensor, slots: Tensor, places: Tensor) -> Tensor:
        logits = self._extended(tokens, parents, [False] * len(tokens))
        assert [len(row[0]) - 1 for row in self._paths] == places.tolist()
        self.passes.append(places.tolist())
        return logits
