"""The target's choices among the items of a catalog by one GPU kernel."""

from dataclasses import fields, replace

import torch
from torch import Tensor

from padrec.decoding.device.early_launch import launch_options, launches_early
from padrec.decoding.lists.catalog_constraint import CatalogConstraint
from padrec.decoding.lists.chosen_tokens import ChosenTokens
from padrec.decoding.lists.kernels.choice import choice_kernel
from padrec.decoding.lists.list_state import ListState
from padrec.decoding.lists.sampling import Choice
from padrec.decoding.lists.triton_arguments import in_rows, list_kinds, list_numbers, taking


def choose_in_catalog(
    logits: Tensor, states: ListState, depths: Tensor, choice: Choice, constraint: CatalogConstraint
) -> ChosenTokens:
    """See `ListOperations.choose`."""
    batch, n_nodes, _ = logits.shape
    rows = in_rows(logits)
    noise, trie = choice.noise, constraint.trie
    tokens = depths.new_empty(batch, n_nodes)
    log_probs = logits.new_empty(batch, n_nodes, dtype=torch.float32)
    # Slot, node, used and count, as the kernel takes them.
    before = [getattr(states, field.name).contiguous() for field in fields(states)]
    behind = [torch.empty_like(value) for value in before]
    choice_kernel[(batch * n_nodes,)](
        rows,
        noise,
        depths.contiguous(),
        *before,
        trie.first_child,
        trie.child_token,
        trie.low,
        trie.high,
        tokens,
        log_probs,
        *behind,
        n_nodes,
        rows.stride(0),
        *((0, 0) if noise is None else noise.stride()[:2]),
        float(choice.sampling.temperature),
        len(trie.child_token),
        *list_numbers(constraint),
        **list_kinds(constraint),
        **taking(trie.max_children),
        **launch_options(launches_early(logits.device)),
    )
    names = (field.name for field in fields(states))
    return ChosenTokens(tokens, log_probs, replace(states, **dict(zip(names, behind, strict=True))))
