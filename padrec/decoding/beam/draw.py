"""How a beam search draws its prefixes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from padrec.decoding.beam.children import Children
from padrec.decoding.lists.request import ListRequest
from padrec.decoding.lists.sampling import token_noise, token_steps


@dataclass(frozen=True)
class Draw:
    """How a step draws."""

    keys: Tensor  # of the requests, int64 [B]
    temperature: float  # what scores are divided by; 0 keeps the best
    steps: Tensor  # of all tokens; see `token_steps`

    @classmethod
    def of(cls, request: ListRequest, batch: int, device: torch.device) -> "Draw":
        """For batches of one size; their keys are copied in."""
        keys = torch.zeros(batch, dtype=torch.long, device=device)
        return cls(keys, request.sampling.temperature, token_steps(request.vocabulary_size, device))

    def ranks(self, children: Children, salt: int = 0) -> Tensor:
        """What the highest values of are kept, `[B, M]`: the scores, or with noise, which draws without replacement."""
        if self.temperature == 0:
            return children.scores
        return children.law(self.temperature) + self.noise(children, salt)

    def noise(self, children: Children, salt: int = 0) -> Tensor:
        """Gumbel noise of the children as a function of request, prefix and code, `[B, M]`."""
        steps = self.steps[children.tokens].view(*children.prefixes.shape, -1)  # [B, W, C]
        return token_noise(self.keys ^ salt, children.prefixes, steps).flatten(1)
