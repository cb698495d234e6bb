"""Compilation and dropout of a model's decoder layers, for training only."""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from padrec.catalog import InputError

_BLOCKS = ("self_attn", "mlp")
_Output = Tensor | tuple[Tensor, ...]  # attention also returns its weights


class CompiledLayers:
    """Compiles a model's decoder layers within a `with` block.

    Equal layers share one compilation, which also serves all batch sizes; a whole model would take minutes. Outside the
    block the layers are unchanged: decoding uses their weights directly or calls them with a cache. A model without a
    list of decoder layers is refused.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        lists = [part for part in model.base_model.children() if isinstance(part, nn.ModuleList)]
        if not lists:
            raise InputError(f"compile in a {model.config.model_type}: expected a model with a list of decoder layers")
        self._layers = max((list(part) for part in lists), key=len)
        self._forwards = [torch.compile(layer.forward, dynamic=True) for layer in self._layers]

    def __enter__(self) -> None:
        for layer, forward in zip(self._layers, self._forwards, strict=True):
            layer.forward = forward

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        for layer in self._layers:
            del layer.forward  # uncovers the class's method


def add_residual_dropout(model: PreTrainedModel, probability: float) -> None:
    """Drop values of the embeddings and of everything the layers add to them, in training mode only.

    As in the original Transformer (Vaswani et al. 2017, section 5.4). Llama, Mistral and Qwen models only have dropout
    in the attention weights. Adds no weights or modules, so checkpoints do not depend on it. The probability is in
    [0, 1). A model without `self_attn` and `mlp` in every layer is refused.
    """
    if probability == 0:
        return
    layers = getattr(model.base_model, "layers", None)
    if not isinstance(layers, nn.ModuleList) or not all(hasattr(layers[0], block) for block in _BLOCKS):
        raise InputError(
            f"dropout in a {model.config.model_type}: expected a model whose layers have {' and '.join(_BLOCKS)}, such "
            "as llama or qwen3; others have settings of their own in `backbone`"
        )

    def drop(module: nn.Module, arguments: object, output: _Output) -> _Output:
        if isinstance(output, Tensor):
            return nn.functional.dropout(output, probability, module.training)
        return (nn.functional.dropout(output[0], probability, module.training), *output[1:])

    for module in (model.get_input_embeddings(), *(getattr(layer, block) for layer in layers for block in _BLOCKS)):
        module.register_forward_hook(drop)
