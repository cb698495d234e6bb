import json
from pathlib import Path
from typing import Any

import pytest
import torch

from padrec.catalog import InputError
from padrec.data import ItemJSON, ItemKnowledge, SyntheticReader, TextPromptDataModule, UserKnowledge
from padrec.data.knowledge import first_words
from tests.tiny_language_model import save_tiny_tokenizer


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer and items, one of whose titles holds a special token."""
    folder = tmp_path_factory.mktemp("shop")
    save_tiny_tokenizer(folder)
    items = {f"i{number}": {"title": f"Pen {number}", "description": "Blue ink, dries fast."} for number in range(9)}
    items["i8"]["title"] = "A <|user|> pen"
    (folder / "shop.item.json").write_text(json.dumps(items))
    return folder


def item_data(shop: Path, template: str = "<|user|>{title}:\n", **arguments: Any) -> TextPromptDataModule:
    return TextPromptDataModule(
        ItemKnowledge(ItemJSON(str(shop / "shop.item.json")), template), str(shop), **{"batch_size": 4, **arguments}
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("one  two\nthree four five", "one two three four"),
        ("['One.', \"It's two.\", '']", "One. It's two."),
        ("[Pack of 2] pens", "[Pack of 2] pens"),
        ("[" * 9000, "[" * 9000),
        ("[{[]: 1}]", "[{[]: 1}]"),
        ("<b>Bold</b> &amp; a < b", "Bold & a <"),
        ("", ""),
    ],
)
def test_texts_of_shops_become_a_few_plain_words(text: str, words: str) -> None:
    assert first_words(text, 4) == words


def test_batches_hold_the_tokens_of_every_prompt(shop: Path) -> None:
    data = item_data(shop, "<|user|>{title}, {description}")
    assert data.texts[0] == "<|user|>Pen 0, Blue ink, dries fast."
    seen = []
    for batch in data.test_dataloader():
        for tokens, length, user in zip(batch.tokens, batch.lengths, batch.users, strict=True):
            assert data.tokenizer.decode(tokens[:length]) == data.texts[user]
            seen.append(data.user_keys[user])
        assert batch.counted.all()
    assert seen == [f"i{number}" for number in range(9)]


def test_special_tokens_of_the_data_are_read_as_text(shop: Path) -> None:
    data = item_data(shop)
    special = data.tokenizer.get_vocab()["<|user|>"]
    for prompt in data.tokenized(data.texts):
        assert prompt.count(special) == 1  # the template's own


def test_halves_part_the_prompts(shop: Path) -> None:
    halves = [set(item_data(shop, half=half, seed=3).user_keys) for half in ("first", "second")]
    assert not halves[0] & halves[1]
    assert halves[0] | halves[1] == set(item_data(shop).user_keys)
    few = item_data(shop, half="second", max_prompts=2, seed=3)
    assert set(few.user_keys) < halves[1]
    assert len(few.user_keys) == 2


def test_finished_prompts_are_left_out_of_a_prediction_alone(shop: Path) -> None:
    data = item_data(shop)
    data.leave_out(["i0", "i5", "unknown"])
    left = torch.cat([batch.users for batch in data.predict_dataloader()])
    assert left.tolist() == [1, 2, 3, 4, 6, 7, 8]
    assert len(torch.cat([batch.users for batch in data.test_dataloader()])) == 9


def test_users_are_told_by_the_titles_of_their_history(shop: Path) -> None:
    reader = SyntheticReader(n_users=8, n_items=20, codebook_sizes=(9, 9), mean_length=6)
    dataset, split = reader.read(), reader.read().split()
    assert dataset.catalog.texts is not None

    def prompts(**arguments: int | str) -> dict[str, str]:
        source = UserKnowledge(reader, "Bought {history}.", "{title}; ", **{"max_history": 2, **arguments})  # type: ignore[arg-type]
        found = source.read(list)
        return dict(zip(found.keys, found.texts, strict=True))

    for user, key in enumerate(split.user_keys):
        titles = [" ".join(dataset.catalog.texts[item].split()) for item in split.test_history.row(user).tolist()]
        assert prompts()[key] == "Bought " + "".join(f"{title}; " for title in titles[-2:]) + "."
        earlier = titles[:-1][-2:]
        assert prompts(leave_out=1)[key] == prompts(before="validation")[key]
        assert prompts(leave_out=1)[key] == "Bought " + "".join(f"{title}; " for title in earlier) + "."
    with pytest.raises(InputError, match="no prompts, expected at least one"):
        prompts(leave_out=1000)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{titel}", r"template '\{titel\}': \{titel\}, expected some of \{title\}, \{brand\}, \{categories\}, "),
        ("{title:>3}", r"expected some of \{title\}"),
        ("{title", "expected '}' before end of string; write a literal brace twice"),
        ("no placeholder", "no placeholder, expected some of"),
    ],
)
def test_wrong_templates_are_refused(shop: Path, template: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        item_data(shop, template)


def test_wrong_data_are_refused(shop: Path) -> None:
    data = item_data(shop)
    with pytest.raises(InputError, match=r"shop.item.json: no prompt of 'i9', expected the keys of its prompts"):
        data.prompts_of(["i9"])
    with pytest.raises(InputError, match=r"template 'Buys': no placeholder, expected some of \{history\}"):
        UserKnowledge(SyntheticReader(n_users=8, n_items=20, codebook_sizes=(9, 9)), "Buys")
