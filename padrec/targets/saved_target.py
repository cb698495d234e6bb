"""A target on disk with all that is needed to recommend with it."""

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

from padrec.catalog import Catalog, SemanticIDVocabulary
from padrec.catalog.whole_output import check_digests, written_whole
from padrec.data.prompt_format import PromptFormat
from padrec.targets.backbone import load_backbone, save_backbone

_CATALOG_FOLDER = "catalog"


@dataclass(frozen=True)
class SavedTarget:
    """The folder that `TargetRecommender.save_pretrained` writes.

    It holds the model as transformers reads it, `vocabulary.json`, the catalog in `catalog/` (see `Catalog.save`) and
    the format of its prompts (see `PromptFormat.save`).
    """

    model: PreTrainedModel
    vocabulary: SemanticIDVocabulary
    catalog: Catalog | None  # None where it was saved without
    prompt_format: PromptFormat | None  # None where it was saved without

    def write(self, folder: Path) -> None:
        """Write the folder; see `written_whole`."""
        with written_whole(folder) as part:
            save_backbone(self.model, self.vocabulary, part)
            if self.catalog is not None:
                self.catalog.save(part / _CATALOG_FOLDER)
            if self.prompt_format is not None:
                self.prompt_format.save(part)

    @classmethod
    def read(cls, folder: Path) -> "SavedTarget":
        """Read the folder.

        Raises:
            InputError: a file is missing, damaged or malformed, or the weights are not those of the configuration.
        """
        check_digests(folder)
        model, vocabulary = load_backbone(folder)
        catalog = Catalog.load(folder / _CATALOG_FOLDER) if (folder / _CATALOG_FOLDER).is_dir() else None
        return cls(model, vocabulary, catalog, PromptFormat.load(folder))
