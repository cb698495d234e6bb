"""Answers batches of requests with one recommender, whose catalog and stock may be replaced while it runs."""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache, reduce
from operator import add
from pathlib import Path
from typing import Any

from padrec.catalog import Catalog, InputError
from padrec.data.text_file import read_text
from padrec.decoding.device.device_name import device_name
from padrec.decoding.lists.not_finite_error import NotFiniteError
from padrec.recommender import RecommendedItem, Recommender, User
from padrec.serving.answer import Answer, AnsweredBatch
from padrec.serving.explanation import Explainer
from padrec.serving.garbage import spare_what_is_loaded
from padrec.serving.recommendation_request import RecommendationRequest, RequestKind
from padrec.serving.watched_file import WatchedFile

_LOG = logging.getLogger(__name__)
_EXAMPLES = 200


class Answerer:
    """Answers batches of requests; each answer comes from one catalog and one stock list.

    Args:
        recommender: writes the lists.
        catalog: folder of `Catalog.save` to watch; a new one is read in the background and used from the next batch on.
            None keeps the recommender's own.
        stock: file to watch with the keys of items out of stock, one a line; keys that are no item are ignored.
        warm_up: kinds of requests to record before the first one comes.
        batch_size: users in the largest batch.

    Raises:
        InputError: catalog or stock cannot be read, or do not fit the recommender.
    """

    def __init__(
        self,
        recommender: Recommender,
        catalog: Path | None = None,
        stock: Path | None = None,
        warm_up: Sequence[RequestKind] = (),
        batch_size: int = 32,
    ) -> None:
        self._recommender, self._warm_up_kinds = recommender, warm_up
        recommender.batch_size = batch_size
        self._catalog_file = None if catalog is None else WatchedFile(catalog)
        self._stock_file = None if stock is None else WatchedFile(stock)
        self._loader = ThreadPoolExecutor(1)
        self._loading: Future[Catalog] | None = None
        self._swaps: list[str] = []
        self._failed: list[str] = []
        if self._catalog_file is not None and self._catalog_file.changed():
            self._recommender = recommender.with_catalog(Catalog.load(self._catalog_file.path))
        self._out_of_stock: Sequence[str] = ()
        if self._stock_file is not None and self._stock_file.changed():
            self._out_of_stock = _read_stock(self._stock_file.path)
        self._use(self._recommender)

    @property
    def info(self) -> dict[str, Any]:
        """What `/info` says: device, number of items, and some of them for the page."""
        catalog = self._recommender.catalog
        titles = catalog.texts or [None] * catalog.n_items
        examples = [{"key": key, "title": title} for key, title in zip(catalog.keys[:_EXAMPLES], titles, strict=False)]
        return {"device": device_name(self._recommender.device), "n_items": catalog.n_items, "examples": examples}

    def refresh(self) -> None:
        """Use a catalog or stock list that has been replaced; if it cannot be used, log why and keep the old one."""
        if self._catalog_file is not None and self._catalog_file.changed():
            self._loading = self._loader.submit(Catalog.load, self._catalog_file.path)
        if self._loading is not None and self._loading.done():
            loaded, self._loading = self._loading, None
            # Nothing else may touch a GPU while passes are recorded, so only reading happens in the background.
            self._swap("catalog", lambda: self._use(self._recommender.with_catalog(loaded.result())))
        if self._stock_file is not None and self._stock_file.changed():
            stock = self._stock_file.path
            self._swap("stock", lambda: self._set_stock(_read_stock(stock)))

    def answer(self, requests: Sequence[RecommendationRequest]) -> AnsweredBatch:
        """Answer requests of one kind; a wrong one does not affect the others."""
        self.refresh()
        try:
            batch = self._answer(requests)
        except InputError as error:
            batch = _joined([self.answer([one]) for one in requests]) if len(requests) > 1 else _problem(error)
        if not self._swaps and not self._failed:
            return batch
        swaps, failed, self._swaps, self._failed = self._swaps, self._failed, [], []
        return replace(batch, swaps=batch.swaps + tuple(swaps), failed_swaps=batch.failed_swaps + tuple(failed))

    def explain(self, request: RecommendationRequest) -> AnsweredBatch:
        """Answer a request for one user and explain its list; see `Explainer`."""
        self.refresh()
        try:
            explanation = self._explainer.explain(self._users(request)[0], request.kind)
        except InputError as error:
            return _problem(error)
        return AnsweredBatch([Answer(200, _json(explanation).encode())])

    def _answer(self, requests: Sequence[RecommendationRequest]) -> AnsweredBatch:
        start = time.perf_counter()
        users = [self._users(request) for request in requests]
        together = [user for some in users for user in some]
        lists, trace = self._recommender.decode(together, *requests[0].kind)
        rest = iter(lists)
        answers = [Answer(200, self._body([next(rest) for _ in some])) for some in users]
        tokens, passes = sum(trace.tokens.tolist()), sum(trace.target_passes.tolist())
        host_seconds = time.perf_counter() - start - trace.seconds - trace.recording_seconds
        return AnsweredBatch(answers, len(lists), tokens, passes, trace.seconds, host_seconds)

    def _users(self, request: RecommendationRequest) -> Sequence[User]:
        return self._recommender.users(request.histories, request.excluded, request.seed)

    def _body(self, lists: Sequence[Sequence[RecommendedItem]]) -> bytes:
        rows = ",".join(f"[{','.join(map(_item, row))}]" for row in lists)
        return f'{{"lists":[{rows}],{self._version_fields}}}'.encode()

    def _use(self, recommender: Recommender) -> None:
        """Recommend with it from now on, after recording its passes."""
        for kind in self._warm_up_kinds:
            recommender.warm_up(*kind)
        self._recommender, self._explainer = recommender, Explainer(recommender)
        self._set_stock(self._out_of_stock)
        spare_what_is_loaded()

    def _set_stock(self, keys: Sequence[str]) -> None:
        catalog = self._recommender.catalog
        self._recommender.set_out_of_stock([key for key in keys if key in catalog])
        self._out_of_stock = keys
        content = catalog.codes.cpu().numpy().tobytes(), "\n".join(catalog.keys).encode()
        self._version = {"catalog": _version(*content), "stock": _version("\n".join(sorted(keys)).encode())}
        self._version_fields = _json(self._version)[1:-1]

    def _swap(self, what: str, swap: Callable[[], None]) -> None:
        try:
            swap()
        except (InputError, OSError) as error:  # files may vanish while they are read
            self._failed.append(what)
            _LOG.error("%s not replaced: %s", what, error)
        else:
            self._swaps.append(what)
            _LOG.info("%s replaced: now %s", what, self._version[what])


def _read_stock(path: Path) -> list[str]:
    return [line for line in read_text(path).splitlines() if line]


def _version(*content: bytes) -> str:
    digest = hashlib.sha256()
    for part in content:
        digest.update(part)
    return digest.hexdigest()[:12]


def _problem(error: InputError) -> AnsweredBatch:
    status = 500 if isinstance(error, NotFiniteError) else 422
    return AnsweredBatch([Answer.problem(status, str(error))])


def _item(item: RecommendedItem) -> str:
    before, after = _around_score(item.key, item.title, item.ties)
    return f"{before}{item.log_prob}{after}"


@lru_cache(1 << 17)
def _around_score(key: str, title: str | None, ties: tuple[str, ...]) -> tuple[str, str]:
    """JSON of an item before and after its score, kept because writing it takes longer than all else around a list."""
    before, after = _json({"key": key, "title": title}), _json({"ties": ties})
    return f'{before[:-1]},"score":', f",{after[1:]}"


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _joined(batches: Sequence[AnsweredBatch]) -> AnsweredBatch:
    """All fields are sequences or numbers, which add up."""
    columns = zip(*(vars(batch).values() for batch in batches), strict=True)
    return AnsweredBatch(*(reduce(add, column) for column in columns))
