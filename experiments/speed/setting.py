"""Targets and drafts of random weights on a made-up catalog: what a pass costs does not depend on what was learned."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from padrec import Catalog, InputError, ListRequest, Prompts, SemanticIDVocabulary, SyntheticReader, TransformersRunner
from padrec.decoding import TokenTree
from padrec.drafts import FeatureDraftNetwork, NetworkDraft
from padrec.targets import build_backbone

# With the special tokens 1,200 tokens in all.
_CODEBOOKS = (299, 299, 299, 299)
_BEAUTY_ITEMS = 12_101
_DRAFT_STEPS = 6
_LIST_LENGTH = 10
# Sizes that no rule gives: those of models that people have.
_KNOWN = {
    "16x2048": {"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "intermediate_size": 8192},
    # Qwen3-1.7B
    "28x2048": {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 6144},
    "32x4096": {"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 11008},
}


def backbone_of(shape: str) -> dict[str, Any]:
    """The Qwen3-type model that a shape such as `28x1024` (layers x width) names.

    Shapes that are not known get heads of 64, half as many for keys and values, and an intermediate size of 3 widths.

    Raises:
        InputError: no shape.
    """
    layers, _, width = shape.partition("x")
    if not (layers.isdecimal() and width.isdecimal() and int(layers) > 0 and int(width) % 128 == 0 < int(width)):
        raise InputError(f"shape {shape!r}: expected LAYERSxWIDTH, the width a multiple of 128, such as 28x1024")
    heads = int(width) // 64
    by_rule = {
        "num_attention_heads": heads,
        "num_key_value_heads": heads // 2,
        "head_dim": 64,
        "intermediate_size": 3 * int(width),
    }
    sizes = {"num_hidden_layers": int(layers), "hidden_size": int(width), **_KNOWN.get(shape, by_rule)}
    return {"model_type": "qwen3", "max_position_embeddings": 8192, **sizes}


@contextmanager
def drawn_on(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Random weights made within are drawn on this device in this type.

    Billions of weights are quicker drawn where they are needed than moved there.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            yield
    finally:
        torch.set_default_dtype(before)


@dataclass(frozen=True)
class Setting:
    """A target, a draft and a request."""

    runner: TransformersRunner
    draft: NetworkDraft
    vocabulary: SemanticIDVocabulary
    request: ListRequest
    device: torch.device

    @classmethod
    def build(
        cls, shape: str, device: torch.device, dtype: torch.dtype, seed: int, catalog: Catalog | None = None
    ) -> "Setting":
        """A target of a shape with a draft and a catalog, by default of the size of Amazon Beauty's."""
        if catalog is None:
            made = SyntheticReader(n_users=1, n_items=_BEAUTY_ITEMS, codebook_sizes=_CODEBOOKS, seed=seed)
            catalog, vocabulary = made.read().catalog, SemanticIDVocabulary(list(_CODEBOOKS))
        else:
            vocabulary = SemanticIDVocabulary((catalog.codes.amax(0) + 1).tolist())
        torch.manual_seed(seed)
        with drawn_on(device, dtype):
            model = build_backbone(backbone_of(shape), vocabulary)
            network = FeatureDraftNetwork(model.config, vocabulary.n_slot_states, n_steps=_DRAFT_STEPS)
        runner = TransformersRunner(model.eval().requires_grad_(False))
        draft = NetworkDraft(network.eval().requires_grad_(False), vocabulary)
        request = ListRequest.build(catalog, vocabulary, _LIST_LENGTH, device=device)
        return cls(runner, draft, vocabulary, request, device)

    def prompts(self, batch: int, width: int) -> Prompts:
        """Random histories, all of `width` tokens."""
        catalog, vocabulary = self.request.catalog, self.vocabulary
        n_items = -(-width // vocabulary.item_length)
        items = torch.randint(catalog.n_items, (batch, n_items), generator=torch.Generator().manual_seed(width))
        history = vocabulary.encode(catalog.codes[items.flatten()]).view(batch, -1)
        tokens = torch.cat([torch.full((batch, 1), vocabulary.bos_token), history], 1)[:, :width].to(self.device)
        slots = vocabulary.sequence_slots(width).expand(batch, -1).to(self.device)
        return Prompts(tokens, slots, torch.full((batch,), width, device=self.device))

    def tree(self, batch: int, n_nodes: int) -> TokenTree:
        """A random tree."""
        generator = torch.Generator().manual_seed(n_nodes)
        tokens = torch.randint(self.vocabulary.size, (batch, n_nodes), generator=generator)
        parents = torch.rand(batch, n_nodes, generator=generator) * torch.arange(n_nodes)
        states = self.request.constraint.initial(batch * n_nodes, self.device)
        states = type(states)(**{name: value.unflatten(0, (batch, n_nodes)) for name, value in vars(states).items()})
        return TokenTree.from_parents(tokens.to(self.device), parents.long().to(self.device), states, n_nodes - 1)


def read_bytes(model: PreTrainedModel) -> int:
    """Bytes of the weights that a pass goes through: all but the embedding, of which it reads a few rows."""
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    weights = {id(weight): weight for weight in model.parameters() if weight is not embedding or weight is head}
    return sum(weight.numel() * weight.element_size() for weight in weights.values())


def past_bytes(model: PreTrainedModel, batch: int, prefix: int) -> int:
    """Bytes of the keys and values of a prefix that a pass reads, of all layers and rows."""
    config: Any = model.config
    per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    return int(per_token * batch * prefix * model.dtype.itemsize)


def large_catalog(
    n_items: int, seed: int, codebooks: Sequence[int] = _CODEBOOKS
) -> tuple[Catalog, SemanticIDVocabulary]:
    """Items with random semantic IDs, all different."""
    n_ids = math.prod(codebooks)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(n_ids, (n_items + n_items // 100 + 100,), generator=generator).unique()
    number = drawn[torch.randperm(len(drawn), generator=generator)[:n_items]]
    slots = []
    for size in codebooks:
        slots.append(number % size)
        number = number // size
    return Catalog(torch.stack(slots, 1), [str(item) for item in range(n_items)]), SemanticIDVocabulary([*codebooks])
