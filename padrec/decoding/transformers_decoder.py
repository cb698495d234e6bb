"""What users have today: transformers' own `generate`, under the same constraint."""

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding.decoder import LIST_SEARCH, ListRequest, Stopwatch
from padrec.decoding.recommendations import DecodingTrace, Recommendations, RoundStatistics
from padrec.decoding.runner import Prompts, TargetRunner
from padrec.decoding.sampling import masked_log_softmax


class TransformersDecoder:
    """Writes lists with the `generate` method of the target's own class.

    Its search is greedy over scores that a logits processor has constrained and, with a temperature above 0, put the
    request's noise on: so it writes the lists of the other arms, and the comparison is of speed alone.
    """

    lossless = True
    search = LIST_SEARCH
    max_depth = 0

    def prepare(self, runner: TargetRunner, vocabulary: SemanticIDVocabulary) -> None:
        """Nothing beside the target is needed."""

    @torch.inference_mode()
    def decode(
        self, runner: TargetRunner, prompts: Prompts, request: ListRequest, generator: torch.Generator
    ) -> tuple[Recommendations, DecodingTrace]:
        """Write one list for each prompt; see `Decoder.decode`."""
        batch, width = prompts.tokens.shape
        device = prompts.tokens.device
        watch = Stopwatch(device)
        tokens, mask = padded_left(prompts, request.vocabulary.pad_token)
        keys = request.sampling.keys(batch, generator, device)
        processor = _RequestProcessor(request, keys, width, watch)
        config = GenerationConfig(
            max_new_tokens=request.n_tokens,
            do_sample=False,
            pad_token_id=request.vocabulary.pad_token,
            eos_token_id=request.vocabulary.eos_token,
        )
        written = runner.model.generate(  # type: ignore[operator]
            input_ids=tokens,
            attention_mask=mask,
            generation_config=config,
            logits_processor=LogitsProcessorList([processor]),
        )[:, width:]
        decode_seconds = watch.lap()
        lists = torch.full((batch, request.n_tokens), request.vocabulary.pad_token, device=device)
        lists[:, : written.shape[1]] = written
        # Behind its end a list is padded, but without a constraint the target may also write padding itself.
        ended = (lists == request.vocabulary.eos_token).cumsum(1)
        lengths = ((ended == 0).sum(1) + 1).clamp(max=written.shape[1])
        log_probs = processor.log_probs_of(lists)
        recommendations = Recommendations.from_tokens(
            lists, log_probs, request.catalog, request.vocabulary, request.list_length
        )
        statistics = RoundStatistics(batch, request.vocabulary.n_slot_states, 0, device)
        for token in range(1, request.n_tokens):
            statistics.add_round(lengths > token, draft_passes=0)
        return recommendations, statistics.trace(processor.prefill_seconds, decode_seconds, lengths)


def padded_left(prompts: Prompts, pad_token: int) -> tuple[Tensor, Tensor]:
    """Tokens and attention mask, int64 `[B, P]`, of prompts with the padding on the left, where `generate` wants it."""
    width = prompts.tokens.shape[1]
    column = torch.arange(width, device=prompts.tokens.device) - (width - prompts.lengths)[:, None]
    padding = column < 0
    tokens = prompts.tokens.gather(1, column.clamp(min=0)).masked_fill(padding, pad_token)
    return tokens, (~padding).long()


class _RequestProcessor(LogitsProcessor):
    """Constrains the scores of each step and adds the request's noise."""

    def __init__(self, request: ListRequest, keys: Tensor, prompt_width: int, watch: Stopwatch) -> None:
        self.prefill_seconds = 0.0
        self._request = request
        self._keys = keys
        self._prompt_width = prompt_width
        self._watch = watch
        self._state = request.constraint.initial(len(keys), keys.device)
        self._log_probs: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        position = input_ids.shape[1] - self._prompt_width
        constraint, sampling = self._request.constraint, self._request.sampling
        if position > 0:
            self._state = constraint.advance(self._state, input_ids[:, -1])
        log_probs = masked_log_softmax(scores, constraint.allowed(self._state))
        if position == 0:
            self.prefill_seconds = self._watch.lap()
        self._log_probs.append(log_probs)
        zeros = torch.zeros_like(self._keys)
        choice = sampling.choice(self._keys, zeros + position, 0, scores.shape[-1])
        chosen = choice.choose(log_probs[:, None], zeros[:, None])
        return torch.full_like(log_probs, -torch.inf).scatter(1, chosen, 0.0)

    def log_probs_of(self, tokens: Tensor) -> Tensor:
        """Log-probabilities of the tokens `[B, T]` that followed, 0 behind the last step."""
        result = torch.zeros(tokens.shape, dtype=torch.float32, device=tokens.device)
        steps = torch.stack(self._log_probs, dim=1).float()  # [B, steps, V]
        result[:, : steps.shape[1]] = steps.gather(2, tokens[:, : steps.shape[1], None])[..., 0]
        return result
