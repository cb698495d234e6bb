from dataclasses import dataclass

import pytest
import torch
from transformers import PreTrainedModel

from padrec.catalog import InputError, SemanticIDVocabulary
from padrec.decoding import (
    Assistant,
    AutoregressiveDecoder,
    Decoder,
    DecodingTrace,
    ListRequest,
    Prompts,
    Recommendations,
    Sampling,
    TransformersDecoder,
    TransformersRunner,
)
from tests.stubs import random_catalog, random_prompts, select_rows, tiny_target

_CATALOG = random_catalog((5, 4, 6), n_items=60)
_VOCABULARY = SemanticIDVocabulary([5, 4, 6])
_SAMPLINGS = [Sampling(), Sampling(1.0), Sampling(1.3, top_k=5, top_p=0.9)]
_PROMPTS = random_prompts(_CATALOG, _VOCABULARY, [4, 7, 2, 5])


@dataclass(frozen=True)
class TinyAssistant(Assistant):
    """A random language model, the target itself where its seed is the target's."""

    seed: int
    n_layers: int = 1

    def load(self, runner: TransformersRunner, vocabulary: SemanticIDVocabulary) -> PreTrainedModel:
        return tiny_target(vocabulary, n_layers=self.n_layers, dtype=runner.model.dtype, seed=self.seed)


def decoders() -> dict[str, TransformersDecoder]:
    return {
        "plain": TransformersDecoder(),
        "lookup": TransformersDecoder(prompt_lookup_tokens=10),
        "assistant": TransformersDecoder(assistant=TinyAssistant(seed=1)),
        "perfect assistant": TransformersDecoder(assistant=TinyAssistant(seed=0, n_layers=2), assistant_tokens=4),
    }


def decode(
    decoder: Decoder, prompts: Prompts, sampling: Sampling, constrained: bool = True, dtype: torch.dtype = torch.float32
) -> tuple[Recommendations, DecodingTrace]:
    runner = TransformersRunner(tiny_target(_VOCABULARY, dtype=dtype))
    request = ListRequest.build(_CATALOG, _VOCABULARY, 5, constrained=constrained, sampling=sampling)
    return decoder.bind(runner, request).decode(prompts, torch.Generator().manual_seed(3))


@pytest.mark.parametrize("constrained", [True, False])
@pytest.mark.parametrize("sampling", _SAMPLINGS)
@pytest.mark.parametrize("name", decoders())
def test_generate_writes_the_lists_of_the_reference(name: str, sampling: Sampling, constrained: bool) -> None:
    for row in range(len(_PROMPTS.tokens)):
        prompts = select_rows(_PROMPTS, [row])
        expected, expected_trace = decode(AutoregressiveDecoder(), prompts, sampling, constrained)
        found, trace = decode(decoders()[name], prompts, sampling, constrained)
        assert torch.equal(found.tokens, expected.tokens)
        assert torch.equal(found.leaves, expected.leaves)
        torch.testing.assert_close(found.log_probs, expected.log_probs)
        assert torch.equal(trace.tokens, expected_trace.tokens)


@pytest.mark.parametrize("sampling", _SAMPLINGS)
def test_a_batch_is_decoded_as_its_rows_are(sampling: Sampling) -> None:
    expected, expected_trace = decode(AutoregressiveDecoder(), _PROMPTS, sampling, constrained=False)
    found, trace = decode(TransformersDecoder(), _PROMPTS, sampling, constrained=False)
    assert torch.equal(found.tokens, expected.tokens)
    torch.testing.assert_close(found.log_probs, expected.log_probs)
    assert torch.equal(trace.tokens, expected_trace.tokens)
    assert torch.equal(trace.target_passes, expected_trace.target_passes)


def test_a_perfect_assistant_has_all_its_candidates_kept() -> None:
    decoder = decoders()["perfect assistant"]
    _, trace = decode(decoder, select_rows(_PROMPTS, [1]), Sampling())
    # 19 tokens: the prefill's pass decides the first five, and the next two as many each.
    assert trace.target_passes.tolist() == [3]
    assert trace.accepted_lengths.tolist() == [0, 0, 0, 1, 2]
    assert trace.accepted.sum(0).tolist() == [3, 3, 3, 2]
    # transformers has no candidate for a list's last token.
    assert trace.attempted.sum(0).tolist() == [3, 3, 3, 3]
    assert trace.draft_passes.tolist() == [11]


def test_a_poor_assistant_saves_few_passes() -> None:
    _, trace = decode(decoders()["assistant"], select_rows(_PROMPTS, [1]), Sampling())
    kept = trace.accepted_lengths * torch.arange(len(trace.accepted_lengths))
    assert trace.accepted_lengths.sum() == trace.target_passes.sum()
    assert trace.accepted.sum() == kept.sum()
    assert (trace.attempted >= trace.accepted).all()
    assert trace.prefill_seconds > 0
    # Each pass emits one token more than it keeps; the prefill's emits at least one.
    assert trace.tokens.sum() - 1 >= kept.sum() + trace.target_passes.sum()


def test_plain_generation_takes_a_pass_for_each_token() -> None:
    _, trace = decode(TransformersDecoder(), _PROMPTS, Sampling())
    assert trace.target_passes.tolist() == [18] * 4
    assert trace.draft_passes.tolist() == [0] * 4
    assert trace.accepted_lengths.tolist() == [72]


@pytest.mark.parametrize("name", ["lookup", "assistant"])
def test_transformers_speculates_for_one_list_at_a_time(name: str) -> None:
    with pytest.raises(InputError, match="4 prompts at once: expected one"):
        decode(decoders()[name], _PROMPTS, Sampling())


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(InputError, match="expected one of the two"):
        TransformersDecoder(prompt_lookup_tokens=3, assistant=TinyAssistant(0))
