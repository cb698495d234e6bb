"""Tokens of semantic IDs: the map between (slot, code) and token id."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from padrec.catalog.arguments import NonNegativeInt, PositiveInt, check_arguments
from padrec.catalog.errors import InputError

_SPECIAL_NAMES = ("<pad>", "<bos>", "<eos>", "<sep>")


class SemanticIDVocabulary:
    """The tokens that a target reads and writes.

    The ids are `<pad> <bos> <eos> <sep>`, then slot 0's codes, slot 1's codes, and so on. With `shared_codes` the
    slots use one set of codes, so that a token's slot can no longer be read off its id: code that needs a slot
    tracks it as a state (`next_slot`).

    A target that starts from a pretrained language model keeps the tokens of its tokenizer: they come first, and all
    of the above is appended to them.

    Slots are numbered `0 … L-1` for codes, `L` for the separator and `L+1` for any other token.

    Args:
        codebook_sizes: number of codes in each slot, `[L]`, each at least 1.
        separator: whether an item ends with `<sep>`.
        shared_codes: whether the slots share one set of code tokens.
        text_tokens: number of text tokens before all others, those of a tokenizer; 0 for none.
        tokenizer: fingerprint of that tokenizer; None without text tokens.

    Raises:
        InputError: no slot, a codebook without codes, or text tokens without the tokenizer that they are of.
    """

    def __init__(
        self,
        codebook_sizes: Sequence[PositiveInt],
        *,
        separator: bool = True,
        shared_codes: bool = False,
        text_tokens: NonNegativeInt = 0,
        tokenizer: str | None = None,
    ) -> None:
        check_arguments(SemanticIDVocabulary, locals())
        if not codebook_sizes:
            raise InputError("codebook_sizes is [], expected at least one slot")
        if (text_tokens > 0) != (tokenizer is not None):
            raise InputError(f"{text_tokens} text tokens of the tokenizer {tokenizer}: expected both or neither")
        self.text_tokens = text_tokens
        self.tokenizer = tokenizer
        specials = range(text_tokens, text_tokens + len(_SPECIAL_NAMES))
        self.pad_token, self.bos_token, self.eos_token, self.separator_token = specials
        self.first_code = specials.stop
        self.codebook_sizes = tuple(int(size) for size in codebook_sizes)
        self.separator = separator
        self.shared_codes = shared_codes
        self.n_slots = len(self.codebook_sizes)
        self.separator_slot = self.n_slots
        self.other_slot = self.n_slots + 1
        self.n_slot_states = self.n_slots + 2
        self.item_length = self.n_slots + int(separator)
        if shared_codes:
            self._offsets = torch.full((self.n_slots,), self.first_code)
            self.size = self.first_code + max(self.codebook_sizes)
        else:
            sizes = torch.tensor((self.first_code, *self.codebook_sizes))
            self._offsets = sizes.cumsum(0)[:-1]
            self.size = int(sizes.sum())
        self._sizes = torch.tensor(self.codebook_sizes)

    def to_dict(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON can hold them."""
        arguments = {
            "codebook_sizes": list(self.codebook_sizes),
            "separator": self.separator,
            "shared_codes": self.shared_codes,
        }
        if self.text_tokens > 0:
            arguments |= {"text_tokens": self.text_tokens, "tokenizer": self.tokenizer}
        return arguments

    @classmethod
    def of_dict(cls, stored: Any, source: str) -> "SemanticIDVocabulary":  # noqa: ANN401
        """The vocabulary of `to_dict`, as it was read from a file; a message names the source."""
        try:
            return cls(**stored)
        except (TypeError, ValueError) as error:
            raise InputError(f"{source}: {stored!r}, expected the arguments of a vocabulary ({error})") from None

    @property
    def fingerprint(self) -> str:
        """A short hash: equal exactly when two vocabularies give every token the same meaning."""
        return hashlib.sha256(json.dumps(self.to_dict()).encode()).hexdigest()[:16]

    def check_same(self, other: "SemanticIDVocabulary", owner: str) -> None:
        """Refuse an owner that was trained with other tokens than these, which are the data's."""
        if other.fingerprint != self.fingerprint:
            found = f"{owner}: its vocabulary ({other}) is not the data's ({self})"
            raise InputError(f"{found}: expected one that was trained on this catalog")

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value}" for name, value in self.to_dict().items())
        return f"SemanticIDVocabulary({arguments})"

    @property
    def token_slots(self) -> Tensor | None:
        """The slot of every token id, `[size]` int64, or None where slots share their code tokens."""
        if self.shared_codes:
            return None
        slots = torch.full((self.size,), self.other_slot)
        slots[self.separator_token] = self.separator_slot
        for slot, (offset, size) in enumerate(zip(self._offsets.tolist(), self.codebook_sizes, strict=True)):
            slots[offset : offset + size] = slot
        return slots

    def encode(self, codes: Tensor) -> Tensor:
        """Codes, integer `[*, L]`, to token ids, int64 `[*, item_length]`; the separator, if any, comes last."""
        if codes.shape[-1] != self.n_slots:
            raise InputError(f"semantic IDs with {codes.shape[-1]} codes: this vocabulary has {self.n_slots} slots")
        codes = codes.long()
        outside = (codes < 0) | (codes >= self._sizes.to(codes.device))
        if bool(outside.any()):
            place = outside.nonzero()[0].tolist()
            code, slot = int(codes[tuple(place)]), place[-1]
            raise InputError(f"code {code} in slot {slot}: expected 0 … {self.codebook_sizes[slot] - 1}")
        tokens = codes + self._offsets.to(codes.device)
        if not self.separator:
            return tokens
        end = tokens.new_full((*tokens.shape[:-1], 1), self.separator_token)
        return torch.cat([tokens, end], dim=-1)

    def decode(self, tokens: Tensor) -> Tensor:
        """Token ids `[*, L]`, one for each slot, to codes, int64 `[*, L]`; -1 where one is no code of its slot."""
        codes = tokens.long() - self._offsets.to(tokens.device)
        inside = (codes >= 0) & (codes < self._sizes.to(tokens.device))
        return codes.where(inside, torch.full_like(codes, -1))

    def sequence_slots(self, length: int) -> Tensor:
        """Slots of the first `length` tokens of `<bos> item item …`, int64 `[length]`."""
        slots = (torch.arange(length) - 1) % self.item_length
        slots[:1] = self.other_slot
        return slots

    def next_slot(self, slot: Tensor, token: Tensor) -> Tensor:
        """The slot of `token` when it follows a token in `slot` (both int64, any one shape).

        A code follows a code in the next slot; after the separator, after the last code of a vocabulary without
        separator, and after any other token, a code opens an item in slot 0. A code where the separator was due
        belongs to no item.
        """
        following = torch.where(slot < self.n_slots, slot + 1, 0)
        end = self.other_slot if self.separator else 0
        following = torch.where(slot == self.n_slots - 1, end, following)
        is_code = token >= self.first_code
        other = torch.where(token == self.separator_token, self.separator_slot, self.other_slot)
        return torch.where(is_code, following, other)

    def list_tokens(self, list_length: int) -> int:
        """Tokens in a list of `list_length` items; the separator after the last item is not generated."""
        return list_length * self.item_length - int(self.separator)

    def parse_lists(self, tokens: Tensor, list_length: int) -> Tensor:
        """Generated tokens to semantic IDs, position by position.

        Args:
            tokens: token ids on the CPU, `[B, T]`, T at most `list_tokens(list_length)`; shorter lists end in padding.
            list_length: K, items in a list.

        Returns:
            Codes, int64 `[B, K, L]`, -1 throughout an item that is malformed or missing.
        """
        # On arrays, whose operations take a fifth of a tensor's time on batches as small as a service's.
        padded = np.full((len(tokens), list_length * self.item_length), self.pad_token)
        padded[:, : tokens.shape[1]] = tokens.numpy()
        items = padded.reshape(len(tokens), list_length, self.item_length)
        codes = items[..., : self.n_slots] - self._offsets.numpy()
        whole = ((codes >= 0) & (codes < self._sizes.numpy())).all(-1)
        if self.separator and list_length > 1:
            # An item counts only where the separator before it is in place: otherwise the slots are shifted.
            whole[:, 1:] &= np.logical_and.accumulate(items[:, :-1, -1] == self.separator_token, 1)
        return torch.from_numpy(np.where(whole[..., None], codes, -1))

    def token_name(self, token: int) -> str:
        """A readable name: `<a_7>` (slot a, code 7), `<7>` where slots share their codes, `<sep>`, `<text_7>`.

        After text tokens the special tokens are `<list_sep>` and so on: many tokenizers have a `<pad>` of their own.
        """
        if token < self.text_tokens:
            return f"<text_{token}>"
        if token < self.first_code:
            name = _SPECIAL_NAMES[token - self.text_tokens]
            return name if self.text_tokens == 0 else f"<list_{name[1:]}"
        if self.shared_codes:
            return f"<{token - self.first_code}>"
        slot = int((self._offsets <= token).sum()) - 1
        return f"<{chr(ord('a') + slot)}_{token - int(self._offsets[slot])}>"
