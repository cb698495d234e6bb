"""The steps of a beam search, which can be captured."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from padrec.decoding.beam.beam_plan import BeamPass, level_size, tokens_after_prompt
from padrec.decoding.beam.prefix_tree import PrefixTree
from padrec.decoding.layers.prompts import Prompts
from padrec.decoding.layers.runner import TransformersRunner, TransformersSession
from padrec.decoding.lists.catalog_constraint import CatalogConstraint


@dataclass(frozen=True)
class Beam:
    """The best prefixes of one length, in catalog order.

    Attributes:
        nodes: trie nodes, int64 `[B, W]`.
        scores: log-probabilities of the prefixes, `[B, W]`.
        log_probs: log-probabilities of their codes, `[B, W, codes]`.
        places: their indices in the tree of the current pass, int64 `[B, W]`.
        seen: tokens after the prompt that their children attend to, bool `[B, W, R]`.
    """

    nodes: Tensor
    scores: Tensor
    log_probs: Tensor
    places: Tensor
    seen: Tensor

    def best(self, count: int) -> "Beam":
        """The best prefixes in descending order; ties keep catalog order."""
        order = self.scores.sort(dim=1, descending=True, stable=True).indices[:, :count]
        return Beam(
            nodes=self.nodes.gather(1, order),
            scores=self.scores.gather(1, order),
            log_probs=_pick(self.log_probs, order),
            places=self.places.gather(1, order),
            seen=_pick(self.seen, order),
        )

    def kept_in(self, buffer: "Beam | None") -> "Beam":
        """Copy the values to the tensors of `buffer`, or to new ones if there is none; returns the buffer."""
        if buffer is None:
            return Beam(**{name: value.clone() for name, value in vars(self).items()})
        for name, value in vars(self).items():
            getattr(buffer, name).copy_(value)
        return buffer


class BeamSearch:
    """The search for batches of one size, one after another in the same tensors.

    `start` leaves its beam where `finish` finds it; both can be captured (see `CapturedGraph`), `start` for several
    prompt widths.

    Args:
        runner: the target.
        target: its session for batches of this size.
        constraint: the items to rank, and how many to return.
        width: prefixes kept of each length.
        plan: the passes.
        renormalise: see `BeamDecoder`.
        fixed_shapes: required for capturing, see `PrefixTree.grow`.
    """

    def __init__(
        self,
        runner: TransformersRunner,
        target: TransformersSession,
        constraint: CatalogConstraint,
        width: int,
        plan: tuple[BeamPass, ...],
        renormalise: bool,
        fixed_shapes: bool,
    ) -> None:
        self._logits, self._target = runner.logits, target
        self._constraint, self._trie, self._width = constraint, constraint.trie, width
        self._plan, self._renormalise, self._fixed_shapes = plan, renormalise, fixed_shapes
        # Allocated by the first run, which knows the precision of the scores.
        self._begun: Beam | None = None
        self._ranked: Beam | None = None

    def start(self, prompts: Prompts, keys: Tensor) -> None:
        """Read the prompts and the first levels of the trie; `keys` are unused, since nothing is drawn."""
        (batch, _), device, stage = prompts.tokens.shape, prompts.tokens.device, self._plan[0]
        if prompts.excluded is not None:
            self._constraint.exclude(prompts.excluded)
        root = torch.zeros(batch, 1, dtype=torch.long, device=device)
        beam = Beam(
            nodes=root,
            scores=torch.zeros(batch, 1, device=device),
            log_probs=torch.zeros(batch, 1, 0, device=device),
            places=root,
            seen=torch.zeros(batch, 1, tokens_after_prompt(self._plan), dtype=torch.bool, device=device),
        )
        tree = PrefixTree.grow(self._trie, root, beam.seen, -1, stage, self._fixed_shapes)
        features = self._target.prefill_branches(prompts, tree.branches())
        self._begun = self._descend(beam, tree, features, stage).kept_in(self._begun)

    def finish(self) -> None:
        """Run the other passes and rank the last beam; can be repeated after one `start`."""
        assert self._begun is not None
        beam, read = self._begun, tokens_after_prompt(self._plan[:1])
        for stage in self._plan[1:]:
            tree = PrefixTree.grow(self._trie, beam.nodes, beam.seen, read, stage, self._fixed_shapes)
            features = self._target.read_branches(tree.branches())
            read += stage.n_nodes  # the tree may have fewer nodes: nothing attends to the other columns
            places = torch.arange(beam.nodes.shape[1], device=beam.nodes.device).expand_as(beam.nodes)
            beam = self._descend(replace(beam, places=places), tree, features, stage)
        self._ranked = beam.best(self._constraint.list_length).kept_in(self._ranked)

    def best(self) -> tuple[Tensor, Tensor]:
        """Copies of the K best leaves, int64 `[B, K]`, and their codes' log-probabilities, `[B, K, L]`."""
        assert self._ranked is not None
        return self._trie.leaf(self._ranked.nodes), self._ranked.log_probs.clone()

    def _descend(self, beam: Beam, tree: PrefixTree, features: Tensor, stage: BeamPass) -> Beam:
        """Extend the beam by all levels that a pass has read; its features are `[B, N, d]`."""
        for level, most in enumerate(stage.children, start=stage.level + 1):
            beam = self._step(beam, tree, features, most, min(self._width, level_size(self._trie, level)))
        return beam

    def _step(self, beam: Beam, tree: PrefixTree, features: Tensor, most: int, width: int) -> Beam:
        """Extend the beam by one code: the best `width` of all children, of which no prefix has more than `most`."""
        tokens, nodes, present = self._trie.children(beam.nodes, most)  # [B, W, C]
        if self._constraint.available is not None:
            present = present & (self._constraint.leaves_below(nodes) > 0)
        log_probs = self._log_probs(_pick(features, beam.places), tokens, present)
        scores = (beam.scores[..., None] + log_probs).masked_fill(~present, -torch.inf).flatten(1)
        best = scores.sort(dim=1, descending=True, stable=True).indices[:, :width]
        best = best.sort(1).values  # catalog order, by which the next step breaks ties
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
        """Log-probabilities of the tokens `[B, W, C]` after prefixes with features `[B, W, d]`."""
        logits = self._logits(features)
        found = logits.gather(2, tokens)
        competing = found.masked_fill(~present, -torch.inf) if self._renormalise else logits
        return found - competing.logsumexp(-1, keepdim=True)


def _pick(values: Tensor, index: Tensor) -> Tensor:
    """Gather vectors: values `[B, N, d]` at `index`, int64 `[B, M]`, give `[B, M, d]`."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))
