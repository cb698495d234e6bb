"""What Prometheus reads."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from padrec.serving.answer import AnsweredBatch

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_USERS = (1, 2, 4, 8, 16, 24, 32, 64, 128)


class ServiceMetrics:
    """Counts requests and batches; `waiting` returns the number of users that wait."""

    def __init__(self, waiting: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter("padrec_requests", "Answers by HTTP status", ["status"], registry=self._registry)
        self.seconds = self._histogram("padrec_request_seconds", "From a request's arrival to its answer", _SECONDS)
        self.workers = Gauge("padrec_workers", "Workers that are ready", registry=self._registry)
        self.restarts = Counter("padrec_worker_restarts", "Restarts of workers", registry=self._registry)
        self._batch_users = self._histogram("padrec_batch_users", "Users decoded together", _USERS)
        self._decoder_seconds = self._histogram("padrec_decoder_seconds", "In the decoder, for a batch", _SECONDS)
        self._host_seconds = self._histogram("padrec_host_seconds", "Around it in the worker, for a batch", _SECONDS)
        self._written = {
            name: Counter(f"padrec_{name}", text, registry=self._registry)
            for name, text in [
                ("lists", "Lists written"),
                ("tokens", "Tokens in them"),
                ("target_passes", "Target passes while a list was unfinished, without prefills"),
            ]
        }
        self._totals = dict.fromkeys(self._written, 0)
        self._swaps, self._failed_swaps = (
            Counter(f"padrec_{name}", text, ["what"], registry=self._registry)
            for name, text in [
                ("swaps", "Catalogs and stock lists replaced"),
                ("failed_swaps", "Catalogs and stock lists that could not be used"),
            ]
        )
        tau = Gauge("padrec_acceptance_length", "Tokens per target pass since the start, τ", registry=self._registry)
        tau.set_function(self._acceptance_length)
        queue = Gauge("padrec_queue_users", "Users that wait for a worker", registry=self._registry)
        queue.set_function(waiting)

    def count_answer(self, status: int) -> None:
        """Count an answer, or a refusal, with this HTTP status."""
        self._requests.labels(str(status)).inc()

    def count(self, batch: AnsweredBatch) -> None:
        """Count a batch that was answered."""
        for what in batch.swaps:
            self._swaps.labels(what).inc()
        for what in batch.failed_swaps:
            self._failed_swaps.labels(what).inc()
        if batch.lists > 0:
            self._batch_users.observe(batch.lists)
            self._decoder_seconds.observe(batch.seconds)
            self._host_seconds.observe(batch.host_seconds)
            for name, counter in self._written.items():
                more: int = getattr(batch, name)
                counter.inc(more)
                self._totals[name] += more

    def text(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self._registry)

    def _acceptance_length(self) -> float:
        """The prefill yields each list's first token."""
        lists, tokens, passes = self._totals.values()
        return (tokens - lists) / passes if passes else 0.0

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, buckets=buckets, registry=self._registry)
