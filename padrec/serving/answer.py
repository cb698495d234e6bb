"""What a client gets."""

import json
from dataclasses import dataclass

from pydantic import BaseModel, Field


class AnsweredItem(BaseModel):
    """An item of a list; see `RecommendedItem`."""

    key: str
    title: str | None
    score: float = Field(description="Natural logarithm of its probability.")
    ties: list[str] = Field(description="Keys of other items with the same semantic ID.")


class RecommendationAnswer(BaseModel):
    """The lists of one request, all of one state of catalog and stock."""

    lists: list[list[AnsweredItem]] = Field(description="For each history K items, best first.")
    catalog: str = Field(description="Version of the catalog that the items are from.")
    stock: str = Field(description="Version of the list of items out of stock.")


class Problem(BaseModel):
    """Why a request was not answered."""

    detail: str


@dataclass(frozen=True)
class Answer:
    """A reply to one request."""

    status: int  # of HTTP
    body: bytes  # JSON

    @classmethod
    def problem(cls, status: int, detail: str) -> "Answer":
        """The reply that says why a request was not answered, see `Problem`."""
        return cls(status, json.dumps({"detail": detail}).encode())


@dataclass(frozen=True)
class AnsweredBatch:
    """Replies to the requests of a batch, in their order, and what they cost."""

    answers: list[Answer]
    lists: int = 0  # that were written
    tokens: int = 0  # in them
    target_passes: int = 0  # without prefills
    seconds: float = 0.0  # in the decoder
    host_seconds: float = 0.0  # around it, in the worker
    swaps: tuple[str, ...] = ()  # what was replaced since the last batch, each `catalog` or `stock`
    failed_swaps: tuple[str, ...] = ()  # what could not be replaced
