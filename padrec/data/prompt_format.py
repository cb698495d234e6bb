"""How a target's prompts are written: what has to be known beside its vocabulary and catalog."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from padrec.catalog import Catalog, InputError, PositiveInt, SemanticIDVocabulary, check_arguments
from padrec.data.batches import PromptBatch
from padrec.data.item_sequences import ItemSequences
from padrec.data.json_file import read_json_object
from padrec.data.prompt_template import PromptTemplate
from padrec.data.prompts import PromptRows
from padrec.data.sequence_encoder import EncodedPrompts, SequenceEncoder

_FILE, _TOKENIZER_FOLDER = "prompts.json", "tokenizer"


@dataclass(frozen=True)
class PromptFormat:
    """How prompts are written; saved with a target, so that it reads what it was trained on."""

    max_history: PositiveInt  # items of history that a prompt keeps, the last ones
    list_marker: bool = False  # whether `<eos>` separates a history from a list
    template: PromptTemplate | None = None  # the text of prompts; None for no text

    def __post_init__(self) -> None:
        check_arguments(PromptFormat, vars(self))

    def encoder(self, vocabulary: SemanticIDVocabulary, catalog: Catalog) -> SequenceEncoder:
        """What writes item sequences of a catalog as tokens; see `SequenceEncoder`."""
        return SequenceEncoder(vocabulary, catalog, self.template, self.list_marker)

    def prompts(self, histories: Sequence[Sequence[str]], encoder: SequenceEncoder, catalog: Catalog) -> PromptBatch:
        """One batch of prompts for any users, with users -1 and without ground truth.

        Histories are item keys, oldest first, of which the last `max_history` are kept. None, an empty one and an
        unknown item are an InputError.
        """
        rows = []
        for number, history in enumerate(histories):
            try:
                rows.append([catalog.index(key) for key in history])
            except InputError as error:
                raise InputError(f"history {number}: {error}") from None
        kept = ItemSequences.from_lists(self._kept(rows))
        users, nothing = torch.full((len(rows),), -1), ItemSequences.from_lists([[]] * len(rows))
        prompts = PromptRows(kept, nothing, users, catalog, encoder)
        return prompts.__getitems__(list(range(len(rows))))

    def encoded(self, histories: Sequence[Sequence[int]], encoder: SequenceEncoder) -> EncodedPrompts:
        """The tokens of such prompts, which is all that decoding needs; histories are of rows of the catalog."""
        return encoder.prompts(self._kept(histories))

    def _kept(self, histories: Sequence[Sequence[int]]) -> list[Sequence[int]]:
        if not histories:
            raise InputError("no histories to make prompts from, expected at least one")
        for number, history in enumerate(histories):
            if not history:
                raise InputError(f"history {number} is empty, expected at least one item key")
        return [history[-self.max_history :] for history in histories]

    def to_dict(self) -> dict[str, Any]:
        """The format as JSON can hold it; it names the tokenizer of the template."""
        template = None if self.template is None else self.template.settings
        return {"max_history": self.max_history, "list_marker": self.list_marker, "template": template}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "PromptFormat":
        """The format of `to_dict`; its tokenizer must be found."""
        template = None if stored["template"] is None else PromptTemplate(**stored["template"])
        return cls(stored["max_history"], stored["list_marker"], template)

    def save(self, folder: Path) -> None:
        """Write `prompts.json` and, for a template, the tokenizer that it needs."""
        stored = self.to_dict()
        if self.template is not None:
            self.template.save_tokenizer(folder / _TOKENIZER_FOLDER)
            stored["template"] = {**stored["template"], "tokenizer": _TOKENIZER_FOLDER}
        (folder / _FILE).write_text(json.dumps(stored, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "PromptFormat | None":
        """Read what `save` wrote, file and tokenizer; None where there is no `prompts.json`."""
        if not (folder / _FILE).is_file():
            return None
        stored: dict[str, Any] = read_json_object(folder / _FILE, "of prompts")
        try:
            if stored["template"] is not None:
                stored["template"]["tokenizer"] = str(folder / stored["template"]["tokenizer"])
            return cls.from_dict(stored)
        except InputError as error:
            raise InputError(f"{folder / _FILE}: {error}") from None
        except (KeyError, TypeError) as error:
            raise InputError(f"{folder / _FILE}: {error}, expected max_history, list_marker and template") from None
