"""Decoding by transformers' own `generate`, under the same constraint."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from padrec.catalog import InputError, PositiveInt, SemanticIDVocabulary, check_arguments
from padrec.decoding.decoders.decoder import LIST_SEARCH, Decoder
from padrec.decoding.device.stopwatch import Stopwatch
from padrec.decoding.layers.prompts import Prompts
from padrec.decoding.layers.runner import TransformersRunner
from padrec.decoding.lists.decoding_trace import DecodingTrace, RoundStatistics
from padrec.decoding.lists.list_state import ListState
from padrec.decoding.lists.request import ListRequest, Request, text_lengths
from padrec.decoding.lists.sampling import masked_log_softmax
from padrec.decoding.rounds.decoding_session import DecodingSession

R = TypeVar("R")


class Assistant(Protocol):
    """A small language model that writes candidates for transformers' assisted generation."""

    def load(self, runner: TransformersRunner, vocabulary: SemanticIDVocabulary) -> PreTrainedModel:
        """The model, on the target's device and in its precision.

        Raises:
            InputError: it cannot be loaded, or has another vocabulary.
        """
        ...


class TransformersDecoder(Decoder):
    """Writes lists or texts with the `generate` method of the target's own class.

    A logits processor applies the constraint and, at temperatures above 0, the request's noise; the search over these
    scores is greedy. So the lists are those of the other arms, and only speed is compared. The processor also serves
    transformers' two ways of speculating, prompt lookup and an assistant, which take one prompt at a time.

    Args:
        prompt_lookup_tokens: the most candidates copied from an earlier occurrence of the last tokens
            (`prompt_lookup_num_tokens` of transformers); None for no lookup.
        assistant: writes candidates (`assistant_model` of transformers); None for no assistant.
        assistant_tokens: the most candidates that it writes per target pass; 20 is transformers' default.

    Raises:
        InputError: both ways at once, or fewer than one candidate.
    """

    lossless = True
    search = LIST_SEARCH

    def __init__(
        self,
        prompt_lookup_tokens: PositiveInt | None = None,
        assistant: Assistant | None = None,
        assistant_tokens: PositiveInt = 20,
    ) -> None:
        check_arguments(TransformersDecoder, locals())
        if prompt_lookup_tokens is not None and assistant is not None:
            raise InputError("prompt_lookup_tokens beside an assistant: expected one of the two")
        self.prompt_lookup_tokens = prompt_lookup_tokens
        self._assistant, self._assistant_tokens = assistant, assistant_tokens

    def max_depth(self, request: Request[Any]) -> int:
        """The most candidates of one pass, 0 without speculation; see `Decoder.max_depth`."""
        return self._assistant_tokens if self._assistant is not None else self.prompt_lookup_tokens or 0

    def bind(self, runner: TransformersRunner, request: Request[R]) -> DecodingSession[R]:
        """Load the assistant; see `Decoder.bind`.

        Raises:
            InputError: see `Decoder.bind`, or an assistant for another request than lists.
        """
        assistant = None
        if self._assistant is not None:
            if not isinstance(request, ListRequest):
                raise InputError("an assistant for texts: expected prompt_lookup_tokens, or lists of a catalog")
            assistant = self._assistant.load(runner, request.vocabulary)
            assistant.generation_config.update(
                num_assistant_tokens=self._assistant_tokens, num_assistant_tokens_schedule="constant"
            )
        return _GenerateSession(self, runner.model, assistant, request)


class _GenerateSession(DecodingSession[R]):
    def __init__(
        self,
        decoder: TransformersDecoder,
        model: PreTrainedModel,
        assistant: PreTrainedModel | None,
        request: Request[R],
    ) -> None:
        self._decoder, self._model, self._assistant, self._request = decoder, model, assistant, request

    @torch.inference_mode()
    def decode(self, prompts: Prompts, generator: torch.Generator) -> tuple[R, DecodingTrace]:
        request, device = self._request, self._model.device
        prompts, (batch, width) = prompts.to(device), prompts.tokens.shape
        max_depth = self._decoder.max_depth(request)
        if max_depth > 0 and batch > 1:
            raise InputError(f"{batch} prompts at once: expected one, since transformers speculates for no more")
        watch = Stopwatch(device)
        tokens, mask = padded_left(prompts, request.pad_token)
        processor = _RequestProcessor(request, prompts.random_keys(request.sampling, generator), width)
        passes = _Passes(watch)
        with passes.watched(self._model, self._assistant):
            written = self._model.generate(  # type: ignore[operator]
                input_ids=tokens,
                attention_mask=mask,
                generation_config=GenerationConfig(
                    max_new_tokens=request.n_tokens,
                    do_sample=False,
                    pad_token_id=request.pad_token,
                    eos_token_id=list(request.stop_tokens) or None,
                    prompt_lookup_num_tokens=self._decoder.prompt_lookup_tokens,
                ),
                logits_processor=LogitsProcessorList([processor]),
                assistant_model=self._assistant,
            )[:, width:]
        decode_seconds = watch.lap()
        lists = torch.full((batch, request.n_tokens), request.pad_token, device=device)
        lists[:, : written.shape[1]] = written
        lengths = text_lengths(written, request.stop_tokens)
        statistics = passes.statistics(width, lists, lengths, request, max_depth)
        counts = [count.cpu() for count in statistics.counts]
        trace = DecodingTrace.of_counts(passes.prefill_seconds, decode_seconds, lengths.cpu(), counts)
        return request.result(lists.cpu(), processor.log_probs_of(lists, lengths).cpu()), trace


class _Passes:
    """Watches the forward passes of target and assistant by hooks."""

    def __init__(self, watch: Stopwatch) -> None:
        self.prefill_seconds = 0.0
        self._watch = watch
        self._read: list[Tensor] = []  # tokens read by each target pass, int64 [B, M]
        self._assistant_passes = [0]  # before each of these passes

    @contextmanager
    def watched(self, target: PreTrainedModel, assistant: PreTrainedModel | None) -> Iterator[None]:
        """Count passes in this context."""
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
        self, prompt_width: int, lists: Tensor, lengths: Tensor, request: Request[Any], max_depth: int
    ) -> RoundStatistics:
        """Counts by comparing what each pass read with the finished lists, `[B, T]`.

        The first pass is the prefill. With speculation it also reads candidates; neither those nor the assistant's
        passes before it are counted.
        """
        statistics = RoundStatistics(len(lists), request.n_slot_states, max_depth, lists.device)
        padded = torch.nn.functional.pad(lists, (0, max_depth), value=request.pad_token)
        slots_of_tokens = request.slots(padded)
        # The token that the next pass decides: without speculation all rows advance together, with it there is one row.
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
                proposed_slots = slots_of_tokens[:, position : position + max_depth]
                statistics.add_proposals(proposed_slots, kept, kept + missed, active)
            position += int(kept.max()) + 1
        return statistics


def padded_left(prompts: Prompts, pad_token: int) -> tuple[Tensor, Tensor]:
    """Tokens and attention mask, int64 `[B, P]`, with the padding on the left, as `generate` expects.

    Raises:
        InputError: the prompts exclude items.
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

    Steps are identified by the tokens written before them, not by the order of calls: speculation scores several steps
    ahead, some of them repeatedly.
    """

    def __init__(self, request: Request[Any], keys: Tensor, prompt_width: int) -> None:
        self._request, self._keys, self._prompt_width = request, keys, prompt_width
        self._states: dict[bytes, ListState] = {b"": request.constraint.initial(len(keys), keys.device)}
        self._log_probs: dict[bytes, Tensor] = {}

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        written = input_ids[:, self._prompt_width :]
        on_cpu = written.cpu()
        log_probs = masked_log_softmax(scores, self._request.constraint.allowed(self._state(written, on_cpu)))
        # The assistant's scores come first and are replaced by the target's.
        self._log_probs[_step(on_cpu)] = log_probs
        zeros = torch.zeros_like(self._keys)
        choice = self._request.sampling.choice(self._keys, zeros + written.shape[1], 0, scores.shape[-1])
        return choice.scores(log_probs[:, None], zeros[:, None])[:, 0]

    def _state(self, written: Tensor, on_cpu: Tensor) -> ListState:
        """The list state after the tokens `[B, t]`, given on the device and on the CPU."""
        step = _step(on_cpu)
        if step not in self._states:
            before = self._state(written[:, :-1], on_cpu[:, :-1])
            self._states[step] = self._request.constraint.advance(before, written[:, -1])
        return self._states[step]

    def log_probs_of(self, lists: Tensor, lengths: Tensor) -> Tensor:
        """Log-probabilities of the lists' tokens `[B, T]`, 0 after their ends."""
        result = torch.zeros(lists.shape, dtype=torch.float32, device=lists.device)
        on_cpu = lists.cpu()
        for position in range(int(lengths.max())):
            log_probs = self._log_probs[_step(on_cpu[:, :position])].float()
            result[:, position] = log_probs.gather(1, lists[:, position, None])[:, 0]
        return result.masked_fill(torch.arange(lists.shape[1], device=lists.device) >= lengths[:, None], 0)


def _step(tokens: Tensor) -> bytes:
    """Identifies the step after these tokens, which are on the CPU."""
    return tokens.numpy().tobytes()
