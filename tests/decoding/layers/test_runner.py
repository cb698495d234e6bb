import random
from typing import Any

import pytest
import torch
from torch import Tensor

from padrec.catalog import InputError, SemanticIDVocabulary
from padrec.decoding import (
    AutoregressiveDecoder,
    BeamDecoder,
    Branches,
    CatalogDraft,
    DynamicTree,
    ListRequest,
    ListState,
    Prompts,
    SpeculativeDecoder,
    TokenTree,
    TransformersRunner,
)
from padrec.targets import TargetRecommender, build_backbone
from tests.reference import forward, prompt_tokens
from tests.stubs import random_catalog, random_prompts, select_rows, tiny_target

_SIZES = (5, 6, 4)
_VOCABULARY = SemanticIDVocabulary(_SIZES)
_CATALOG = random_catalog(_SIZES, 30)
_TARGETS = [
    pytest.param("llama", 4, "sdpa", id="llama"),
    pytest.param("llama", 2, "sdpa", id="llama-grouped-queries"),
    pytest.param("llama", 1, "eager", id="llama-one-key-head-eager"),
    pytest.param("qwen3", 2, "sdpa", id="qwen3"),
    pytest.param("qwen3", 4, "eager", id="qwen3-eager"),
]


def random_tree(coin: random.Random, batch: int, n_nodes: int) -> TokenTree:
    """Another shape for each row; siblings may carry the same token here."""
    parents = [[0] + [coin.randrange(node) for node in range(1, n_nodes)] for _ in range(batch)]
    tokens = [[coin.randrange(_VOCABULARY.size) for _ in range(n_nodes)] for _ in range(batch)]
    states = ListState(torch.zeros(batch, n_nodes, dtype=torch.int64))
    return TokenTree.from_parents(torch.tensor(tokens), torch.tensor(parents), states, n_nodes)


def path_to(parents: list[int], node: int) -> list[int]:
    path = [node]
    while path[-1] != 0:
        path.append(parents[path[-1]])
    return path[::-1]


def assert_reads(
    model_output: tuple[Tensor, Tensor], logits: Tensor, features: Tensor, tolerance: float = 1e-9
) -> None:
    torch.testing.assert_close(logits, model_output[0], rtol=0, atol=tolerance)
    torch.testing.assert_close(features, model_output[1], rtol=0, atol=tolerance)


@pytest.mark.parametrize(("model_type", "kv_heads", "attention"), _TARGETS)
def test_prefill_verify_and_commit_equal_whole_passes_without_cache(
    model_type: str, kv_heads: int, attention: str
) -> None:
    model = tiny_target(
        _VOCABULARY, model_type=model_type, kv_heads=kv_heads, n_layers=3, attention=attention, dtype=torch.float64
    )
    # Eager attention takes its softmax in float32, whatever the model's precision.
    tolerance = 1e-4 if attention == "eager" else 1e-9
    runner, coin = TransformersRunner(model), random.Random(0)
    prompts = random_prompts(_CATALOG, _VOCABULARY, [2, 0, 4])
    n_rounds, n_nodes = 4, 8
    moved = 0
    target = runner.open(3, prompts.tokens.shape[1] + n_rounds * n_nodes)
    logits, features = target.prefill(prompts)
    written = [prompt_tokens(prompts, row) for row in range(3)]
    for row, tokens in enumerate(written):
        expected = forward(model, tokens)
        assert_reads((expected[0][-1], expected[1]), logits[row], features[row, : len(tokens)], tolerance)
    for _ in range(n_rounds):
        tree = random_tree(coin, 3, n_nodes)
        logits, features = target.verify(tree)
        paths = []
        for row, tokens in enumerate(written):
            parents, node_tokens = tree.parents[row].tolist(), tree.tokens[row].tolist()
            for node in range(n_nodes):
                path = path_to(parents, node)
                expected = forward(model, tokens + [node_tokens[at] for at in path])
                assert_reads((expected[0][-1], expected[1][-1]), logits[row, node], features[row, node], tolerance)
            path = path_to(parents, coin.randrange(n_nodes))
            paths.append([] if coin.random() < 0.2 else path)  # a finished row keeps nothing
            moved += paths[-1] != list(range(len(paths[-1])))
        for tokens, path, node_row in zip(written, paths, tree.tokens.tolist(), strict=True):
            tokens += [node_row[node] for node in path]
        width = max(1, *map(len, paths))
        target.commit(
            torch.tensor([path + [0] * (width - len(path)) for path in paths]),
            torch.tensor([len(path) for path in paths]),
        )
    assert moved > 4, "enough paths that have to be moved together"


@pytest.mark.parametrize(("model_type", "kv_heads", "attention"), _TARGETS)
@pytest.mark.parametrize("widths", [(4, 6), (0, 3, 2), (5,)])
def test_branches_read_like_whole_passes_without_cache(
    widths: tuple[int, ...], model_type: str, kv_heads: int, attention: str
) -> None:
    model = tiny_target(_VOCABULARY, model_type=model_type, kv_heads=kv_heads, attention=attention)
    tolerance = 1e-4 if attention == "eager" else 1e-9
    runner, coin = TransformersRunner(model), random.Random(0)
    prompts, n_tokens = random_prompts(_CATALOG, _VOCABULARY, [2, 0, 4]), sum(widths)
    tokens = torch.tensor([[coin.randrange(_VOCABULARY.size) for _ in range(n_tokens)] for _ in range(3)])
    # One shape for all rows: -1 stands for the prompt, and half of the tokens follow another one.
    parents = [coin.randrange(token) if token > 1 and coin.random() < 0.5 else -1 for token in range(n_tokens)]
    ways: list[list[int]] = []
    for token, parent in enumerate(parents):
        ways.append([*(ways[parent] if parent >= 0 else []), token])
    seen = torch.tensor([[other in way for other in range(n_tokens)] for way in ways])
    depths = torch.tensor([len(way) - 1 for way in ways])
    first = 0
    target = runner.open(3, prompts.tokens.shape[1] + n_tokens)
    for width in widths:
        here = slice(first, first + width)
        branches = Branches(tokens[:, here], depths[here], seen[here].expand(3, -1, -1).contiguous(), first)
        if first == 0 and width == widths[0]:
            features = target.prefill_branches(prompts, branches)
            for row in range(3):
                expected = forward(model, prompt_tokens(prompts, row))[1][-1]
                torch.testing.assert_close(features[row, 0], expected, rtol=0, atol=tolerance)
            features = features[:, 1:]
        else:
            features = target.read_branches(branches)
        for row in range(3):
            for place, way in enumerate(ways[here]):
                read = forward(model, prompt_tokens(prompts, row) + tokens[row, way].tolist())
                found = runner.logits(features[row, place]), features[row, place]
                assert_reads((read[0][-1], read[1][-1]), *found, tolerance)
        first += width


def test_a_row_reads_the_same_alone_and_in_a_batch() -> None:
    model = tiny_target(_VOCABULARY)
    prompts = random_prompts(_CATALOG, _VOCABULARY, [1, 5, 3, 0])
    together, _ = TransformersRunner(model).open(4, 64).prefill(prompts)
    target = TransformersRunner(model).open(1, 64)
    for row in range(4):  # one session, prompts of different widths: its cache is used again
        alone, _ = target.prefill(select_rows(prompts, [row]))
        torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-9)


def test_what_an_earlier_batch_left_in_the_cache_is_never_seen() -> None:
    model = tiny_target(_VOCABULARY)
    long, short = (random_prompts(_CATALOG, _VOCABULARY, lengths) for lengths in ([6, 6], [1, 2]))
    tree = random_tree(random.Random(1), 2, 5)
    results = []
    for before in ([], [long]):
        target = TransformersRunner(model).open(2, 64)
        for prompts in [*before, short]:
            target.prefill(prompts)
        results.append(target.verify(tree)[0])
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-9)


@pytest.mark.parametrize(("model_type", "kv_heads", "attention"), _TARGETS)
def test_features_of_any_layers_are_those_of_a_whole_pass(model_type: str, kv_heads: int, attention: str) -> None:
    model = tiny_target(_VOCABULARY, model_type=model_type, kv_heads=kv_heads, n_layers=3, attention=attention)
    tolerance = 1e-4 if attention == "eager" else 1e-9
    prompts = random_prompts(_CATALOG, _VOCABULARY, [2, 0, 4])
    target = TransformersRunner(model).open(3, 64, (0, 2, -1))
    logits, features = target.prefill(prompts)
    for row in range(3):
        tokens = torch.tensor([prompt_tokens(prompts, row)])
        with torch.no_grad():
            whole = model(tokens, output_hidden_states=True, use_cache=False)
        expected = torch.cat([whole.hidden_states[layer][0] for layer in (0, 2, 3)], -1)
        torch.testing.assert_close(features[row, : tokens.shape[1]], expected, rtol=0, atol=tolerance)
        torch.testing.assert_close(logits[row], whole.logits[0, -1], rtol=0, atol=tolerance)
    _, of_nodes = target.verify(random_tree(random.Random(0), 3, 4))
    assert of_nodes.shape == (3, 4, 3 * model.config.hidden_size)
    with pytest.raises(InputError, match=r"feature_layers \[4\] of 3 layers: expected some of 0 … 3"):
        TransformersRunner(model).open(3, 64, (4,))


def test_prompts_of_one_token_are_read() -> None:
    model = tiny_target(_VOCABULARY)
    prompts = Prompts(torch.tensor([[1]]), torch.tensor([[_VOCABULARY.other_slot]]), torch.tensor([1]))
    logits, features = TransformersRunner(model).open(1, 64).prefill(prompts)
    expected = forward(model, [1])
    assert_reads((expected[0], expected[1]), logits, features[0])


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"model_type": "gpt2"}, id="gpt2"),
        pytest.param({"model_type": "gpt_neox"}, id="gpt-neox"),
        pytest.param({"model_type": "mistral", "num_key_value_heads": 2, "sliding_window": 64}, id="wide-window"),
        pytest.param({"model_type": "granite", "logits_scaling": 1.0}, id="neutral-scale"),
    ],
)
def test_any_architecture_is_read_as_its_own_forward_pass_reads_it(settings: dict[str, Any]) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.3}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_backbone({**sizes, **settings}, _VOCABULARY).double().eval()
    prompts = random_prompts(_CATALOG, _VOCABULARY, [4])
    with torch.no_grad():
        logits, features = TransformersRunner(model).open(1, 64).prefill(prompts)
        expected = forward(model, prompt_tokens(prompts, 0))
    assert_reads((expected[0][-1], expected[1]), logits[0], features[0], 1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {"model_type": "mistral", "sliding_window": 4},
        {"model_type": "qwen3", "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0},
    ],
    ids=["mistral", "qwen3"],
)
def test_prompts_beyond_a_window_of_attention_are_refused(settings: dict[str, Any]) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4}
    runner = TransformersRunner(build_backbone({**sizes, **settings}, _VOCABULARY).eval())
    with pytest.raises(InputError, match="attend to the last 4 tokens: expected at least"):
        runner.open(1, 64)


_ROPE = {"rope_theta": 1e4, "factor": 2.0}
_LONG = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4, **_ROPE}


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"model_type": "gpt2", "n_positions": 23}, id="gpt2"),
        pytest.param({"model_type": "llama", "max_position_embeddings": 23}, id="llama"),
        pytest.param(
            {
                "model_type": "llama",
                "max_position_embeddings": 23,
                "rope_parameters": {"rope_type": "dynamic", **_ROPE},
            },
            id="dynamic",
        ),
        pytest.param(
            {
                "model_type": "phi3",
                "max_position_embeddings": 92,
                "original_max_position_embeddings": 23,
                "rope_parameters": {**_LONG, "original_max_position_embeddings": 23},
            },
            id="longrope",
        ),
    ],
)
def test_lists_are_written_up_to_the_last_position_and_refused_beyond(settings: dict[str, Any]) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.3}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        runner = TransformersRunner(build_backbone({**sizes, **settings}, _VOCABULARY).eval())
    prompts = random_prompts(_CATALOG, _VOCABULARY, [3, 2])  # of 13 tokens
    request = ListRequest.build(_CATALOG, _VOCABULARY, 3)  # of 11 tokens, of which 10 are read
    decoders = AutoregressiveDecoder(), SpeculativeDecoder(CatalogDraft(), DynamicTree(6, 3, 20))
    expected, found = (decoder.bind(runner, request).decode(prompts, torch.Generator())[0] for decoder in decoders)
    assert torch.equal(found.tokens, expected.tokens)
    longer = random_prompts(_CATALOG, _VOCABULARY, [6])
    for decoder in (*decoders, BeamDecoder()):
        with pytest.raises(InputError, match=r"knows the positions of 23 tokens .*: expected at least \d+, those of"):
            decoder.bind(runner, request).decode(longer, torch.Generator())


@pytest.mark.parametrize(
    "settings",
    [
        {"model_type": "granite", "logits_scaling": 4.0},
        {"model_type": "cohere", "logit_scale": 0.0625},
    ],
    ids=["granite", "cohere"],
)
def test_models_that_change_the_logits_of_their_head_are_refused(settings: dict[str, Any]) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4}
    model = build_backbone({**sizes, **settings}, _VOCABULARY)
    name = "logits_scaling|logit_scale"
    with pytest.raises(InputError, match=f"a model of type {settings['model_type']} with ({name})"):
        TransformersRunner(model)
    with pytest.raises(InputError, match=name):
        TargetRecommender(_VOCABULARY, backbone={**sizes, **settings})
