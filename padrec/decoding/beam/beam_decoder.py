"""Exact beam search over the catalog, with several slots in one target pass."""

from functools import partial

import torch
from torch import Tensor

from padrec.catalog import InputError, NonNegativeInt, PositiveInt, check_arguments
from padrec.decoding.beam.beam_plan import plan_passes, tokens_after_prompt
from padrec.decoding.beam.beam_search import BeamSearch
from padrec.decoding.beam.children import Draw
from padrec.decoding.decoders.decoder import Decoder
from padrec.decoding.decoders.fastest import FastestSession
from padrec.decoding.device.captured_graph import captures_graphs
from padrec.decoding.device.host_copy import HostCopy
from padrec.decoding.layers.prompt_shape import spare_tokens
from padrec.decoding.layers.prompts import Prompts
from padrec.decoding.layers.runner import TransformersRunner
from padrec.decoding.lists.catalog_constraint import CatalogConstraint
from padrec.decoding.lists.decoding_trace import DecodingTrace
from padrec.decoding.lists.request import ListRequest, Recommendations
from padrec.decoding.rounds.captured_loop import CapturedLoop
from padrec.decoding.rounds.decoding_session import DecodingSession, SessionsByShape

_PLANS = ("slot by slot", "reading ahead")


class BeamDecoder(Decoder):
    """Ranks the K best items by beam search, as in TIGER and LC-Rec; each continues the prompt alone.

    An item's score is the sum of its L codes' log-probabilities. Of every length, the `beam_width` best prefixes in the
    catalog are kept; ties go to the first in catalog order. The result is the exact top K if the beam holds all
    prefixes of L - 1 codes.

    A trie of semantic IDs is wide at the top and hardly branches below. So a pass reads not only the beam but also all
    its descendants, for as many levels as stay small, and the beams of all these levels follow at once. With four slots
    there are typically two passes: the prompt with all first codes, then the beam of two codes with all third codes
    after it. Nothing is drafted or approximated. On a GPU the search is captured, as rounds are.

    At a temperature above 0 the beam is drawn: of every length, prefixes are drawn without replacement with the
    probabilities of their scores divided by the temperature, from all children of those that were drawn before.

    Args:
        beam_width: prefixes kept of each length, at least K; None is K.
        look_ahead: the most tokens that a pass reads per user besides prompt and beam; 0 gives the plain search, one
            pass per slot. None is 0 on the CPU; on a GPU the first batch of a shape is decoded with 0 and with 512, and
            the faster one serves it from then on. Both have the same beams, but for rounding.
        renormalise: renormalise probabilities over the codes that may follow a prefix, as list decoding does. False
            takes them over the whole vocabulary, as do `generate` of transformers with `prefix_allowed_tokens_fn` and
            the papers' code.

    Raises:
        InputError: `beam_width` is below 1 or `look_ahead` below 0.
    """

    lossless = True

    def __init__(
        self,
        beam_width: PositiveInt | None = None,
        look_ahead: NonNegativeInt | None = None,
        renormalise: bool = False,
    ) -> None:
        check_arguments(BeamDecoder, locals())
        self.search = beam_search_name(beam_width, renormalise)
        self.beam_width, self.look_ahead, self.renormalise = beam_width, look_ahead, renormalise
        self.choices = _PLANS if look_ahead is None else ()

    def bind(self, runner: TransformersRunner, request: ListRequest) -> DecodingSession[Recommendations]:
        """Plan the passes; see `Decoder.bind`.

        In the trace, tokens are the codes of the K items, and the first pass is the prefill.

        Raises:
            InputError: the request has no constraint, cuts its distribution, or asks for more items than the beam.
        """
        constraint, width = searched_constraint(request, self.beam_width)
        device = runner.model.device
        looks = (0, spare_tokens(device)) if self.look_ahead is None else (self.look_ahead,)
        plans = list(dict.fromkeys(plan_passes(constraint.trie, width, look_ahead) for look_ahead in looks))

        def session(batch: int, capacity: int, excludes: bool) -> DecodingSession[Recommendations]:
            allowed = constraint.excluding(batch) if excludes else constraint
            target, fixed_shapes = runner.open(batch, capacity), captures_graphs(device)
            draw = Draw.of(request, batch, device)
            sessions = []
            for plan in plans:  # in the same cache
                search = BeamSearch(runner, target, allowed, width, plan, self.renormalise, draw, fixed_shapes)
                sessions.append(_BeamSession(search, request, len(plan), device))
            return sessions[0] if len(plans) == 1 else FastestSession(dict(zip(_PLANS, sessions, strict=True)))

        fits = partial(runner.check_length, written=request.vocabulary.n_slots)
        return SessionsByShape(session, max(map(tokens_after_prompt, plans)), fits, device)


class _BeamSession(DecodingSession[Recommendations]):
    def __init__(self, search: BeamSearch, request: ListRequest, n_passes: int, device: torch.device) -> None:
        self._search, self._request, self._n_passes = search, request, n_passes
        self._loop = CapturedLoop(search.start, [search.finish], device)
        self._ranked: HostCopy | None = None  # of what the first search allocates

    def decode(self, prompts: Prompts, generator: torch.Generator) -> tuple[Recommendations, DecodingTrace]:
        request = self._request
        keys = prompts.random_keys(request.sampling, generator)
        seconds = self._loop.run(prompts, keys, self._finish)
        assert self._ranked is not None
        leaves, log_probs = self._ranked.values()
        lists = Recommendations.from_leaves(leaves, log_probs, request.catalog, request.vocabulary)
        return lists, beam_trace(request, lists.leaves, self._n_passes, *seconds)

    def _finish(self) -> None:
        self._loop.round()
        self._ranked = self._ranked or HostCopy(self._search.best())
        self._ranked.begin()


def beam_search_name(beam_width: int | None, renormalise: bool) -> str:
    """The `Decoder.search` of beam searches, the same for those with the same result."""
    scores = "renormalised" if renormalise else "full-vocabulary"
    return f"beam search, width {beam_width or 'K'}, {scores} scores"


def searched_constraint(request: ListRequest, beam_width: int | None) -> tuple[CatalogConstraint, int]:
    """The constraint, whose trie is searched, and the width of a beam search; see `BeamDecoder.bind`."""
    if not isinstance(request.constraint, CatalogConstraint):
        raise InputError("beam search without a constraint: expected constraint: catalog, whose items it ranks")
    if request.sampling.top_k is not None or request.sampling.top_p < 1:
        raise InputError("beam search with top_k or top_p: expected neither, a drawn beam is cut by its width alone")
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
    """The trace of a beam search that ranked the leaves `[B, K]` in `n_passes` passes, the first being the prefill."""
    batch, list_length = leaves.shape
    each, later = torch.ones(batch, dtype=torch.long), n_passes - 1
    undrafted = each.new_zeros(request.vocabulary.n_slot_states, 0)
    return DecodingTrace(
        prefill_seconds,
        decode_seconds,
        target_passes=each * later,
        draft_passes=each * 0,
        tokens=each * list_length * request.vocabulary.n_slots,
        attempted=undrafted,
        accepted=undrafted,
        accepted_lengths=each.new_tensor([batch * later]),
        recording_seconds=recording_seconds,
    )
