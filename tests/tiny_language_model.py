"""A random causal language model with a tokenizer of its own, as a stand-in for a pretrained one."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from tests.tiny_training import tiny_backbone

TEXT = "Items that a customer bought, oldest first:\n{history}\nWhat the customer will buy next: "
ITEM = "{item} ({title})\n"


def save_tiny_tokenizer(folder: Path, unknown: str | None = None, added: tuple[str, ...] = ()) -> None:
    """Write byte pairs of a few English words; with `unknown`, of the letters in it alone."""
    tokenizer = Tokenizer(models.BPE(unk_token=None if unknown is None else "<unk>"))
    special = ["<|end|>", "<|user|>"] + ([] if unknown is None else ["<unk>"])
    alphabet: list[str] = []
    if unknown is None:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )  # type: ignore[call-arg,unused-ignore]
    tokenizer.train_from_iterator([TEXT, "item category"] if unknown is None else [unknown], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", unk_token=None if unknown is None else "<unk>"
    )
    fast.add_tokens(list(added))
    fast.save_pretrained(folder)


def save_tiny_language_model(folder: Path, model_type: str = "qwen2", seed: int = 0, **settings: Any) -> Path:
    """Write a model with a few more embeddings than its tokenizer has tokens, and the tokenizer."""
    folder.mkdir(parents=True)
    save_tiny_tokenizer(folder)
    sizes = tiny_backbone(model_type, **{"max_position_embeddings": 512, "initializer_range": 0.3, **settings})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = AutoConfig.for_model(**{"vocab_size": 320, "bos_token_id": 1, "eos_token_id": 0, **sizes})
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder
