from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from padrec.catalog import InputError, SemanticIDVocabulary
from padrec.decoding import (
    AutoregressiveDecoder,
    Chain,
    DraftPlan,
    DraftSteps,
    DynamicTree,
    ListRequest,
    Observation,
    Prompts,
    Sampling,
    SpeculativeDecoder,
    TextRequest,
    TransformersRunner,
)
from padrec.drafts import (
    EAGLE,
    EAGLE3,
    DraftArchitecture,
    DraftCheckpoint,
    FeatureDraft,
    FeatureDraftNetwork,
    NetworkDraft,
    PositionAware,
    unroll,
)
from padrec.drafts.position_aware import PAD_REC
from tests.drafts.reference_drafting import random_network
from tests.drafts.test_position_aware import FORMS
from tests.stubs import random_catalog, random_prompts, tiny_target

_LENGTH, _DEPTH = 12, 4


class TrueChain:
    """Walks the tokens that really follow and writes down the draft's outputs, one `[B, d]` for each depth."""

    def __init__(self, tokens: Tensor, slots: Tensor) -> None:
        self._tokens = tokens
        self._slots = slots
        self.position = torch.empty(0)  # [B] of the last input with a feature of the target

    def outputs(self, steps: DraftSteps) -> list[Tensor]:
        outputs = [steps.root_logits()]
        for depth in range(1, _DEPTH + 1):
            at = (self.position + depth + 1).clamp(max=_LENGTH)[:, None]
            tokens, slots = self._tokens.gather(1, at), self._slots.gather(1, at)
            outputs.append(steps.extend(tokens, torch.zeros_like(at), slots, depth)[:, 0])
        return outputs


class Drafting:
    """A draft at work on two rows of true tokens `x_0 … x_T` and the target's features of them."""

    def __init__(self, network: FeatureDraftNetwork, embedding: nn.Module, vocabulary: SemanticIDVocabulary) -> None:
        generator = torch.Generator().manual_seed(2)
        self.tokens = torch.randint(vocabulary.size, (2, _LENGTH + 1), generator=generator)
        token_slots = vocabulary.token_slots
        self.slots = torch.randint(vocabulary.n_slot_states, self.tokens.shape, generator=generator)
        if token_slots is not None:
            self.slots = token_slots[self.tokens]
        size = len(network.feature_layers) * network.hidden_size
        self.features = torch.randn(2, _LENGTH, size, generator=generator, dtype=torch.float64)
        # With the identity as head, logits are the features themselves.
        model = SimpleNamespace(
            get_output_embeddings=nn.Identity,
            get_input_embeddings=lambda: embedding,
            config=network.config,
            device=torch.device("cpu"),
            dtype=torch.float64,
        )
        self._runner = cast(TransformersRunner, SimpleNamespace(model=model))
        self.chain = TrueChain(self.tokens, self.slots)
        catalog = random_catalog(vocabulary.codebook_sizes, 9)
        request = ListRequest.build(catalog, vocabulary, 2, constrained=False)
        opener = NetworkDraft(network, vocabulary).bind(self._runner, request)
        self.draft = opener(DraftPlan(self._runner, request, 2, 64, _DEPTH, _DEPTH))

    def begin(self, lengths: Tensor) -> None:
        width = int(lengths.max())
        prompts = Prompts(self.tokens[:, :width], self.slots[:, :width], lengths)
        first, slot = (values.gather(1, lengths[:, None])[:, 0] for values in (self.tokens, self.slots))
        features = self.features[:, :width]
        self.draft.begin(prompts, features, first, slot)
        self.chain.position = lengths - 1

    def propose(self) -> list[Tensor]:
        return self.chain.outputs(self.draft)

    def keep(self, count: Tensor) -> None:
        """Let the target keep `count` tokens after the position."""
        at = self.chain.position[:, None] + 1 + torch.arange(_DEPTH + 1)
        at = at.clamp(max=_LENGTH - 1)  # anything may follow the first `count`
        tokens, slots = self.tokens.gather(1, at + 1), self.slots.gather(1, at + 1)
        self.draft.observe(Observation(at, tokens, slots, count, self.features))
        self.chain.position = self.chain.position + count


_ARCHITECTURES = [EAGLE(n_layers=3), EAGLE(feature_layers=(1, -1)), EAGLE3(n_layers=2, feature_layers=(0, 1))]
_DRAFTS = [
    *(("qwen3", form, EAGLE()) for form in FORMS[4:]),
    *((model_type, PAD_REC, EAGLE()) for model_type in ("llama", "qwen3")),
    *((model_type, PAD_REC, one) for model_type in ("qwen3", "gemma") for one in _ARCHITECTURES),
]


@pytest.mark.parametrize(("model_type", "form", "architecture"), _DRAFTS, ids=str)
@pytest.mark.parametrize("shared_codes", [False, True])
def test_drafting_sees_what_training_saw(
    shared_codes: bool, model_type: str, form: PositionAware, architecture: DraftArchitecture
) -> None:
    vocabulary = SemanticIDVocabulary((5, 6, 7), shared_codes=shared_codes)
    model = tiny_target(vocabulary, model_type=model_type)
    network = random_network(model, vocabulary.n_slot_states, form, architecture).requires_grad_(False)
    drafting = Drafting(network, model.get_input_embeddings(), vocabulary)
    embeddings = model.get_input_embeddings()(drafting.tokens[:, 1:])
    trained = list(unroll(network, embeddings, drafting.features, drafting.slots[:, 1:], _DEPTH + 1))

    drafting.begin(torch.tensor([1, 4]))
    compared = 0
    for count in ([1, 2], [3, 0], [1, 1], [2, 2]):
        for depth, output in enumerate(drafting.propose()):
            for row, position in enumerate(drafting.chain.position.tolist()):
                if position + depth < _LENGTH:
                    expected = trained[depth][row, position + depth]
                    torch.testing.assert_close(output[row], expected, rtol=0, atol=1e-9)
                    compared += 1
        drafting.keep(torch.tensor(count))
    assert compared > 30


@pytest.mark.parametrize("shared_codes", [False, True])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(1.0)], ids=["greedy", "sampled"])
def test_every_form_of_the_position_aware_part_is_lossless(sampling: Sampling, shared_codes: bool) -> None:
    vocabulary = SemanticIDVocabulary((5, 6, 7), shared_codes=shared_codes)
    model, catalog = tiny_target(vocabulary), random_catalog(vocabulary.codebook_sizes, 30)
    runner, prompts = TransformersRunner(model), random_prompts(catalog, vocabulary, [3, 0])
    request = ListRequest.build(catalog, vocabulary, 3, sampling=sampling)
    expected, _ = AutoregressiveDecoder().bind(runner, request).decode(prompts, torch.Generator().manual_seed(0))
    for form in FORMS:
        draft = NetworkDraft(random_network(model, vocabulary.n_slot_states, form).requires_grad_(False), vocabulary)
        session = SpeculativeDecoder(draft, DynamicTree(depth=4, width=3, nodes=12)).bind(runner, request)
        found, _ = session.decode(prompts, torch.Generator().manual_seed(0))
        assert torch.equal(found.tokens, expected.tokens)


def saved_draft(model: PreTrainedModel, vocabulary: SemanticIDVocabulary, folder: Path) -> FeatureDraft:
    """A random draft for a target without a fingerprint, read from disk."""
    settings = {"n_slot_states": vocabulary.n_slot_states, "n_steps": 3, "architecture": EAGLE().description}
    network = random_network(model, vocabulary.n_slot_states)
    DraftCheckpoint(settings, network.state_dict(), "", vocabulary).write(folder)
    return FeatureDraft(str(folder))


def list_request(vocabulary: SemanticIDVocabulary) -> ListRequest:
    return ListRequest.build(random_catalog(vocabulary.codebook_sizes, 30), vocabulary, 3)


@pytest.mark.parametrize("shared_codes", [False, True])
def test_a_session_keeps_its_target_when_the_draft_is_bound_to_another(shared_codes: bool, tmp_path: Path) -> None:
    vocabulary = SemanticIDVocabulary((5, 6, 7), shared_codes=shared_codes)
    models = [tiny_target(vocabulary, seed=seed) for seed in (0, 1)]
    draft = saved_draft(models[0], vocabulary, tmp_path / "draft")
    network = random_network(models[0], vocabulary.n_slot_states).requires_grad_(False)
    request, catalog = list_request(vocabulary), random_catalog(vocabulary.codebook_sizes, 30)
    for shared in (draft, NetworkDraft(network, vocabulary)):
        bound = [SpeculativeDecoder(shared, Chain(3)).bind(TransformersRunner(model), request) for model in models]
        # Sessions open at the first batch of their shape, here after both targets have been bound.
        for model, session in zip(models, bound, strict=True):
            fresh = SpeculativeDecoder(NetworkDraft(network, vocabulary), Chain(3))
            for histories in ([3, 1], [2, 5, 1]):
                prompts = random_prompts(catalog, vocabulary, histories)
                _, trace = session.decode(prompts, torch.Generator())
                _, expected = fresh.bind(TransformersRunner(model), request).decode(prompts, torch.Generator())
                assert torch.equal(trace.target_passes, expected.target_passes)
                assert torch.equal(trace.accepted, expected.accepted)


def test_decoders_that_share_a_draft_make_one_network_for_each_target(tmp_path: Path) -> None:
    vocabulary = SemanticIDVocabulary((5, 6, 7))
    model = tiny_target(vocabulary)
    draft = saved_draft(model, vocabulary, tmp_path / "draft")
    one, other = TransformersRunner(model), TransformersRunner(model)
    openers = [draft.bind(runner, list_request(vocabulary)) for runner in (one, one, other)]
    assert openers[0] is openers[1]
    assert openers[1] is not openers[2]


def test_a_draft_takes_the_precision_of_the_target_it_serves(tmp_path: Path) -> None:
    vocabulary = SemanticIDVocabulary((5, 6, 7))
    model = tiny_target(vocabulary, dtype=torch.bfloat16)
    network = saved_draft(model, vocabulary, tmp_path / "draft").network(TransformersRunner(model))
    assert {parameter.dtype for parameter in network.parameters()} == {torch.bfloat16}
    assert {buffer.dtype for buffer in network.buffers()} == {torch.float32}
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_free_text_is_drafted_where_tokens_determine_their_slots(tmp_path: Path) -> None:
    vocabulary = SemanticIDVocabulary((5, 6, 7))
    runner = TransformersRunner(tiny_target(vocabulary))
    prompts = random_prompts(random_catalog((5, 6, 7), 30), vocabulary, [3, 1])
    prompts = replace(prompts, slots=torch.zeros_like(prompts.slots))
    request = TextRequest(vocabulary.size, 12, (vocabulary.eos_token,))
    draft = saved_draft(runner.model, vocabulary, tmp_path / "draft")
    expected, _ = AutoregressiveDecoder().bind(runner, request).decode(prompts, torch.Generator())
    found, _ = SpeculativeDecoder(draft, Chain(3)).bind(runner, request).decode(prompts, torch.Generator())
    assert torch.equal(found.tokens, expected.tokens)


def test_free_text_is_refused_where_slots_share_their_tokens(tmp_path: Path) -> None:
    vocabulary = SemanticIDVocabulary((5, 6, 7), shared_codes=True)
    model = tiny_target(vocabulary)
    draft = saved_draft(model, vocabulary, tmp_path / "draft")
    with pytest.raises(InputError, match="a TextRequest for a draft whose slots share their code tokens"):
        draft.bind(TransformersRunner(model), TextRequest(vocabulary.size, 12))
