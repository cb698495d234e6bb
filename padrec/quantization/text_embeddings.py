"""Item embeddings from texts, by a transformers encoder."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from padrec.catalog import InputError
from padrec.quantization.embedding_cache import EmbeddingCache
from padrec.quantization.item_embeddings import EmbeddingSource, ItemEmbeddings
from padrec.quantization.item_texts import TextReader

_HASHED_BYTES = 1 << 20


class TextEmbeddings(EmbeddingSource):
    """Embeds items by the mean of their text's last hidden states.

    Vectors are written to the cache as they are computed: an interrupted run goes on behind them, and a later one with
    the same texts, encoder and length only reads them.

    Args:
        texts: reads the texts; in a config a `class_path` with `init_args`.
        encoder: folder or hub name of a transformers model with its tokenizer.
        cache: folder that keeps the vectors.
        revision: of a hub model.
        prompt: put before every text; some encoders are trained with one.
        max_tokens: where texts are cut off.
        batch_size: texts encoded at a time.
        part_size: texts in a file of the cache; at most so many are computed again after an interruption.
        device: that computes; None takes a GPU where there is one.

    Raises:
        InputError: a size below one.
    """

    def __init__(
        self,
        texts: TextReader,
        encoder: str,
        cache: str,
        revision: str = "main",
        prompt: str = "",
        max_tokens: int = 256,
        batch_size: int = 64,
        part_size: int = 4096,
        device: str | None = None,
    ) -> None:
        if min(max_tokens, batch_size, part_size) < 1:
            raise InputError(
                f"max_tokens {max_tokens}, batch_size {batch_size}, part_size {part_size}: expected at least 1 each"
            )
        self._texts = texts
        self._encoder = encoder
        self._cache = Path(cache)
        self._revision = revision
        self._prompt = prompt
        self._max_tokens = max_tokens
        self._batch_size = batch_size
        self._part_size = part_size
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))

    def embed(self) -> ItemEmbeddings:
        """See `EmbeddingSource`.

        Raises:
            InputError: the texts cannot be read, there is no such encoder, or the cache holds other vectors.
        """
        items = self._texts.read()
        texts = [self._prompt + text for text in items.texts]
        cache = EmbeddingCache(self._cache, len(texts), self._part_size, self._made_of(texts))
        missing = cache.missing_parts()
        if missing:
            model, tokenizer = load_encoder(self._encoder, self._revision)
            model.to(device=self._device)  # type: ignore[call-arg]  # transformers wraps `to` without its types
        for part in missing:
            rows = cache.rows(part)
            cache.write(part, encode_texts(texts[rows], model, tokenizer, self._max_tokens, self._batch_size))
        return ItemEmbeddings(items.keys, cache.read(), items.titles, f"{items.source} by {self._encoder}")

    def _made_of(self, texts: Sequence[str]) -> dict[str, str | int]:
        digest = hashlib.sha256("\0".join(texts).encode())
        return {
            "encoder": self._encoder,
            "encoder_version": _encoder_version(Path(self._encoder), self._revision),
            "max_tokens": self._max_tokens,
            "texts": len(texts),
            "texts_sha256": digest.hexdigest(),
        }


def load_encoder(name: str, revision: str = "main") -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A transformers model without a head, in evaluation mode, and its tokenizer.

    Args:
        name: folder or hub name.
        revision: of a hub model.

    Raises:
        InputError: transformers cannot load one of them.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name, revision=revision)
        model: PreTrainedModel = AutoModel.from_pretrained(name, revision=revision, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: transformers cannot load an encoder and its tokenizer ({error})") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model.eval(), tokenizer


@torch.inference_mode()
def encode_texts(
    texts: Sequence[str],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int = 256,
    batch_size: int = 64,
) -> Tensor:
    """The mean of each text's last hidden states, padding left out.

    Args:
        texts: n texts.
        model: see `load_encoder`.
        tokenizer: of the model.
        max_tokens: where texts are cut off.
        batch_size: texts encoded at a time.

    Returns:
        float32 `[n, hidden size]`, on the CPU.
    """
    vectors = torch.empty(len(texts), model.config.hidden_size)
    for rows in _alike_in_length(texts, batch_size):
        batch = tokenizer(
            [texts[row] for row in rows], padding=True, truncation=True, max_length=max_tokens, return_tensors="pt"
        ).to(model.device)
        states = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        vectors[rows] = masked_mean(states, batch["attention_mask"]).float().cpu()
    return vectors


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Mean over the tokens that are no padding.

    Args:
        states: `[B, T, d]`.
        mask: 1 for a token, 0 for padding, `[B, T]`.

    Returns:
        `[B, d]`; zeros for a row without tokens.
    """
    weights = mask[..., None].to(states.dtype)  # [B, T, 1]
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1)


def _alike_in_length(texts: Sequence[str], batch_size: int) -> Iterator[list[int]]:
    """Row numbers in batches of similar length, which need little padding."""
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def _encoder_version(folder: Path, revision: str) -> str:
    """What changes when the encoder does: of a folder a hash of its files' ends and sizes, else the revision."""
    if not folder.is_dir():
        return revision
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*")):
        if path.suffix in (".json", ".safetensors", ".bin", ".txt", ".model"):
            size = path.stat().st_size
            with path.open("rb") as file:
                file.seek(max(0, size - _HASHED_BYTES))
                digest.update(f"{path.name} {size}".encode() + file.read())
    return digest.hexdigest()
