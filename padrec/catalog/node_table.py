"""The trie's nodes by their parent and token, in a hash table on the decoding device."""

import torch
from torch import Tensor

# 2^64 divided by the golden ratio, as a signed 64-bit integer: multiples of it are spread evenly (Knuth, 6.4).
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
# Keys of one bucket that are compared together. So few the compiler reads in one kernel, none waiting for another.
_MOST_IN_BUCKET = 8


class NodeTable:
    """Finds numbers by their keys.

    A key is compared with all of its bucket at once: two reads, one behind the other, where a binary search among a
    million keys has twenty.

    Attributes:
        most: keys of the fullest bucket, at most 8.

    Args:
        keys: int64 `[n]`, at least one, all different, none negative.
        nodes: the number of each key, int64 `[n]`.
        missing: found for all other keys; above all numbers.
    """

    def __init__(self, keys: Tensor, nodes: Tensor, missing: int) -> None:
        self._missing = missing
        bits = (2 * len(keys)).bit_length()
        while True:
            self._shift, self._mask = 64 - bits, (1 << bits) - 1
            buckets = self._bucket(keys)
            sizes = torch.bincount(buckets, minlength=1 << bits)
            self.most = int(sizes.max())
            if self.most <= _MOST_IN_BUCKET:
                break
            bits += 1
        order = buckets.argsort(stable=True)
        # Behind the last bucket stand keys that nobody asks for, so that every bucket is read to the same width.
        self._keys = torch.cat([keys[order], keys.new_full((self.most,), -1)])
        self._nodes = torch.cat([nodes[order], nodes.new_zeros(self.most)])
        self._starts = (sizes.cumsum(0) - sizes).int()
        self._offsets = torch.arange(self.most)

    @property
    def n_bytes(self) -> int:
        """Memory of all tensors, in bytes."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self._tensors().values())

    def _tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def to(self, device: torch.device | str) -> "NodeTable":
        """Move all tensors to `device`, in place."""
        for name, tensor in self._tensors().items():
            setattr(self, name, tensor.to(device))
        return self

    def find(self, keys: Tensor) -> Tensor:
        """The number of each key, int64, in the keys' shape; keys are int64, in any shape, none negative."""
        at = self._starts.take(self._bucket(keys))[..., None] + self._offsets
        return torch.where(self._keys.take(at) == keys[..., None], self._nodes.take(at), self._missing).amin(-1)

    def _bucket(self, keys: Tensor) -> Tensor:
        return ((keys * _GOLDEN) >> self._shift) & self._mask
