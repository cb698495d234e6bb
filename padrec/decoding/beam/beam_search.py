"""The steps of a beam search, which can be captured."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from padrec.decoding.beam.beam_plan import BeamPass, level_size, tokens_after_prompt
from padrec.decoding.beam.children import Children, Draw
from padrec.decoding.beam.prefix_tree import PrefixTree
from padrec.decoding.beam.selection import best_first, best_in_order
from padrec.decoding.device.compiled import compiled
from padrec.decoding.layers.prompts import Prompts
from padrec.decoding.layers.runner import TransformersRunner, TransformersSession
from padrec.decoding.lists.catalog_constraint import CatalogConstraint
from padrec.decoding.lists.tensor_record import TensorRecord, pick


@dataclass(frozen=True)
class Beam(TensorRecord):
    """The best prefixes of one length, in catalog order."""

    nodes: Tensor  # of the trie, int64 [B, W]
    scores: Tensor  # log-probabilities of the prefixes, [B, W]
    log_probs: Tensor  # those of their codes, [B, W, codes]
    places: Tensor  # their indices in the tree of the current pass, int64 [B, W]
    seen: Tensor  # tokens after the prompt that their children attend to, bool [B, W, R]

    def best(self, count: int) -> "Beam":
        """The best prefixes in descending order; ties keep catalog order."""
        order = best_first(self.scores, count)
        return self.map(lambda values: pick(values, order))

    def kept_in(self, buffer: "Beam | None") -> "Beam":
        """Copy the values to the tensors of `buffer`, or to new ones if there is none; returns the buffer."""
        if buffer is None:
            return self.clone()
        buffer.copy_(self)
        return buffer


class BeamSearch:
    """The search for batches of one size, one after another in the same tensors.

    `start` leaves its beam where `finish` finds it; both can be captured (see `CapturedGraph`), `start` for several
    prompt widths. The target's session is one for batches of this size. Capturing requires fixed shapes, see
    `PrefixTree.grow`.
    """

    def __init__(
        self,
        runner: TransformersRunner,
        target: TransformersSession,
        constraint: CatalogConstraint,
        width: int,
        plan: tuple[BeamPass, ...],
        renormalise: bool,
        draw: Draw,
        fixed_shapes: bool,
    ) -> None:
        self._logits, self._target = runner.logits, target
        self._constraint, self._trie, self._width = constraint, constraint.trie, width
        self._plan, self._renormalise, self._draw, self._fixed_shapes = plan, renormalise, draw, fixed_shapes
        # Allocated by the first run, which knows the precision of the scores.
        self._begun: Beam | None = None
        self._ranked: Beam | None = None  # its nodes are leaves

    def start(self, prompts: Prompts, keys: Tensor) -> None:
        """Read the prompts and the first levels of the trie; `keys` are the requests' random ones, int64 `[B]`."""
        self._draw.keys.copy_(keys)
        (batch, _), device, stage = prompts.tokens.shape, prompts.tokens.device, self._plan[0]
        if prompts.excluded is not None:
            self._constraint.exclude(prompts.excluded)
        root = torch.zeros(batch, 1, dtype=torch.long, device=device)
        beam = Beam(
            nodes=root,
            scores=torch.zeros(batch, 1, dtype=torch.float32, device=device),
            log_probs=torch.zeros(batch, 1, 0, dtype=torch.float32, device=device),
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
        best = beam.best(self._constraint.list_length)
        self._ranked = replace(best, nodes=self._trie.leaf(best.nodes)).kept_in(self._ranked)

    def best(self) -> tuple[Tensor, Tensor]:
        """The K best leaves, int64 `[B, K]`, and their codes' log-probabilities, `[B, K, L]`, until the next search."""
        assert self._ranked is not None
        return self._ranked.nodes, self._ranked.log_probs

    def _descend(self, beam: Beam, tree: PrefixTree, features: Tensor, stage: BeamPass) -> Beam:
        """Extend the beam by all levels that a pass has read; its features are `[B, N, d]`."""
        found, how = (tree.first_children, tree.seen), (self._constraint, self._draw)
        for level, most in enumerate(stage.children, start=stage.level + 1):
            logits = self._logits(pick(features, beam.places))
            width = min(self._width, level_size(self._trie, level))
            beam = _extended(logits, beam, *found, *how, most, width, self._renormalise)
        return beam


@compiled
def _extended(
    logits: Tensor,
    beam: Beam,
    first_children: Tensor,
    seen: Tensor,
    constraint: CatalogConstraint,
    draw: Draw,
    most: int,
    width: int,
    renormalise: bool,
) -> Beam:
    """The beam extended by one code: the best of all children, of which no prefix has more than `most`."""
    children = Children.of(constraint, beam.nodes, beam.scores, logits, most, renormalise)
    best = best_in_order(draw.ranks(children), width)  # in catalog order, by which the next step breaks ties
    parents, child = best // most, best % most
    places = beam.places.gather(1, parents)
    log_probs = children.log_probs.gather(1, best)[..., None]
    return Beam(
        nodes=children.nodes.gather(1, best),
        scores=children.scores.gather(1, best),
        log_probs=torch.cat([pick(beam.log_probs, parents), log_probs], 2),
        places=first_children.gather(1, places) + child,
        seen=pick(seen, places),
    )
