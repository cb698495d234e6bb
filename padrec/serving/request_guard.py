"""Refuses requests that are too large or too slow before anything is done with them, and counts all answers."""

import asyncio
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from padrec.serving.answer import Answer
from padrec.serving.limits import Limits


class RequestGuard:
    """ASGI middleware that reads a request's whole body, within limits of bytes and seconds, before the service does.

    It calls `count` with the status of each answer to a POST, whoever gives it.
    """

    def __init__(self, app: ASGIApp, limits: Limits, count: Callable[[int], None]) -> None:
        self._app, self._limits, self._count = app, limits, count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "POST":
            send = self._counted(send)
        limits, body, more = self._limits, b"", True
        try:
            async with asyncio.timeout(limits.body_seconds):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return
                    body, more = body + message.get("body", b""), message.get("more_body", False)
                    if len(body) > limits.body_bytes:
                        await _refuse(send, 413, f"body: more than {limits.body_bytes} bytes, expected no more")
                        return
        except TimeoutError:
            await _refuse(send, 408, f"body: incomplete after {limits.body_seconds:g} s, expected all of it by then")
            return
        whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return whole.pop() if whole else await receive()

        await self._app(scope, again, send)

    def _counted(self, send: Send) -> Send:
        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._count(message["status"])
            await send(message)

        return counted


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
