"""What target and draft expect after prefixes of items."""

from dataclasses import dataclass

import torch
from torch import Tensor

from padrec.catalog import CatalogTrie

# The log-probability of what is impossible. Finite: 0 times minus infinity would be no number.
_IMPOSSIBLE = -1e9


@dataclass(frozen=True)
class CodeChoices:
    """Distributions over the codes that the catalog allows after M prefixes."""

    draft: Tensor  # log q, [M, C]
    target: Tensor  # log p, [M, C]
    following: Tensor  # column of the code that follows in the sequence, int64 [M]

    @classmethod
    def of(
        cls, draft_logits: Tensor, target_logits: Tensor, nodes: Tensor, tokens: Tensor, trie: CatalogTrie
    ) -> "CodeChoices":
        """From logits `[M, V]` after the prefixes at trie nodes `[M]`, of which the codes `[M]` follow, both int64."""
        children, _, present = trie.children(nodes)  # [M, C]
        return cls(
            _log_probs(draft_logits, children, present),
            _log_probs(target_logits, children, present),
            (present & (children == tokens[:, None])).int().argmax(-1),
        )

    def at_temperature(self, temperature: float) -> "CodeChoices":
        """The distributions of logits divided by a temperature."""
        if temperature == 1:
            return self
        draft, target = ((values / temperature).log_softmax(-1) for values in (self.draft, self.target))
        return CodeChoices(draft, target, self.following)


def _log_probs(logits: Tensor, children: Tensor, present: Tensor) -> Tensor:
    """Log-probabilities of the codes `[M, C]` that are present, after logits `[M, V]`."""
    return logits.gather(-1, children).masked_fill(~present, _IMPOSSIBLE).log_softmax(-1)


def prefix_nodes(trie: CatalogTrie, codes: Tensor) -> Tensor:
    """The trie node before each code of items whose code tokens are `codes`, both int64 `[*, L]`."""
    nodes = [torch.zeros_like(codes[..., 0])]
    for code in codes.unbind(-1)[:-1]:
        nodes.append(trie.child(nodes[-1], code))
    return torch.stack(nodes, -1)


def nodes_before(trie: CatalogTrie, tokens: Tensor, slots: Tensor) -> Tensor:
    """The trie node before each code of sequences, from tokens and slots, all int64 `[B, T]`; elsewhere the root."""
    nodes = torch.zeros_like(tokens)
    for slot in range(1, trie.n_slots):
        nodes = torch.where(slots == slot, trie.child(nodes, tokens).roll(1, 1), nodes)
    return nodes
