import torch

from padrec.catalog import SemanticIDVocabulary
from padrec.drafts.atspeed import BranchedRows
from padrec.targets import FrozenTarget
from tests.stubs import random_catalog, random_prompts, tiny_target


def test_items_are_read_as_if_each_followed_its_prompt_alone() -> None:
    catalog, vocabulary = random_catalog((5, 6, 4), 30), SemanticIDVocabulary((5, 6, 4))
    target = FrozenTarget(tiny_target(vocabulary), "")
    rows = random_prompts(catalog, vocabulary, [4, 2, 3])
    lengths = torch.tensor([9, 5, 13])  # after two, one and three items
    items = vocabulary.encode(catalog.codes[:12])[:, :3].view(3, 4, 3)
    joined = BranchedRows.of(rows.tokens, lengths, items)
    features = target(joined.tokens, joined.positions, joined.visible)
    for row, (length, whole) in enumerate(zip(lengths.tolist(), rows.lengths.tolist(), strict=True)):
        plain = target(rows.tokens[row : row + 1, :whole])[0]
        torch.testing.assert_close(features[row, :whole], plain, rtol=0, atol=1e-12)
        for number, item in enumerate(items[row]):
            alone = target(torch.cat([rows.tokens[row, :length], item])[None])[0, length - 1 : -1]
            found = features.flatten(0, 1)[joined.predictors[row, number]]
            torch.testing.assert_close(found, alone, rtol=0, atol=1e-12)


def test_rows_without_items_stay_as_they_are() -> None:
    tokens = torch.tensor([[1, 4, 5], [1, 6, 0]])
    joined = BranchedRows.of(tokens, torch.tensor([2, 1]), torch.zeros(2, 0, 3, dtype=torch.long))
    assert torch.equal(joined.tokens, tokens)
    assert torch.equal(joined.visible, torch.ones(3, 3, dtype=torch.bool).tril().expand(2, 1, 3, 3))
