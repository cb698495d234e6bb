"""Dropout where language models of today have none."""

from torch import Tensor, nn
from transformers import PreTrainedModel

from padrec.catalog import InputError

_BLOCKS = ("self_attn", "mlp")
_Output = Tensor | tuple[Tensor, ...]  # attention returns its weights, too


def add_residual_dropout(model: PreTrainedModel, probability: float) -> None:
    """Drop values of the embeddings and of all that the layers add to them, in training mode only.

    These are the places of the original Transformer (Vaswani et al. 2017, section 5.4). Models of the Llama, Mistral
    and Qwen families, made for more data than they can see twice, have dropout in the attention weights at most.
    Weights and modules stay as they are, so that a checkpoint does not depend on it.

    Args:
        model: with `self_attn` and `mlp` in every layer.
        probability: of each value, in [0, 1); nothing is done at 0.

    Raises:
        InputError: a probability out of range, or a model with other layers.
    """
    if not 0 <= probability < 1:
        raise InputError(f"dropout {probability}: expected at least 0 and less than 1")
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

    model.get_input_embeddings().register_forward_hook(drop)
    for layer in layers:
        for block in _BLOCKS:
            getattr(layer, block).register_forward_hook(drop)
