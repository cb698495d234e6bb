from pathlib import Path
from typing import Any

import pytest
import torch

from padrec.catalog import Catalog, InputError, SemanticIDVocabulary
from padrec.data import PromptTemplate
from tests.tiny_language_model import save_tiny_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_tiny_tokenizer(tmp_path / "words")
    return tmp_path / "words"


def vocabulary(template: PromptTemplate) -> SemanticIDVocabulary:
    return SemanticIDVocabulary([2, 2], text_tokens=template.text_tokens, tokenizer=template.fingerprint)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": "Recommend!"}, r"prompt text 'Recommend!': no \{history\}, expected it once"),
        ({"text": "{history} {history}"}, r"\{history\}, expected \{history\} once each"),
        ({"text": "{history} {user}"}, r"\{user\}, expected \{history\} once each"),
        ({"text": "{history:>9}"}, r"\{history\}, expected \{history\} once each"),
        ({"text": "{history"}, "write a literal brace twice"),
        ({"text": "{history}}"}, "write a literal brace twice"),
        ({"item": "{title}"}, r"prompt item '\{title\}': no \{item\}, expected it once"),
        ({"item": "{item} {price}"}, r"\{price\}, expected \{item\} and \{title\} once each"),
        ({"max_title_tokens": 0}, "max_title_tokens is 0, expected at least 1"),
    ],
)
def test_a_wrong_template_is_refused(arguments: dict[str, Any], message: str, folder: Path) -> None:
    with pytest.raises(InputError, match=message):
        PromptTemplate(str(folder), **arguments)


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such folder, expected a folder or the hub name of a pretrained"):
        PromptTemplate(str(tmp_path / "absent"))
    with pytest.raises(InputError, match=r"no tokenizer, expected a folder with one of tokenizer\.json"):
        PromptTemplate(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match="transformers cannot load a tokenizer"):
        PromptTemplate(str(tmp_path))


def test_a_tokenizer_that_cannot_write_the_text_is_refused(tmp_path: Path) -> None:
    save_tiny_tokenizer(tmp_path, unknown="abc")
    assert PromptTemplate(str(tmp_path), "cab{history}").opening
    with pytest.raises(InputError, match="has no token for a part of 'taxi'"):
        PromptTemplate(str(tmp_path), "taxi{history}")
    with pytest.raises(InputError, match="has no token for a part of 'taxi'"):
        PromptTemplate(str(tmp_path), "cab{history}", "{item}taxi")


def test_a_tokenizer_with_semantic_ids_of_its_own_is_refused(tmp_path: Path) -> None:
    save_tiny_tokenizer(tmp_path, added=("<b_1>",))
    template = PromptTemplate(str(tmp_path))
    with pytest.raises(InputError, match="has a token <b_1> already, expected a tokenizer without semantic IDs"):
        template.check(vocabulary(template))


def test_the_extended_tokenizer_knows_the_vocabularys_tokens(folder: Path) -> None:
    template = PromptTemplate(str(folder))
    tokens = vocabulary(template)
    extended = template.extended_tokenizer(tokens)
    codes = tokens.encode(torch.tensor([1, 0])).tolist()
    assert extended("so <a_1><b_0><list_sep>")["input_ids"][-3:] == codes
    assert len(extended) == tokens.size


def test_braces_and_special_tokens_can_be_written(folder: Path) -> None:
    template = PromptTemplate(str(folder), "<|user|>{{{history}}}")
    user = template.extended_tokenizer(vocabulary(template)).convert_tokens_to_ids("<|user|>")
    assert template.opening[0] == user
    assert len(template.opening) == 2
    assert len(template.closing) == 1


def test_titles_are_cut_off(folder: Path) -> None:
    catalog = Catalog(torch.tensor([[0, 0], [1, 1]]), ["x", "y"], ["a", "quick brown fox"])
    decode = PromptTemplate(str(folder)).extended_tokenizer(vocabulary(PromptTemplate(str(folder)))).decode
    short = PromptTemplate(str(folder), item="{item} [{title}];", max_title_tokens=5).item_texts(catalog)[1]
    assert [decode(text) for text in short] == [" [a];", " [quick];"]
    before, after = PromptTemplate(str(folder), item="{title}: {item}\n").item_texts(catalog)
    assert [decode(text) for text in before] == ["a: ", "quick brown fox: "]
    assert [decode(text) for text in after] == ["\n", "\n"]


def test_special_tokens_in_titles_are_text(folder: Path) -> None:
    titles = ["a <|user|> b", "<|end|>", "<<|end|>|end|>"]
    catalog = Catalog(torch.tensor([[0, 0], [1, 1], [0, 1]]), ["x", "y", "z"], titles)
    template = PromptTemplate(str(folder), "<|user|>{history}", item="{title}: {item}")
    extended = template.extended_tokenizer(vocabulary(template))
    special = {extended.convert_tokens_to_ids(token) for token in ("<|user|>", "<|end|>")}
    before, _ = template.item_texts(catalog)
    assert not any(special & set(tokens) for tokens in before)
    assert extended.decode(before[0]) == "a < |user|> b: "
