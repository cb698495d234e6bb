"""Beam search by transformers' own `generate`, constrained by a function of the prefix."""

from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from padrec.catalog import Catalog, InputError, PositiveInt, SemanticIDVocabulary, check_arguments
from padrec.decoding.baselines.transformers_decoder import padded_left
from padrec.decoding.beam.beam_decoder import beam_search_name, beam_trace, searched_constraint
from padrec.decoding.decoders.decoder import Decoder
from padrec.decoding.device.stopwatch import Stopwatch
from padrec.decoding.layers.prompts import Prompts
from padrec.decoding.layers.runner import TransformersRunner
from padrec.decoding.lists.decoding_trace import DecodingTrace
from padrec.decoding.lists.request import ListRequest, Recommendations
from padrec.decoding.rounds.decoding_session import DecodingSession


class TransformersBeamDecoder(Decoder):
    """Ranks the K best items with `generate(num_beams=…, prefix_allowed_tokens_fn=…)` of the target's own class.

    The trie is a dictionary that is read for each beam at each step, as in GENRE (Cao et al., 2021) and the
    recommenders that adopted its constrained beam search. Scores are those of `BeamDecoder` in float32; the order of
    ties is undefined.

    Args:
        beam_width: prefixes kept of each length, at least K; None is K.

    Raises:
        InputError: `beam_width` is below 1.
    """

    lossless = True

    def __init__(self, beam_width: PositiveInt | None = None) -> None:
        check_arguments(TransformersBeamDecoder, locals())
        self.search = beam_search_name(beam_width, renormalise=False)
        self.beam_width = beam_width

    def bind(self, runner: TransformersRunner, request: ListRequest) -> DecodingSession[Recommendations]:
        """See `BeamDecoder.bind`; besides, the temperature must be 0."""
        _, width = searched_constraint(request, self.beam_width)
        if request.sampling.temperature != 0:
            found = f"transformers' beam search at temperature {request.sampling.temperature}"
            raise InputError(f"{found}: expected 0, it does not draw beams")
        return _GenerateBeamSession(runner.model, request, width)


class _GenerateBeamSession(DecodingSession[Recommendations]):
    def __init__(self, model: Any, request: ListRequest, width: int) -> None:  # noqa: ANN401  # generate is untyped
        self._model, self._request, self._width = model, request, width
        self._following = _following_tokens(request.catalog, request.vocabulary)

    @torch.inference_mode()
    def decode(self, prompts: Prompts, generator: torch.Generator) -> tuple[Recommendations, DecodingTrace]:
        request, vocabulary = self._request, self._request.vocabulary
        watch, prefill_seconds = Stopwatch(self._model.device), 0.0
        tokens, mask = padded_left(prompts.to(self._model.device), vocabulary.pad_token)
        batch, prompt_width = tokens.shape

        def allowed(row: int, written: Tensor) -> list[int]:
            nonlocal prefill_seconds
            if prefill_seconds == 0:  # the first call follows the prefill
                prefill_seconds = watch.lap()
            return self._following[tuple(written[prompt_width:].tolist())]

        config = GenerationConfig(
            max_new_tokens=vocabulary.n_slots,
            do_sample=False,
            num_beams=self._width,
            num_return_sequences=request.list_length,
            pad_token_id=vocabulary.pad_token,
            eos_token_id=vocabulary.eos_token,
            return_dict_in_generate=True,
            output_logits=True,
        )
        found = self._model.generate(
            input_ids=tokens, attention_mask=mask, generation_config=config, prefix_allowed_tokens_fn=allowed
        )
        decode_seconds = watch.lap()
        # A beam of width one is greedy search to `generate`, which then returns no beam indices.
        beams = getattr(found, "beam_indices", None)
        log_probs = self._model.compute_transition_scores(found.sequences, found.logits, beams, normalize_logits=True)
        shape = batch, request.list_length, vocabulary.n_slots
        codes = vocabulary.decode(found.sequences[:, -vocabulary.n_slots :].cpu()).view(shape)
        leaves = request.catalog.leaf_of_codes(codes)
        lists = Recommendations.from_leaves(leaves, log_probs.view(shape).cpu(), request.catalog, vocabulary)
        return lists, beam_trace(request, leaves, vocabulary.n_slots, prefill_seconds, decode_seconds)


def _following_tokens(catalog: Catalog, vocabulary: SemanticIDVocabulary) -> dict[tuple[int, ...], list[int]]:
    """The tokens that may follow each prefix of an item."""
    following: dict[tuple[int, ...], dict[int, None]] = {}
    for tokens in vocabulary.encode(catalog.leaf_codes)[:, : vocabulary.n_slots].tolist():
        for length, token in enumerate(tokens):
            following.setdefault(tuple(tokens[:length]), {})[token] = None
    return {prefix: list(tokens) for prefix, tokens in following.items()}
