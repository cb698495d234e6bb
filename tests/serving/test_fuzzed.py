"""Requests made up from the service's own description: none of them is an error of the service."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.core import NotSet
from schemathesis.core.result import Ok

from padrec import Catalog, Recommender
from padrec.serving import Answerer, Limits, Service
from padrec.targets import SavedTarget
from tests.serving.tiny_service import LocalWorker


def test_made_up_requests_are_answered_or_refused_as_described(shop: Path) -> None:
    target = SavedTarget.read(shop / "target")
    assert target.catalog is not None
    # Keys that made-up requests hit now and then.
    catalog = Catalog(target.catalog.codes, [chr(ord("0") + number) for number in range(30)])
    recommender = Recommender(replace(target, catalog=catalog), device="cpu")
    service = Service([LocalWorker(Answerer(recommender))], Limits(k=20))
    with TestClient(service.app) as client:
        api = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
        operations = [found.ok() for found in api.get_all_operations() if isinstance(found, Ok)]
        modes = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]
        cases = [one.as_strategy(generation_mode=mode) for one in operations if one.body for mode in modes]

        @settings(max_examples=80, suppress_health_check=list(HealthCheck))
        @given(case=st.one_of(cases))
        def try_one(case: schemathesis.Case[Any]) -> None:
            body = b"" if isinstance(case.body, NotSet) else case.body
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            headers = {"content-type": "application/json"}
            reply = client.request(case.method, case.formatted_path, content=content, headers=headers)
            statuses.add(reply.status_code)
            assert reply.status_code < 500, (body, reply.text)
            assert str(reply.status_code) in case.operation.definition.raw["responses"], reply.text

        statuses: set[int] = set()
        try_one()
    assert {200, 422} <= statuses
