import pytest
import torch

from padrec.catalog import SemanticIDVocabulary
from padrec.data.sequence_encoder import SequenceEncoder
from tests.data.toy_data import CODES, toy_catalog


@pytest.mark.parametrize("separator", [True, False])
@pytest.mark.parametrize("shared_codes", [True, False])
def test_sequences_are_written_item_by_item(separator: bool, shared_codes: bool) -> None:
    vocabulary = SemanticIDVocabulary((3, 3), separator=separator, shared_codes=shared_codes)
    rows = [[7, 0, 3], [5], []]
    items = torch.tensor([row + [-1] * (3 - len(row)) for row in rows])
    encoded = SequenceEncoder(vocabulary, toy_catalog()).encode(items)
    for row, found, found_slots, length in zip(rows, encoded.tokens, encoded.slots, encoded.lengths, strict=True):
        expected, expected_slots = [vocabulary.bos_token], [vocabulary.other_slot]
        for item in row:
            expected += vocabulary.encode(torch.tensor(CODES[item])).tolist()
            expected_slots += [0, 1, 2][: vocabulary.item_length]
        padding = encoded.tokens.shape[1] - len(expected)
        assert length == len(expected)
        assert found.tolist() == expected + [vocabulary.pad_token] * padding
        assert found_slots.tolist() == expected_slots + [vocabulary.other_slot] * padding
