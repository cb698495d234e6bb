from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from padrec.catalog import InputError, SemanticIDVocabulary
from tests import reference

_SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=4)
_TEXT = st.sampled_from([{}, {"text_tokens": 3, "tokenizer": "words"}])
_VOCABULARIES = st.builds(
    lambda sizes, text, **flags: SemanticIDVocabulary(sizes, **text, **flags),
    _SIZES,
    _TEXT,
    separator=st.booleans(),
    shared_codes=st.booleans(),
)


def code_tokens(vocabulary: SemanticIDVocabulary) -> dict[tuple[int, int], int]:
    """The token of every (slot, code), counted up from the special tokens after the text tokens."""
    tokens = {}
    first = following = vocabulary.text_tokens + 4
    for slot, size in enumerate(vocabulary.codebook_sizes):
        for code in range(size):
            tokens[slot, code] = first + code if vocabulary.shared_codes else following
            following += 1
    return tokens


@given(vocabulary=_VOCABULARIES, data=st.data())
def test_codes_are_encoded_slot_by_slot_and_decoded_again(
    vocabulary: SemanticIDVocabulary, data: st.DataObject
) -> None:
    item = st.tuples(*(st.integers(0, size - 1) for size in vocabulary.codebook_sizes))
    items = data.draw(st.lists(item, min_size=1, max_size=6))
    expected = [[code_tokens(vocabulary)[slot, code] for slot, code in enumerate(item)] for item in items]
    tokens = vocabulary.encode(torch.tensor(items, dtype=torch.int32))
    assert tokens.dtype == torch.int64
    if vocabulary.separator:
        assert (tokens[:, -1] == vocabulary.separator_token).all()
    assert tokens[:, : vocabulary.n_slots].tolist() == expected
    assert tokens.shape[1] == vocabulary.item_length == vocabulary.n_slots + vocabulary.separator
    decoded = vocabulary.decode(tokens[:, : vocabulary.n_slots])
    assert decoded.dtype == torch.int64
    assert decoded.tolist() == [list(item) for item in items]


@given(vocabulary=_VOCABULARIES)
def test_every_token_id_is_special_or_a_code(vocabulary: SemanticIDVocabulary) -> None:
    tokens, n_text = code_tokens(vocabulary), vocabulary.text_tokens
    assert set(range(n_text + 4)) | set(tokens.values()) == set(range(vocabulary.size))
    specials = vocabulary.pad_token, vocabulary.bos_token, vocabulary.eos_token, vocabulary.separator_token
    assert specials == (n_text, n_text + 1, n_text + 2, n_text + 3)
    assert (vocabulary.separator_slot, vocabulary.other_slot) == (vocabulary.n_slots, vocabulary.n_slots + 1)


@given(vocabulary=_VOCABULARIES)
def test_a_token_of_another_slot_decodes_to_no_code(vocabulary: SemanticIDVocabulary) -> None:
    tokens = code_tokens(vocabulary)
    every = torch.arange(vocabulary.size)[:, None].expand(-1, vocabulary.n_slots)
    codes = vocabulary.decode(every).tolist()
    for token, slot in product(range(vocabulary.size), range(vocabulary.n_slots)):
        expected = [code for (at, code), own in tokens.items() if at == slot and own == token]
        assert codes[token][slot] == (expected[0] if expected else -1)


@given(vocabulary=_VOCABULARIES)
def test_token_slots_are_known_unless_codes_are_shared(vocabulary: SemanticIDVocabulary) -> None:
    slots = vocabulary.token_slots
    if vocabulary.shared_codes:
        assert slots is None
        return
    assert slots is not None
    others = vocabulary.text_tokens + 3
    expected = (
        [vocabulary.other_slot] * others + [vocabulary.separator_slot] + [slot for slot, _ in code_tokens(vocabulary)]
    )
    assert slots.tolist() == expected


@given(vocabulary=_VOCABULARIES, n_items=st.integers(0, 4))
def test_slots_of_a_sequence_follow_from_its_tokens(vocabulary: SemanticIDVocabulary, n_items: int) -> None:
    items = torch.zeros(n_items, vocabulary.n_slots, dtype=torch.int64)
    tokens = torch.cat([torch.tensor([vocabulary.bos_token]), vocabulary.encode(items).flatten()])
    slot, tracked = torch.tensor(vocabulary.other_slot), []
    for token in tokens:
        slot = vocabulary.next_slot(slot, token)
        tracked.append(int(slot))
    assert vocabulary.sequence_slots(len(tokens)).tolist() == tracked
    item = [*range(vocabulary.n_slots)] + [vocabulary.separator_slot] * vocabulary.separator
    assert tracked == [vocabulary.other_slot] + item * n_items


def test_a_sequence_without_tokens_has_no_slots() -> None:
    assert SemanticIDVocabulary([2, 2]).sequence_slots(0).tolist() == []


@given(vocabulary=_VOCABULARIES)
def test_next_slot_equals_the_reference(vocabulary: SemanticIDVocabulary) -> None:
    pairs = list(product(range(vocabulary.n_slot_states), range(vocabulary.size)))
    slots, tokens = torch.tensor(pairs).unbind(1)
    expected = [reference.next_slot(vocabulary, slot, token) for slot, token in pairs]
    assert vocabulary.next_slot(slots, tokens).tolist() == expected


@given(vocabulary=_VOCABULARIES, list_length=st.integers(1, 5))
def test_a_list_ends_with_its_last_code(vocabulary: SemanticIDVocabulary, list_length: int) -> None:
    codes = torch.zeros(list_length, vocabulary.n_slots, dtype=torch.int64)
    tokens = vocabulary.encode(codes).flatten().tolist()
    while tokens[-1] == vocabulary.separator_token:
        tokens.pop()
    assert vocabulary.list_tokens(list_length) == len(tokens)


def reference_lists(vocabulary: SemanticIDVocabulary, row: list[int], list_length: int) -> list[list[int]]:
    """Items read one by one until a separator is missing; an item that is cut off or of wrong tokens is -1."""
    codes_of = {(slot, token): code for (slot, code), token in code_tokens(vocabulary).items()}
    nothing = [-1] * vocabulary.n_slots
    items, in_place = [], True
    for number in range(list_length):
        start = number * vocabulary.item_length
        if number > 0 and vocabulary.separator:
            in_place = in_place and row[start - 1 : start] == [vocabulary.separator_token]
        tokens = row[start : start + vocabulary.n_slots]
        codes = [codes_of.get((slot, token), -1) for slot, token in enumerate(tokens)]
        whole = in_place and len(codes) == vocabulary.n_slots and -1 not in codes
        items.append(codes if whole else nothing)
    return items


@given(vocabulary=_VOCABULARIES, list_length=st.integers(1, 3), data=st.data())
def test_malformed_items_are_told_from_items(
    vocabulary: SemanticIDVocabulary, list_length: int, data: st.DataObject
) -> None:
    full = vocabulary.list_tokens(list_length)
    codes = [[data.draw(st.integers(0, size - 1)) for size in vocabulary.codebook_sizes] for _ in range(list_length)]
    written = vocabulary.encode(torch.tensor(codes)).flatten().tolist()[:full]
    for place in data.draw(st.lists(st.integers(0, full - 1), max_size=3)):
        written[place] = data.draw(st.integers(0, vocabulary.size - 1))
    length = data.draw(st.integers(0, full))
    row = written[:length]
    parsed = vocabulary.parse_lists(torch.tensor([row, row], dtype=torch.int64), list_length)
    assert parsed.dtype == torch.int64
    assert parsed.tolist() == [reference_lists(vocabulary, row, list_length)] * 2


def test_nothing_counts_after_a_missing_separator() -> None:
    vocabulary = SemanticIDVocabulary([2, 2])
    tokens = vocabulary.encode(torch.tensor([[0, 0], [1, 1], [0, 1]])).flatten()[:-1]
    tokens[2] = 5  # a code where the first separator was due
    assert vocabulary.parse_lists(tokens[None], 3).tolist() == [[[0, 0], [-1, -1], [-1, -1]]]


@pytest.mark.parametrize("shared_codes", [False, True])
def test_wrong_codes_are_refused_with_code_slot_and_range(shared_codes: bool) -> None:
    vocabulary = SemanticIDVocabulary([2, 3], shared_codes=shared_codes)
    with pytest.raises(InputError, match=r"^semantic IDs with 3 codes: this vocabulary has 2 slots$"):
        vocabulary.encode(torch.zeros(4, 3, dtype=torch.int64))
    with pytest.raises(InputError, match=r"^code 2 in slot 0: expected 0 … 1$"):
        vocabulary.encode(torch.tensor([[[1, 2], [2, 0]]]))
    with pytest.raises(InputError, match=r"^code -1 in slot 1: expected 0 … 2$"):
        vocabulary.encode(torch.tensor([1, -1]))


@pytest.mark.parametrize("sizes", [[], [3, 0]])
def test_a_vocabulary_without_codes_is_refused(sizes: list[int]) -> None:
    with pytest.raises(InputError, match=r"codebook_sizes is .*, expected at least (one slot|1 each)"):
        SemanticIDVocabulary(sizes)


def test_vocabularies_of_equal_meaning_share_a_fingerprint() -> None:
    variants = [
        SemanticIDVocabulary(sizes, separator=separator, shared_codes=shared)
        for sizes, separator, shared in product([(2, 3), (3, 2), (2, 3, 1)], [False, True], [False, True])
    ]
    assert len({vocabulary.fingerprint for vocabulary in variants}) == len(variants)
    for vocabulary in variants:
        assert SemanticIDVocabulary(**vocabulary.to_dict()).fingerprint == vocabulary.fingerprint
    assert repr(variants[0]) == "SemanticIDVocabulary(codebook_sizes=[2, 3], separator=False, shared_codes=False)"


def test_tokens_of_another_meaning_are_refused_and_both_vocabularies_named() -> None:
    data, equal, other = SemanticIDVocabulary([2, 3]), SemanticIDVocabulary((2, 3)), SemanticIDVocabulary([3, 2])
    data.check_same(equal, "the draft")
    with pytest.raises(
        InputError, match=r"^the draft: its vocabulary .* expected one that was trained on this catalog$"
    ) as caught:
        data.check_same(other, "the draft")
    assert str(caught.value).index(str(other)) < str(caught.value).index(f"is not the data's ({data})")


def test_token_names_are_readable() -> None:
    own, shared = SemanticIDVocabulary([2, 3]), SemanticIDVocabulary([2, 3], shared_codes=True)
    specials, codes = ["<pad>", "<bos>", "<eos>", "<sep>"], ["<a_0>", "<a_1>", "<b_0>", "<b_1>", "<b_2>"]
    assert [own.token_name(token) for token in range(own.size)] == [*specials, *codes]
    assert [shared.token_name(token) for token in range(shared.size)] == [*specials, "<0>", "<1>", "<2>"]
    after_text = SemanticIDVocabulary([2], text_tokens=2, tokenizer="words")
    names = ["<text_0>", "<text_1>", "<list_pad>", "<list_bos>", "<list_eos>", "<list_sep>", "<a_0>", "<a_1>"]
    assert [after_text.token_name(token) for token in range(after_text.size)] == names


def test_text_tokens_belong_to_a_tokenizer() -> None:
    text = SemanticIDVocabulary([2], text_tokens=9, tokenizer="words")
    same = SemanticIDVocabulary(**text.to_dict())
    assert (same.text_tokens, same.tokenizer, same.fingerprint) == (9, "words", text.fingerprint)
    with pytest.raises(InputError, match=r"its vocabulary .*letters.* is not the data's .*words"):
        text.check_same(SemanticIDVocabulary([2], text_tokens=9, tokenizer="letters"), "the target")
    for wrong in ({"text_tokens": 9}, {"tokenizer": "words"}):
        with pytest.raises(InputError, match=r"text tokens of the tokenizer .*: expected both or neither"):
            SemanticIDVocabulary([2], **wrong)
