"""Exact beam search over the catalog, with several slots in one target pass."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from padrec.catalog import CatalogTrie, InputError, SemanticIDVocabulary
from padrec.decoding.beam_plan import BeamPass, level_size, plan_passes
from padrec.decoding.constraint import CatalogConstraint
from padrec.decoding.decoder import ListRequest, Stopwatch
from padrec.decoding.prefix_tree import PrefixTree
from padrec.decoding.recommendations import DecodingTrace, Recommendations, RoundStatistics
from padrec.decoding.runner import Prompts, TargetRunner

_GPU_LOOK_AHEAD = 512


class BeamDecoder:
    """Ranks the K best items by beam search, as TIGER and LC-Rec recommend; each is a continuation of the prompt alone.

    An item's score is the sum of the log-probabilities of its L codes. Of every length the `beam_width` best prefixes
    that the catalog has are kept. Of equal scores the prefix that comes first in the catalog's order is the better one,
    so the result is a function of the scores. It is the exact top K where the beam holds all prefixes of L - 1 codes.

    A trie of semantic IDs is wide at the top and hardly branches further down. So a pass reads more than the beam: all
    that may follow it for as many levels as stay small. What would have been kept is then known for all of these
    slots at once. Of a catalog of four slots the first pass typically reads the prompt and all first codes, and the
    second one the beam of two codes and all third codes behind it. Nothing is drafted, and nothing is approximate.

    Args:
        beam_width: prefixes that are kept of each length, at least K; None keeps K.
        look_ahead: the most tokens that a pass reads for each user beside prompt and beam; 0 reads the beam alone,
            which gives the plain search with one pass for each slot. None is 512 on a GPU, where a pass of so few
            tokens costs little more than one of a single token, and 0 elsewhere, where every token costs the same.
        renormalise: renormalise the probabilities over the codes that may follow a prefix, as list decoding does.
            Otherwise they are those over the whole vocabulary, as in `generate` of transformers with
            `prefix_allowed_tokens_fn` and in the papers' code.

    Raises:
        InputError: a beam without width, or a negative `look_ahead`.
    """

    lossless = True

    def __init__(self, beam_width: int | None = None, look_ahead: int | None = None, renormalise: bool = False) -> None:
        check_width(beam_width)
        if look_ahead is not None and look_ahead < 0:
            raise InputError(f"look_ahead {look_ahead}: expected 0 or more tokens")
        self.beam_width = beam_width
        self.look_ahead = look_ahead
        self.renormalise = renormalise
        # The keys hold the tries alive: the next one cannot be mistaken for them.
        self._plans: dict[tuple[CatalogTrie, int], tuple[BeamPass, ...]] = {}

    @property
    def search(self) -> str:
        """See `Decoder.search`."""
        return beam_search_name(self.beam_width, self.renormalise)

    def max_depth(self, request: ListRequest) -> int:
        """Nothing is proposed; see `Decoder.max_depth`."""
        return 0

    def prepare(self, runner: TargetRunner, vocabulary: SemanticIDVocabulary) -> None:
        """Nothing beside the target is needed."""

    @torch.inference_mode()
    def decode(
        self, runner: TargetRunner, prompts: Prompts, request: ListRequest, generator: torch.Generator
    ) -> tuple[Recommendations, DecodingTrace]:
        """Rank K items for each prompt; see `Decoder.decode`.

        In the trace, tokens are the codes of the K items, and the first pass is the prefill.

        Raises:
            InputError: the request has no constraint, or samples, or wants more items than the beam holds.
        """
        trie, width = searched_trie(request, self.beam_width)
        device = prompts.tokens.device
        if (trie, width) not in self._plans:
            self._plans[trie, width] = plan_passes(trie, width, self._tokens_ahead(device))
        search = _BeamSearch(runner, trie, width, self._plans[trie, width], self.renormalise)
        watch = Stopwatch(device)
        search.begin(prompts)
        prefill_seconds = watch.lap()
        search.finish()
        decode_seconds = watch.lap()
        leaves, log_probs = search.best(request.list_length)
        lists = Recommendations.from_leaves(leaves, log_probs, request.catalog, request.vocabulary)
        return lists, beam_trace(request, leaves, search.n_passes, prefill_seconds, decode_seconds)

    def _tokens_ahead(self, device: torch.device) -> int:
        if self.look_ahead is not None:
            return self.look_ahead
        return _GPU_LOOK_AHEAD if device.type == "cuda" else 0


def check_width(beam_width: int | None) -> None:
    """See to it that a beam holds something.

    Raises:
        InputError: it does not.
    """
    if beam_width is not None and beam_width < 1:
        raise InputError(f"beam_width {beam_width}: expected at least 1, or null for as many as there are items")


def beam_search_name(beam_width: int | None, renormalise: bool) -> str:
    """What beam searches that find the same have in common; see `Decoder.search`."""
    scores = "renormalised" if renormalise else "full-vocabulary"
    return f"beam search, width {beam_width or 'K'}, {scores} scores"


def searched_trie(request: ListRequest, beam_width: int | None) -> tuple[CatalogTrie, int]:
    """The trie that a beam search goes through for a request, and its width.

    Raises:
        InputError: the request has no constraint, or samples, or wants more items than the beam holds.
    """
    if not isinstance(request.constraint, CatalogConstraint):
        raise InputError("beam search without a constraint: expected constraint: catalog, whose items it ranks")
    if request.sampling.temperature != 0:
        raise InputError(f"beam search at temperature {request.sampling.temperature}: expected 0, it does not sample")
    width = beam_width or request.list_length
    if width < request.list_length:
        raise InputError(f"beam_width {width} for lists of {request.list_length} items: expected at least as many")
    return request.constraint.trie, width


def beam_trace(
    request: ListRequest, leaves: Tensor, n_passes: int, prefill_seconds: float, decode_seconds: float
) -> DecodingTrace:
    """The trace of a beam search that ranked the leaves `[B, K]` in `n_passes` passes, the prefill not counted."""
    batch, list_length = leaves.shape
    statistics = RoundStatistics(batch, request.vocabulary.n_slot_states, 0, leaves.device)
    for _ in range(n_passes):
        statistics.add_round(torch.ones_like(leaves[:, 0], dtype=torch.bool), draft_passes=0)
    tokens = torch.full_like(leaves[:, 0], list_length * request.vocabulary.n_slots)
    return statistics.trace(prefill_seconds, decode_seconds, tokens)


@dataclass(frozen=True)
class _Beam:
    """The best prefixes of one length, in the catalog's order.

    Attributes:
        nodes: trie nodes, int64 `[B, W]`.
        scores: log-probabilities of the prefixes, `[B, W]`.
        log_probs: of each of their codes, `[B, W, codes]`.
        places: where in the tree of the current pass they stand, int64 `[B, W]`.
        seen: what their children see of the tokens behind the prompt, bool `[B, W, R]`.
    """

    nodes: Tensor
    scores: Tensor
    log_probs: Tensor
    places: Tensor
    seen: Tensor


class _BeamSearch:
    """The search for one batch: fixed shapes, and on a GPU no question to the device.

    Args:
        runner: the target.
        trie: of the catalog.
        width: prefixes that are kept of each length.
        plan: the passes.
        renormalise: see `BeamDecoder`.
    """

    def __init__(
        self, runner: TargetRunner, trie: CatalogTrie, width: int, plan: tuple[BeamPass, ...], renormalise: bool
    ) -> None:
        self._runner, self._trie, self._width = runner, trie, width
        self._plan, self._renormalise = plan, renormalise
        # The root is the prompt's last token.
        self._room = sum(stage.n_nodes for stage in plan) - 1

    @property
    def n_passes(self) -> int:
        """Target passes, the one that reads the prompt not counted."""
        return len(self._plan) - 1

    def begin(self, prompts: Prompts) -> None:
        """Read the prompts and what may follow them."""
        batch, device = len(prompts.tokens), prompts.tokens.device
        root = torch.zeros(batch, 1, dtype=torch.long, device=device)
        nothing = torch.zeros(batch, 1, self._room, dtype=torch.bool, device=device)
        tree = PrefixTree.grow(self._trie, root, nothing, -1, self._plan[0])
        features = self._runner.prefill_branches(prompts, tree.branches(), extra=self._room)
        self._read = tree.nodes.shape[1] - 1
        scores = torch.zeros(batch, 1, device=device)
        beam = _Beam(root, scores, torch.zeros(batch, 1, 0, device=device), places=root, seen=nothing)
        self._beam = self._descend(beam, tree, features, self._plan[0])

    def finish(self) -> None:
        """Take the other passes."""
        for stage in self._plan[1:]:
            beam = self._beam
            tree = PrefixTree.grow(self._trie, beam.nodes, beam.seen, self._read, stage)
            features = self._runner.read_branches(tree.branches())
            self._read += tree.nodes.shape[1]
            places = torch.arange(beam.nodes.shape[1], device=beam.nodes.device).expand_as(beam.nodes)
            self._beam = self._descend(replace(beam, places=places), tree, features, stage)

    def best(self, list_length: int) -> tuple[Tensor, Tensor]:
        """The best K leaves, int64 `[B, K]`, and the log-probabilities of their codes, `[B, K, L]`."""
        beam = self._beam
        order = beam.scores.sort(dim=1, descending=True, stable=True).indices[:, :list_length]
        log_probs = beam.log_probs.gather(1, order[..., None].expand(-1, -1, beam.log_probs.shape[-1]))
        return self._trie.leaf(beam.nodes.gather(1, order)), log_probs

    def _descend(self, beam: _Beam, tree: PrefixTree, features: Tensor, stage: BeamPass) -> _Beam:
        """Move the beam behind all that a pass has read, whose features are `[B, N, d]`."""
        for level, most in enumerate(stage.children, start=stage.level + 1):
            beam = self._step(beam, tree, features, most, min(self._width, level_size(self._trie, level)))
        return beam

    def _step(self, beam: _Beam, tree: PrefixTree, features: Tensor, most: int, width: int) -> _Beam:
        """Continue the beam by one code: the best `width` of all children, of which no prefix has more than `most`."""
        tokens, nodes, present = self._trie.children(beam.nodes, most)  # [B, W, C]
        log_probs = self._log_probs(_pick(features, beam.places), tokens, present)
        scores = (beam.scores[..., None] + log_probs).masked_fill(~present, -torch.inf).flatten(1)
        best = scores.sort(dim=1, descending=True, stable=True).indices[:, :width]
        # Back in the catalog's order, so that among equal scores the next step finds the first one first, too.
        best = best.sort(1).values
        parents, child = best // most, best % most
        places = beam.places.gather(1, parents)
        history = torch.cat([_pick(beam.log_probs, parents), log_probs.flatten(1).gather(1, best)[..., None]], 2)
        return _Beam(
            nodes=nodes.flatten(1).gather(1, best),
            scores=scores.gather(1, best),
            log_probs=history,
            places=tree.first_children.gather(1, places) + child,
            seen=_pick(tree.seen, places),
        )

    def _log_probs(self, features: Tensor, tokens: Tensor, present: Tensor) -> Tensor:
        """Log-probabilities of the tokens `[B, W, C]` behind prefixes with features `[B, W, d]`."""
        logits = self._runner.logits(features)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        found = logits.gather(2, tokens)
        competing = found.masked_fill(~present, -torch.inf) if self._renormalise else logits
        return found - competing.logsumexp(-1, keepdim=True)


def _pick(values: Tensor, index: Tensor) -> Tensor:
    """Of values `[B, N, d]` those at `index`, int64 `[B, M]`: `[B, M, d]`."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))
