"""A recommender on disk: one folder, laid out as a repository of the Hugging Face hub."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from padrec.catalog import InputError, PositiveFloat, PositiveInt, Range, check_arguments
from padrec.catalog.whole_output import written_whole
from padrec.data.json_file import read_json_object
from padrec.decoding import AutoregressiveDecoder, BatchSizeDecoder, Decoder, SpeculativeDecoder, tree_for
from padrec.targets import SavedTarget
from padrec.version import __version__

FORMAT_VERSION = 1
"""Of `recommender.json`; raised by every change that older releases would misread."""

_FILE, _CARD = "recommender.json", "README.md"
_TARGET, _DRAFT = "target", "draft"
# Depth, width and nodes of the tree for several users. Trials on a GPU chose it, or one nearly as fast, for 2 to 32 of
# them (docs/results/speed/notes.md, Many users at once); trials at every start would take minutes.
_SMALL_TREE = (8, 2, 12)
# The same for a draft with one pass an item, whose depth costs little: passes, width and nodes.
_SMALL_ITEM_TREE = (3, 2, 16)


@dataclass(frozen=True)
class DecoderSettings:
    """How a recommender's draft is used.

    Attributes:
        depth: of the tree, see `DynamicTree`, or `ItemTree` for drafts that need it.
        width: of the tree.
        nodes: of the tree.
        greedy_temperature: of the tree. Below 1, since drafts are surer of greedy targets than of sampled ones
            (docs/decoding.md, Trees).
        forced_tokens: runs of tokens that the catalog forces are added to the tree, see `SpeculativeDecoder`.
        adaptive: several users at once get a small tree without them; the other settings are for one user alone.

    Raises:
        InputError: a value outside its range.
    """

    depth: PositiveInt = 6
    width: PositiveInt = 10
    nodes: Annotated[int, Range("at least 2", lambda nodes: nodes >= 2)] = 60
    greedy_temperature: PositiveFloat = 0.5
    forced_tokens: bool = True
    adaptive: bool = False

    def __post_init__(self) -> None:
        check_arguments(DecoderSettings, vars(self))

    def decoder(self, draft: Path | None) -> Decoder:
        """The decoder; without a draft, the autoregressive one."""
        if draft is None:
            return AutoregressiveDecoder()
        from padrec.drafts import FeatureDraft

        network = FeatureDraft(str(draft))
        grown = tree_for(network)
        tree = grown(self.depth, self.width, self.nodes, self.greedy_temperature)
        alone = SpeculativeDecoder(network, tree, forced_tokens=self.forced_tokens)
        if not self.adaptive:
            return alone
        length, (passes, *size) = network.item_length, _SMALL_ITEM_TREE
        small = grown(*(_SMALL_TREE if length is None else (passes * length, *size)), self.greedy_temperature)
        return BatchSizeDecoder(alone, SpeculativeDecoder(network, small, forced_tokens=False))


@dataclass(frozen=True)
class RecommenderFolder:
    """What a recommender is made of: `target/`, `draft/`, `recommender.json` and the model card `README.md`."""

    target: Path  # folder of `SavedTarget`, or a checkpoint of `padrec fit`
    draft: Path | None = None  # folder or checkpoint of a draft of this target; None recommends without
    decoder: DecoderSettings = DecoderSettings()

    @classmethod
    def open(cls, folder: Path) -> "RecommenderFolder":
        """Find the parts of a folder that `write` wrote; they check themselves when they are read."""
        file = folder / _FILE
        if not file.is_file():
            raise InputError(f"{folder}: no {_FILE}, expected a folder of `padrec export` or `save_pretrained`")
        stored: dict[str, Any] = read_json_object(file, "of a recommender")
        found = stored.get("format_version")
        if found != FORMAT_VERSION:
            raise InputError(
                f"{file}: format version {found!r} of padrec {stored.get('padrec')}, expected {FORMAT_VERSION}: use "
                "that release of padrec, or export the recommender again with this one"
            )
        draft = folder / _DRAFT
        return cls(folder / _TARGET, draft if draft.is_dir() else None, _settings(stored.get("decoder"), file))

    def read_target(self) -> SavedTarget:
        """Read the target."""
        if self.target.is_dir():
            return SavedTarget.read(self.target)
        # Only here: the checkpoints of Lightning need Lightning, which takes seconds to import.
        from padrec.targets import TargetRecommender

        return TargetRecommender.load(self.target).saved()

    def write(self, folder: Path, card: str) -> None:
        """Copy the parts, and the text of a model card, to a folder that holds nothing yet."""
        from padrec.drafts.draft_checkpoint import DraftCheckpoint

        target = self.read_target()
        draft = None if self.draft is None else DraftCheckpoint.read(self.draft)
        described = {"format_version": FORMAT_VERSION, "padrec": __version__, "decoder": asdict(self.decoder)}
        with written_whole(folder) as part:
            target.write(part / _TARGET)
            if draft is not None:
                draft.write(part / _DRAFT)
            (part / _FILE).write_text(json.dumps(described, indent=2) + "\n")
            (part / _CARD).write_text(card, encoding="utf-8")


def pretrained_folder(name: str | Path, revision: str | None = None) -> Path:
    """The folder of this name, or a copy of that repository of the Hugging Face hub."""
    if Path(name).is_dir():
        return Path(name)
    try:
        return Path(snapshot_download(str(name), revision=revision))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{name}: no folder, and no repository that can be read from the hub ({reason})") from None


def _settings(stored: object, file: Path) -> DecoderSettings:
    names = {field.name for field in fields(DecoderSettings)}
    if not isinstance(stored, dict) or not stored.keys() <= names:
        raise InputError(f"{file}: decoder {stored!r}, expected an object with some of {sorted(names)}")
    try:
        return DecoderSettings(**stored)
    except TypeError as error:
        raise InputError(f"{file}: decoder {stored!r}, expected numbers ({error})") from None
