"""Tokenizers of pretrained language models."""

import hashlib
import json
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from padrec.catalog import InputError

# One of them is in every folder that a tokenizer was saved to; without, transformers may make an empty tokenizer up.
_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt")


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a pretrained language model.

    Args:
        name: folder or hub name.

    Raises:
        InputError: there is none, or transformers cannot load it.
    """
    check_name(name)
    if Path(name).is_dir() and not any((Path(name) / file).is_file() for file in _FILES):
        raise InputError(f"{name}: no tokenizer, expected a folder with one of {', '.join(_FILES)}")
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name)
    except Exception as error:  # every tokenizer reads its files in its own way
        raise InputError(f"{name}: transformers cannot load a tokenizer ({error})") from error
    return tokenizer


def check_name(name: str) -> None:
    """Refuse what is neither a folder nor can be the name of a model on the hub.

    Raises:
        InputError: no such folder.
    """
    if not Path(name).is_dir() and (name.count("/") > 1 or name.startswith((".", "/", "~"))):
        raise InputError(f"{name}: no such folder, expected a folder or the hub name of a pretrained language model")


def n_tokens(tokenizer: PreTrainedTokenizerBase) -> int:
    """One more than the highest token id, so that every id is below; some tokenizers leave ids out."""
    return max(tokenizer.get_vocab().values()) + 1


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """A short hash of all tokens and their ids."""
    tokens = sorted(tokenizer.get_vocab().items())
    return hashlib.sha256(json.dumps(tokens).encode()).hexdigest()[:16]
