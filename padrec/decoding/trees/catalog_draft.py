"""The draft without parameters: the catalog itself."""

from typing import Any

import torch
from torch import Tensor

from padrec.decoding.layers.prompts import Prompts
from padrec.decoding.layers.runner import TargetRunner
from padrec.decoding.lists.request import Request
from padrec.decoding.trees.draft import Draft, DraftPlan, DraftSession, Observation, SessionOpener


class CatalogDraft(Draft):
    """Knows nothing but the constraint: to it every allowed token is as probable as any other.

    Trees then hold tokens that the catalog almost determines: a token is the more probable, the fewer siblings it and
    those before it have. Where decoding samples, the noise that the target will draw with tells the draft more. With
    `RootOnly` only forced tokens are proposed.
    """

    def bind(self, runner: TargetRunner, request: Request[Any]) -> SessionOpener:
        """Serve any target; see `Draft.bind`."""
        return _Indifferent


class _Indifferent(DraftSession):
    """Finds all tokens alike; makes nothing for trees that ask for no logits."""

    def __init__(self, plan: DraftPlan) -> None:
        self._shape, self._device = (plan.batch, plan.request.vocabulary_size), plan.runner.model.device

    def begin(self, prompts: Prompts, features: Tensor, first: Tensor, first_slot: Tensor) -> None:
        """Nothing needs to be known of the prompts."""

    def root_logits(self) -> Tensor:
        return torch.zeros(self._shape, device=self._device)

    def extend(self, tokens: Tensor, parents: Tensor, slots: Tensor, depth: int) -> Tensor:
        return self.root_logits()[:, None].expand(-1, tokens.shape[1], -1)

    def observe(self, observation: Observation) -> None:
        """Nothing needs to be known of the list."""
