"""What users have today: transformers' own `generate`, under the same constraint."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from padrec.catalog import InputError, SemanticIDVocabulary
from padrec.decoding.decoders.decoder import LIST_SEARCH, Decoder
from padrec.decoding.device.stopwatch import Stopwatch
from padrec.decoding.layers.prompts import Prompts
from padrec.decoding.layers.runner import TargetRunner
from padrec.decoding.lists.decoding_trace import DecodingTrace, RoundStatistics
from padrec.decoding.lists.list_request import ListRequest
from padrec.decoding.lists.list_state import ListState
from padrec.decoding.lists.recommendations import Recommendations
from padrec.decoding.lists.sampling import masked_log_softmax
from padrec.decoding.rounds.decoding_session import DecodingSession


class Assistant(Protocol):
    """A small language model that writes candidates for transformers' assisted generation."""

    def load(self, runner: TargetRunner, vocabulary: SemanticIDVocabulary) -> PreTrainedModel:
        """The model, on the target's device and in its precision.

        Raises:
            InputError: it cannot be loaded, or has another vocabulary.
        """
        ...


class TransformersDecoder(Decoder):
    """Writes lists with the `generate` method of the target's own class.

    Its search is greedy over scores that a logits processor has constrained and, with a temperature above 0, put the
    request's noise on: so it writes the lists of the other arms, and the comparison is of speed alone. The same
    processor serves transformers' two ways of speculating, prompt lookup and an assistant, for target and candidates
    alike; transformers offers both for a single list at a time.

    Args:
        prompt_lookup_tokens: the most candidates that are copied from where the last tokens stood before
            (`prompt_lookup_num_tokens` of transformers); None looks nothing up.
        assistant: writes candidates (`assistant_model` of transformers); None for no assistant.
        assistant_tokens: the most candidates that it writes for a pass of the target; 20 is transformers' own default.

    Raises:
        InputError: both ways at once, or fewer than one candidate.
    """

    lossless = True
    search = LIST_SEARCH

    def __init__(
        self,
        prompt_lookup_tokens: int | None = None,
        assistant: Assistant | None = None,
        assistant_tokens: int = 20,
    ) -> None:
        if prompt_lookup_tokens is not None and assistant is not None:
            raise InputError("transformers looks candidates up or has an assistant write them: expected one of the two")
        for name, value in (("prompt_lookup_tokens", prompt_lookup_tokens), ("assistant_tokens", assistant_tokens)):
            if value is not None and value < 1:
                raise InputError(f"{name} {value}: expected at least 1 candidate")
        self.prompt_lookup_tokens = prompt_lookup_tokens
        self._assistant = assistant
        self._assistant_tokens = assistant_tokens

    def max_depth(self, request: ListRequest) -> int:
        """The most candidates of one pass, 0 without speculation; see `Decoder.max_depth`."""
        return self.most_candidates

    @property
    def most_candidates(self) -> int:
        """The most candidates of one pass."""
        return self._assistant_tokens if self._assistant is not None else self.prompt_lookup_tokens or 0

    def bind(self, runner: TargetRunner, request: ListRequest) -> DecodingSession[Recommendations]:
        """Load the assistant; see `Decoder.bind`."""
        model = None
        if self._assistant is not None:
            model = self._assistant.load(runner, request.vocabulary)
            model.generation_config.update(
                num_assistant_tokens=self._assistant_tokens, num_assistant_tokens_schedule="constant"
            )
        return _GenerateSession(self, runner.model, model, request)


class _GenerateSession:
    """See `DecodingSession`."""

    def __init__(
        self,
        decoder: TransformersDecoder,
        model: PreTrainedModel,
        assistant: PreTrainedModel | None,
        request: ListRequest,
    ) -> None:
        self._decoder, self._model, self._assistant, self._request = decoder, model, assistant, request

    @torch.inference_mode()
    def decode(self, prompts: Prompts, generator: torch.Generator) -> tuple[Recommendations, DecodingTrace]:
        """See `DecodingSession.decode`.

        Raises:
            InputError: several prompts for one of transformers' ways of speculating.
        """
        decoder, request = self._decoder, self._request
        batch, width = prompts.tokens.shape
        if decoder.most_candidates > 0 and batch > 1:
            raise InputError(f"{batch} lists at once: expected one, which is all that transformers speculates for")
        device = prompts.tokens.device
        watch = Stopwatch(device)
        tokens, mask = padded_left(prompts, request.vocabulary.pad_token)
        keys = request.sampling.keys(batch, generator, device)
        processor = _RequestProcessor(request, keys, width)
        config = GenerationConfig(
            max_new_tokens=request.n_tokens,
            do_sample=False,
            pad_token_id=request.vocabulary.pad_token,
            eos_token_id=request.vocabulary.eos_token,
            prompt_lookup_num_tokens=decoder.prompt_lookup_tokens,
        )
        passes = _Passes(watch)
        with passes.watched(self._model, self._assistant):
            written = self._model.generate(  # type: ignore[operator]
                input_ids=tokens,
                attention_mask=mask,
                generation_config=config,
                logits_processor=LogitsProcessorList([processor]),
                assistant_model=self._assistant,
            )[:, width:]
        decode_seconds = watch.lap()
        lists = torch.full((batch, request.n_tokens), request.vocabulary.pad_token, device=device)
        lists[:, : written.shape[1]] = written
        # Behind its end a list is padded, but without a constraint the target may also write padding itself.
        ended = (lists == request.vocabulary.eos_token).cumsum(1)
        lengths = ((ended == 0).sum(1) + 1).clamp(max=written.shape[1])
        recommendations = request.result(lists, processor.log_probs_of(lists, lengths))
        statistics = passes.statistics(width, lists, lengths, request.vocabulary, decoder.most_candidates)
        return recommendations, statistics.trace(passes.prefill_seconds, decode_seconds, lengths)


class _Passes:
    """Watches the forward passes of target and assistant from outside."""

    def __init__(self, watch: Stopwatch) -> None:
        self.prefill_seconds = 0.0
        self._watch = watch
        self._read: list[Tensor] = []  # what each pass of the target has read, int64 [B, M]
        self._assistant_passes = [0]  # of the assistant before each of these passes

    @contextmanager
    def watched(self, target: PreTrainedModel, assistant: PreTrainedModel | None) -> Iterator[None]:
        """Count what the models do meanwhile."""
        with ExitStack() as stack:
            stack.callback(target.register_forward_hook(self._see_target, with_kwargs=True).remove)
            if assistant is not None:
                stack.callback(assistant.register_forward_hook(self._see_assistant).remove)
            yield

    def _see_target(self, model: object, args: object, arguments: dict[str, Any], output: object) -> None:
        if not self._read:
            self.prefill_seconds = self._watch.lap()
        self._read.append(arguments["input_ids"])
        self._assistant_passes.append(0)

    def _see_assistant(self, *_: object) -> None:
        self._assistant_passes[-1] += 1

    def statistics(
        self, prompt_width: int, lists: Tensor, lengths: Tensor, vocabulary: SemanticIDVocabulary, max_depth: int
    ) -> RoundStatistics:
        """What the passes were for, by the lists `[B, T]` that came out of them.

        The first pass is the prefill, though with speculation it reads candidates too: what it keeps of them is not
        counted, nor is what the assistant did for it.
        """
        statistics = RoundStatistics(len(lists), vocabulary.n_slot_states, max_depth, lists.device)
        padded = torch.nn.functional.pad(lists, (0, max_depth), value=vocabulary.pad_token)
        slots = _slots(padded, vocabulary)
        # Of the token that the next pass decides; the rows of a batch stay side by side, for they do not speculate.
        position = 0
        for number, read in enumerate(self._read):
            candidates = read[:, 1 if number > 0 else prompt_width :]
            left = lengths - position
            right = candidates == padded[:, position : position + candidates.shape[1]]
            kept = torch.minimum(right.long().cumprod(1).sum(1), left.clamp(min=0))
            if number > 0:
                active = left > 0
                missed = (left > kept) & (kept < max_depth)
                statistics.add_round(active, self._assistant_passes[number])
                statistics.add_proposals(slots[:, position : position + max_depth], kept, kept + missed, active)
            position += int(kept.max()) + 1
        return statistics


def _slots(tokens: Tensor, vocabulary: SemanticIDVocabulary) -> Tensor:
    """Slot of each token of the lists `[B, T]`."""
    slots = [torch.full_like(tokens[:, 0], vocabulary.other_slot)]
    for token in tokens.unbind(1):
        slots.append(vocabulary.next_slot(slots[-1], token))
    return torch.stack(slots[1:], 1)


def padded_left(prompts: Prompts, pad_token: int) -> tuple[Tensor, Tensor]:
    """Tokens and attention mask, int64 `[B, P]`, of prompts with the padding on the left, where `generate` wants it.

    Raises:
        InputError: the prompts exclude items, which these decoders do not.
    """
    if prompts.excluded is not None:
        raise InputError("prompts that exclude items: expected a decoder of padrec's own, transformers excludes none")
    width = prompts.tokens.shape[1]
    column = torch.arange(width, device=prompts.tokens.device) - (width - prompts.lengths)[:, None]
    padding = column < 0
    tokens = prompts.tokens.gather(1, column.clamp(min=0)).masked_fill(padding, pad_token)
    return tokens, (~padding).long()


class _RequestProcessor(LogitsProcessor):
    """Constrains the scores of each step and adds the request's noise.

    A step is known by the tokens written before it, not by the order of the calls: speculation asks for several steps
    ahead, and for some of them again.
    """

    def __init__(self, request: ListRequest, keys: Tensor, prompt_width: int) -> None:
        self._request = request
        self._keys = keys
        self._prompt_width = prompt_width
        self._states: dict[bytes, ListState] = {b"": request.constraint.initial(len(keys), keys.device)}
        self._log_probs: dict[bytes, Tensor] = {}

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        written = input_ids[:, self._prompt_width :]
        step = written.cpu()
        log_probs = masked_log_softmax(scores, self._request.constraint.allowed(self._state(written, step)))
        # Candidates are asked for before the target judges them: what stays is the target's.
        self._log_probs[_name(step)] = log_probs
        zeros = torch.zeros_like(self._keys)
        choice = self._request.sampling.choice(self._keys, zeros + written.shape[1], 0, scores.shape[-1])
        return choice.scores(log_probs[:, None], zeros[:, None])[:, 0]

    def _state(self, written: Tensor, step: Tensor) -> ListState:
        """The list state behind the tokens `[B, t]`, given on the device and on the CPU."""
        name = _name(step)
        if name not in self._states:
            before = self._state(written[:, :-1], step[:, :-1])
            self._states[name] = self._request.constraint.advance(before, written[:, -1])
        return self._states[name]

    def log_probs_of(self, lists: Tensor, lengths: Tensor) -> Tensor:
        """Log-probabilities of the lists' tokens `[B, T]`, 0 behind the ends of the lists."""
        result = torch.zeros(lists.shape, dtype=torch.float32, device=lists.device)
        on_cpu = lists.cpu()
        for position in range(int(lengths.max())):
            log_probs = self._log_probs[_name(on_cpu[:, :position])].float()
            result[:, position] = log_probs.gather(1, lists[:, position, None])[:, 0]
        return result.masked_fill(torch.arange(lists.shape[1], device=lists.device) >= lengths[:, None], 0)


def _name(tokens: Tensor) -> bytes:
    """What the steps behind these tokens, on the CPU, are known by."""
    return tokens.numpy().tobytes()
