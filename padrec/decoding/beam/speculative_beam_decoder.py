"""Speculative beam search: a draft searches ahead, the target verifies its beams in one pass."""

from collections.abc import Sequence
from functools import partial

import torch

from padrec.catalog import PositiveInt, check_arguments
from padrec.decoding.beam.beam_decoder import beam_search_name, searched_constraint
from padrec.decoding.beam.beam_draft import BeamDraft
from padrec.decoding.beam.beam_plan import SpeculativeBeamPlan
from padrec.decoding.beam.beam_rule import BeamRule, StrictBeamRule
from padrec.decoding.beam.children import Draw
from padrec.decoding.beam.speculative_beam_search import SpeculativeBeamSearch
from padrec.decoding.decoders.decoder import Decoder
from padrec.decoding.device.host_copy import HostCopy
from padrec.decoding.layers.prompts import Prompts
from padrec.decoding.layers.runner import TransformersRunner
from padrec.decoding.lists.decoding_trace import DecodingTrace
from padrec.decoding.lists.request import ListRequest, Recommendations
from padrec.decoding.rounds.captured_loop import CapturedLoop
from padrec.decoding.rounds.decoding_session import DecodingSession, SessionsByShape


class SpeculativeBeamDecoder(Decoder):
    """Ranks the K best items as `BeamDecoder` does, in fewer target passes (AtSpeed, arXiv 2410.05165).

    The draft searches a beam of `draft_width` prefixes ahead, and one target pass, the first together with the prompt,
    reads all of them. The target's own search follows as long as the draft holds every prefix that it keeps; where it
    does not, a new round begins. With the strict rule the result is that of `BeamDecoder`, drawn beams included.

    Args:
        draft: searches ahead.
        draft_width: N, prefixes that the draft proposes of each length, at least 1; or a number for each length from 1
            to L - 1, of which rounds after the first take the largest. None: in proportion to the prefixes kept, 4,
            5.6 and 8 times as many of one, two and more codes.
        beam_width: prefixes kept of each length, at least K; None is K.
        renormalise: see `BeamDecoder`.
        rule: which prefixes are kept; None is `StrictBeamRule`, which is lossless.

    Raises:
        InputError: `beam_width` or a width of the draft is below 1.
    """

    def __init__(
        self,
        draft: BeamDraft,
        draft_width: PositiveInt | Sequence[PositiveInt] | None = None,
        beam_width: PositiveInt | None = None,
        renormalise: bool = False,
        rule: BeamRule | None = None,
    ) -> None:
        check_arguments(SpeculativeBeamDecoder, locals())
        self.search = beam_search_name(beam_width, renormalise)
        self.draft, self.draft_width, self.beam_width, self.renormalise = draft, draft_width, beam_width, renormalise
        self.rule = rule or StrictBeamRule()
        self.lossless = self.rule.lossless

    def max_depth(self, request: ListRequest) -> int:
        """All codes of an item but the last can be drafted; see `Decoder.max_depth`."""
        return request.vocabulary.n_slots - 1

    def bind(self, runner: TransformersRunner, request: ListRequest) -> DecodingSession[Recommendations]:
        """Bind the draft; see `Decoder.bind`.

        In the trace, tokens are the codes of the K items, and a proposal is the draft's beam of one length: accepted if
        it holds all prefixes that the target keeps. The first round belongs to the prefill.

        Raises:
            InputError: see `BeamDecoder.bind`; the draft belongs to another target or vocabulary; or `draft_width` has
                more or fewer widths than L - 1.
        """
        constraint, width = searched_constraint(request, self.beam_width)
        sizes = width, self.draft_width, self.renormalise, self.draft.reads_features
        plan = SpeculativeBeamPlan.of(constraint.trie, *sizes)
        open_draft, device = self.draft.bind(runner, request), runner.model.device

        def session(batch: int, capacity: int, excludes: bool) -> "_SpeculativeBeamSession":
            allowed = constraint.excluding(batch) if excludes else constraint
            sessions = runner.open(batch, capacity), open_draft(batch, capacity, allowed)
            draw = Draw.of(request, batch, device)
            search = SpeculativeBeamSearch(runner, *sessions, allowed, plan, self.rule, draw)
            return _SpeculativeBeamSession(search, request, plan.n_slots, device)

        fits = partial(runner.check_length, written=request.vocabulary.n_slots)
        return SessionsByShape(session, plan.first(plan.n_slots), fits, device)


class _SpeculativeBeamSession(DecodingSession[Recommendations]):
    def __init__(self, search: SpeculativeBeamSearch, request: ListRequest, n_slots: int, device: torch.device) -> None:
        self._search, self._request, self._n_slots = search, request, n_slots
        rounds = [partial(search.round, round_) for round_ in range(1, n_slots)]
        self._loop = CapturedLoop(search.start, rounds, device)
        self._results = HostCopy([search.ranked.leaves, search.ranked.log_probs, *search.statistics.counts])

    def decode(self, prompts: Prompts, generator: torch.Generator) -> tuple[Recommendations, DecodingTrace]:
        request, batch = self._request, len(prompts.tokens)
        keys = prompts.random_keys(request.sampling, generator)
        prefill, rest, capture = self._loop.run(prompts, keys, self._finish)
        leaves, log_probs, *counts = self._results.values()
        lists = Recommendations.from_leaves(leaves, log_probs, request.catalog, request.vocabulary)
        tokens = torch.full((batch,), request.list_length * self._n_slots)
        trace = DecodingTrace.of_counts(prefill, rest, tokens, counts, capture)
        # The first round is no pass of its own, and accepts levels all the same.
        trace.accepted_lengths[0] += batch
        return lists, trace

    def _finish(self) -> None:
        # Later rounds draft less, so rounds that no row needs any more are skipped.
        while (round_ := int(self._search.ranked.next_round)) < self._n_slots:
            self._loop.round(round_ - 1)
        self._results.begin()
