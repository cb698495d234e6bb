"""Which models decoding reads as they read themselves."""

from typing import Any

from transformers import PretrainedConfig

from padrec.catalog import InputError

# By setting, what leaves logits as the head gives them.
_NEUTRAL_SCALES = {"logits_scaling": 1.0, "logit_scale": 1.0, "final_logit_softcapping": None}


def check_logits(config: PretrainedConfig) -> None:
    """See to it that a model's logits are those of its head alone, as decoders and drafts take them.

    Raises:
        InputError: the model changes them behind the head.
    """
    for name, neutral in _NEUTRAL_SCALES.items():
        value = getattr(config, name, neutral)
        if value not in (neutral, None):
            raise InputError(
                f"a model of type {config.model_type} with {name} {value}: expected {neutral}, for the logits of its "
                "head are used as they are"
            )


def attention_window(config: PretrainedConfig) -> int | None:
    """The most tokens that any layer of a model attends to; None where there is no bound."""
    settings: Any = config
    window: int | None = getattr(settings, "sliding_window", None)
    layer_types = getattr(settings, "layer_types", None)
    if layer_types is not None:
        return window if "sliding_attention" in layer_types else None
    return window if getattr(settings, "use_sliding_window", True) else None
