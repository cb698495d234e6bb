"""Decoder layers that are compiled for training alone."""

from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from padrec.catalog import InputError


class CompiledLayers:
    """Within a `with` block the decoder layers of a model compute by compiled functions.

    Layers of one kind share what is compiled, so that it takes no longer for thirty of them than for one, where a whole
    model would take minutes; and it serves batches of all sizes. Outside of the block the layers are what they were:
    decoding takes their weights, or calls them with a cache, for which they would have to be compiled anew.

    Args:
        model: with a list of decoder layers.

    Raises:
        InputError: a model without one.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        lists = [part for part in model.base_model.children() if isinstance(part, nn.ModuleList)]
        if not lists:
            raise InputError(f"compile in a {model.config.model_type}: expected a model with a list of decoder layers")
        self._layers = max((list(part) for part in lists), key=len)
        self._forwards: list[Callable[..., Any]] = [
            torch.compile(layer.forward, dynamic=True) for layer in self._layers
        ]

    def __enter__(self) -> None:
        for layer, forward in zip(self._layers, self._forwards, strict=True):
            layer.forward = forward

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for layer in self._layers:
            del layer.forward  # the class's own method is there again
