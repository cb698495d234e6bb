"""Whether a model is what the runner assumes."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from padrec.catalog import InputError
from padrec.decoding.layers.fused_layers import can_fuse
from padrec.decoding.layers.prompts import Prompts
from padrec.decoding.layers.runner import TransformersRunner, check_logits
from padrec.decoding.lists.list_state import ListState
from padrec.decoding.lists.token_tree import TokenTree

# The largest error of a logit, as a share of their range.
_TOLERANCE = 1e-3
_PROMPT = 5
# A root with two children, one of which has a child, and the path that is kept.
_PARENTS, _KEPT = (0, 0, 0, 1), (0, 1)


def check_model(model: PreTrainedModel) -> None:
    """Check that passes with a cache, also over trees, have the logits of whole passes without one.

    Models of the fused families do; any other causal language model, in float32, is tried on a few tokens.
    """
    check_logits(model.config)
    if can_fuse(model.config):
        return
    whose, training = f"a {model.config.model_type} model as a target", model.training
    expected = (
        "a causal language model whose layers all attend to a KV cache by position ids and a mask, and whose head "
        "reads the last layer's output"
    )
    model.eval()
    try:
        with torch.no_grad():
            error = _largest_error(model)
    except Exception as reason:  # each architecture raises errors of its own
        raise InputError(f"{whose}: reading a few tokens failed ({reason!r}); expected {expected}") from reason
    finally:
        model.train(training)
    if not error <= _TOLERANCE:
        raise InputError(f"{whose}: its logits depend on what shares a pass; expected {expected}")


def _largest_error(model: PreTrainedModel) -> float:
    """The largest error of the runner's logits, as a share of their range."""
    size: int = model.get_output_embeddings().weight.shape[0]
    first, second, prompt = (
        (torch.arange(start, start + n, device=model.device) * 7919 + size // 2) % size
        for start, n in ((0, len(_PARENTS)), (4, len(_PARENTS)), (8, _PROMPT))
    )

    def whole(tokens: Tensor) -> Tensor:
        logits: Tensor = model(input_ids=tokens[None], use_cache=False).logits[0]
        return logits

    session = TransformersRunner(model).open(1, 64)
    lengths = torch.tensor([_PROMPT], device=model.device)
    logits, _ = session.prefill(Prompts(prompt[None], torch.zeros_like(prompt[None]), lengths))
    found, expected = [logits[0], whole(prompt)[0]], [whole(prompt)[-1], whole(prompt[:1])[0]]
    past = prompt
    for tokens in (first, second):
        logits, _ = session.verify(_tree(tokens))
        for node, parent in enumerate(_PARENTS):
            path = [0, *([parent] if parent > 0 else []), *([node] if node > 0 else [])]
            found.append(logits[0, node])
            expected.append(whole(torch.cat([past, tokens[path]]))[-1])
        session.commit(torch.tensor([_KEPT], device=model.device), torch.tensor([len(_KEPT)], device=model.device))
        past = torch.cat([past, tokens[list(_KEPT)]])
    wanted = torch.stack(expected)
    return float((torch.stack(found) - wanted).abs().max() / (wanted.amax() - wanted.amin()))


def _tree(tokens: Tensor) -> TokenTree:
    parents = torch.tensor([_PARENTS], device=tokens.device)
    return TokenTree.from_parents(tokens[None], parents, ListState(torch.zeros_like(parents)), len(_PARENTS))
