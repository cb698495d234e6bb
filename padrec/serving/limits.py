"""How much a client may ask for, and the guard of the service."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pydantic import ValidationError
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from padrec.catalog import InputError, PositiveFloat, PositiveInt, check_arguments
from padrec.serving.answer import Answer
from padrec.serving.recommendation_request import RecommendationRequest


@dataclass(frozen=True)
class Limits:
    """Limits of a service.

    Attributes:
        body_bytes: bytes in a request's body; larger ones get status 413.
        body_seconds: seconds to send a body; slower requests get status 408.
        k: the largest K; larger ones get status 422, as with the next three limits.
        users: histories in a request.
        history: items in a history.
        excluded: items to exclude in a request.
        queue: users that wait, at least as many as a request may have; further requests get status 503.

    Raises:
        InputError: a value outside its range.
    """

    body_bytes: PositiveInt = 1 << 20
    body_seconds: PositiveFloat = 10.0
    k: PositiveInt = 100
    users: PositiveInt = 32
    history: PositiveInt = 1000
    excluded: PositiveInt = 10_000
    queue: PositiveInt = 256

    def __post_init__(self) -> None:
        check_arguments(Limits, vars(self))
        if self.queue < self.users:
            raise InputError(f"queue {self.queue}: expected at least users, {self.users}, or such requests never fit")

    def exceeded_by(self, request: RecommendationRequest) -> str | None:
        """What is too large in a request, in words; None if nothing is."""
        exclude = request.exclude if isinstance(request.exclude, list) else []
        sizes = [
            ("k", request.k, self.k),
            ("histories", len(request.histories), self.users),
            ("items of a history", max(map(len, request.histories)), self.history),
            ("items to exclude", sum(len(x) if isinstance(x, list) else 1 for x in exclude), self.excluded),
        ]
        found = [f"{name}: {size}, expected at most {most}" for name, size, most in sizes if size > most]
        return found[0] if found else None


class RequestGuard:
    """Reads a request's whole body, within limits of bytes and seconds, and passes it on to an ASGI application.

    It hands requests for recommendations to `recommend` itself where nothing is wrong with them: finding the route and
    checking the body takes the application as long as all else that HTTP needs. It calls `count` with the status of
    each answer to a POST, whoever gives it.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        count: Callable[[int], None],
        recommend: Callable[[RecommendationRequest], Awaitable[Response]],
    ) -> None:
        self._app, self._limits, self._count, self._recommend = app, limits, count, recommend

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "POST":
            send = self._counted(send)
        if (body := await self._body(receive, send)) is None:
            return
        if (request := _plain_request(scope, body)) is not None:
            response = await self._recommend(request)
            await response(scope, receive, send)
            return
        whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return whole.pop() if whole else await receive()

        await self._app(scope, again, send)

    async def _body(self, receive: Receive, send: Send) -> bytes | None:
        """The whole body; None if it was refused, or the client is gone."""
        limits, body, more = self._limits, b"", True
        try:
            async with asyncio.timeout(limits.body_seconds):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body, more = body + message.get("body", b""), message.get("more_body", False)
                    if len(body) > limits.body_bytes:
                        await _refuse(send, 413, f"body: more than {limits.body_bytes} bytes, expected no more")
                        return None
        except TimeoutError:
            await _refuse(send, 408, f"body: incomplete after {limits.body_seconds:g} s, expected all of it by then")
            return None
        return body

    def _counted(self, send: Send) -> Send:
        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._count(message["status"])
            await send(message)

        return counted


def _plain_request(scope: Scope, body: bytes) -> RecommendationRequest | None:
    """The request for recommendations that this is, if it is one and nothing is wrong with it."""
    is_json = (b"content-type", b"application/json") in scope["headers"]
    if scope["method"] != "POST" or scope["path"] != "/recommend" or not is_json:
        return None
    try:
        return RecommendationRequest.model_validate_json(body)
    except ValidationError:
        return None


async def _refuse(send: Send, status: int, reason: str) -> None:
    refusal = Answer.problem(status, reason)
    # The rest of the body is never read.
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(refusal.body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": refusal.body})
