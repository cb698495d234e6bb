"""Feature drafts that search beams ahead."""

from functools import partial

import torch
from torch import Tensor

from padrec.catalog import InputError
from padrec.decoding import BeamDraft, BeamDraftSession
from padrec.decoding.beam.beam_draft import BeamDraftOpener
from padrec.decoding.layers.cached_layers import LAST_LAYER, CachedLayers
from padrec.decoding.layers.placement import Placement
from padrec.decoding.layers.prompts import Branches, Prompts
from padrec.decoding.layers.runner import TransformersRunner
from padrec.decoding.lists.catalog_constraint import CatalogConstraint
from padrec.decoding.lists.request import ListRequest
from padrec.decoding.lists.tensor_record import pick
from padrec.drafts.draft_operations import TreeLevel
from padrec.drafts.feature_draft import FeatureDraft, NetworkDraft
from padrec.drafts.folded_fusion import FoldedFusion


class FeatureBeamDraft(BeamDraft):
    """A trained PAD-Rec, HASS or EAGLE draft, which continues the target's own features of the prompt.

    The target's first pass reads the prompt alone and chooses the first codes; a user is done in two passes at best.

    Args:
        checkpoint: see `FeatureDraft`.

    Raises:
        InputError: the file is missing or is not a draft, or the draft reads features of other layers.
    """

    reads_features = True

    def __init__(self, checkpoint: str) -> None:
        self._draft = FeatureDraft(checkpoint)
        if tuple(self._draft.feature_layers) != LAST_LAYER:
            found = f"{checkpoint}: a draft that reads the target's layers {list(self._draft.feature_layers)}"
            raise InputError(f"{found}: expected one that reads what the head reads, which beams keep")

    def bind(self, runner: TransformersRunner, request: ListRequest) -> BeamDraftOpener:
        """Build the network on the target's device and in its precision; see `BeamDraft.bind`."""
        return NetworkBeamDraft(self._draft.loaded(runner, request)).bind(runner, request)


class NetworkBeamDraft(BeamDraft):
    """Searches with a `FeatureDraftNetwork`.

    Args:
        draft: the network, for lists.
    """

    reads_features = True

    def __init__(self, draft: NetworkDraft) -> None:
        self._draft = draft

    def bind(self, runner: TransformersRunner, request: ListRequest) -> BeamDraftOpener:
        """Share the target's embedding and head; see `BeamDraft.bind`."""
        return partial(_NetworkSession, *self._draft.parts(runner))


class _NetworkSession(BeamDraftSession):
    """Keeps the mapped feature of the prompt's last token and of every prefix, the target's once it has read it."""

    def __init__(
        self, fusion: FoldedFusion, layers: CachedLayers, batch: int, capacity: int, constraint: CatalogConstraint
    ) -> None:
        self._fusion, self._layers = fusion, layers.open(batch, capacity)
        self._mapped = fusion.empty(batch, 1 + capacity)
        self._columns = torch.arange(capacity, device=self._mapped.device)
        self._lengths = self._columns.new_zeros(batch)
        self._step = 0  # consecutive draft-made features before the next prefixes

    def begin(self, prompts: Prompts, features: Tensor | None) -> Tensor:
        """Read the prompts shifted by one: token i + 1 with the target's feature of token i."""
        assert features is not None
        read = self._fusion.read(features, prompts.tokens.roll(-1, 1), prompts.slots.roll(-1, 1))
        columns = self._columns[: prompts.tokens.shape[1]].expand(prompts.tokens.shape)
        placement = Placement(torch.zeros_like(self._lengths), columns, layout=prompts.layout())
        self._layers(read.hidden, placement, read.qkv)
        self._lengths.copy_(prompts.lengths - 1)  # nothing follows the last token yet
        logits, self._mapped[:, :1] = self._fusion.look(pick(features, prompts.lengths[:, None] - 1))
        self._step = 0
        return logits[:, 0]

    def extend(self, branches: Branches, nodes: Tensor) -> Tensor:
        (n, n_columns), first = branches.seen.shape[1:], branches.first
        column = self._columns[:n_columns]
        ancestors = branches.seen & (column != self._columns[first : first + n, None])
        # The last token that a code sees besides itself: 0 is the prompt's, 1 the first one after it.
        parents = (ancestors * (1 + column)).amax(-1)
        slots = branches.depths.expand(branches.tokens.shape)
        level = TreeLevel(parents, None, self._columns[:n], 0)
        read, _ = self._fusion.extend(branches.tokens, self._mapped, slots, self._step, level)
        features, _ = self._layers(read.hidden, Placement(self._lengths, slots, first, branches.seen), read.qkv)
        logits, self._mapped[:, 1 + first : 1 + first + n] = self._fusion.look(features)
        self._step += 1
        return logits

    def observe(self, features: Tensor, first: int) -> None:
        _, self._mapped[:, 1 + first : 1 + first + features.shape[1]] = self._fusion.look(features)
        self._step = 0
