"""Rules of speculative beam search: which prefixes a step keeps, and whether it may go on without another pass."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from padrec.decoding.beam.children import Children, Draw
from padrec.decoding.beam.selection import best_in_order

# Tells apart the noises of one request.
_DRAFT, _ACCEPTANCE, _ORDER = 0x5DEECE66D, 0x2545F491, 0x9E3779B1
# Above any log-probability with noise.
_TIER = 1e6


@dataclass(frozen=True)
class DraftView:
    """What the draft thinks of the same children."""

    proposed: Tensor  # whether the target has read each child, bool [B, M]
    law: Tensor  # the draft's log-probabilities of drawing each of them, [B, M]


@dataclass(frozen=True)
class Kept:
    """The children that a step keeps."""

    index: Tensor  # int64 [B, W], rising
    accepted: Tensor  # whether the step goes on if all of them were proposed, bool [B]


class BeamRule(ABC):
    """Decides which children a step of the target's search keeps.

    Attributes:
        lossless: whether beams are those of the search without a draft: equal, or if sampled equal in distribution.
        reads_draft: whether it needs a `DraftView`.
    """

    lossless: bool
    reads_draft = False

    def draft_ranks(self, children: Children, draw: Draw) -> Tensor:
        """What the draft's own search keeps the highest values of, `[B, M]`; by default by the target's noise."""
        return draw.ranks(children)

    @abstractmethod
    def keep(self, children: Children, drafted: DraftView | None, draw: Draw, width: int) -> Kept:
        """Choose `width` children.

        Captured on a GPU: shapes must not depend on values, and the host must not read any value.

        Args:
            children: with the target's scores.
            drafted: the draft's view of them; None where it proposes nothing more, and if the rule does not read it.
            draw: how to sample.
            width: W.
        """


class StrictBeamRule(BeamRule):
    """Keeps what the target's own search keeps (AtSpeed's strict top-K alignment, arXiv 2410.05165).

    Greedy: the W best. Sampled: W prefixes drawn without replacement from the target's distribution over all children,
    as the highest scores with Gumbel noise that depends on request, prefix and code alone (Gumbel top-k, Kool et al.,
    2019). The draft searches with the same noise, and what is kept does not depend on it: the law is exactly that of
    the sampled search without a draft.
    """

    lossless = True

    def keep(self, children: Children, drafted: DraftView | None, draw: Draw, width: int) -> Kept:
        """See `BeamRule.keep`."""
        return _best(draw.ranks(children), width)


class RelaxedBeamRule(BeamRule):
    """AtSpeed's relaxed sampling verification as published (arXiv 2410.05165); it changes the law.

    The draft draws its prefixes from its own distribution q without replacement. Each is accepted with probability
    min(1, p / q), whatever the others. If at least W are, W of them are kept at random and the search goes on; else
    the accepted ones are kept, the rest are drawn without replacement from the normalised max(p - q, 0), and the step
    ends. It is exact only for a beam and a draft of one prefix: the ratio ignores that prefixes are drawn without
    replacement, and choosing at random among the accepted flattens p.
    """

    lossless = False
    reads_draft = True

    def draft_ranks(self, children: Children, draw: Draw) -> Tensor:
        """By a noise of the draft's own; see `BeamRule.draft_ranks`."""
        return draw.ranks(children, _DRAFT)

    def keep(self, children: Children, drafted: DraftView | None, draw: Draw, width: int) -> Kept:
        """See `BeamRule.keep`."""
        if drafted is None or draw.temperature == 0:
            return _best(draw.ranks(children), width)
        law = children.law(draw.temperature)
        # -log u of a uniform u is the exponential of negative Gumbel noise.
        log_uniform = -(-draw.noise(children, _ACCEPTANCE)).exp()
        accepted = drafted.proposed & (log_uniform <= law - drafted.law) & (law > -torch.inf)
        residual = (law.exp() - drafted.law.exp()).clamp(min=0).log()
        # In turn: what is accepted, in random order; what is drawn from the residual; where it is empty, from p.
        tiers = torch.where(accepted, 2, (residual > -torch.inf).long())
        value = torch.where(residual > -torch.inf, residual, law) + draw.noise(children)
        value = torch.where(accepted, draw.noise(children, _ORDER), value).double() + _TIER * tiers
        kept = _best(value.masked_fill(law == -torch.inf, -torch.inf), width)
        return Kept(kept.index, accepted.sum(1) >= width)


def _best(ranks: Tensor, width: int) -> Kept:
    return Kept(best_in_order(ranks, width), torch.ones_like(ranks[:, 0], dtype=torch.bool))
