from pathlib import Path
from typing import Any

import pytest
import torch

from padrec.catalog import Catalog, InputError, SemanticIDVocabulary
from padrec.data import PromptTemplate
from padrec.data.sequence_encoder import SequenceEncoder
from tests.data.toy_data import CODES, toy_catalog
from tests.tiny_language_model import ITEM, TEXT, save_tiny_tokenizer


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


@pytest.mark.parametrize("separator", [True, False])
@pytest.mark.parametrize("shared_codes", [True, False])
@pytest.mark.parametrize("list_marker", [True, False])
def test_a_template_writes_text_around_histories_and_their_items(
    separator: bool, shared_codes: bool, list_marker: bool, tmp_path: Path
) -> None:
    save_tiny_tokenizer(tmp_path)
    template = PromptTemplate(str(tmp_path), TEXT, ITEM)
    codes = {"separator": separator, "shared_codes": shared_codes}
    vocabulary = SemanticIDVocabulary((3, 3), **codes, text_tokens=template.text_tokens, tokenizer=template.fingerprint)
    titles = [f"Item {number}" * (number % 3) for number in range(len(CODES))]
    catalog = Catalog(torch.tensor(CODES), [str(number) for number in range(len(CODES))], titles)
    rows, histories, to_list = [[7, 0, 3], [5], [2, 2]], [1, 1, 2], [True, True, False]
    items = torch.tensor([row + [-1] * (3 - len(row)) for row in rows])
    encoder = SequenceEncoder(vocabulary, catalog, template, list_marker)
    encoded = encoder.encode(items, torch.tensor(histories), torch.tensor(to_list))
    tokenizer = template.extended_tokenizer(vocabulary)
    flags = encoded.per_token(
        torch.tensor([[True, False, True], [True, False, False], [False, True, False]]), other=False
    )
    before, after = TEXT.split("{history}")
    for number, (row, history) in enumerate(zip(rows, histories, strict=True)):
        written = [str(tokenizer.decode(vocabulary.encode(torch.tensor(CODES[item])))) for item in row]
        told = [ITEM.format(item=text, title=titles[item]) for text, item in zip(written, row, strict=True)]
        marker = "<list_eos>" if list_marker and to_list[number] else ""
        expected = "<list_bos>" + before + "".join(told[:history]) + after + marker + "".join(written[history:])
        length = int(encoded.lengths[number])
        assert tokenizer.decode(encoded.tokens[number, :length]) == expected
        assert (encoded.tokens[number, length:] == vocabulary.pad_token).all()
        flagged = [written[place] for place in range(len(row)) if [(0, 2), (0,), (1,)][number].count(place)]
        assert tokenizer.decode(encoded.tokens[number][flags[number]]) == "".join(flagged)
        slot, tracked = torch.tensor(vocabulary.other_slot), []
        for token in encoded.tokens[number]:
            slot = vocabulary.next_slot(slot, token)
            tracked.append(int(slot))
        assert encoded.slots[number].tolist() == tracked
    repeated = torch.arange(len(CODES))[:, None].expand(-1, 4)
    for lists in (True, False):
        marked = torch.full((len(CODES),), lists)
        lengths = encoder.encode(repeated, torch.full((len(CODES),), 3), marked).lengths
        assert int(lengths.max()) == encoder.longest(3, 1, lists)


def test_titles_are_needed_only_where_the_template_has_them(tmp_path: Path) -> None:
    save_tiny_tokenizer(tmp_path)
    with pytest.raises(InputError, match=r"^catalog: no titles, but the prompt template has \{title\} in its item$"):
        PromptTemplate(str(tmp_path), TEXT, ITEM).item_texts(toy_catalog())
    before, after = PromptTemplate(str(tmp_path), TEXT, "{item}, ").item_texts(toy_catalog())
    assert before == [[]] * len(CODES)
    assert len({tuple(text) for text in after}) == 1


@pytest.mark.parametrize("list_marker", [True, False])
@pytest.mark.parametrize("with_text", [True, False])
def test_prompts_are_written_as_such_sequences(with_text: bool, list_marker: bool, tmp_path: Path) -> None:
    save_tiny_tokenizer(tmp_path)
    template = PromptTemplate(str(tmp_path), TEXT, ITEM) if with_text else None
    text: dict[str, Any] = (
        {} if template is None else {"text_tokens": template.text_tokens, "tokenizer": template.fingerprint}
    )
    catalog = Catalog(torch.tensor(CODES), [str(number) for number in range(len(CODES))], ["Item"] * len(CODES))
    encoder = SequenceEncoder(SemanticIDVocabulary((3, 3), **text), catalog, template, list_marker)
    found = encoder.prompts([[7, 0, 3], [5], [2, 2]])
    items = torch.tensor([[7, 0, 3], [5, -1, -1], [2, 2, -1]])
    expected = encoder.encode(items, to_list=torch.ones(3, dtype=torch.bool))
    for name, values in vars(found).items():
        assert torch.equal(values, getattr(expected, name)), name
