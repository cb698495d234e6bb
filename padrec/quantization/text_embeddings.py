"""Item embeddings from texts, by a transformers encoder."""

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase

from padrec.catalog import InputError, PositiveInt, check_arguments
from padrec.catalog.tensor_file import read_tensors, write_tensors
from padrec.catalog.whole_output import locked, writing
from padrec.data import TextReader
from padrec.data.json_file import check_made_of
from padrec.data.tokenizer import as_text, load_tokenizer
from padrec.quantization.item_embeddings import EmbeddingSource, ItemEmbeddings

_UNUSED = ("pooler.", "decoder.")  # weights that a mean of the encoder's hidden states does not depend on


@dataclass(frozen=True)
class TextEmbeddings(EmbeddingSource):
    """Embeds each item as the mean of the last hidden states of its text; of an encoder-decoder, the encoder's.

    Vectors are cached as they are computed: an interrupted run resumes, and a later run with the same texts, encoder
    and length only reads them.

    Args:
        texts: reads the texts; in a config a `class_path` with `init_args`.
        encoder: folder or hub name of a transformers model with its tokenizer.
        cache: folder that keeps the vectors.
        revision: revision of a hub model.
        prompt: text put before every item's text; some encoders are trained with one.
        max_tokens: length at which texts are cut.
        batch_size: texts encoded at a time.
        part_size: texts in a file of the cache, the most that an interruption loses.
        device: device that computes; None takes a GPU if there is one.

    Raises:
        InputError: a size below one; from `embed`, unreadable texts, no encoder or one with fewer than `max_tokens`
            positions, or a cache of other vectors.
    """

    texts: TextReader
    encoder: str
    cache: str
    revision: str = "main"
    prompt: str = ""
    max_tokens: PositiveInt = 256
    batch_size: PositiveInt = 64
    part_size: PositiveInt = 4096
    device: str | None = None

    def __post_init__(self) -> None:
        check_arguments(TextEmbeddings, vars(self))

    def embed(self) -> ItemEmbeddings:
        """See `EmbeddingSource`."""
        items = self.texts.read()
        texts = [self.prompt + text for text in items.texts]
        made_of: dict[str, str | int] = {
            "encoder": self.encoder,
            "encoder_version": _encoder_version(Path(self.encoder), self.revision),
            "max_tokens": self.max_tokens,
            "texts": len(texts),
            "texts_sha256": hashlib.sha256("\0".join(texts).encode()).hexdigest(),
        }
        encoder = functools.cache(self._load_encoder)

        def compute(rows: slice) -> Tensor:
            return encode_texts(texts[rows], *encoder(), self.max_tokens, self.batch_size)

        vectors = _cached(Path(self.cache), len(texts), self.part_size, made_of, compute)
        return ItemEmbeddings(items.keys, vectors, items.titles, f"{items.source} by {self.encoder}")

    def _load_encoder(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        model, tokenizer = load_encoder(self.encoder, self.revision)
        try:
            encode_texts([" a" * self.max_tokens], model, tokenizer, self.max_tokens)
        except Exception as error:  # each architecture fails in its own way
            raise InputError(
                f"{self.encoder}: cannot encode {self.max_tokens} tokens ({error}), expected an encoder of texts with "
                "as many positions: lower max_tokens, or choose another one"
            ) from error
        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        model.to(device=device)  # type: ignore[call-arg]  # transformers wraps `to` without its types
        return model, tokenizer


def _cached(
    folder: Path, n_rows: int, part_size: int, made_of: Mapping[str, str | int], compute: Callable[[slice], Tensor]
) -> Tensor:
    """Vectors `[n_rows, d]` of a folder with a file for each part, where `compute` gives those of a missing part."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    parts = []
    with locked(folder, wait=True):  # others, such as those of a distributed fit, then read what is there
        check_made_of(folder, "embeddings.json", {**made_of, "part_size": part_size}, "embeddings")
        for number, start in enumerate(range(0, n_rows, part_size)):
            file = folder / f"part-{number:05d}.safetensors"
            rows = slice(start, min(start + part_size, n_rows))
            if not file.exists():
                write_tensors(file, {"embeddings": compute(rows)})
            try:
                found = read_tensors(file, "embeddings").tensors["embeddings"]
                if len(found) != (expected := rows.stop - rows.start):
                    raise InputError(f"{file}: {len(found)} rows, expected {expected} embeddings")
            except InputError as error:
                raise InputError(f"{error}; remove it to recompute it") from None
            parts.append(found)
    return torch.cat(parts)


def load_encoder(name: str, revision: str = "main") -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A transformers encoder without a head, in evaluation mode, and its tokenizer, by folder or hub name.

    What transformers cannot load, and weights that are missing, are an InputError.
    """
    tokenizer = load_tokenizer(name, revision)
    try:
        loaded: Any = AutoModel.from_pretrained(
            name, dtype=torch.float32, revision=revision, trust_remote_code=False, output_loading_info=True
        )
    except Exception as error:  # each architecture fails in its own way
        raise InputError(f"{name}: transformers cannot load an encoder ({error})") from error
    model, report = loaded
    # transformers only warns of these, and leaves the weights random.
    if missing := sorted(key for key in report["missing_keys"] if not key.startswith(_UNUSED)):
        raise InputError(f"{name}: weights missing: {', '.join(missing)}; expected all of the encoder")
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    if tokenizer.pad_token is None:  # any token will do: padding is masked
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    tokenizer.padding_side = "right"  # padding on the left would shift positions
    return model.eval(), tokenizer


@torch.inference_mode()
def encode_texts(
    texts: Sequence[str],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int = 256,
    batch_size: int = 64,
) -> Tensor:
    """The mean of each text's last hidden states without padding, cut at `max_tokens`, float32 `[n, d]` on the CPU."""
    texts = as_text(texts, tokenizer)
    vectors = torch.empty(len(texts), model.config.hidden_size)
    # Batches of similar length need little padding.
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = tokenizer(
            [texts[row] for row in rows], padding=True, truncation=True, max_length=max_tokens, return_tensors="pt"
        ).to(model.device)
        states = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        vectors[rows] = masked_mean(states, batch["attention_mask"]).float().cpu()
    return vectors


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of states `[B, T, d]` where the mask `[B, T]` is 1, `[B, d]`; zeros for a row without tokens."""
    weights = mask[..., None].to(states.dtype)  # [B, T, 1]
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1)


def _encoder_version(folder: Path, revision: str) -> str:
    """A hash of the encoder's files in a folder; else the revision."""
    if not folder.is_dir():
        return revision
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*")):
        if path.suffix in (".json", ".safetensors", ".bin", ".txt", ".model"):
            with path.open("rb") as file:
                digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
