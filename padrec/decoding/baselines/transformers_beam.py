"""What users have today: the beam search of transformers' own `generate`, constrained by a function of the prefix."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from padrec.catalog import Catalog, SemanticIDVocabulary
from padrec.decoding.baselines.transformers_decoder import padded_left
from padrec.decoding.beam.beam_decoder import beam_search_name, beam_trace, check_width, searched_constraint
from padrec.decoding.decoders.decoder import Decoder
from padrec.decoding.device.stopwatch import Stopwatch
from padrec.decoding.layers.prompts import Prompts
from padrec.decoding.layers.runner import TargetRunner
from padrec.decoding.lists.decoding_trace import DecodingTrace
from padrec.decoding.lists.list_request import ListRequest
from padrec.decoding.lists.recommendations import Recommendations
from padrec.decoding.rounds.decoding_session import DecodingSession


class TransformersBeamDecoder(Decoder):
    """Ranks the K best items with `generate(num_beams=…, prefix_allowed_tokens_fn=…)` of the target's own class.

    The trie is a dictionary that is asked for each beam at each step, as in GENRE (Cao et al., 2021) and the
    recommenders that took its constrained beam search over. The scores are those of `BeamDecoder`, in float32; which of
    equal scores is the better one is not defined.

    Args:
        beam_width: prefixes that are kept of each length, at least K; None keeps K.

    Raises:
        InputError: a beam without width.
    """

    lossless = True

    def __init__(self, beam_width: int | None = None) -> None:
        check_width(beam_width)
        self.beam_width = beam_width
        self.search = beam_search_name(beam_width, renormalise=False)

    def max_depth(self, request: ListRequest) -> int:
        """Nothing is proposed; see `Decoder.max_depth`."""
        return 0

    def bind(self, runner: TargetRunner, request: ListRequest) -> DecodingSession[Recommendations]:
        """See `BeamDecoder.bind`."""
        _, width = searched_constraint(request, self.beam_width)
        return _GenerateBeamSession(
            runner.model, request, width, _following_tokens(request.catalog, request.vocabulary)
        )


@dataclass(frozen=True)
class _GenerateBeamSession:
    """See `DecodingSession`."""

    model: Any
    request: ListRequest
    width: int
    following: dict[tuple[int, ...], list[int]]

    @torch.inference_mode()
    def decode(self, prompts: Prompts, generator: torch.Generator) -> tuple[Recommendations, DecodingTrace]:
        """Rank K items for each prompt; see `DecodingSession.decode`."""
        request, model = self.request, self.model
        vocabulary, n_slots = request.vocabulary, request.vocabulary.n_slots
        watch = Stopwatch(prompts.tokens.device)
        tokens, mask = padded_left(prompts, vocabulary.pad_token)
        allowed = _AllowedTokens(self.following, tokens.shape[1], watch)
        config = GenerationConfig(
            max_new_tokens=n_slots,
            do_sample=False,
            num_beams=self.width,
            num_return_sequences=request.list_length,
            pad_token_id=vocabulary.pad_token,
            eos_token_id=vocabulary.eos_token,
            return_dict_in_generate=True,
            output_logits=True,
        )
        found = model.generate(
            input_ids=tokens, attention_mask=mask, generation_config=config, prefix_allowed_tokens_fn=allowed
        )
        decode_seconds = watch.lap()
        # A beam of width one is greedy search to `generate`, which has no beam indices.
        beams = getattr(found, "beam_indices", None)
        log_probs = model.compute_transition_scores(found.sequences, found.logits, beams, normalize_logits=True)
        shape = (len(tokens), request.list_length, n_slots)
        codes = vocabulary.decode(found.sequences[:, -n_slots:].cpu()).view(shape)
        leaves = request.catalog.leaf_of_codes(codes)
        lists = Recommendations.from_leaves(leaves, log_probs.view(shape), request.catalog, vocabulary)
        return lists, beam_trace(request, leaves, n_slots - 1, allowed.prefill_seconds, decode_seconds)


class _AllowedTokens:
    """What `generate` calls for each beam; the first call marks the end of the prefill."""

    def __init__(self, following: dict[tuple[int, ...], list[int]], prompt_width: int, watch: Stopwatch) -> None:
        self.prefill_seconds = 0.0
        self._following = following
        self._prompt_width = prompt_width
        self._watch = watch

    def __call__(self, row: int, tokens: Tensor) -> list[int]:
        if self.prefill_seconds == 0:
            self.prefill_seconds = self._watch.lap()
        return self._following[tuple(tokens[self._prompt_width :].tolist())]


def _following_tokens(catalog: Catalog, vocabulary: SemanticIDVocabulary) -> dict[tuple[int, ...], list[int]]:
    """The tokens that may follow every prefix of an item."""
    following: dict[tuple[int, ...], dict[int, None]] = {}
    for tokens in vocabulary.encode(catalog.leaf_codes)[:, : vocabulary.n_slots].tolist():
        for length, token in enumerate(tokens):
            following.setdefault(tuple(tokens[:length]), {})[token] = None
    return {prefix: list(tokens) for prefix, tokens in following.items()}
