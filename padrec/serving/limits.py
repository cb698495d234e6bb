"""How much a client may ask for."""

from dataclasses import dataclass

from padrec.catalog import InputError, PositiveFloat, PositiveInt, check_arguments
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
