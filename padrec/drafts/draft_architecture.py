"""What a feature draft's network is made of."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pydoc import locate
from typing import Annotated, Any, ClassVar

from transformers import PretrainedConfig

from padrec.catalog import InputError, PositiveInt, Range, check_arguments
from padrec.decoding.layers.cached_layers import LAST_LAYER
from padrec.drafts.feature_draft_network import FeatureDraftNetwork
from padrec.drafts.item_draft_network import ItemDraftNetwork

_EARLIER = "written by an earlier version, whose network differs, expected one of this version: train it again"

_Layer = Annotated[int, Range("at least -1", lambda number: number >= -1)]


class DraftArchitecture(ABC):
    """Builds a draft's network for a target.

    An architecture is a frozen dataclass of primitives, the arguments of its network; a config names it by
    `class_path`. Checkpoints hold its name and its arguments.

    Attributes:
        network_class: what it builds.
        feature_layers: target layers whose hidden states the draft reads, see `CachedLayers.open`.
        item_length: see `Draft`.
    """

    network_class: ClassVar[type[FeatureDraftNetwork]]
    feature_layers: Sequence[int]
    item_length: ClassVar[int | None] = None

    @property
    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """Of the constructor."""

    def network(self, target_config: PretrainedConfig, **settings: Any) -> FeatureDraftNetwork:
        """The network for a target with this configuration; see `FeatureDraftNetwork` for the settings."""
        return self.network_class(target_config, **settings, **self.arguments)

    @property
    def description(self) -> dict[str, Any]:
        """Name and arguments, as JSON can hold them."""
        return {"class_path": f"{type(self).__module__}.{type(self).__qualname__}", "init_args": self.arguments}

    @staticmethod
    def of(description: object) -> "DraftArchitecture":
        """The architecture with this description: of this library, or of a module that is loaded.

        A draft may come from elsewhere, and must not choose what is imported.

        Raises:
            InputError: there is none, or not with these arguments.
        """
        match description:
            case None:
                raise InputError(f"a draft without an architecture: {_EARLIER}")
            case {"class_path": str(name), "init_args": dict(arguments)}:
                module = name.rpartition(".")[0]
                kind = locate(name) if module.startswith("padrec.") or module in sys.modules else None
                if isinstance(kind, type) and issubclass(kind, DraftArchitecture):
                    try:
                        architecture = kind(**arguments)
                    except TypeError as error:
                        raise InputError(f"a draft of architecture {name}: {error}") from error
                    if missing := sorted(architecture.arguments.keys() - arguments.keys()):
                        raise InputError(f"a draft of architecture {name} without {', '.join(missing)}: {_EARLIER}")
                    return architecture
        expected = "the class path of a DraftArchitecture of this library, or of a module that is imported"
        raise InputError(f"a draft of architecture {description}: expected {expected}")


@dataclass(frozen=True)
class EAGLE(DraftArchitecture):
    """EAGLE's network (arXiv 2401.15077), which HASS and PAD-Rec share, or a larger one; see `FeatureDraftNetwork`.

    Args:
        n_layers: decoder layers of the draft.
        feature_layers: target layers whose hidden states it reads: 0 is the input of the first, i the output of layer
            i, -1 that of the final norm.
        normed_embeddings: whether it reads embeddings divided by their root mean square. False is the network as
            published. EAGLE-3 has norms of its own.

    Raises:
        InputError: an argument is out of range.
    """

    network_class: ClassVar[type[FeatureDraftNetwork]] = FeatureDraftNetwork

    n_layers: PositiveInt = 1
    feature_layers: Sequence[_Layer] = LAST_LAYER
    normed_embeddings: bool = True

    def __post_init__(self) -> None:
        check_arguments(EAGLE, vars(self))
        if not self.feature_layers:
            raise InputError("feature_layers is [], expected at least one layer of the target")

    @property
    def arguments(self) -> dict[str, Any]:
        """See `DraftArchitecture`."""
        return {**asdict(self), "feature_layers": list(self.feature_layers)}


@dataclass(frozen=True)
class ItemEAGLE(EAGLE):
    """EAGLE's network with heads for the tokens of an item between two passes; see `ItemDraftNetwork`.

    Args:
        n_layers: see `EAGLE`.
        feature_layers: see `EAGLE`.
        normed_embeddings: see `EAGLE`.
        n_heads: an item's tokens, the separator included, but for its first code.
        rank: r of the heads.

    Raises:
        InputError: an argument is out of range.
    """

    network_class = ItemDraftNetwork

    n_heads: PositiveInt = 4
    rank: PositiveInt = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        check_arguments(ItemEAGLE, vars(self))

    @property
    def item_length(self) -> int:  # type: ignore[override]  # other architectures have none
        """See `Draft`."""
        return 1 + self.n_heads
