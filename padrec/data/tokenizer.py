"""Tokenizers of pretrained language models."""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from padrec.catalog import InputError

# Every folder of a tokenizer has one of these; without any, transformers may create an empty tokenizer.
_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt")


def load_tokenizer(name: str, revision: str = "main") -> PreTrainedTokenizerBase:
    """The tokenizer of a pretrained language model from a folder, or by hub name and revision."""
    check_name(name)
    if Path(name).is_dir() and not any((Path(name) / file).is_file() for file in _FILES):
        raise InputError(f"{name}: no tokenizer, expected a folder with one of {', '.join(_FILES)}")
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            name, revision=revision, trust_remote_code=False
        )
    except Exception as error:  # each tokenizer fails in its own way
        raise InputError(f"{name}: transformers cannot load a tokenizer ({error})") from error
    return tokenizer


def check_name(name: str) -> None:
    """Refuse a name that is no folder and cannot be the name of a model on the hub."""
    if not Path(name).is_dir() and (name.count("/") > 1 or name.startswith((".", "/", "~"))):
        raise InputError(f"{name}: no such folder, expected a folder or the hub name of a pretrained language model")


def as_text(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The texts with a space in every special token of the tokenizer, such as `<s>`, so that it is read as text."""
    special = [re.escape(token.content) for token in tokenizer.added_tokens_decoder.values() if token.special]
    pattern = re.compile("|".join(special) or "(?!)")  # the latter never matches
    return [pattern.sub(lambda token: f"{token[0][0]} {token[0][1:]}", text) for text in texts]


def n_tokens(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the highest token id plus one; some tokenizers skip ids."""
    return max(tokenizer.get_vocab().values()) + 1


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a short hash of all tokens and their ids."""
    tokens = sorted(tokenizer.get_vocab().items())
    return hashlib.sha256(json.dumps(tokens).encode()).hexdigest()[:16]
