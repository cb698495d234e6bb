"""Speculative decoding: a draft proposes, the target verifies in one pass."""

from functools import partial
from typing import Any, TypeVar

from padrec.catalog import InputError, check_arguments
from padrec.decoding.decoders.decoder import LIST_SEARCH, Decoder
from padrec.decoding.layers.runner import TransformersRunner
from padrec.decoding.lists.request import Request
from padrec.decoding.lists.verification import ExactVerification, VerificationRule
from padrec.decoding.rounds.decoding_session import DecodingSession, SessionsByShape, ShapeSession
from padrec.decoding.rounds.rounds import Rounds
from padrec.decoding.trees.draft import CatalogDraft, Draft, DraftPlan, SessionOpener
from padrec.decoding.trees.dynamic_tree import DynamicTree
from padrec.decoding.trees.tree_expansion import RootOnly, TreeExpansion
from padrec.decoding.trees.tree_operations import ForcedRuns

R = TypeVar("R")

# Leaves of a tree that forced tokens continue.
_FORCED_LEAVES = 4


class SpeculativeDecoder(Decoder):
    """Generates what `AutoregressiveDecoder` does in fewer target passes.

    Args:
        draft: proposes tokens.
        expansion: how its proposals become a tree; None is `DynamicTree()`.
        forced_tokens: continue the draft's best leaves by the tokens that the constraint forces after them. This costs
            nodes of the tree, but no draft pass.
        verification: which tokens a round emits; None is `ExactVerification`, which is lossless.

    Raises:
        InputError: an `ItemTree` without a draft with one pass an item, or the other way round.
    """

    search = LIST_SEARCH

    def __init__(
        self,
        draft: Draft,
        expansion: TreeExpansion | None = None,
        forced_tokens: bool = True,
        verification: VerificationRule | None = None,
    ) -> None:
        check_arguments(SpeculativeDecoder, locals())
        self.draft = draft
        self.expansion = expansion or DynamicTree()
        if self.expansion.item_length != draft.item_length:
            tree = f"{type(self.expansion).__name__} of item_length {self.expansion.item_length}"
            expected = "an ItemTree for a draft that ItemDraft trained on items of this length, or neither"
            raise InputError(f"{tree} and a draft of item_length {draft.item_length}: expected {expected}")
        self.forced_tokens = forced_tokens
        self.verification = verification or ExactVerification()
        self.lossless, self.sources = self.verification.lossless, draft.sources

    @property
    def facts(self) -> dict[str, Any]:
        """Those of the draft."""
        return self.draft.facts

    def max_depth(self, request: Request[Any]) -> int:
        """The draft's depth plus the longest run of forced tokens; see `Decoder.max_depth`."""
        return self.expansion.depth + self._forced_runs(request).length

    def nodes(self, request: Request[Any]) -> int:
        """Nodes that the target reads per row and pass, forced tokens included."""
        return self.expansion.nodes + self._forced_runs(request).nodes

    def room(self, request: Request[Any]) -> int:
        """Cache tokens that are needed after a prompt: the list and one round."""
        max_depth = self.max_depth(request)
        # After the list, caches hold a round's tree, or the columns that commit writes, or the draft's own nodes.
        return request.n_tokens + max(self.nodes(request), max_depth + 1, self.expansion.draft_rows + max_depth + 1)

    def bind(self, runner: TransformersRunner, request: Request[R]) -> DecodingSession[R]:
        """Bind the draft; see `Decoder.bind`."""
        draft = self.draft.bind(runner, request)
        return SessionsByShape(
            partial(self._session, runner, request, draft),
            self.room(request),
            partial(runner.check_length, written=request.n_tokens),
            runner.model.device,
        )

    def _session(
        self,
        runner: TransformersRunner,
        request: Request[R],
        draft: SessionOpener,
        batch: int,
        capacity: int,
        excludes: bool,
    ) -> DecodingSession[R]:
        request = request.excluding(batch) if excludes else request
        return ShapeSession(self.rounds(runner, request, draft, batch, capacity), request, runner.model.device)

    def rounds(
        self, runner: TransformersRunner, request: Request[Any], draft: SessionOpener, batch: int, capacity: int
    ) -> Rounds:
        """The rounds for batches of B rows, with room for prompt, list and one round's tree.

        `draft` is what `Draft.bind` returned for this target and request.
        """
        draft_rows = max(1, self.expansion.draft_rows)
        plan = DraftPlan(runner, request, batch, capacity, draft_rows, self.max_depth(request))
        target = runner.open(batch, capacity, self.draft.feature_layers)
        return Rounds(plan, target, draft(plan), self.expansion, self._forced_runs(request), self.verification)

    def _forced_runs(self, request: Request[Any]) -> ForcedRuns:
        length = request.constraint.longest_run if self.forced_tokens else 0
        return ForcedRuns(min(_FORCED_LEAVES, self.expansion.leaves), length)


class AutoregressiveDecoder(SpeculativeDecoder):
    """The reference: one target pass per token, run as speculation that proposes nothing.

    Args:
        forced_tokens: spend no pass on tokens that the constraint forces: a pass reads them with the token before.
    """

    def __init__(self, forced_tokens: bool = False) -> None:
        super().__init__(CatalogDraft(), RootOnly(), forced_tokens)
