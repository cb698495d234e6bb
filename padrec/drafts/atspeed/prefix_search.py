"""Beam search that shows the beams of every length, with which drafts are taught and judged."""

import torch
from torch import Tensor

from padrec.decoding.beam.beam_draft import LanguageModelSession
from padrec.decoding.beam.beam_plan import SpeculativeBeamPlan
from padrec.decoding.beam.beam_rule import StrictBeamRule
from padrec.decoding.beam.children import Draw
from padrec.decoding.beam.draft_search import DraftSearch, Level, SearchContext
from padrec.decoding.layers.prompt_shape import cache_capacity
from padrec.decoding.layers.prompts import Prompts
from padrec.decoding.layers.runner import TransformersRunner
from padrec.decoding.lists.catalog_constraint import CatalogConstraint


class PrefixSearch:
    """Beam searches of a target or a draft slot by slot, as `BeamDecoder` with `look_ahead: 0` runs them.

    They keep `plan.width` prefixes of each length.
    """

    def __init__(self, runner: TransformersRunner, constraint: CatalogConstraint, plan: SpeculativeBeamPlan) -> None:
        self._runner, self._constraint, self._plan = runner, constraint, plan

    def __call__(self, prompts: Prompts) -> list[Tensor]:
        """The trie nodes of the best prefixes of 1 … L codes, each int64 `[B, W]` in catalog order.

        The sink where a row has fewer, and no more of a length than the catalog has.
        """
        # Tensors of inference mode could not index those that have gradients.
        return [beam.clone() for beam in self._search(prompts)]

    @torch.inference_mode()
    def _search(self, prompts: Prompts) -> list[Tensor]:
        widths = [min(self._plan.width, size) for size in self._plan.level_sizes]
        keys = torch.zeros_like(prompts.lengths)
        read = sum(widths[:-1])
        session = LanguageModelSession(
            self._runner, len(keys), cache_capacity(prompts, read, keys.device), self._constraint
        )
        context = SearchContext(self._constraint, self._plan, StrictBeamRule(), Draw(keys, 0.0, keys[:0]))
        root = Level(
            nodes=keys[:, None],
            tokens=keys[:, None],
            scores=torch.zeros(len(keys), 1, dtype=torch.float32, device=keys.device),
            depths=torch.full_like(keys[:1, None], -1),
            seen=torch.zeros(len(keys), 1, read, dtype=torch.bool, device=keys.device),
        )
        # Not compiled: validations and batches of many shapes would each wait for it.
        search = DraftSearch(session, context, compiles=False)
        levels = search.levels(root, session.begin(prompts, None)[:, None], 0, widths)
        return [level.nodes for level in levels[1:]]


def contained(beams: list[Tensor], drafted: list[Tensor], sink: int) -> tuple[Tensor, Tensor]:
    """How far a draft's beams of each length contain the target's, trie nodes `[B, N]` and `[B, K]`.

    Returns the share of the target's prefixes that the draft has, of each length, float64 `[B, L]`; and the steps that
    strict verification accepts, int64 `[B]`: lengths before the last, from the first on, whose prefixes the draft all
    has. The last codes always follow from the target's own pass.
    """
    shares = []
    for own, proposed in zip(beams, drafted, strict=True):
        found = (own[..., None] == proposed[:, None]).any(-1) & (own != sink)
        shares.append(found.double().sum(1) / (own != sink).sum(1))
    share = torch.stack(shares, 1)
    return share, (share[:, :-1] == 1).int().cumprod(1).sum(1)
