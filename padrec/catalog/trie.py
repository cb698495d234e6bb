"""The trie of all semantic IDs, as flat tensors on the decoding device."""

import torch
from torch import Tensor

from padrec.catalog.catalog import Catalog
from padrec.catalog.vocabulary import SemanticIDVocabulary


class CatalogTrie:
    """All leaves, sorted by code tuple, so that every node is one contiguous range `[low, high)` of leaves.

    Nodes are numbered level by level in sorted order: the root is node 0, the leaves of the catalog are the last
    `n_leaves` nodes, and node `n_nodes` is a *sink* without children, where every step that the catalog does not
    allow ends. Children are stored in CSR form: the edges of node `v` are `first_child[v] … first_child[v + 1]`. Nodes
    are numbered in the order of their edges, so edge `e` leads to node `e + 1`.

    Attributes:
        first_child: int64 `[n_nodes + 2]`, first edge of each node (of the sink as well).
        child_token: int64 `[n_edges]`, token of each edge, rising within a node.
        low: int64 `[n_nodes + 1]`, first leaf below each node.
        high: int64 `[n_nodes + 1]`, one past the last leaf below each node.
        only_token: int64 `[n_nodes + 1]`, the one token that may follow each node: its only child's, the separator
            after a leaf; -1 where there are several or none.
        max_children: the most children of any node.
        sink: the node without children where disallowed steps end.
        first_leaf: the first of the last `n_leaves` nodes.
        level_starts: the first node of each level 0 … L, whose nodes are prefixes of that many codes, and `n_nodes`.

    Args:
        catalog: the items.
        vocabulary: their tokens.
    """

    def __init__(self, catalog: Catalog, vocabulary: SemanticIDVocabulary) -> None:
        self.n_slots = catalog.n_slots
        self.n_leaves = catalog.n_leaves
        tokens = vocabulary.encode(catalog.leaf_codes)[:, : self.n_slots]  # [n_leaves, L]
        node_low, edge_token, edge_parent = _levels(tokens)
        self.n_nodes = len(node_low)
        self.child_token = edge_token
        degree = torch.bincount(edge_parent, minlength=self.n_nodes + 1)
        self.first_child = torch.cat([degree.new_zeros(1), degree.cumsum(0)])
        self.max_children = int(degree.max())
        # A level begins where the leaves begin anew.
        self.level_starts: tuple[int, ...] = (*(node_low == 0).nonzero().flatten().tolist(), self.n_nodes)
        self.sink, self.first_leaf = self.n_nodes, self.n_nodes - self.n_leaves
        # Within a level the next node's first leaf ends this node's range.
        high = torch.full_like(node_low, self.n_leaves)
        high[:-1] = torch.where(node_low[1:] > node_low[:-1], node_low[1:], high[:-1])
        self.low, self.high = (torch.cat([bound, bound.new_zeros(1)]) for bound in (node_low, high))
        first = edge_token[self.first_child[:-1].clamp(max=len(edge_token) - 1)]
        self.only_token = torch.where(degree == 1, first, -1)
        if vocabulary.separator:
            self.only_token[self.first_leaf : self.n_nodes] = vocabulary.separator_token
        self._vocabulary_size = vocabulary.size
        # Sorted, since parents rise and tokens rise within each. The last key is no edge: every search ends inside.
        last = edge_token.new_full((1,), torch.iinfo(torch.long).max)
        self._edge_keys = torch.cat([edge_parent * vocabulary.size + edge_token, last])

    def forced_run_lengths(self) -> Tensor:
        """How many codes at the end of each leaf the codes before them determine, int64 `[n_leaves]`, 0 … L - 1."""
        leaves = torch.arange(self.n_leaves, device=self.low.device)
        runs = torch.zeros_like(leaves)
        unbroken = torch.ones_like(leaves, dtype=torch.bool)
        for level in reversed(range(1, self.n_slots)):
            start, end = self.level_starts[level], self.level_starts[level + 1]
            ancestor = start + torch.searchsorted(self.high[start:end].contiguous(), leaves, right=True)
            unbroken &= self.n_children(ancestor) == 1
            runs += unbroken
        return runs

    def to(self, device: torch.device | str) -> "CatalogTrie":
        """Move all tensors to `device`, in place."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value.to(device))
        return self

    def is_leaf(self, node: Tensor) -> Tensor:
        """Whether each node (int64, any shape) is a whole semantic ID."""
        return (node >= self.first_leaf) & (node < self.n_nodes)

    def leaf(self, node: Tensor) -> Tensor:
        """The leaf of each node that `is_leaf`; meaningless elsewhere."""
        return node - self.first_leaf

    def child(self, node: Tensor, token: Tensor) -> Tensor:
        """The node reached from `node` by `token` (int64, one shape); the sink where the catalog has no such step."""
        # One search over all edges is a single operation on the device; halving the node's own range would be a dozen
        # for each bit of its size, which is slower by far.
        key = torch.add(token, node, alpha=self._vocabulary_size)
        edge = torch.searchsorted(self._edge_keys, key.contiguous())
        return torch.where(self._edge_keys[edge] == key, edge + 1, self.sink)

    def token(self, node: Tensor) -> Tensor:
        """The token that leads to each node (int64, any shape); arbitrary for the root and the sink."""
        return self.child_token[(node - 1).clamp(0, len(self.child_token) - 1)]

    def n_children(self, node: Tensor) -> Tensor:
        """How many children each node (int64, any shape) has."""
        return self.first_child[node + 1] - self.first_child[node]

    def children(self, node: Tensor, most: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """All children of each node, int64 `[*]`: tokens, nodes, and whether they are present, each `[*, C]`.

        No node has more than C = `most` children, by default `max_children`. Entries not present are arbitrary.
        """
        start, end = self.first_child[node], self.first_child[node + 1]
        edge = start[..., None] + torch.arange(most or self.max_children, device=node.device)
        present = edge < end[..., None]
        edge = edge.clamp(max=len(self.child_token) - 1)
        return self.child_token[edge], edge + 1, present

    def expand(self, nodes: Tensor, bound: int) -> tuple[Tensor, Tensor, Tensor]:
        """The children of nodes `[B, N]`, int64, one node's after the other's; no row has more than `bound` = M.

        Returns:
            The children, int64 `[B, M]`, the sink after a row's last one; the index of each one's parent among the
            nodes, int64 `[B, M]`; the place of each node's first child among the children, int64 `[B, N]`.
        """
        ends = self.n_children(nodes).cumsum(1)
        firsts = ends - self.n_children(nodes)
        place = torch.arange(bound, device=nodes.device).expand(len(nodes), -1)
        parents = torch.searchsorted(ends, place.contiguous(), right=True).clamp(max=nodes.shape[1] - 1)
        below = self.first_child[nodes.gather(1, parents)] + place - firsts.gather(1, parents) + 1
        return torch.where(place < ends[:, -1:], below, self.sink), parents, firsts

    def descendants(self, level: int, below: int) -> Tensor:
        """How many nodes of level `below` (`level` … L) stand below each node of `level`, int64 `[nodes of level]`."""
        # All nodes of a level below one node are a range too: the borders of these ranges go down level by level.
        borders = torch.arange(self.level_starts[level], self.level_starts[level + 1] + 1, device=self.low.device)
        for _ in range(below - level):
            borders = self.first_child[borders] + 1
        return borders.diff()


def _levels(tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """First leaf of every node, and token and parent of every edge, level by level, from sorted rows `[n, L]`."""
    n_leaves, n_slots = tokens.shape
    node_low, edge_token, edge_parent = [torch.zeros(1, dtype=torch.long)], [], []
    opens = torch.zeros(n_leaves, dtype=torch.bool)
    opens[0] = True
    parent_of_row = torch.zeros(n_leaves, dtype=torch.long)
    n_nodes = 1
    for slot in range(n_slots):
        opens = opens.clone()
        opens[1:] |= tokens[1:, slot] != tokens[:-1, slot]
        first_rows = opens.nonzero().flatten()
        node_low.append(first_rows)
        edge_token.append(tokens[first_rows, slot])
        edge_parent.append(parent_of_row[first_rows])
        parent_of_row = n_nodes + opens.cumsum(0) - 1
        n_nodes += len(first_rows)
    return torch.cat(node_low), torch.cat(edge_token), torch.cat(edge_parent)
