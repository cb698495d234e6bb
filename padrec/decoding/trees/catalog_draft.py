"""The draft without parameters."""

from typing import Any

import torch
from torch import Tensor

from padrec.decoding.layers.prompts import Prompts
from padrec.decoding.layers.runner import TargetRunner
from padrec.decoding.lists.request import Request
from padrec.decoding.trees.draft import Draft, DraftPlan, DraftSession, Observation


class CatalogDraft(Draft):
    """Finds all allowed tokens equally probable.

    So trees hold tokens that the catalog almost determines, those on paths with few siblings. In sampled decoding the
    target's noise tells more. With `RootOnly` only forced tokens are proposed.
    """

    def prepare(self, runner: TargetRunner, request: Request[Any]) -> None:
        """Accept any target."""

    def open(self, plan: DraftPlan) -> DraftSession:
        """See `Draft.open`."""
        return _Indifferent(plan.batch, plan.request.vocabulary_size, plan.runner.model.device)


class _Indifferent(DraftSession):
    """Makes logits only on demand, since `RootOnly` needs none."""

    def __init__(self, batch: int, vocabulary_size: int, device: torch.device) -> None:
        self._shape, self._device = (batch, vocabulary_size), device

    def begin(self, prompts: Prompts, features: Tensor, first: Tensor, first_slot: Tensor) -> None:
        """Ignore the prompts."""

    def root_logits(self) -> Tensor:
        return torch.zeros(self._shape, device=self._device)

    def extend(self, tokens: Tensor, parents: Tensor, slots: Tensor, depth: int) -> Tensor:
        return self.root_logits()[:, None].expand(-1, tokens.shape[1], -1)

    def observe(self, observation: Observation) -> None:
        """Ignore the list."""
