"""`Recommender`: what is saved with a target is all that recommending needs."""

import gc
import weakref
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import pytest
import torch

from padrec import Recommender
from padrec.catalog import Catalog, InputError
from padrec.data import SemanticIDDataModule
from padrec.decoding import (
    AutoregressiveDecoder,
    BeamDecoder,
    Decoder,
    DecodingSession,
    DecodingTrace,
    ListRequest,
    Prompts,
    Recommendations,
    Request,
    Sampling,
    TransformersRunner,
)
from padrec.decoding.layers.prompt_shape import PromptShape
from padrec.recommender import Exclude, Search
from padrec.targets import SavedTarget, TargetRecommender
from tests.tiny_training import quiet_trainer, tiny_data, tiny_draft, tiny_recommender

R = TypeVar("R")

_HISTORIES = [["item-3", "item-17", "item-3", "item-8"], ["item-5"], ["item-29", "item-0"]]


@pytest.fixture(scope="module")
def data() -> SemanticIDDataModule:
    return tiny_data(list_marker=True)


@pytest.fixture(scope="module")
def saved(data: SemanticIDDataModule, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a target and a draft, each as a folder and as a checkpoint."""
    folder = tmp_path_factory.mktemp("saved")
    target = tiny_recommender(data)
    trainer = quiet_trainer(folder, max_steps=1, limit_val_batches=0)
    trainer.fit(target, datamodule=data)
    trainer.save_checkpoint(folder / "target.ckpt")
    target.save_pretrained(folder / "target")
    draft = tiny_draft(data, folder / "target")
    trainer = quiet_trainer(folder, max_steps=1, limit_val_batches=0)
    trainer.fit(draft, datamodule=data)
    trainer.save_checkpoint(folder / "draft.ckpt")
    draft.save_pretrained(folder / "draft")
    return folder


def expected(
    saved: Path, data: SemanticIDDataModule, k: int, decoder: Decoder, temperature: float = 0.0, seed: int = 0
) -> Recommendations:
    """The lists that the parts write when they are put together by hand."""
    target = TargetRecommender.load(saved / "target")
    runner = TransformersRunner(target.backbone.eval(), target.fingerprint())
    batch = data.prompts(_HISTORIES)
    request = ListRequest.build(data.catalog, data.vocabulary, k, sampling=Sampling(temperature))
    prompts = Prompts(batch.tokens, batch.slots, batch.lengths)
    lists, _ = decoder.bind(runner, request).decode(prompts, torch.Generator().manual_seed(seed))
    return lists


def test_requests_of_many_kinds_do_not_fill_the_memory(saved: Path) -> None:
    alive: weakref.WeakSet[object] = weakref.WeakSet()

    class Counted(AutoregressiveDecoder):
        def bind(self, runner: TransformersRunner, request: Request[R]) -> DecodingSession[R]:
            session = super().bind(runner, request)
            alive.add(session)
            return session

    recommender = Recommender(SavedTarget.read(saved / "target"), Counted())
    for number in range(30):
        recommender.recommend(_HISTORIES[:1], k=1, temperature=0.5 + number / 99)
    gc.collect()
    assert 1 <= len(alive) <= 8
    kept = set(alive)
    recommender.recommend(_HISTORIES[:1], k=1, temperature=0.5 + 29 / 99)
    assert set(alive) == kept, "the last kind of request still has its session"


def test_a_warm_up_meets_the_shapes_of_all_batches(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    met: set[PromptShape] = set()

    class Watched(AutoregressiveDecoder):
        def bind(self, runner: TransformersRunner, request: Request[R]) -> DecodingSession[R]:
            session = super().bind(runner, request)
            decode = session.decode

            def watched(prompts: Prompts, generator: torch.Generator) -> tuple[R, DecodingTrace]:
                met.add(PromptShape.of(prompts, recommender.device))
                return decode(prompts, generator)

            session.decode = watched  # type: ignore[method-assign]
            return session

    # As on a GPU, in smaller steps.
    for module in ("recommender", "decoding.layers.prompt_shape"):
        monkeypatch.setattr(f"padrec.{module}.captures_graphs", lambda device: True)
    monkeypatch.setattr("padrec.decoding.layers.prompt_shape._WIDTH_STEP", 4)
    monkeypatch.setattr("padrec.decoding.layers.prompt_shape._PACKED_STEP", 96)
    recommender = Recommender(SavedTarget.read(saved / "target"), Watched(), device="cpu")
    recommender.batch_size = 20
    recommender.warm_up(2)
    recorded = set(met)
    assert {shape.batch for shape in recorded} == {1, 2, 4, 8, 16, 20}
    assert len({shape.width for shape in recorded if shape.batch == 1}) == 3, "as many as histories have lengths"
    assert len({shape.width for shape in recorded if shape.batch > 1}) == 1, "those of several users are padded"
    chance = Random(0)
    for _ in range(40):
        lengths = [chance.randint(1, 3) for _ in range(chance.randint(1, 20))]
        recommender.recommend([chance.choices(recommender.catalog.keys, k=length) for length in lengths], k=2)
    assert met == recorded


@pytest.mark.parametrize("target", ["target", "target.ckpt"])
@pytest.mark.parametrize("draft", [None, "draft", "draft.ckpt"])
@pytest.mark.parametrize(
    ("arguments", "decoder"),
    [
        ({}, AutoregressiveDecoder()),
        ({"temperature": 0.8, "seed": 5}, AutoregressiveDecoder()),
        ({"search": "beam"}, BeamDecoder()),
    ],
)
def test_lists_are_those_of_the_target(
    target: str, draft: str | None, arguments: dict[str, Any], decoder: Decoder, saved: Path, data: SemanticIDDataModule
) -> None:
    recommender = Recommender.load(saved / target, None if draft is None else saved / draft, device="cpu")
    found = recommender.recommend(_HISTORIES, k=4, **arguments)
    choice = {name: value for name, value in arguments.items() if name != "search"}
    lists = expected(saved, data, 4, decoder, **choice)
    catalog = data.catalog
    rows = [[catalog.leaf_items(leaf) for leaf in row] for row in lists.leaves.tolist()]
    assert [[item.key for item in row] for row in found] == [[catalog.keys[tied[0]] for tied in row] for row in rows]
    assert [[item.ties for item in row] for row in found] == [
        [tuple(catalog.keys[item] for item in tied[1:]) for tied in row] for row in rows
    ]
    totals = torch.tensor([[item.log_prob for item in row] for row in found]).sum(1)
    torch.testing.assert_close(totals, lists.log_probs.sum(1), rtol=1e-5, atol=1e-5)


def test_one_user_gets_the_same_list_alone_and_among_others(saved: Path) -> None:
    recommender = Recommender.load(saved / "target", saved / "draft", device="cpu")
    together = recommender.recommend(_HISTORIES * 12, k=3)
    assert len(together) == 36
    for history, row in zip(_HISTORIES, together, strict=False):
        (alone,) = recommender.recommend([history], k=3)
        assert [item.key for item in alone] == [item.key for item in row]


def titled(saved: Path, folder: Path, titles: list[str]) -> Recommender:
    """The saved target with titles."""
    target = SavedTarget.read(saved / "target")
    assert target.catalog is not None
    catalog = Catalog(target.catalog.codes, target.catalog.keys, titles, source="shop")
    SavedTarget(target.model, target.vocabulary, catalog, target.prompt_format).write(folder)
    return Recommender.load(folder, device="cpu")


def test_titles_go_in_and_come_out(saved: Path, tmp_path: Path) -> None:
    titles = [f"Title {number}" for number in range(30)]
    titles[7], titles[8], titles[9] = "Same", "Same", ""
    recommender = titled(saved, tmp_path / "titled", titles)
    found = recommender.recommend([["Title 5"], ["item-5"]], k=20)
    assert found[0] == found[1]
    index = {key: number for number, key in enumerate(recommender.catalog.keys)}
    assert all(item.title == (titles[index[item.key]] or None) for item in found[0])
    message = r"title 'Same': that of 2 items \('item-7', 'item-8' …\), expected the key of one of them"
    with pytest.raises(InputError, match=message):
        recommender.recommend([["Same"]])


@pytest.mark.parametrize(
    ("histories", "arguments", "message"),
    [
        ([], {}, "no histories to make prompts from"),
        ([["item-1"], []], {}, "history 1 is empty"),
        (["item-1"], {}, "history 'item-1': expected a list of items"),
        ([["item-1", "item-99"]], {}, "item 'item-99': no key or title of the 30 items of .*catalog"),
        ([["item-1"]], {"k": 28}, "lists of 28 distinct items: the catalog has 27 distinct semantic IDs"),
        ([["item-1"]], {"k": 0}, "lists of 0 distinct items"),
        ([["item-1"]], {"search": "best"}, "search 'best': expected 'list' or 'beam'"),
    ],
)
def test_wrong_input_gets_one_message(
    histories: list[Any], arguments: dict[str, Any], message: str, saved: Path
) -> None:
    recommender = Recommender.load(saved / "target", device="cpu")
    with pytest.raises(InputError, match=message):
        recommender.recommend(histories, **arguments)


def test_a_target_without_its_catalog_is_refused(saved: Path, tmp_path: Path) -> None:
    target = SavedTarget.read(saved / "target")
    SavedTarget(target.model, target.vocabulary, None, target.prompt_format).write(tmp_path / "bare")
    with pytest.raises(InputError, match="a target without catalog: expected one that"):
        Recommender.load(tmp_path / "bare")
    SavedTarget(target.model, target.vocabulary, target.catalog, None).write(tmp_path / "formless")
    with pytest.raises(InputError, match="a target without prompt format: expected one that"):
        Recommender.load(tmp_path / "formless")


def test_the_draft_of_another_target_is_refused(saved: Path, data: SemanticIDDataModule, tmp_path: Path) -> None:
    tiny_recommender(data, init_seed=1).save_pretrained(tmp_path / "other")
    with pytest.raises(InputError, match="the draft was trained for the target with fingerprint"):
        Recommender.load(tmp_path / "other", saved / "draft", device="cpu").recommend(_HISTORIES)


def test_excluded_items_are_not_recommended(saved: Path, data: SemanticIDDataModule) -> None:
    recommender = Recommender.load(saved / "target", saved / "draft", device="cpu")
    catalog = recommender.catalog
    searches: list[Search] = ["list", "beam"]
    for search in searches:
        free = recommender.recommend(_HISTORIES, k=5, search=search)
        sold_out = {item.key for row in free for item in row[:2]} - {"item-0"}
        cases: list[tuple[Exclude, list[set[str]]]] = [
            (sold_out, [sold_out] * 3),
            ("history", [set(history) for history in _HISTORIES]),
            ([[], ["item-5", "item-5"], sold_out], [set(), {"item-5"}, sold_out]),
        ]
        for exclude, rows in cases:
            found = recommender.recommend(_HISTORIES, k=5, exclude=exclude, search=search)
            for row, excluded in zip(found, rows, strict=True):
                assert len({tuple(catalog.codes[catalog.index(item.key)].tolist()) for item in row}) == 5
                assert not excluded & {key for item in row for key in (item.key, *item.ties)}
        assert recommender.recommend(_HISTORIES, k=5, exclude=set(), search=search) == free


def test_a_semantic_id_is_recommended_for_its_items_that_are_left(saved: Path) -> None:
    recommender = Recommender.load(saved / "target", device="cpu")
    everything = recommender.recommend([["item-1"]], k=27)[0]
    shared = next(item for item in everything if item.ties)
    found = recommender.recommend([["item-1"]], k=27, exclude={shared.key})[0]
    (left,) = (item for item in found if item.key in shared.ties)
    assert (left.key, *left.ties) == shared.ties
    with pytest.raises(InputError, match="history 0: 1 of 27 semantic IDs excluded, which leaves 26"):
        recommender.recommend([["item-1"]], k=27, exclude={shared.key, *shared.ties})


@pytest.mark.parametrize(
    ("exclude", "message"),
    [
        ("bought", "exclude 'bought': expected 'history', or items for all users"),
        ([["item-1"]], "exclude: 1 collections of items, expected one for each of 3 users"),
        ({"item-99"}, "item 'item-99': no key or title"),
    ],
)
def test_wrong_exclusions_get_one_message(exclude: Exclude, message: str, saved: Path) -> None:
    with pytest.raises(InputError, match=message):
        Recommender.load(saved / "target", device="cpu").recommend(_HISTORIES, exclude=exclude)
