"""The children of a beam's prefixes, among which a step of the search draws."""

from dataclasses import dataclass

import torch
from torch import Tensor

from padrec.decoding.lists.catalog_constraint import CatalogConstraint
from padrec.decoding.lists.request import ListRequest
from padrec.decoding.lists.sampling import token_noise, token_steps


@dataclass(frozen=True)
class Children:
    """The children of W prefixes, C of each, in catalog order: M = W C in each row."""

    prefixes: Tensor  # trie nodes of the prefixes, int64 [B, W]
    nodes: Tensor  # trie nodes of the children, int64 [B, M]; the sink where a prefix has no more
    tokens: Tensor  # their last codes, int64 [B, M]
    log_probs: Tensor  # those of their last codes, [B, M]
    scores: Tensor  # log-probabilities of the children, [B, M]; minus infinity for those that are not allowed

    @classmethod
    def of(
        cls,
        constraint: CatalogConstraint,
        prefixes: Tensor,
        scores: Tensor,
        logits: Tensor,
        most: int,
        renormalise: bool = False,
    ) -> "Children":
        """Score the children of prefixes, trie nodes `[B, W]` in catalog order with log-probabilities `[B, W]`.

        Logits are those of the code after each prefix, `[B, W, V]`; no prefix has more than `most` children, C. For
        `renormalise` see `BeamDecoder`.
        """
        trie = constraint.trie
        tokens, nodes, present = trie.children(prefixes, most)  # [B, W, C]
        if constraint.available is not None:
            present = present & (constraint.leaves_below(nodes) > 0)
        found = logits.gather(2, tokens)
        competing = found.masked_fill(~present, -torch.inf) if renormalise else logits
        log_probs = found - competing.logsumexp(-1, keepdim=True)
        total = (scores[..., None] + log_probs).masked_fill(~present, -torch.inf)
        nodes = nodes.masked_fill(~present, trie.sink)
        return cls(prefixes, *(value.flatten(1) for value in (nodes, tokens, log_probs, total)))

    def law(self, temperature: float) -> Tensor:
        """Log-probabilities of drawing each child, `[B, M]`."""
        return (self.scores / temperature).log_softmax(-1)


@dataclass(frozen=True)
class Draw:
    """How a step draws."""

    keys: Tensor  # of the requests, int64 [B]
    temperature: float  # what scores are divided by; 0 keeps the best
    steps: Tensor  # of all tokens; see `token_steps`

    @classmethod
    def of(cls, request: ListRequest, batch: int, device: torch.device) -> "Draw":
        """For batches of one size; their keys are copied in."""
        keys = torch.zeros(batch, dtype=torch.long, device=device)
        return cls(keys, request.sampling.temperature, token_steps(request.vocabulary_size, device))

    def ranks(self, children: Children, salt: int = 0) -> Tensor:
        """What the highest values of are kept, `[B, M]`: the scores, or with noise, which draws without replacement."""
        if self.temperature == 0:
            return children.scores
        # Not normalised: within a row that changes nothing.
        return children.scores / self.temperature + self.noise(children, salt)

    def noise(self, children: Children, salt: int = 0) -> Tensor:
        """Gumbel noise of the children as a function of request, prefix and code, `[B, M]`."""
        steps = self.steps[children.tokens].view(*children.prefixes.shape, -1)  # [B, W, C]
        return token_noise(self.keys ^ salt, children.prefixes, steps).flatten(1)
