"""The service: what clients send, wrong or right, and what they get."""

import asyncio
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi import Response
from fastapi.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from padrec import InputError, Recommender
from padrec.decoding import Chain, DynamicTree, FastestDecoder, SpeculativeDecoder
from padrec.drafts import FeatureDraft
from padrec.serving import Answerer, Limits, Service
from padrec.serving.explanation import Explainer
from padrec.serving.limits import RequestGuard
from padrec.serving.recommendation_request import RecommendationRequest, RequestKind
from padrec.serving.request_queue import QueuedRequest
from padrec.serving.worker import WorkerEndedError
from padrec.targets import SavedTarget
from tests.serving.tiny_service import LocalWorker, StubWorker, ask

_LIMITS = Limits(body_bytes=4000, k=20, users=4, history=8, excluded=6)
_KINDS: list[dict[str, Any]] = [
    {},
    {"k": 5},
    {"exclude": "history"},
    {"exclude": ["item-3", "item-4"]},
    {"temperature": 0.7, "seed": 5},
    {"temperature": 0.7, "seed": 6, "exclude": "history"},
    {"search": "beam", "k": 3},
    {"histories": [["item-2", "item-9"], ["item-5"]], "exclude": [["item-1"], []], "temperature": 1.5, "seed": 2},
]


@pytest.fixture(scope="module")
def recommender(shop: Path) -> Recommender:
    return Recommender.from_pretrained(shop, device="cpu")


@pytest.fixture(scope="module")
def client(recommender: Recommender) -> Iterator[TestClient]:
    with TestClient(Service([LocalWorker(Answerer(recommender))], _LIMITS).app) as client:
        yield client


def expected(recommender: Recommender, fields: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """What `Recommender.recommend` returns, as the service writes it."""
    arguments = {"histories": [["item-1"]], "k": 2, **fields}
    if isinstance(arguments.get("exclude"), list) and isinstance(arguments["exclude"][0], str):
        arguments["exclude"] = set(arguments["exclude"])
    lists = recommender.recommend(**arguments)
    return [[{"key": x.key, "title": x.title, "score": x.log_prob, "ties": list(x.ties)} for x in row] for row in lists]


def assert_same(found: list[list[dict[str, Any]]], wanted: list[list[dict[str, Any]]]) -> None:
    """Items equal, scores up to what the batch size changes in their last digits."""
    for row, wanted_row in zip(found, wanted, strict=True):
        for item, wanted_item in zip(row, wanted_row, strict=True):
            assert item["score"] == pytest.approx(wanted_item["score"], abs=1e-5)
            assert {**item, "score": 0} == {**wanted_item, "score": 0}


@pytest.mark.parametrize("fields", _KINDS, ids=str)
def test_answers_are_those_of_the_recommender(
    fields: dict[str, Any], client: TestClient, recommender: Recommender
) -> None:
    status, answer = ask(client, **fields)
    assert status == 200
    assert_same(answer["lists"], expected(recommender, fields))


def test_the_application_answers_as_its_guard_does(client: TestClient) -> None:
    content = json.dumps({"histories": [["item-1"]], "k": 2})
    replies = [
        client.post("/recommend", content=content, headers={"content-type": f"application/json{parameter}"})
        for parameter in ("", "; charset=utf-8")
    ]
    assert replies[0].status_code == replies[1].status_code == 200
    assert_same(replies[0].json()["lists"], replies[1].json()["lists"])


def test_a_body_of_another_type_is_told_from_a_wrong_one(client: TestClient) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    reply = client.post("/recommend", content=json.dumps({"histories": [["item-1"]]}), headers=form)
    assert reply.status_code == 422
    assert reply.json()["detail"] == "content-type: application/x-www-form-urlencoded, expected application/json"


def test_answers_under_load_are_those_of_each_request_alone(client: TestClient, recommender: Recommender) -> None:
    histories = [[f"item-{number % 30}", f"item-{number * 7 % 30}"] for number in range(10)]
    requests = [
        {**fields, "histories": fields.get("histories", [history])} for history in histories for fields in _KINDS
    ]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda fields: ask(client, **fields), requests))
    for fields, (status, answer) in zip(requests, answers, strict=True):
        assert status == 200
        assert_same(answer["lists"], expected(recommender, fields))
    batches = [line for line in client.get("/metrics").text.splitlines() if line.startswith("padrec_batch_users_count")]
    assert float(batches[0].split()[1]) < len(requests), "some were decoded together"


_BODY = {"histories": [["item-1", "item-2"]], "k": 3}
_BAD: list[tuple[Any, int, str]] = [
    (b"", 422, "body: Field required"),
    (b"{", 400, "body: no JSON at character 1"),
    (b'{"histories": [["item-1"]], "k": 3', 400, "body: no JSON at character 34"),
    (b"\xff\xfe", 400, "body: no JSON at character 0"),
    (b"[" * 3000, 400, ""),
    (b'{"histories": [["item-1"]], "k": ' + b"9" * 3900 + b"}", 422, "k: "),
    (b'{"histories": [["item-1"]], "temperature": NaN}', 422, "temperature: Input should be a finite number"),
    (b'{"histories": [["item-1"]], "temperature": Infinity}', 422, "temperature: Input should be"),
    (b'{"histories": [["\\ud800"]]}', 422, "histories.0.0: "),
    (b"null", 422, "body: "),
    (b'"item-1"', 422, "body: Input should be a valid dictionary"),
    (b"[]", 422, "body: Input should be a valid dictionary"),
    (b"{}", 422, "histories: Field required"),
    ({"history": ["item-1"]}, 422, "histories: Field required"),
    (_BODY | {"n": 3}, 422, "n: Extra inputs are not permitted"),
    (_BODY | {"histories": []}, 422, "histories: List should have at least 1 item"),
    (_BODY | {"histories": [[]]}, 422, "histories.0: List should have at least 1 item"),
    (_BODY | {"histories": [["item-1"], []]}, 422, "histories.1: List should have at least 1 item"),
    (_BODY | {"histories": ["item-1"]}, 422, "histories.0: Input should be a valid list"),
    (_BODY | {"histories": "item-1"}, 422, "histories: Input should be a valid list"),
    (_BODY | {"histories": [[1]]}, 422, "histories.0.0: Input should be a valid string"),
    (_BODY | {"histories": [[None]]}, 422, "histories.0.0: Input should be a valid string"),
    (_BODY | {"histories": [[""]]}, 422, "histories.0.0: String should have at least 1 character"),
    (_BODY | {"histories": [["i" * 2000]]}, 422, "histories.0.0: String should have at most 1024 characters"),
    (_BODY | {"histories": [["item-99"]]}, 422, "item 'item-99': no key or title of the 30 items"),
    (_BODY | {"histories": [["item-1"]] * 5}, 422, "histories: 5, expected at most 4"),
    (_BODY | {"histories": [["item-1"] * 9]}, 422, "items of a history: 9, expected at most 8"),
    (_BODY | {"k": 0}, 422, "k: Input should be greater than or equal to 1"),
    (_BODY | {"k": -1}, 422, "k: Input should be greater"),
    (_BODY | {"k": 2.5}, 422, "k: Input should be a valid integer"),
    (_BODY | {"k": "3"}, 422, "k: Input should be a valid integer"),
    (_BODY | {"k": None}, 422, "k: Input should be a valid integer"),
    (_BODY | {"k": True}, 422, "k: Input should be a valid integer"),
    (_BODY | {"k": 21}, 422, "k: 21, expected at most 20"),
    (_BODY | {"search": "best"}, 422, "search: Input should be 'list' or 'beam'"),
    (_BODY | {"temperature": -0.1}, 422, "temperature: Input should be greater than or equal to 0"),
    (_BODY | {"temperature": 1e9}, 422, "temperature: Input should be less than or equal to 100"),
    (_BODY | {"temperature": "warm"}, 422, "temperature: Input should be a valid number"),
    (_BODY | {"seed": -1}, 422, "seed: Input should be greater than or equal to 0"),
    (_BODY | {"seed": 2**32}, 422, "seed: Input should be less than 4294967296"),
    (_BODY | {"exclude": "bought"}, 422, "exclude"),
    (_BODY | {"exclude": ["item-99"]}, 422, "item 'item-99': no key or title"),
    (_BODY | {"exclude": [["item-1"], []]}, 422, "exclude: 2 collections of items, expected one for each of 1 users"),
    (_BODY | {"exclude": ["item-1", ["item-2"]]}, 422, "exclude"),
    (_BODY | {"exclude": [f"item-{number}" for number in range(7)]}, 422, "items to exclude: 7, expected at most 6"),
    (_BODY | {"histories": [["item-" + "1" * 900] * 5]}, 413, "body: more than 4000 bytes, expected no more"),
]


@pytest.mark.parametrize(("body", "status", "message"), _BAD, ids=range(len(_BAD)))
def test_a_bad_request_gets_one_message(
    body: bytes | dict[str, Any], status: int, message: str, client: TestClient
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    reply = client.post("/recommend", content=content, headers={"content-type": "application/json"})
    assert reply.status_code == status, reply.text
    assert set(reply.json()) == {"detail"}
    assert message in reply.json()["detail"]


def test_lists_that_the_catalog_cannot_fill_get_one_message(recommender: Recommender) -> None:
    with TestClient(Service([LocalWorker(Answerer(recommender))]).app) as client:
        assert ask(client, k=28)[0] == 422
        status, answer = ask(client, k=27, exclude=["item-3"])
        message = "history 0: 1 of 27 semantic IDs excluded, which leaves 26"
        assert status == 200 or message in answer["detail"]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/recommend", 405), ("GET", "/nowhere", 404)])
def test_other_paths_and_methods_are_refused(method: str, path: str, status: int, client: TestClient) -> None:
    assert client.request(method, path).status_code == status


def test_a_wrong_request_does_not_disturb_those_beside_it(recommender: Recommender) -> None:
    gate: list[bool] = []
    worker = LocalWorker(Answerer(recommender))
    stub = StubWorker(lambda: bool(gate))

    class Held(LocalWorker):
        async def answer(self, requests: Any, explain: bool = False) -> Any:  # noqa: ANN401
            await stub.answer(requests)
            return await worker.answer(requests)

    with TestClient(Service([Held(Answerer(recommender))]).app) as client, ThreadPoolExecutor(8) as pool:
        first = pool.submit(ask, client)
        while not stub.batches:
            pass
        rest = [pool.submit(ask, client, histories=[[name]]) for name in ("item-2", "item-99", "item-3")]
        while "padrec_queue_users 3.0" not in client.get("/metrics").text:
            pass
        gate.append(True)
        statuses = [future.result()[0] for future in [first, *rest]]
    assert statuses == [200, 200, 422, 200]
    assert [len(batch) for batch in stub.batches] == [1, 3]


def test_overload_is_refused_and_over_when_the_queue_is_shorter() -> None:
    gate: list[bool] = []
    worker = StubWorker(lambda: bool(gate))
    with TestClient(Service([worker], Limits(users=2, queue=2)).app) as client, ThreadPoolExecutor(8) as pool:
        accepted = [pool.submit(ask, client)]
        while not worker.batches:
            pass
        accepted += [pool.submit(ask, client) for _ in range(2)]
        while "padrec_queue_users 2.0" not in client.get("/metrics").text:
            pass
        reply = client.post("/recommend", json={"histories": [["item-1"]]})
        assert reply.status_code == 503
        assert reply.headers["retry-after"] == "1"
        assert reply.json() == {"detail": "2 users wait already, at most 2 may: try again"}
        gate.append(True)
        assert [future.result()[0] for future in accepted] == [200, 200, 200]
        assert ask(client)[0] == 200
        assert 'padrec_requests_total{status="503"} 1.0' in client.get("/metrics").text


def test_a_worker_that_ends_is_replaced_and_its_clients_are_told() -> None:
    worker = StubWorker()
    with TestClient(Service([worker]).app) as client:
        status, answer = ask(client, seed=13)
        assert (status, answer["detail"]) == (503, "the worker ended while answering this batch: try again")
        assert ask(client)[0] == 200
        assert worker.starts == 2
        assert "padrec_worker_restarts_total 1.0" in client.get("/metrics").text
    assert worker.stops == 2


def test_a_worker_that_ends_over_a_request_whose_client_is_gone_is_replaced() -> None:
    async def steps() -> None:
        worker = StubWorker()
        service = Service([worker])
        queued = QueuedRequest(RecommendationRequest(histories=[["item-1"]], seed=13))
        queued.answer.cancel()
        await service._replace(worker, [queued])
        assert worker.starts == 1

    asyncio.run(steps())


def test_a_worker_that_does_not_start_again_is_tried_until_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("padrec.serving.service._SECONDS_BETWEEN_STARTS", 0.01)

    class Weak(StubWorker):
        async def start(self) -> dict[str, Any]:
            await super().start()
            if self.starts in (2, 3):
                raise WorkerEndedError
            return {}

    worker = Weak()
    with TestClient(Service([worker]).app) as client:
        assert ask(client, seed=13)[0] == 503
        assert ask(client)[0] == 200
        assert worker.starts == 4


@pytest.mark.parametrize("error", [InputError("no such folder"), WorkerEndedError()])
def test_a_service_whose_workers_do_not_start_says_why(error: Exception) -> None:
    class Broken(StubWorker):
        async def start(self) -> dict[str, Any]:
            raise error

    service = Service([Broken()])
    with pytest.raises(type(error)), TestClient(service.app):
        pass
    assert service.failure is not None
    assert "expected it to get ready" in str(service.failure) or service.failure is error


def test_every_answer_and_refusal_is_counted() -> None:
    with TestClient(Service([StubWorker()], _LIMITS).app) as client:
        ask(client)
        ask(client, k=21)  # beyond a limit
        ask(client, k="x")  # of a wrong type
        client.post("/recommend", content=b"{", headers={"content-type": "application/json"})
        client.post("/recommend", content=b"x" * 5000)
        found = dict(re.findall(r'padrec_requests_total\{status="(\d+)"\} (\S+)', client.get("/metrics").text))
    assert found == {"200": "1.0", "422": "2.0", "400": "1.0", "413": "1.0"}


def test_health_and_figures(client: TestClient) -> None:
    ask(client, k=3)
    assert client.get("/health").json() == {"workers": 1}
    figures = client.get("/metrics").text
    for name in ("lists_total", "tokens_total", "target_passes_total", "acceptance_length", "queue_users", "workers"):
        assert f"\npadrec_{name} " in figures
    assert 'padrec_request_seconds_bucket{le="+Inf"}' in figures
    assert "padrec_decoder_seconds_sum" in figures


def test_the_api_is_described(client: TestClient) -> None:
    api = client.get("/openapi.json").json()
    answers = api["paths"]["/recommend"]["post"]["responses"]
    assert {"200", "400", "408", "413", "422", "503"} <= set(answers)
    assert client.get("/docs").status_code == 200


def test_an_explained_list_is_the_served_one_token_by_token(client: TestClient, recommender: Recommender) -> None:
    fields = {"histories": [["item-3", "item-8"]], "k": 4, "exclude": "history", "temperature": 0.6, "seed": 3}
    found = client.post("/explain", json=fields).json()
    (items,) = recommender.recommend(**fields)  # type: ignore[arg-type]
    assert [item["key"] for item in found["items"]] == [item.key for item in items]
    tokens = [token for round_ in found["rounds"] for token in round_["tokens"]]
    vocabulary, catalog = recommender.vocabulary, recommender.catalog
    codes = catalog.codes[[catalog.index(item.key) for item in items]]
    names = [vocabulary.token_name(token) for token in vocabulary.encode(codes).flatten().tolist()]
    assert [token["token"] for token in tokens] == names[: len(tokens)]
    assert len(tokens) == vocabulary.list_tokens(4)
    assert [token["slot"] for token in tokens] == [at % vocabulary.item_length for at in range(len(tokens))]
    assert found["target_passes"] == len(found["rounds"]) - 1 <= found["plain"]["target_passes"] == len(tokens) - 1
    beam = client.post("/explain", json={"histories": [["item-3"]], "k": 2, "search": "beam"}).json()
    assert beam["rounds"] == []
    assert client.post("/explain", json={"histories": [["item-3"], ["item-4"]]}).status_code == 422


def test_the_decoder_that_was_chosen_by_trial_is_explained(shop: Path) -> None:
    draft = FeatureDraft(str(shop / "draft"))
    decoders = {"tree": SpeculativeDecoder(draft, DynamicTree(2, 2, 4)), "chain": SpeculativeDecoder(draft, Chain(2))}
    recommender = Recommender(SavedTarget.read(shop / "target"), FastestDecoder(decoders), device="cpu")
    (user,) = recommender.users([["item-3"]])
    found = Explainer(recommender).explain(user, RequestKind(3, "list", 0.0))
    assert sum(len(round_["tokens"]) for round_ in found["rounds"]) == recommender.vocabulary.list_tokens(3)


def test_a_queue_has_room_for_the_largest_request() -> None:
    with pytest.raises(InputError, match="queue 8: expected at least users, 32"):
        Limits(queue=8)


def test_a_body_that_takes_too_long_is_refused_and_one_that_breaks_off_is_dropped() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def never() -> Message:
        await asyncio.sleep(60)
        raise AssertionError

    async def gone() -> Message:
        return {"type": "http.disconnect"}

    async def service(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError

    async def recommend(request: RecommendationRequest) -> Response:
        raise AssertionError

    counted: list[int] = []
    guard = RequestGuard(service, Limits(body_seconds=0.02), counted.append, recommend)
    asyncio.run(guard({"type": "http", "method": "POST"}, never, send))
    assert counted == [408]
    assert sent[0]["status"] == 408
    assert json.loads(sent[1]["body"]) == {"detail": "body: incomplete after 0.02 s, expected all of it by then"}
    sent.clear()
    asyncio.run(guard({"type": "http", "method": "POST"}, gone, send))
    assert sent == []
