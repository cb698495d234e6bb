"""A model whose lists follow from the prompts alone, shared by the tests of this room."""

import torch
from lightning.pytorch import LightningModule

from padrec.data import PromptBatch
from padrec.decoding import Recommendations


class ListStub(LightningModule):
    """Recommends the leaves after the user's number and history; -1 at the second place if `broken`."""

    def __init__(self, n_leaves: int, list_length: int, broken: bool = False, fails: bool = False) -> None:
        super().__init__()
        self.n_leaves, self.list_length = n_leaves, list_length
        self.broken, self.fails = broken, fails

    def predict_step(self, batch: PromptBatch) -> Recommendations:
        if self.fails:
            raise RuntimeError("out of memory")
        first = batch.users + 3 * batch.history.clamp(min=0).sum(1)
        leaves = (first[:, None] + torch.arange(self.list_length)) % self.n_leaves
        if self.broken:
            leaves[:, 1] = -1
        return Recommendations(leaves, tokens=leaves, log_probs=leaves.float())
