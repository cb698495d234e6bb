"""The steps of a beam search, which can be captured."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from padrec.catalog import CatalogTrie
from padrec.decoding.beam.beam_plan import BeamPass, level_size, tokens_after_prompt
from padrec.decoding.beam.children import Children, Draw
from padrec.decoding.beam.prefix_tree import PrefixTree, grow
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

    @classmethod
    def root(cls, keys: Tensor, plan: tuple[BeamPass, ...]) -> "Beam":
        """The root in each row of `keys`, `[B]`."""
        nodes = torch.zeros_like(keys)[:, None]
        scores = torch.zeros_like(nodes, dtype=torch.float32)
        seen = torch.zeros(*nodes.shape, tokens_after_prompt(plan), dtype=torch.bool, device=keys.device)
        return cls(nodes, scores, scores.new_zeros(*nodes.shape, 0), nodes, seen)

    def kept_in(self, buffer: "Beam | None") -> "Beam":
        """Copy the values to the tensors of `buffer`, or to new ones if there is none; returns the buffer."""
        if buffer is None:
            return self.clone()
        _copy(self.nodes, self, buffer)
        return buffer


class BeamSearch:
    """The search for batches of one size, one after another in the same tensors.

    `start` leaves its beam where `finish` finds it; both can be captured (see `CapturedGraph`), `start` for several
    prompt widths. The target's session is one for batches of this size. Capturing requires fixed shapes, see
    `grow`.
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
        self._root = Beam.root(draw.keys, plan)
        # Allocated by the first run, which knows the precision of the scores.
        self._begun: Beam | None = None
        self._ranked: Beam | None = None  # its nodes are leaves

    def start(self, prompts: Prompts, keys: Tensor) -> None:
        """Read the prompts and the first levels of the trie; `keys` are the requests' random ones, int64 `[B]`."""
        self._draw.keys.copy_(keys)
        if prompts.excluded is not None:
            self._constraint.exclude(prompts.excluded)
        beam, stage = self._root, self._plan[0]
        tree = grow(beam.nodes, beam.seen, self._trie, -1, stage, self._fixed_shapes)
        outputs = self._target.prefill_branches(prompts, tree.branches())
        self._begun = self._descend(beam, tree, outputs, stage).kept_in(self._begun)

    def finish(self) -> None:
        """Run the other passes and rank the last beam; can be repeated after one `start`."""
        assert self._begun is not None
        beam, read = self._begun, tokens_after_prompt(self._plan[:1])
        for stage in self._plan[1:]:
            tree = grow(beam.nodes, beam.seen, self._trie, read, stage, self._fixed_shapes)
            outputs = self._target.read_branches(tree.branches())
            read += stage.n_nodes  # the tree may have fewer nodes: nothing attends to the other columns
            beam = self._descend(beam, tree, outputs, stage)
        best = _best_leaves(beam.scores, beam, self._trie, self._constraint.list_length)
        self._ranked = best.kept_in(self._ranked)

    def best(self) -> tuple[Tensor, Tensor]:
        """The K best leaves, int64 `[B, K]`, and their codes' log-probabilities, `[B, K, L]`, until the next search."""
        assert self._ranked is not None
        return self._ranked.nodes, self._ranked.log_probs

    def _descend(self, beam: Beam, tree: PrefixTree, outputs: Tensor, stage: BeamPass) -> Beam:
        """Extend the beam, whose nodes come first in the tree, by all levels that a pass has read, `[B, N, d]`."""
        found, how = (tree.first_children, tree.seen), (self._constraint, self._draw)
        for step, most in enumerate(stage.children):
            # Of the beam itself they are adjacent.
            own = pick(outputs, beam.places) if step > 0 else outputs[:, : beam.nodes.shape[1]]
            width = min(self._width, level_size(self._trie, stage.level + step + 1))
            is_last = step + 1 == len(stage.children)
            beam = _extended(self._logits(own), beam, *found, *how, most, width, self._renormalise, is_last)
        return beam


@compiled
def _copy(nodes: Tensor, beam: Beam, buffer: Beam) -> None:
    buffer.copy_(beam)


@compiled
def _best_leaves(scores: Tensor, beam: Beam, trie: CatalogTrie, count: int) -> Beam:
    """The best of a beam of complete items with these scores, in descending order; its nodes become leaves."""
    order = best_first(scores, count)  # ties keep catalog order
    best = beam.map(lambda values: pick(values, order))
    return replace(best, nodes=trie.leaf(best.nodes))


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
    is_last: bool,
) -> Beam:
    """The beam extended by one code: the best of all children, of which no prefix has more than `most`.

    In the tree of the next pass, if this step is the last of a pass, the beam comes first.
    """
    children = Children.of(constraint, beam.nodes, beam.scores, logits, most, renormalise)
    best = best_in_order(draw.ranks(children), width)  # in catalog order, by which the next step breaks ties
    parents, child = best // most, best % most
    places = beam.places.gather(1, parents)
    next_places = torch.arange(width, device=places.device).expand_as(places)
    log_probs = children.log_probs.gather(1, best)[..., None]
    return Beam(
        nodes=children.nodes.gather(1, best),
        scores=children.scores.gather(1, best),
        log_probs=torch.cat([pick(beam.log_probs, parents), log_probs], 2),
        places=next_places if is_last else first_children.gather(1, places) + child,
        seen=pick(seen, places),
    )
