"""A random encoder with a tokenizer of a few words."""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModel, BertTokenizer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue", "lamp", "vase", "old", "new", "big", "small"]


def save_tiny_encoder(folder: Path, seed: int = 0, kind: str = "bert", padding_side: str = "right") -> Path:
    """Write an encoder of 8 dimensions and 256 positions."""
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = AutoConfig.for_model(
            kind,
            vocab_size=len(WORDS),
            pad_token_id=0,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=256,
            initializer_range=0.5,
            **{"t5": {"d_ff": 8, "d_kv": 4, "initializer_factor": 10.0}}.get(kind, {"intermediate_size": 8}),
        )
        AutoModel.from_config(config).save_pretrained(folder)
    BertTokenizer(str(folder / "vocab.txt"), padding_side=padding_side).save_pretrained(folder)
    return folder
