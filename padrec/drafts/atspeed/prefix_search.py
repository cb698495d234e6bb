"""Beam search that shows the beams of every length, with which drafts are taught and judged."""

import torch
from torch import Tensor

from padrec.decoding.beam.beam_draft import BeamDraft
from padrec.decoding.beam.beam_plan import level_size
from padrec.decoding.beam.children import Children, best_in_order
from padrec.decoding.layers.prompt_shape import cache_capacity
from padrec.decoding.layers.prompts import Branches, Prompts
from padrec.decoding.layers.runner import TransformersRunner
from padrec.decoding.lists.catalog_constraint import CatalogConstraint
from padrec.decoding.lists.tensor_record import pick


class PrefixSearch:
    """Beam searches slot by slot, as `BeamDecoder` with `look_ahead: 0` runs them.

    Args:
        searcher: what searches; a `LanguageModelBeamDraft` of the target searches as the target does.
        runner: the target.
        constraint: the items.
        width: prefixes kept of each length.
        renormalise: see `BeamDecoder`.
    """

    def __init__(
        self,
        searcher: BeamDraft,
        runner: TransformersRunner,
        constraint: CatalogConstraint,
        width: int,
        renormalise: bool,
    ) -> None:
        self._open = searcher.bind(runner)
        self._constraint, self._width, self._renormalise = constraint, width, renormalise

    def __call__(self, prompts: Prompts) -> list[Tensor]:
        """The trie nodes of the best prefixes of 1 … L codes, each int64 `[B, W]` in catalog order.

        The sink where a row has fewer, and no more of a length than the catalog has.
        """
        # Made in inference mode, they could not index what has gradients.
        return [beam.clone() for beam in self._search(prompts)]

    @torch.inference_mode()
    def _search(self, prompts: Prompts) -> list[Tensor]:
        constraint, trie = self._constraint, self._constraint.trie
        widths = [min(self._width, level_size(trie, level)) for level in range(1, trie.n_slots + 1)]
        batch, device = len(prompts.tokens), prompts.tokens.device
        session = self._open(batch, cache_capacity(prompts, sum(widths[:-1])), constraint)
        nodes = torch.zeros(batch, 1, dtype=torch.long, device=device)
        scores = torch.zeros(batch, 1, device=device)
        seen = torch.zeros(batch, 1, 0, dtype=torch.bool, device=device)
        logits, beams = session.begin(prompts)[:, None], []
        for level, width in enumerate(widths):
            if level > 0:
                own = torch.eye(nodes.shape[1], dtype=torch.bool, device=device).expand(batch, -1, -1)
                first, seen = seen.shape[-1], torch.cat([seen, own], -1)
                depths = torch.full((nodes.shape[1],), level - 1, device=device)
                logits = session.extend(Branches(trie.token(nodes), depths, seen, first), nodes)
            children = Children.of(constraint, nodes, scores, logits, trie.max_children, self._renormalise)
            best = best_in_order(children.scores, width)
            nodes, scores = children.nodes.gather(1, best), children.scores.gather(1, best)
            seen = pick(seen, best // trie.max_children)
            beams.append(nodes)
        return beams


def contained(beams: list[Tensor], drafted: list[Tensor], sink: int) -> tuple[Tensor, Tensor]:
    """How far a draft's beams contain the target's.

    Args:
        beams: the target's of each length, trie nodes, int64 `[B, K]`.
        drafted: the draft's of the same lengths, int64 `[B, N]`.
        sink: marks places without a prefix.

    Returns:
        The share of the target's prefixes that the draft has, of each length, float64 `[B, L]`; and the steps that
        strict verification accepts, int64 `[B]`: lengths before the last, from the first on, whose prefixes the draft
        all has. The last codes always follow from the target's own pass.
    """
    shares = []
    for own, proposed in zip(beams, drafted, strict=True):
        found = (own[..., None] == proposed[:, None]).any(-1) & (own != sink)
        shares.append(found.double().sum(1) / (own != sink).sum(1))
    share = torch.stack(shares, 1)
    return share, (share[:, :-1] == 1).int().cumprod(1).sum(1)
