"""What target and draft expect after prefixes of items."""

from dataclasses import dataclass

import torch
from torch import Tensor

from padrec.catalog import CatalogTrie

# The log-probability of what is impossible. Finite: 0 times minus infinity would be no number.
_IMPOSSIBLE = -1e9


@dataclass(frozen=True)
class CodeChoices:
    """Distributions over the codes that the catalog allows after M prefixes, and over not choosing any of them.

    Attributes:
        draft: log q, `[M, C + 1]`; the last column is that of all other tokens.
        target: log p, `[M, C + 1]`.
        following: column of the code that follows in the sequence, int64 `[M]`.
    """

    draft: Tensor
    target: Tensor
    following: Tensor

    @classmethod
    def of(
        cls,
        draft_logits: Tensor,
        target_logits: Tensor,
        nodes: Tensor,
        tokens: Tensor,
        trie: CatalogTrie,
        renormalise: bool = False,
    ) -> "CodeChoices":
        """From logits over the vocabulary.

        Args:
            draft_logits: `[M, V]`.
            target_logits: `[M, V]`.
            nodes: the prefixes' trie nodes, int64 `[M]`.
            tokens: the codes that follow, int64 `[M]`.
            trie: trie of the catalog.
            renormalise: leave out all other tokens, as searches with `renormalise` do.
        """
        children, _, present = trie.children(nodes)  # [M, C]
        return cls(
            _log_probs(draft_logits, children, present, renormalise),
            _log_probs(target_logits, children, present, renormalise),
            (present & (children == tokens[:, None])).int().argmax(-1),
        )

    @property
    def n_codes(self) -> int:
        """C."""
        return self.draft.shape[-1] - 1

    def codes(self, log_probs: Tensor) -> Tensor:
        """The columns of codes, `[M, C]`."""
        return log_probs[..., :-1]

    def at_temperature(self, temperature: float) -> "CodeChoices":
        """The distributions of logits divided by a temperature."""
        if temperature == 1:
            return self
        draft, target = ((values / temperature).log_softmax(-1) for values in (self.draft, self.target))
        return CodeChoices(draft, target, self.following)


def _log_probs(logits: Tensor, children: Tensor, present: Tensor, renormalise: bool) -> Tensor:
    """Log-probabilities of the allowed codes and of all other tokens, `[*, C + 1]`.

    Args:
        logits: `[*, V]`.
        children: the codes, int64 `[*, C]`.
        present: which of them exist, bool `[*, C]`.
        renormalise: make those of all other tokens 0.
    """
    found = logits.gather(-1, children).masked_fill(~present, _IMPOSSIBLE)
    if renormalise:
        others = torch.full_like(found[..., :1], _IMPOSSIBLE)
    else:
        allowed = torch.zeros(*logits.shape[:-1], logits.shape[-1] + 1, dtype=torch.bool, device=logits.device)
        # Children that do not exist go to an extra last column.
        allowed.scatter_(-1, children.where(present, logits.shape[-1]), torch.ones_like(present))
        others = logits.masked_fill(allowed[..., :-1], _IMPOSSIBLE).logsumexp(-1, keepdim=True)
    return torch.cat([found, others], -1).log_softmax(-1)


def prefix_nodes(trie: CatalogTrie, codes: Tensor) -> Tensor:
    """The trie node before each code of items whose code tokens are `codes`, both int64 `[*, L]`."""
    nodes = [torch.zeros_like(codes[..., 0])]
    for code in codes.unbind(-1)[:-1]:
        nodes.append(trie.child(nodes[-1], code))
    return torch.stack(nodes, -1)
