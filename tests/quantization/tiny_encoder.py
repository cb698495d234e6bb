"""A random encoder with a tokenizer of a few words."""

from pathlib import Path

import torch
from transformers import BertConfig, BertModel, BertTokenizer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue", "lamp", "vase", "old", "new", "big", "small"]


def save_tiny_encoder(folder: Path, seed: int = 0) -> Path:
    """Write a BERT of 8 dimensions."""
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = BertConfig(
            vocab_size=len(WORDS),
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=8,
            max_position_embeddings=16,
            initializer_range=0.5,
        )
        BertModel(config).save_pretrained(folder)
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder
