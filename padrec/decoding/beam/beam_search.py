"""The steps of a beam search, which are recorded on a GPU."""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from padrec.decoding.beam.beam_plan import BeamPass, level_size, tokens_behind
from padrec.decoding.beam.prefix_tree import PrefixTree
from padrec.decoding.layers.prompts import Prompts
from padrec.decoding.layers.runner import TargetRunner, TargetSession
from padrec.decoding.lists.catalog_constraint import CatalogConstraint


@dataclass(frozen=True)
class Beam:
    """The best prefixes of one length, in the catalog's order.

    Attributes:
        nodes: trie nodes, int64 `[B, W]`.
        scores: log-probabilities of the prefixes, `[B, W]`.
        log_probs: of each of their codes, `[B, W, codes]`.
        places: where in the tree of the current pass they stand, int64 `[B, W]`.
        seen: what their children see of the tokens behind the prompt, bool `[B, W, R]`.
    """

    nodes: Tensor
    scores: Tensor
    log_probs: Tensor
    places: Tensor
    seen: Tensor

    @classmethod
    def empty_prefix(cls, batch: int, n_seen: int, device: torch.device) -> "Beam":
        """The beam before the first code: the trie's root alone, R being `n_seen`."""
        root = torch.zeros(batch, 1, dtype=torch.long, device=device)
        return cls(
            nodes=root,
            scores=torch.zeros(batch, 1, device=device),
            log_probs=torch.zeros(batch, 1, 0, device=device),
            places=root,
            seen=torch.zeros(batch, 1, n_seen, dtype=torch.bool, device=device),
        )

    def best(self, count: int) -> "Beam":
        """The best prefixes in descending order; of equal ones the first of the catalog comes first."""
        order = self.scores.sort(dim=1, descending=True, stable=True).indices[:, :count]
        return Beam(
            nodes=self.nodes.gather(1, order),
            scores=self.scores.gather(1, order),
            log_probs=_pick(self.log_probs, order),
            places=self.places.gather(1, order),
            seen=_pick(self.seen, order),
        )

    def kept_in(self, place: "Beam | None") -> "Beam":
        """The same values in the tensors of `place`, or, where there are none yet, in tensors of their own."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        if place is None:
            return Beam(**{name: value.clone() for name, value in values.items()})
        for name, value in values.items():
            getattr(place, name).copy_(value)
        return place


class BeamSearch:
    """The search for batches of one size, batch after batch in the same tensors.

    It has two parts, `start` and `finish`, which may be captured (see `CapturedGraph`): all shapes are fixed, and on
    a GPU nothing is asked of the device. `start` leaves its beam where `finish` finds it, and may be
    captured for prompts of several widths.

    Args:
        runner: the target.
        target: its session for batches of this size.
        constraint: the items to rank, and how many of them.
        width: prefixes that are kept of each length.
        plan: the passes.
        renormalise: see `BeamDecoder`.
    """

    def __init__(
        self,
        runner: TargetRunner,
        target: TargetSession,
        constraint: CatalogConstraint,
        width: int,
        plan: tuple[BeamPass, ...],
        renormalise: bool,
    ) -> None:
        self._logits, self._target = runner.logits, target
        self._constraint, self._trie, self._width = constraint, constraint.trie, width
        self._plan, self._renormalise = plan, renormalise
        # Made by the first run, because only then the precision of the scores is known.
        self._begun: Beam | None = None
        self._ranked: Beam | None = None

    @property
    def n_passes(self) -> int:
        """Target passes, the one that reads the prompt not counted."""
        return len(self._plan) - 1

    def start(self, prompts: Prompts, keys: Tensor) -> None:
        """Read the prompts and what may follow them; see `Rounds.start`, nothing is drawn by the keys."""
        batch, first_pass = len(prompts.tokens), self._plan[0]
        if prompts.excluded is not None:
            self._constraint.exclude(prompts.excluded)
        beam = Beam.empty_prefix(batch, tokens_behind(self._plan), prompts.tokens.device)
        tree = PrefixTree.grow(self._trie, beam.nodes, beam.seen, -1, first_pass)
        features = self._target.prefill_branches(prompts, tree.branches())
        self._begun = self._descend(beam, tree, features, first_pass).kept_in(self._begun)

    def finish(self) -> None:
        """Take the other passes and rank the last beam; may be run again and again behind one start."""
        assert self._begun is not None
        beam, read = self._begun, tokens_behind(self._plan[:1])
        for stage in self._plan[1:]:
            tree = PrefixTree.grow(self._trie, beam.nodes, beam.seen, read, stage)
            features = self._target.read_branches(tree.branches())
            # The tree may have fewer nodes: no one sees the columns that they leave free.
            read += stage.n_nodes
            places = torch.arange(beam.nodes.shape[1], device=beam.nodes.device).expand_as(beam.nodes)
            beam = self._descend(replace(beam, places=places), tree, features, stage)
        self._ranked = beam.best(self._constraint.list_length).kept_in(self._ranked)

    def best(self) -> tuple[Tensor, Tensor]:
        """The K best leaves, int64 `[B, K]`, and their codes' log-probabilities, `[B, K, L]`.

        The next batch does not change them.
        """
        assert self._ranked is not None
        return self._trie.leaf(self._ranked.nodes), self._ranked.log_probs.clone()

    def _descend(self, beam: Beam, tree: PrefixTree, features: Tensor, stage: BeamPass) -> Beam:
        """Move the beam behind all that a pass has read, whose features are `[B, N, d]`."""
        for level, most in enumerate(stage.children, start=stage.level + 1):
            beam = self._step(beam, tree, features, most, min(self._width, level_size(self._trie, level)))
        return beam

    def _step(self, beam: Beam, tree: PrefixTree, features: Tensor, most: int, width: int) -> Beam:
        """Continue the beam by one code: the best `width` of all children, of which no prefix has more than `most`."""
        tokens, nodes, present = self._trie.children(beam.nodes, most)  # [B, W, C]
        if self._constraint.available is not None:
            present = present & (self._constraint.leaves_below(nodes) > 0)
        log_probs = self._log_probs(_pick(features, beam.places), tokens, present)
        scores = (beam.scores[..., None] + log_probs).masked_fill(~present, -torch.inf).flatten(1)
        best = scores.sort(dim=1, descending=True, stable=True).indices[:, :width]
        # Back in the catalog's order, so that among equal scores the next step finds the first one first, too.
        best = best.sort(1).values
        parents, child = best // most, best % most
        places = beam.places.gather(1, parents)
        history = torch.cat([_pick(beam.log_probs, parents), log_probs.flatten(1).gather(1, best)[..., None]], 2)
        return Beam(
            nodes=nodes.flatten(1).gather(1, best),
            scores=scores.gather(1, best),
            log_probs=history,
            places=tree.first_children.gather(1, places) + child,
            seen=_pick(tree.seen, places),
        )

    def _log_probs(self, features: Tensor, tokens: Tensor, present: Tensor) -> Tensor:
        """Log-probabilities of the tokens `[B, W, C]` behind prefixes with features `[B, W, d]`."""
        logits = self._logits(features)
        found = logits.gather(2, tokens)
        competing = found.masked_fill(~present, -torch.inf) if self._renormalise else logits
        return found - competing.logsumexp(-1, keepdim=True)


def _pick(values: Tensor, index: Tensor) -> Tensor:
    """Of values `[B, N, d]` those at `index`, int64 `[B, M]`: `[B, M, d]`."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))
