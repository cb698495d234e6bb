"""Drafting by retrieval: what followed the same tokens in earlier texts of the target, and in the request's own."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import torch
from torch import Tensor
from torch.nn import functional

from padrec.catalog import InputError, PositiveFloat, PositiveInt, Range, check_arguments
from padrec.decoding.device.captured_graph import CapturedGraph
from padrec.decoding.device.compiled import compiled
from padrec.decoding.device.stopwatch import Phase, Stopwatch
from padrec.decoding.layers.prompts import Prompts
from padrec.decoding.layers.runner import TransformersRunner
from padrec.decoding.lists.request import ListRequest, Request
from padrec.decoding.lists.tensor_record import pick
from padrec.decoding.trees.draft import Draft, DraftPlan, Observation, OnlineDraftSession, SessionOpener
from padrec.drafts.retrieval.prompt_groups import PromptGroups
from padrec.drafts.retrieval.suffix_index import SuffixIndex
from padrec.drafts.retrieval.token_pool import END, TokenPool

_LONGEST_CONTEXT = 16
_READ_AHEAD = 8  # tokens after a context by which its places are ordered
# The index is built again when the tokens that wait reach this share of the pool's.
_DUE = 1 / 16
_REPEATS = 20  # of a look-up that is timed


class RetrievalDraft(Draft):
    """Proposes what followed the last tokens before, in a pool of earlier texts and in the request's own text.

    A place where a context of n tokens occurs votes for the token after it, with weight `backoff`^(n - 1); a tree then
    follows the places that agree with its path. Nothing is trained (LASER, arXiv 2408.05676, with a suffix array in
    place of its tries).

    Args:
        pool: earlier texts of the target, or the file of a pool; None draws on the request's own text alone.
        context: most tokens of a context, 1 … 16.
        places: most places of the pool, and as many of the own text, that are followed in a round.
        backoff: how many places with a context one token shorter weigh as much as one place.
        unseen: votes spread equally over all tokens, so that few votes are weak evidence.
        online: whether finished texts enter the pool, between batches. No text helps to write itself: it is left out
            if the next batch has the same prompt. Needs a pool.

    Raises:
        InputError: an argument out of range, or no pool in that file.
    """

    def __init__(
        self,
        pool: TokenPool | str | None = None,
        context: Annotated[int, Range(f"1 … {_LONGEST_CONTEXT}", lambda context: 1 <= context <= _LONGEST_CONTEXT)] = 8,
        places: PositiveInt = 64,
        backoff: PositiveFloat = 4.0,
        unseen: PositiveFloat = 0.5,
        online: bool = False,
    ) -> None:
        check_arguments(RetrievalDraft, locals())
        if online and pool is None:
            raise InputError("RetrievalDraft: online without a pool, expected one that the texts enter")
        self.pool = TokenPool.load(pool) if isinstance(pool, str) else pool or TokenPool(1)
        self.context, self.places, self.backoff, self.unseen, self.online = context, places, backoff, unseen, online
        self._index: SuffixIndex | None = None
        self.last_session: RetrievalSession | None = None

    def bind(self, runner: TransformersRunner, request: Request[Any]) -> SessionOpener:
        """Index the pool on the target's device, once for all sessions; see `Draft.bind`."""
        _check_tokens(self.pool, request)
        device = runner.model.device
        if self._index is None or self._index.tokens.device != device:
            n_tokens = len(self.pool.texts.tokens)
            size = self.pool.max_tokens if self.online else max(1, n_tokens)
            self._index = SuffixIndex(size, self.pool.n_groups, self.context + _READ_AHEAD, device)
            self._index.load(self.pool.texts)
        return partial(RetrievalSession, self, self._index, PromptGroups.of_pool(self.pool, device))

    @property
    def facts(self) -> dict[str, Any]:
        """The pool, and the milliseconds of a look-up for the last batch shape; see `Draft.facts`."""
        texts = self.pool.texts
        sizes = {"texts": len(texts.lengths), "tokens": len(texts.tokens), "groups": self.pool.n_groups}
        facts: dict[str, Any] = sizes | {"online": self.online} | self.pool.settings
        if self.last_session is not None:
            facts["look_up_ms"] = self.last_session.look_up_ms()
        return {"pool": facts}

    def learn(self, texts: Sequence[Sequence[int]], groups: Sequence[int]) -> None:
        """Add texts, and index the pool again once enough have been added; call it between batches."""
        assert self._index is not None
        self.pool.credit(self._index.hits[: len(self.pool.settled.lengths)].cpu())
        self._index.hits.zero_()
        indexed = self.pool.settled
        for text, group in zip(texts, groups, strict=True):
            self.pool.add(text, group)
        if self.pool.settled is not indexed or self.pool.waiting >= _DUE * len(indexed.tokens):
            self._index.load(self.pool.texts)


class RetrievalSession(OnlineDraftSession):
    """A `RetrievalDraft` for batches of one shape; without `groups` there is only one."""

    def __init__(self, draft: RetrievalDraft, index: SuffixIndex, groups: PromptGroups | None, plan: DraftPlan) -> None:
        self._draft, self._index, self._groups, self.unseen = draft, index, groups, draft.unseen
        self._size, device = plan.request.vocabulary_size, plan.runner.model.device
        self._seen = torch.full((plan.batch, plan.capacity), END, dtype=torch.int32, device=device)
        self._lengths = torch.zeros(plan.batch, dtype=torch.long, device=device)
        self._prompt_lengths, self._group = self._lengths.clone(), self._lengths.clone()
        self._reach = torch.arange(max(1, plan.max_depth), device=device)
        self._prompts: list[list[int]] = []  # of the last batch
        # Of this round: tokens at the places that are followed [D, B, C], the places' votes [B, C] and texts [B, M].
        self._following: Tensor
        self._votes: Tensor
        self._texts: Tensor
        self._agreed: Tensor  # places that agree with each node read last, [B, p, C]
        draft.last_session = self

    def next_batch(self, prompts: Prompts) -> None:
        """Learn the texts of the last batch, except those whose prompts come again; see `OnlineDraftSession`."""
        if not self._draft.online:
            return
        rows = prompts.tokens.tolist()
        asked = [row[:length] for row, length in zip(rows, prompts.lengths.tolist(), strict=True)]
        if self._prompts:
            groups, starts = self._group.tolist(), (self._prompt_lengths - 1).tolist()
            written = [
                row[start:end]
                for row, start, end in zip(self._seen.tolist(), starts, self._lengths.tolist(), strict=True)
            ]
            new = [row for row, prompt in enumerate(self._prompts) if prompt not in asked]
            self._draft.learn([written[row] for row in new], [groups[row] for row in new])
        self._prompts = asked

    def begin(self, prompts: Prompts, features: Tensor, first: Tensor, first_slot: Tensor) -> None:
        """Take the prompts and the first token."""
        self._seen.fill_(END)
        self._seen[:, : prompts.tokens.shape[1]] = prompts.tokens
        self._lengths.copy_(prompts.lengths)
        self._prompt_lengths.copy_(prompts.lengths)
        if self._groups is not None:
            self._group.copy_(self._groups.of(prompts.tokens, prompts.lengths))
        _append(self._seen, self._lengths, first[:, None], torch.ones_like(self._lengths))

    def retrieve(self) -> tuple[Tensor, Tensor]:
        """Look up what follows C places, int32 `[B, C, D]`, `END` after a text's end, and their votes, `[B, C]`."""
        draft, index = self._draft, self._index
        with Phase.DRAFT_PASSES.named():
            context, known = _context(self._seen, self._lengths, draft.context)
            found = index.find(context, known, self._group, draft.places)
            own, matched = _own_places(self._seen, self._lengths, context, draft.places)
            self._texts = found.texts
            self._following = _following(index.tokens, found.places, self._seen, own, self._lengths, self._reach)
            self._votes = _votes(found.lengths, found.counts, matched, draft.backoff)
        return self._following.movedim(0, 2), self._votes

    def look_up_ms(self) -> float:
        """Milliseconds that `retrieve` takes as a part of a round; waits for the device."""

        def look_up() -> None:
            self.retrieve()

        work, watch = CapturedGraph(look_up, self._lengths.device), Stopwatch(self._lengths.device)
        for _ in range(_REPEATS):
            work()
        return watch.lap() / _REPEATS * 1000

    def root_logits(self) -> Tensor:
        """Look the last tokens up, and let the places vote; see `DraftSteps`."""
        self.retrieve()
        with Phase.DRAFT_PASSES.named():
            self._agreed = torch.ones_like(self._votes, dtype=torch.bool)[:, None]
            return _log_shares(self._following[0], self._votes, self._agreed, self._size, self.unseen)[:, 0]

    def extend(self, tokens: Tensor, parents: Tensor, slots: Tensor, depth: int) -> Tensor:
        """Follow the places that agree with each node; see `DraftSteps`."""
        with Phase.DRAFT_PASSES.named():
            self._agreed = _agreed(self._agreed, parents, self._following[depth - 1], tokens)
            return _log_shares(self._following[depth], self._votes, self._agreed, self._size, self.unseen)

    def observe(self, observation: Observation) -> None:
        """Take the tokens that the round has emitted; a pool that learns credits the texts that proposed the first."""
        if self._draft.online:
            right = (self._following[0] == observation.tokens[:, :1]) & (observation.count > 0)[:, None]
            right = (right & (self._votes > 0))[:, : self._texts.shape[1]]
            self._index.hits.index_add_(0, self._texts.flatten(), right.long().flatten())
        _append(self._seen, self._lengths, observation.tokens, observation.count)


def _check_tokens(pool: TokenPool, request: Request[Any]) -> None:
    largest = int(pool.texts.tokens.max()) if len(pool.texts.tokens) else 0
    if largest >= request.vocabulary_size:
        raise InputError(f"a pool with token {largest}: expected tokens of 0 … {request.vocabulary_size - 1}")
    made_for = pool.settings.get("vocabulary")
    if made_for is not None and isinstance(request, ListRequest) and request.vocabulary.fingerprint != made_for:
        found = request.vocabulary.fingerprint
        raise InputError(f"a pool for the vocabulary {made_for}: expected one for the target's, {found}")


@compiled
def _append(seen: Tensor, lengths: Tensor, tokens: Tensor, count: Tensor) -> None:
    """Write the first `count` of the tokens `[B, M]` after what each row has seen."""
    source = torch.arange(seen.shape[1], device=seen.device) - lengths[:, None]  # [B, capacity]
    is_new, source = (source >= 0) & (source < count[:, None]), source.clamp(0, tokens.shape[1] - 1)
    seen.copy_(torch.where(is_new, tokens.gather(1, source).int(), seen))
    lengths.add_(count)


@compiled
def _context(seen: Tensor, lengths: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """The last tokens of each row, `[B, L]`, and how many of them there are, `[B]`."""
    place = lengths[:, None] - longest + torch.arange(longest, device=seen.device)
    return seen.gather(1, place.clamp(min=0)), lengths.clamp(max=longest)


@compiled
def _own_places(seen: Tensor, lengths: Tensor, context: Tensor, places: int) -> tuple[Tensor, Tensor]:
    """Places after the longest contexts in each row's own text, latest first, and the contexts' lengths, `[B, M]`."""
    longest = context.shape[1]
    windows = functional.pad(seen, (longest - 1, 0), value=END).unfold(1, longest, 1)  # [B, capacity, L]
    same = (windows == context[:, None]).flip(2).int().cumprod(2).sum(2)  # [B, capacity]
    place = torch.arange(seen.shape[1], device=seen.device)
    same = torch.where(place < lengths[:, None] - 1, same, 0)
    best = (same * len(place) + place).topk(min(places, len(place))).indices
    return best + 1, same.gather(1, best)


@compiled
def _following(pool: Tensor, found: Tensor, seen: Tensor, own: Tensor, lengths: Tensor, reach: Tensor) -> Tensor:
    """The tokens from each place on, `[D, B, C]`, `END` after the end of a text."""
    there = own[..., None] + reach
    flat = there.clamp(max=seen.shape[1] - 1).flatten(1)
    of_own = torch.where(there < lengths[:, None, None], seen.gather(1, flat).view(there.shape), END)
    tokens = torch.cat([pool[found[..., None] + reach], of_own], 1)
    alive = (tokens != END).int().cumprod(2) > 0
    # Adjacent for each depth, so that what is compiled for one depth serves all.
    return torch.where(alive, tokens, END).movedim(2, 0).contiguous()


@compiled
def _votes(lengths: Tensor, counts: Tensor, own_lengths: Tensor, backoff: float) -> Tensor:
    """The votes of each place, float32 `[B, C]`."""
    counts = torch.cat([counts, (own_lengths > 0).float()], 1)
    return counts * backoff ** (torch.cat([lengths, own_lengths], 1) - 1).float()


@compiled
def _agreed(agreed: Tensor, parents: Tensor, following: Tensor, tokens: Tensor) -> Tensor:
    """Places with the tokens of each node's path, bool `[B, k, C]`; `following` is at the nodes' depth, `[B, C]`."""
    return pick(agreed, parents) & (following[:, None] == tokens[..., None])


@compiled
def _log_shares(following: Tensor, votes: Tensor, agreed: Tensor, size: int, unseen: float) -> Tensor:
    """Logarithms of the shares of the votes that tokens have after each node, float32 `[B, k, V]`."""
    token = following[:, None].expand(agreed.shape)
    cast = torch.where(agreed & (token != END), votes[:, None], 0)
    counts = torch.full((*agreed.shape[:2], size), unseen / size, dtype=votes.dtype, device=votes.device)
    counts = counts.scatter_add(2, token.clamp(min=0).long(), cast)
    return (counts / (cast.sum(2, keepdim=True) + unseen)).log()
