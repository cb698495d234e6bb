"""The draft without parameters: the catalog itself."""

from dataclasses import dataclass

import torch
from torch import Tensor

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding.layers.runner import TargetRunner
from padrec.decoding.lists.constraint import Constraint, ListState
from padrec.decoding.lists.sampling import Choice
from padrec.decoding.lists.token_tree import TokenTree
from padrec.decoding.trees.draft import Draft, DraftContext, Observation, TreeExpansion


class CatalogDraft(Draft):
    """Knows nothing but the constraint: to it every allowed token is as probable as any other.

    Trees then hold what the catalog leaves hardly any choice about: a token is the more probable, the fewer siblings it
    and those before it have. Where decoding samples, the noise that the target will draw with tells the draft more.
    With `RootOnly` only forced tokens are proposed.
    """

    def prepare(self, runner: TargetRunner, vocabulary: SemanticIDVocabulary) -> None:
        """Any target will do."""
        self._vocabulary_size = vocabulary.size

    def begin(self, context: DraftContext) -> None:
        """Nothing needs to be known of the prompts."""

    def propose(
        self,
        root: Tensor,
        state: ListState,
        constraint: Constraint[ListState],
        choice: Choice,
        expansion: TreeExpansion,
    ) -> TokenTree:
        """Let the expansion grow a tree of what is allowed; see `Draft.propose`."""
        steps = _Indifferent(root, self._vocabulary_size)
        return expansion.expand(root, state, constraint, choice, steps)

    def observe(self, observation: Observation) -> None:
        """Nothing needs to be known of the list."""


@dataclass(frozen=True)
class _Indifferent:
    """See `DraftSteps`; makes nothing for trees that ask for no logits."""

    root: Tensor  # [B]
    vocabulary_size: int

    def root_logits(self) -> Tensor:
        return torch.zeros(len(self.root), self.vocabulary_size, device=self.root.device)

    def extend(self, tokens: Tensor, parents: Tensor, slots: Tensor, depth: int) -> Tensor:
        return self.root_logits()[:, None].expand(-1, tokens.shape[1], -1)
