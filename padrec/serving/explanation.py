"""Explains a list round by round, and compares its cost with that of plain decoding."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from padrec.decoding import (
    DecodingTrace,
    FastestDecoder,
    SpeculativeDecoder,
    TokenTree,
    TreeContext,
    TreeExpansion,
)
from padrec.decoding.layers.prompt_shape import cache_capacity, captured_width
from padrec.decoding.rounds.rounds import Rounds
from padrec.recommender import Recommender, User
from padrec.serving.recommendation_request import RequestKind


class Explainer:
    """Decodes a user's list as it is served, without a draft, and round by round to record the trees."""

    def __init__(self, recommender: Recommender) -> None:
        self._recommender, self._plain = recommender, recommender.undrafted()

    def explain(self, user: User, kind: RequestKind) -> dict[str, Any]:
        """Explain a list, as JSON can hold it.

        Returns:
            `items`, as they are recommended; `milliseconds` and `target_passes` of the served decoder and of `plain`
            decoding; `rounds`, each with its accepted `tokens` (name, slot, and whether it was `drafted`) and the
            `tree` that the target read (tokens, parents, kept).
        """
        self._plain.set_out_of_stock(self._recommender.out_of_stock)
        (items,), _ = self._recommender.decode([user], *kind)
        self._plain.decode([user], *kind)  # so that neither timing includes a first run
        (_, trace), (_, plain) = (one.decode([user], *kind) for one in (self._recommender, self._plain))
        return {
            "items": [item._asdict() for item in items],
            **_cost(trace),
            "plain": _cost(plain),
            "rounds": [] if kind.search == "beam" else list(self._rounds(user, kind, trace.decoder)),
        }

    @torch.inference_mode()
    def _rounds(self, user: User, kind: RequestKind, chosen: str | None) -> Iterator[dict[str, Any]]:
        decoder = self._recommender.decoders["list"]
        if isinstance(decoder, FastestDecoder) and chosen is not None:
            decoder = decoder.decoders[chosen]
        assert isinstance(decoder, SpeculativeDecoder)
        watched = _WatchedExpansion(decoder.expansion)
        rounds = self._open(SpeculativeDecoder(decoder.draft, watched, decoder.forced_tokens), user, kind)
        yield {"tokens": self._tokens(rounds, 0), "tree": None}  # from the prefill
        while int(rounds.lists.missing) > 0:
            before = int(rounds.lists.lengths[0])
            rounds.round()
            yield {"tokens": self._tokens(rounds, before), "tree": self._tree(watched.tree)}

    def _open(self, decoder: SpeculativeDecoder, user: User, kind: RequestKind) -> Rounds:
        """Rounds of a batch of this one user, after the prefill."""
        recommender = self._recommender
        prompts = recommender.prompts([user], kind.k).to(recommender.device)
        # As wide as those that are served, since on a GPU functions are compiled for each width.
        spare = captured_width(prompts.tokens.shape[1], recommender.device) - prompts.tokens.shape[1]
        tokens, slots = (functional.pad(x, (0, spare)) for x in (prompts.tokens, prompts.slots))
        prompts = replace(prompts, tokens=tokens, slots=slots)
        request = recommender.request(kind.k, kind.temperature)
        if prompts.excluded is not None:
            request = request.excluding(1)
        draft = decoder.draft.bind(recommender.runner, request)
        capacity = cache_capacity(prompts, decoder.room(request), recommender.device)
        rounds = decoder.rounds(recommender.runner, request, draft, 1, capacity)
        rounds.start(prompts, prompts.random_keys(request.sampling, torch.Generator()))
        return rounds

    def _tokens(self, rounds: Rounds, before: int) -> list[dict[str, Any]]:
        """What the last round added to the list; its last token is the target's own."""
        vocabulary = self._recommender.vocabulary
        tokens = rounds.lists.tokens[0, before : int(rounds.lists.lengths[0])].tolist()
        return [
            {
                "token": vocabulary.token_name(token),
                "slot": (before + at) % vocabulary.item_length,
                "drafted": at < len(tokens) - 1,
            }
            for at, token in enumerate(tokens)
        ]

    def _tree(self, tree: TokenTree) -> dict[str, Any]:
        names = [self._recommender.vocabulary.token_name(token) for token in tree.tokens[0].tolist()]
        return {"tokens": names, "parents": tree.parents[0].tolist(), "present": tree.present[0].tolist()}


def _cost(trace: DecodingTrace) -> dict[str, Any]:
    return {"milliseconds": 1000 * trace.seconds, "target_passes": int(trace.target_passes[0])}


class _WatchedExpansion(TreeExpansion):
    """Wraps an expansion and keeps its last tree."""

    tree: TokenTree

    def __init__(self, expansion: TreeExpansion) -> None:
        self._expansion = expansion
        self.depth, self.nodes, self.leaves = expansion.depth, expansion.nodes, expansion.leaves
        self.draft_rows, self.draft_passes = expansion.draft_rows, expansion.draft_passes
        self.item_length = expansion.item_length

    def reach(self, slots: Tensor) -> Tensor | int:
        return self._expansion.reach(slots)

    def expand(self, context: TreeContext) -> TokenTree:
        self.tree = self._expansion.expand(context)
        return self.tree
