"""A LitServe server for `engines.py`."""

import time
from collections.abc import Sequence
from typing import Any

import litserve

from experiments.serving.engines import BATCH_SECONDS, BATCH_SIZE, ITEMS, PORT
from padrec.serving.recommendation_request import RecommendationRequest


class Stub(litserve.LitAPI):  # type: ignore[misc]
    def setup(self, device: str) -> None: ...

    def decode_request(self, request: RecommendationRequest) -> RecommendationRequest:
        return request

    def batch(self, inputs: Sequence[RecommendationRequest]) -> list[RecommendationRequest]:
        return list(inputs)

    def predict(self, inputs: list[RecommendationRequest]) -> list[dict[str, Any]]:
        time.sleep(BATCH_SECONDS)
        return [{"lists": [ITEMS]} for _ in inputs]

    def unbatch(self, outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return outputs

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return output


if __name__ == "__main__":
    api = Stub(max_batch_size=BATCH_SIZE, batch_timeout=0.001, api_path="/recommend")
    server = litserve.LitServer(api, accelerator="cpu", fast_queue=True)
    server.run(host="127.0.0.1", port=PORT, num_api_servers=1, generate_client_file=False, log_level="error")
