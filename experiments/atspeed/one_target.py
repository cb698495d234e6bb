"""Evaluations of one process that read their target once."""

import gc
from functools import cache
from pathlib import Path

from transformers import PreTrainedModel

from padrec import SpeculativeEvaluator, TargetRecommender

read_once = cache(TargetRecommender.load)
_in_use: dict[TargetRecommender, tuple[PreTrainedModel, str]] = {}


class OneTargetEvaluator(SpeculativeEvaluator):
    """As `SpeculativeEvaluator`, with the target as the evaluation before left it: on the device, in its precision.

    Reading a target of 28 layers x 1024 takes about ten seconds. All evaluations of a process must be of one precision.
    """

    def read_target(self, target: str | Path | TargetRecommender) -> TargetRecommender:
        """Read a file once."""
        return super().read_target(target) if isinstance(target, TargetRecommender) else read_once(target)

    def load_target(self) -> tuple[PreTrainedModel, str]:
        """Take the fingerprint once, before the first cast."""
        gc.collect()  # what the evaluation before captured
        target = self._target.module
        if target not in _in_use:
            _in_use[target] = super().load_target()
        return _in_use[target]
