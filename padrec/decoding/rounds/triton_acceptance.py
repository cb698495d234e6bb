"""Acceptance by one GPU kernel, where plain PyTorch takes some twenty."""

import torch

from padrec.decoding.device.early_launch import launch_options, launches_early
from padrec.decoding.lists.chosen_tokens import ChosenTokens
from padrec.decoding.lists.decoding_trace import RoundStatistics
from padrec.decoding.lists.token_tree import TokenTree
from padrec.decoding.lists.triton_arguments import STATES, block, in_bytes
from padrec.decoding.rounds.accepted import Accepted
from padrec.decoding.rounds.kernels.acceptance import accept_kernel
from padrec.decoding.rounds.list_buffer import ListBuffer
from padrec.decoding.trees.tree_expansion import TreeExpansion


def accept_in_kernel(
    tree: TokenTree, chosen: ChosenTokens, lists: ListBuffer, statistics: RoundStatistics, expansion: TreeExpansion
) -> Accepted:
    """See `RoundOperations.accept`."""
    batch, n_nodes = tree.tokens.shape
    path, emitted, slots = (tree.tokens.new_empty(batch, tree.max_depth + 1) for _ in range(3))
    count = torch.empty_like(lists.lengths)
    behind, kept = ([getattr(states, name, None) for name in STATES] for states in (chosen.states, lists.state))
    used = kept[STATES.index("used")]
    list_length = 1 if used is None else used.shape[1]
    accept_kernel[(batch,)](
        *(in_bytes(x) for x in (tree.tokens, tree.parents, tree.depths, tree.ancestors, tree.present)),
        chosen.tokens.contiguous(),
        chosen.log_probs.contiguous(),
        *(None if x is None else x.contiguous() for x in behind),
        lists.tokens,
        lists.log_probs,
        lists.lengths,
        lists.finished.view(torch.uint8),
        lists.last,
        *kept,
        *statistics.counts,
        path,
        emitted,
        slots,
        count,
        lists.request.n_tokens,
        lists.request.stop_tokens[0],
        list_length,
        expansion.depth,
        expansion.draft_passes,
        N_NODES=n_nodes,
        DEPTH=tree.max_depth,
        BLOCK_N=block(n_nodes),
        BLOCK_D=block(tree.max_depth + 1),
        BLOCK_L=block(list_length),
        **launch_options(launches_early(tree.tokens.device)),
    )
    return Accepted(path, emitted, slots, count)
