from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding import (
    DraftPlan,
    DraftSteps,
    ListRequest,
    Observation,
    Prompts,
    TransformersRunner,
)
from padrec.drafts import FeatureDraftNetwork, NetworkDraft, unroll
from tests.drafts.reference_drafting import random_network
from tests.stubs import random_catalog, tiny_target

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
        self.features = torch.randn(2, _LENGTH, network.hidden_size, generator=generator, dtype=torch.float64)
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
        draft = NetworkDraft(network)
        draft.prepare(self._runner, request)
        self.draft = draft.open(DraftPlan(self._runner, request, 2, 64, _DEPTH, _DEPTH))

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
        """Let the target keep `count` tokens behind the position."""
        at = self.chain.position[:, None] + 1 + torch.arange(_DEPTH + 1)
        at = at.clamp(max=_LENGTH - 1)  # behind `count` stands anything
        tokens, slots = self.tokens.gather(1, at + 1), self.slots.gather(1, at + 1)
        self.draft.observe(Observation(self.features, at, tokens, slots, count))
        self.chain.position = self.chain.position + count


@pytest.mark.parametrize("model_type", ["llama", "qwen3"])
@pytest.mark.parametrize("shared_codes", [False, True])
def test_drafting_sees_what_training_saw(shared_codes: bool, model_type: str) -> None:
    vocabulary = SemanticIDVocabulary((5, 6, 7), shared_codes=shared_codes)
    model = tiny_target(vocabulary, model_type=model_type)
    network = random_network(model, vocabulary.n_slot_states).requires_grad_(False)
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


def test_a_draft_without_network_says_so() -> None:
    with pytest.raises(RuntimeError, match="call prepare first"):
        _ = NetworkDraft().network
