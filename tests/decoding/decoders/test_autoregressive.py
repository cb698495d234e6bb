import pytest
import torch

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding import AutoregressiveDecoder, ListRequest, Sampling, TransformersRunner
from tests.reference import PlainTarget, leaf_tokens, prompt_tokens
from tests.stubs import GivenKeys, random_catalog, random_prompts, select_rows, tiny_target

_SIZES, _K = (5, 6, 4), 4
_CATALOG = random_catalog(_SIZES, 30)
_VOCABULARIES = [
    pytest.param(separator, shared, id=f"separator={separator}-shared={shared}")
    for separator in (True, False)
    for shared in (True, False)
]


@pytest.mark.parametrize("constrained", [True, False])
@pytest.mark.parametrize(("separator", "shared"), _VOCABULARIES)
def test_greedy_lists_equal_a_plain_token_by_token_reference(separator: bool, shared: bool, constrained: bool) -> None:
    vocabulary = SemanticIDVocabulary(_SIZES, separator=separator, shared_codes=shared)
    model = tiny_target(vocabulary)
    prompts = random_prompts(_CATALOG, vocabulary, [3, 0, 5, 1])
    request = ListRequest.build(_CATALOG, vocabulary, _K, constrained=constrained)
    lists, trace = AutoregressiveDecoder().bind(TransformersRunner(model), request).decode(prompts, torch.Generator())
    leaves = leaf_tokens(_CATALOG, vocabulary)
    for row in range(4):
        plain = PlainTarget(model, prompt_tokens(prompts, row), vocabulary, leaves if constrained else None, _K)
        tokens, log_probs = plain.greedy_list()
        padding = request.n_tokens - len(tokens)
        assert lists.tokens[row].tolist() == tokens + [vocabulary.pad_token] * padding
        assert lists.log_probs[row].tolist() == pytest.approx(log_probs + [0.0] * padding, abs=1e-5)
        assert trace.tokens[row] == len(tokens)
        if constrained:
            length = vocabulary.item_length
            items = [tuple(tokens[start : start + 3]) for start in range(0, len(tokens), length)]
            assert lists.leaves[row].tolist() == [leaves.index(item) for item in items]
            assert len(set(items)) == _K


@pytest.mark.parametrize("model_type", ["llama", "qwen3"])
def test_one_token_costs_one_pass(model_type: str) -> None:
    vocabulary = SemanticIDVocabulary(_SIZES)
    prompts = random_prompts(_CATALOG, vocabulary, [2, 1, 3])
    request = ListRequest.build(_CATALOG, vocabulary, _K)
    runner = TransformersRunner(tiny_target(vocabulary, model_type=model_type))
    _, trace = AutoregressiveDecoder().bind(runner, request).decode(prompts, torch.Generator())
    passes = request.n_tokens - 1
    assert trace.batch_size == 3
    assert trace.tokens.tolist() == [request.n_tokens] * 3
    assert trace.target_passes.tolist() == [passes] * 3
    assert trace.draft_passes.tolist() == [0] * 3
    assert trace.attempted.shape == trace.accepted.shape == (vocabulary.n_slot_states, 0)
    assert trace.accepted_lengths.tolist() == [3 * passes], "every pass keeps no draft token"
    assert min(trace.prefill_seconds, trace.decode_seconds) > 0
    assert trace.seconds == trace.prefill_seconds + trace.decode_seconds


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(1.0), Sampling(1.3, top_k=5, top_p=0.9)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("constrained", [True, False])
def test_a_list_is_the_same_alone_and_in_any_batch(sampling: Sampling, dtype: torch.dtype, constrained: bool) -> None:
    vocabulary = SemanticIDVocabulary(_SIZES)
    model = tiny_target(vocabulary, dtype=dtype)
    prompts = random_prompts(_CATALOG, vocabulary, [3, 0, 6, 1, 2])
    keys = [11, -7, 2**40, 5, 0]

    def lists_of(rows: list[int]) -> list[list[int]]:
        keyed = GivenKeys(sampling.temperature, sampling.top_k, sampling.top_p, tuple(keys[row] for row in rows))
        request = ListRequest.build(_CATALOG, vocabulary, 3, constrained=constrained, sampling=keyed)
        runner = TransformersRunner(model)
        lists, _ = AutoregressiveDecoder().bind(runner, request).decode(select_rows(prompts, rows), torch.Generator())
        found: list[list[int]] = lists.tokens.tolist()
        return found

    together = lists_of([0, 1, 2, 3, 4])
    for rows in ([0], [1], [2], [3], [4], [3, 1], [2, 4, 0]):
        assert lists_of(rows) == [together[row] for row in rows]


def test_the_generator_decides_the_lists() -> None:
    vocabulary = SemanticIDVocabulary(_SIZES)
    runner = TransformersRunner(tiny_target(vocabulary))
    prompts = random_prompts(_CATALOG, vocabulary, [2] * 8)
    request = ListRequest.build(_CATALOG, vocabulary, _K, sampling=Sampling(1.0))
    first, again, other = (
        AutoregressiveDecoder().bind(runner, request).decode(prompts, torch.Generator().manual_seed(seed))[0].tokens
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
