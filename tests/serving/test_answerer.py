"""Catalogs and stock that are replaced while the service answers."""

import hashlib
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient

from padrec import Catalog, InputError, Recommender
from padrec.data import SemanticIDDataModule
from padrec.serving import Answerer, Service
from padrec.serving.recommendation_request import RecommendationRequest
from tests.serving.tiny_service import LocalWorker, ask


@pytest.fixture
def recommender(shop: Path) -> Recommender:
    return Recommender.from_pretrained(shop, device="cpu")


def marked(catalog: Catalog, name: str, left_out: int = 0) -> Catalog:
    """The catalog without its last items, with titles that tell it from others."""
    n_items = catalog.n_items - left_out
    return Catalog(catalog.codes[:n_items], catalog.keys[:n_items], [f"{name} {i}" for i in range(n_items)])


def replace_link(link: Path, target: Path) -> None:
    fresh = link.with_suffix(".fresh")
    fresh.symlink_to(target)
    fresh.rename(link)


def wait_until(holds: Callable[[], bool]) -> None:
    for _ in range(1000):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError


def test_no_answer_mixes_two_catalogs_or_misses_a_stock_list(
    data: SemanticIDDataModule, recommender: Recommender, tmp_path: Path
) -> None:
    stock, link = tmp_path / "stock.txt", tmp_path / "catalog"
    stock.write_text("item-0\nitem-99\n")
    for number in range(6):
        marked(data.catalog, f"v{number}", left_out=number).save(tmp_path / f"v{number}")
    link.symlink_to(tmp_path / "v0")
    service = Service([LocalWorker(Answerer(recommender, link, stock))])
    stop = False
    answers: list[dict[str, Any]] = []

    def keep_asking(seed: int) -> None:
        while not stop:
            status, answer = ask(client, histories=[["item-1", "item-2"]] * 2, k=8, temperature=1.0, seed=seed)
            assert status == 200
            answers.append(answer)

    def version(number: int) -> str:
        return hashlib.sha256(f"item-{number}\nitem-99".encode()).hexdigest()[:12]

    def seen(number: int) -> bool:
        return bool(answers) and answers[-1]["stock"] == version(number) and f"v{number} " in str(answers[-1])

    with TestClient(service.app) as client, ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(keep_asking, seed) for seed in range(4)]
        wait_until(partial(seen, 0))
        for number in range(1, 6):
            fresh = stock.with_suffix(".fresh")
            fresh.write_text(f"item-{number}\nitem-99\n")
            fresh.rename(stock)
            replace_link(link, tmp_path / f"v{number}")
            wait_until(partial(seen, number))
        stop = True
        for future in asking:
            future.result()
        figures = client.get("/metrics").text
    titles: dict[str, set[str]] = {}  # of each catalog
    for answer in answers:
        items = [item for row in answer["lists"] for item in row]
        titles.setdefault(answer["catalog"], set()).update(item["title"].split()[0] for item in items)
        (gone,) = (number for number in range(6) if answer["stock"] == version(number))
        assert f"item-{gone}" not in {item["key"] for item in items}
    assert sorted(map(sorted, titles.values())) == [[f"v{number}"] for number in range(6)]
    assert 'padrec_swaps_total{what="catalog"} 5.0' in figures
    assert 'padrec_swaps_total{what="stock"} 5.0' in figures


def test_what_cannot_be_taken_over_changes_nothing(
    data: SemanticIDDataModule, recommender: Recommender, tmp_path: Path
) -> None:
    stock, link = tmp_path / "stock.txt", tmp_path / "catalog"
    stock.write_text("item-3\n")
    data.catalog.save(tmp_path / "good")
    Catalog(data.catalog.codes.flip(0), data.catalog.keys).save(tmp_path / "other-ids")
    (tmp_path / "empty").mkdir()
    link.symlink_to(tmp_path / "good")
    answerer = Answerer(recommender, link, stock)
    request = RecommendationRequest(histories=[["item-1"]], k=3)
    before = answerer.answer([request])
    stock.unlink()
    failed: list[str] = []
    for bad in ("other-ids", "empty", "absent"):
        replace_link(link, tmp_path / bad)

        def refused() -> bool:
            failed.extend(answerer.answer([request]).failed_swaps)
            return failed.count("catalog") > 0

        wait_until(refused)
        assert answerer.answer([request]).answers == before.answers
        failed.remove("catalog")
    assert failed == ["stock"]
    replace_link(link, tmp_path / "good")
    stock.write_text("")
    wait_until(lambda: b'"stock":"e3b0c44298fc"' in answerer.answer([request]).answers[0].body)


def test_the_recommender_of_a_replaced_catalog_is_given_up(
    data: SemanticIDDataModule, recommender: Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[Recommender]] = []

    def watched(self: Recommender, catalog: Catalog) -> Recommender:
        other = with_catalog(self, catalog)
        made.append(weakref.ref(other))
        return other

    with_catalog = Recommender.with_catalog
    monkeypatch.setattr(Recommender, "with_catalog", watched)
    link = tmp_path / "catalog"
    for number in range(2):
        marked(data.catalog, f"v{number}").save(tmp_path / f"v{number}")
    link.symlink_to(tmp_path / "v0")
    answerer = Answerer(recommender, link)
    replace_link(link, tmp_path / "v1")
    request = RecommendationRequest(histories=[["item-1"]], k=3)
    wait_until(lambda: answerer.answer([request]).swaps == ("catalog",))
    assert [one() is None for one in made] == [True, False]


def test_items_out_of_stock_are_read_but_not_recommended(recommender: Recommender) -> None:
    free = recommender.recommend([["item-3", "item-4"]], k=20)[0]
    gone = [item.key for item in free[:10]]
    recommender.set_out_of_stock(gone)
    histories = [gone[:2], ["item-3", "item-4"]]
    found = recommender.recommend(histories, k=10, exclude=[["item-5"], []])
    assert found == recommender.recommend(histories, k=10, exclude=[["item-5", *gone], gone])
    recommender.set_out_of_stock(())
    assert recommender.recommend([["item-3", "item-4"]], k=20)[0] == free
    alone = recommender.recommend([histories[1]], k=10, exclude=set(gone))[0]
    assert [item.key for item in found[1]] == [item.key for item in alone]


def test_a_catalog_that_does_not_fit_is_refused_at_the_start(recommender: Recommender, tmp_path: Path) -> None:
    Catalog(torch.tensor([(0, 0, 0)]), ["other"]).save(tmp_path / "catalog")
    with pytest.raises(InputError, match="the recommender: none of its 30 items"):
        Answerer(recommender, tmp_path / "catalog")
    with pytest.raises(InputError, match="stock: no such file"):
        Answerer(recommender, stock=tmp_path / "stock")


def test_items_that_are_added_are_recommended(data: SemanticIDDataModule, recommender: Recommender) -> None:
    larger = data.catalog.followed_by(Catalog(data.catalog.codes[:1], ["new"]))
    grown = recommender.with_catalog(larger)
    keys = {key for item in grown.recommend([["new"]], k=20)[0] for key in (item.key, *item.ties)}
    assert "new" in keys
    with pytest.raises(InputError, match="item 'new': no key"):
        recommender.recommend([["new"]])
