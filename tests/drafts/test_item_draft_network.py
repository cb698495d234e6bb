"""One pass an item: drafting sees what training saw, and lists are the target's."""

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding import DraftPlan, ItemDraftSteps, ListRequest, Observation, Prompts, TransformersRunner
from padrec.drafts import ItemDraftNetwork, ItemEAGLE, NetworkDraft, PositionAware, folded_fusion, unroll_items
from tests.drafts.reference_drafting import random_network
from tests.drafts.test_position_aware import FORMS
from tests.stubs import random_catalog, tiny_target

_ITEMS, _PASSES = 6, 3


def item_network(model: PreTrainedModel, vocabulary: SemanticIDVocabulary, form: PositionAware) -> ItemDraftNetwork:
    architecture = ItemEAGLE(n_heads=vocabulary.item_length - 1, rank=8)
    network = random_network(model, vocabulary.n_slot_states, form, architecture).requires_grad_(False)
    assert isinstance(network, ItemDraftNetwork)
    return network


class ItemDrafting:
    """A draft at work on two rows of true items and random features of them."""

    def __init__(self, model: PreTrainedModel, network: ItemDraftNetwork, vocabulary: SemanticIDVocabulary) -> None:
        generator = torch.Generator().manual_seed(2)
        catalog = random_catalog(vocabulary.codebook_sizes, 9)
        items = vocabulary.encode(catalog.codes[torch.randint(9, (2, _ITEMS), generator=generator)]).flatten(1)
        self.tokens = torch.cat([torch.full((2, 1), vocabulary.bos_token), items], 1)
        self.slots = vocabulary.sequence_slots(self.tokens.shape[1]).expand_as(self.tokens)
        self.features = torch.randn(*self.tokens.shape, network.hidden_size, generator=generator, dtype=torch.float64)
        self.length, self.embeddings = vocabulary.item_length, model.get_input_embeddings()(self.tokens[:, 1:])
        runner = TransformersRunner(model)
        request = ListRequest.build(catalog, vocabulary, 2)
        depth = _PASSES * self.length
        session = NetworkDraft(network, vocabulary).bind(runner, request)(
            DraftPlan(runner, request, 2, 3 * self.tokens.shape[1], _PASSES, depth)
        )
        assert isinstance(session, ItemDraftSteps)
        self.session = session

    def at(self, values: Tensor, place: Tensor) -> Tensor:
        return values.gather(1, place.clamp(max=self.tokens.shape[1] - 1)[:, None])

    def begin(self, lengths: Tensor) -> None:
        """The prompt ends before the roots, `[B]`."""
        width = int(lengths.max())
        prompts = Prompts(self.tokens[:, :width], self.slots[:, :width], lengths)
        first, slot = (self.at(values, lengths)[:, 0] for values in (self.tokens, self.slots))
        self.session.begin(prompts, self.features[:, :width], first, slot)

    def keep(self, roots: Tensor, count: int) -> None:
        at = (roots[:, None] + torch.arange(_PASSES * self.length + 1)).clamp(max=self.tokens.shape[1] - 2)
        tokens, slots = self.tokens.gather(1, at + 1), self.slots.gather(1, at + 1)
        self.session.observe(Observation(at, tokens, slots, torch.full_like(roots, count), self.features))

    def propose(self, roots: Tensor) -> list[tuple[int, Tensor, Tensor]]:
        """The pass that every level follows, the places of its nodes' tokens, `[B]`, and its logits, `[B, V]`."""
        to_first = (self.length - self.slots.gather(1, roots[:, None])[:, 0]).clamp(min=1)
        levels = [(0, roots, self.session.root_logits())]
        for level in range(1, _PASSES * self.length):
            since, number = level % self.length, level // self.length
            place = roots + (torch.minimum(to_first, torch.tensor(level)) if number == 0 else to_first)
            place = place + (0 if number == 0 else level - self.length)
            tokens, slots, parents = self.at(self.tokens, place), self.at(self.slots, place), torch.zeros(2, 1).long()
            stays = (to_first <= level) & (number == 0)
            if since == 0:
                logits = self.session.read_firsts(tokens, parents, slots, place - roots - 1)
            else:
                logits = self.session.follow(tokens, parents, torch.where(stays, 0, slots[:, 0]))
            levels.append((number, torch.where(stays, self.tokens.shape[1], place), logits[:, 0]))
        return levels


_VOCABULARIES = [
    SemanticIDVocabulary((5, 6, 7)),
    SemanticIDVocabulary((5, 6, 7), shared_codes=True),
    SemanticIDVocabulary((5, 6, 7), separator=False),
]


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("vocabulary", _VOCABULARIES, ids=str)
@pytest.mark.parametrize("joined", [True, False], ids=["small head", "large head"])
def test_drafting_sees_what_training_saw(
    joined: bool, vocabulary: SemanticIDVocabulary, form: PositionAware, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not joined:
        monkeypatch.setattr(folded_fusion, "_MOST_JOINED_ROWS", 8)
    model = tiny_target(vocabulary, model_type="qwen3")
    network, length = item_network(model, vocabulary, form), vocabulary.item_length
    drafting, head = ItemDrafting(model, network, vocabulary), model.get_output_embeddings()
    features, slots = drafting.features[:, :-1], drafting.slots[:, 1:]
    rows = torch.arange(slots.numel())
    compared, roots = 0, torch.tensor([length + 1, 2 * length + 1])
    drafting.begin(roots)
    for kept in (1, 2, 1, 3, 1, 1):
        levels = drafting.propose(roots)
        for row, root in enumerate(roots.tolist()):
            # Training draws the slot of the root of each item.
            slot = int(drafting.slots[row, root])
            monkeypatch.setattr(torch, "rand", lambda shape, s=slot, **_: torch.full(shape, (s + 0.5) / length))
            trained = list(unroll_items(network, drafting.embeddings, features, slots, _PASSES, rows))
            for number, place, logits in levels:
                at = int(place[row]) - 1  # inputs are shifted by one
                if at >= slots.shape[1]:
                    continue
                step = length - 1 + number if number else at - (root - 1)
                predicted, valid = trained[step]
                assert valid[row * slots.shape[1] + at]
                torch.testing.assert_close(logits[row], head(predicted[row * slots.shape[1] + at]), rtol=0, atol=1e-9)
                compared += 1
        drafting.keep(roots, kept)
        roots = roots + kept
    assert compared > 60
