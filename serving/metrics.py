"""A pool's figures for Prometheus, and a small server for it to read them from.

Quantiles are gauges that the pool computed itself: a histogram of every model's buckets would be tens of
thousands of series for some hundred models. Knows Prometheus' types; the figures are the pool's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from penstock.errors import ServingError
from penstock.serving.pool import Pool
from penstock.serving.stats import Stats

LOOPBACK = "127.0.0.1"


class PoolMetrics(Collector):
    """Reads a pool's figures whenever it is asked."""

    def __init__(self, stats: Callable[[], Stats]) -> None:
        self._stats = stats

    def collect(self) -> Iterable[Metric]:
        """The families, from one look at the figures."""
        stats = self._stats()
        yield from _models(stats)
        yield from _endpoints(stats)


def registry_of(pool: Pool) -> CollectorRegistry:
    """A registry with one pool's metrics, of names that begin with ``penstock_``."""
    registry = CollectorRegistry()
    registry.register(PoolMetrics(pool.stats))
    return registry


@contextmanager
def served(pool: Pool, port: int, address: str = LOOPBACK, *, beside: Sequence[Collector] = ()) -> Iterator[int]:
    """The metrics over HTTP while the block runs; gives the port, which is a free one where `port` is 0.

    `beside`: who tells more in the same answer. Raises ServingError when the port cannot be had.
    """
    registry = registry_of(pool)
    for collector in beside:
        registry.register(collector)
    try:
        server, thread = start_http_server(port, address, registry)
    except OSError as error:
        raise ServingError(f"metrics on {address}:{port}: {error.strerror}; take another port, or 0") from error
    try:
        yield int(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5.0)


def _models(stats: Stats) -> Iterator[Metric]:
    count = CounterMetricFamily("penstock_requests", "Requests answered, per model.", labels=["model"])
    seconds = CounterMetricFamily("penstock_request_seconds", "Sum of their times.", labels=["model"])
    errors = CounterMetricFamily("penstock_errors", "Requests without an answer.", labels=["model", "kind"])
    quantiles = GaugeMetricFamily(
        "penstock_request_quantile_seconds", "Time of a request over the last minutes.", labels=["model", "quantile"]
    )
    for name, told in stats.models.items():
        count.add_metric([name], told.count)
        seconds.add_metric([name], told.seconds)
        for kind, number in told.errors.items():
            errors.add_metric([name, kind], number)
        for share, value in (("0.5", told.p50_s), ("0.99", told.p99_s)):
            if value is not None:
                quantiles.add_metric([name, share], value)
    yield from (count, seconds, errors, quantiles)


def _endpoints(stats: Stats) -> Iterator[Metric]:
    asked = CounterMetricFamily("penstock_endpoint_requests", "Calls to an endpoint.", labels=["endpoint"])
    failed = CounterMetricFamily("penstock_endpoint_failures", "Calls that it did not answer.", labels=["endpoint"])
    flying = GaugeMetricFamily("penstock_endpoint_in_flight", "Calls under way.", labels=["endpoint"])
    used = GaugeMetricFamily("penstock_endpoint_used", "0: it is left alone after failures.", labels=["endpoint"])
    for endpoint, told in stats.endpoints.items():
        asked.add_metric([endpoint], told.asked)
        failed.add_metric([endpoint], told.failed)
        flying.add_metric([endpoint], told.in_flight)
        used.add_metric([endpoint], float(told.used))
    yield from (asked, failed, flying, used)
