"""Texts of a pretrained language model: written by any arm, and arms side by side."""

from collections.abc import Mapping
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from padrec.catalog import InputError, NonNegativeFloat, NonZeroShare, PositiveInt, Seed, check_arguments
from padrec.data import TextPromptBatch, TextPromptDataModule
from padrec.data.tokenizer import load_tokenizer, n_tokens
from padrec.decoding import (
    DecodingTrace,
    GeneratedText,
    Prompts,
    Sampling,
    SpeculativeDecoder,
    TextRequest,
    TransformersDecoder,
    check_model,
)
from padrec.evaluation.arm_comparison import ArmComparison, Unregistered
from padrec.evaluation.report import escape_markdown
from padrec.targets import fingerprint, read_language_model

_SAMPLES = 8


class TextEvaluator(ArmComparison[TextPromptBatch, GeneratedText]):
    """Writes texts with a pretrained language model; see `ArmComparison`.

    `test` compares arms: speed, acceptance, and whether texts are those of the reference arm. `predict` writes texts
    with one arm, for `TextWriter`. Needs a `TextPromptDataModule`.

    Args:
        language_model: folder or hub name of a causal language model with its tokenizer; linked from the datamodule.
        arms: decoders by name: speculative ones, `AutoregressiveDecoder` among them, and `TransformersDecoder`.
        max_tokens: most tokens of a text.
        stop: tokens that end a text; None is the tokenizer's end of text.
        temperature: 0 decodes greedily.
        top_k: see `Sampling`.
        top_p: see `Sampling`.
        reference: the arm that all arms are compared with in `test`.
        further_references: other arms to report speedups over.
        predict_arm: the arm that `predict` uses; None takes the last one.
        seed: seed of sampled texts.

    Raises:
        InputError: no arm, an unknown `predict_arm`, an argument out of range, no such model, or a stop token that the
            tokenizer does not have.
    """

    outputs = "texts"

    def __init__(
        self,
        language_model: str,
        arms: Mapping[str, SpeculativeDecoder | TransformersDecoder],
        max_tokens: PositiveInt = 128,
        stop: list[str] | None = None,
        temperature: NonNegativeFloat = 0.0,
        top_k: PositiveInt | None = None,
        top_p: NonZeroShare = 1.0,
        reference: str = "autoregressive",
        further_references: list[str] | None = None,
        predict_arm: str | None = None,
        seed: Seed = 0,
    ) -> None:
        check_arguments(TextEvaluator, locals())
        shown = {"language_model": language_model, "temperature": temperature, "top_k": top_k, "top_p": top_p}
        super().__init__(arms, reference, further_references, predict_arm, seed, shown)
        self._max_tokens = max_tokens
        self._sampling = Sampling(temperature, top_k, top_p)
        tokenizer = load_tokenizer(language_model)
        self._stop_tokens = _stop_tokens(tokenizer.get_vocab(), stop, tokenizer.eos_token)
        model = read_language_model(language_model, n_tokens(tokenizer))
        check_model(model)
        # The model's own may sample or penalise repetitions, which `generate` would then do by default.
        model.generation_config = GenerationConfig()
        self._vocabulary_size = len(model.get_output_embeddings().weight)
        self._model, self._fingerprint = Unregistered(model), fingerprint(model)
        self._samples: list[str] = []

    def load_target(self) -> tuple[PreTrainedModel, str]:
        """See `ArmComparison`."""
        return self._model.module, self._fingerprint

    def new_request(self, device: torch.device) -> TextRequest:
        """See `ArmComparison`."""
        padding = self._stop_tokens[0] if self._stop_tokens else 0
        return TextRequest(self._vocabulary_size, self._max_tokens, self._stop_tokens, padding, self._sampling)

    def new_quality(self) -> None:
        """None: a text has no ground truth."""

    def prompts(self, batch: TextPromptBatch) -> Prompts:
        """See `ArmComparison`."""
        return Prompts(batch.tokens, torch.zeros_like(batch.tokens), batch.lengths)

    def keep_sample(self, batch: TextPromptBatch, results: Mapping[str, tuple[GeneratedText, DecodingTrace]]) -> None:
        """See `ArmComparison`."""
        data: TextPromptDataModule = self.trainer.datamodule  # type: ignore[attr-defined]
        for row, number in enumerate(batch.users.tolist()[: _SAMPLES - len(self._samples)]):
            arms_by_text: dict[str, list[str]] = {}
            for arm, (texts, trace) in results.items():
                tokens = texts.tokens[row, : texts.lengths[row]]
                drafted = None if trace.drafted is None else trace.drafted[row]
                arms_by_text.setdefault(marked_text(data, tokens, drafted), []).append(escape_markdown(arm))
            parts = [f"**{', '.join(arms)}**: {text}" for text, arms in arms_by_text.items()]
            self._samples.append("\n\n".join([f"### {escape_markdown(data.user_keys[number])}", *parts]))

    def shown_samples(self) -> dict[str, str]:
        """See `ArmComparison`."""
        legend = "Bold: tokens that the draft had proposed; each run of them was accepted in one round."
        return {"test/sample_texts": "\n\n".join([legend, *self._samples])}

    def settings(self) -> dict[str, Any]:
        """See `ArmComparison`."""
        return {"max_tokens": self._max_tokens, "temperature": self._sampling.temperature}

    @property
    def made_of(self) -> dict[str, str | int]:
        """What the texts of `predict` depend on, beside the prompts and the arm's own settings."""
        return {
            "arm": self.predict_arm,
            "fingerprint": self._fingerprint,
            "max_tokens": self._max_tokens,
            "stop": ", ".join(map(str, self._stop_tokens)),
            "sampling": f"{self._sampling.temperature}, {self._sampling.top_k}, {self._sampling.top_p}",
            "seed": self._seed,
        }

    def predict_step(self, batch: TextPromptBatch, batch_idx: int) -> GeneratedText:
        """Return a text for each prompt, written by the chosen arm."""
        # The number of the first prompt, so that a resumed run has the seeds of an uninterrupted one.
        text, _ = self.decode(self.predict_arm, batch, int(batch.users[0]))
        return text


def marked_text(data: TextPromptDataModule, tokens: Tensor, drafted: Tensor | None) -> str:
    """Tokens `[n]` as Markdown, with runs of drafted ones in bold; `drafted` is bool, `[n]` or longer."""
    marks = [False] * len(tokens) if drafted is None else drafted[: len(tokens)].tolist()
    parts = []
    for mark, run in groupby(zip(marks, tokens.tolist(), strict=True), key=lambda pair: pair[0]):
        text = data.text(torch.tensor([token for _, token in run]))
        # Markdown's own signs need a blank before and none after them.
        shown = escape_markdown(f".{text}.")[1:-1]
        parts.append(f"<b>{shown}</b>" if mark and shown else shown)
    return "".join(parts)


def _stop_tokens(vocabulary: Mapping[str, int], stop: list[str] | None, end: str | None) -> tuple[int, ...]:
    names = stop if stop is not None else [] if end is None else [end]
    if unknown := [name for name in names if name not in vocabulary]:
        raise InputError(f"stop {unknown}: expected tokens of the language model, such as {end!r}")
    return tuple(vocabulary[name] for name in names)
