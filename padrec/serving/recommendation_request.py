"""What a client asks for."""

from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

Search = Literal["list", "beam"]
Key = Annotated[str, Field(min_length=1, max_length=1024)]


class RecommendationRequest(BaseModel):
    """One list of K items for each history; see `Recommender.recommend`."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        json_schema_extra={"example": {"histories": [["item-17", "item-203", "item-44"]], "k": 10}},
    )

    histories: Annotated[
        list[Annotated[list[Key], Field(min_length=1)]],
        Field(min_length=1, description="Each user's items, oldest first, by key or unambiguous title."),
    ]
    k: Annotated[int, Field(ge=1, description="K, items in each list.")] = 10
    exclude: Annotated[
        Literal["history"] | list[Key] | list[list[Key]] | None,
        Field(description="Items not to recommend: each user's own history, a list for all, or one for each user."),
    ] = None
    search: Annotated[Search, Field(description="Write lists item by item, or rank items in a beam.")] = "list"
    temperature: Annotated[float, Field(ge=0, le=100, description="Of sampled lists; 0 is greedy.")] = 0.0
    seed: Annotated[int, Field(ge=0, lt=2**32, description="Of sampled lists.")] = 0

    @property
    def kind(self) -> "RequestKind":
        """What requests that are decoded together have in common."""
        return RequestKind(self.k, self.search, self.temperature)

    @property
    def excluded(self) -> Literal["history"] | frozenset[str] | list[list[str]] | None:
        """`exclude` as `Recommender.users` takes it."""
        if not isinstance(self.exclude, list):
            return self.exclude
        nested = [items for items in self.exclude if isinstance(items, list)]
        return nested or frozenset(str(item) for item in self.exclude)


class RequestKind(NamedTuple):
    """What a decoder is opened for: requests that differ here are not decoded together."""

    k: int
    search: Search
    temperature: float
