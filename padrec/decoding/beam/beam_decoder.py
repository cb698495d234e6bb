"""Exact beam search over the catalog, with several slots in one target pass."""

import torch
from torch import Tensor

from padrec.catalog import InputError
from padrec.decoding.beam.beam_plan import plan_passes, tokens_behind
from padrec.decoding.beam.beam_search import BeamSearch
from padrec.decoding.decoders.decoder import Decoder
from padrec.decoding.device.stopwatch import Stopwatch
from padrec.decoding.layers.prompts import Prompts
from padrec.decoding.layers.runner import TargetRunner
from padrec.decoding.lists.catalog_constraint import CatalogConstraint
from padrec.decoding.lists.decoding_trace import DecodingTrace, RoundStatistics
from padrec.decoding.lists.list_request import ListRequest
from padrec.decoding.lists.recommendations import Recommendations
from padrec.decoding.rounds.captured_loop import CapturedLoop
from padrec.decoding.rounds.decoding_session import DecodingSession, SessionsByShape

_GPU_LOOK_AHEAD = 512


class BeamDecoder(Decoder):
    """Ranks the K best items by beam search, as TIGER and LC-Rec recommend; each is a continuation of the prompt alone.

    An item's score is the sum of the log-probabilities of its L codes. Of every length the `beam_width` best prefixes
    that the catalog has are kept. Of equal scores the prefix that comes first in the catalog's order is the better one,
    so the result is a function of the scores. It is the exact top K where the beam holds all prefixes of L - 1 codes.

    A trie of semantic IDs is wide at the top and hardly branches further down. So a pass reads more than the beam: all
    that may follow it for as many levels as stay small. What would have been kept is then known for all of these
    slots at once. Of a catalog of four slots the first pass typically reads the prompt and all first codes, and the
    second one the beam of two codes and all third codes behind it. Nothing is drafted, and nothing is approximate. On a
    GPU a search is recorded like the rounds of a list; see `Session`.

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
        self.search = beam_search_name(beam_width, renormalise)
        self.look_ahead = look_ahead
        self.renormalise = renormalise

    def max_depth(self, request: ListRequest) -> int:
        """Nothing is proposed; see `Decoder.max_depth`."""
        return 0

    def bind(self, runner: TargetRunner, request: ListRequest) -> DecodingSession[Recommendations]:
        """Plan the passes; see `Decoder.bind`.

        In the trace, tokens are the codes of the K items, and the first pass is the prefill.

        Raises:
            InputError: the request has no constraint, or samples, or wants more items than the beam holds.
        """
        constraint, width = searched_constraint(request, self.beam_width)
        plan = plan_passes(constraint.trie, width, self._tokens_ahead(runner.model.device))

        def session(batch: int, capacity: int, excludes: bool) -> _BeamSession:
            target = runner.open(batch, capacity)
            allowed = constraint.excluding(batch) if excludes else constraint
            search = BeamSearch(runner, target, allowed, width, plan, self.renormalise)
            return _BeamSession(search, request, runner.model.device)

        return SessionsByShape(session, tokens_behind(plan))

    def _tokens_ahead(self, device: torch.device) -> int:
        if self.look_ahead is not None:
            return self.look_ahead
        return _GPU_LOOK_AHEAD if device.type == "cuda" else 0


class _BeamSession:
    """Searches for batches of one size; see `Session`.

    Args:
        search: what is recorded.
        request: what is generated.
        device: where.
    """

    def __init__(self, search: BeamSearch, request: ListRequest, device: torch.device) -> None:
        self._search = search
        self._request = request
        self._device = device
        self._loop = CapturedLoop(search.start, search.finish, device)

    def decode(self, prompts: Prompts, generator: torch.Generator) -> tuple[Recommendations, DecodingTrace]:
        """Rank K items for each prompt; see `DecodingSession.decode`. Nothing is drawn."""
        request, keys = self._request, torch.zeros_like(prompts.lengths)
        recording_seconds = self._loop.record(prompts, keys)
        watch = Stopwatch(self._device)
        self._loop.start(prompts, keys)
        prefilled = watch.mark()
        self._loop.round()
        seconds, prefill_seconds = watch.lap(), prefilled()
        leaves, log_probs = self._search.best()
        lists = Recommendations.from_leaves(leaves, log_probs, request.catalog, request.vocabulary)
        n_passes = self._search.n_passes
        return lists, beam_trace(
            request, lists.leaves, n_passes, prefill_seconds, seconds - prefill_seconds, recording_seconds
        )


def check_width(beam_width: int | None) -> None:
    """Validate `beam_width`.

    Raises:
        InputError: it is below 1.
    """
    if beam_width is not None and beam_width < 1:
        raise InputError(f"beam_width {beam_width}: expected at least 1, or null for as many as there are items")


def beam_search_name(beam_width: int | None, renormalise: bool) -> str:
    """What beam searches that find the same have in common; see `Decoder.search`."""
    scores = "renormalised" if renormalise else "full-vocabulary"
    return f"beam search, width {beam_width or 'K'}, {scores} scores"


def searched_constraint(request: ListRequest, beam_width: int | None) -> tuple[CatalogConstraint, int]:
    """The constraint whose trie a beam search goes through for a request, and its width.

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
    return request.constraint, width


def beam_trace(
    request: ListRequest,
    leaves: Tensor,
    n_passes: int,
    prefill_seconds: float,
    decode_seconds: float,
    recording_seconds: float = 0.0,
) -> DecodingTrace:
    """The trace of a beam search that ranked the leaves `[B, K]` in `n_passes` passes, the prefill not counted."""
    batch, list_length = leaves.shape
    statistics = RoundStatistics(batch, request.vocabulary.n_slot_states, 0, leaves.device)
    for _ in range(n_passes):
        statistics.add_round(torch.ones_like(leaves[:, 0], dtype=torch.bool), draft_passes=0)
    tokens = torch.full_like(leaves[:, 0], list_length * request.vocabulary.n_slots)
    return statistics.trace(prefill_seconds, decode_seconds, tokens, recording_seconds)
