"""Logits in float32, whatever the precision of the head."""

import torch
from torch import Tensor, nn

from padrec.decoding.layers.layer_operations import LayerOperations, ResidualStream


class Head:
    """A target's head whose logits are not rounded to the precision of its weights.

    A bfloat16 result has steps of 0.03 around 8: tokens whose logits differ by less tie, and which one is chosen then
    depends on how many others share the pass.

    Args:
        head: of a transformers model.
        operations: compute its product.
    """

    def __init__(self, head: nn.Module, operations: LayerOperations) -> None:
        self._head, self._operations = head, operations

    def __call__(self, outputs: Tensor) -> Tensor:
        """Logits `[*, V]`, float32 at least, of outputs `[*, d]`."""
        head = self._head
        if not isinstance(head, nn.Linear):
            logits: Tensor = head(outputs)
            return logits.to(torch.promote_types(logits.dtype, torch.float32))
        stream = ResidualStream(outputs.reshape(-1, outputs.shape[-1]))
        # Kernels that read the logits also read what was written before them.
        flat = self._operations.linear(stream, head.weight, head.bias, ordered=True, exact=True)
        return flat.view(*outputs.shape[:-1], -1)
