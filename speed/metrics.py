"""A running service's status for Prometheus, under names that begin with ``penstock_``.

Ages are told as of the scrape, everything else as of the newest status, which is a second old. Knows Prometheus'
types; the figures are the service's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from penstock.speed.status import Status


class StreamMetrics(Collector):
    """Reads a service's status whenever it is asked."""

    def __init__(self, told: Callable[[], Status | None], now: Callable[[], int]) -> None:
        """`told`: the newest status, None before the first. `now`: wall clock, ns UTC."""
        self._told, self._now = told, now

    def collect(self) -> Iterable[Metric]:
        """The families; none before the first status."""
        status = self._told()
        if status is not None:
            yield from _output(status, self._now())
            yield from _journal(status, self._now())
            yield from _work(status)
            yield from _sources(status, self._now())
            yield from _sinks(status, self._now())


def _output(status: Status, now_ns: int) -> Iterator[Metric]:
    report = status.report
    yield _count("penstock_ticks", "Ticks said.", report.ticks)
    yield _count("penstock_predictions", "Predictions said.", report.predictions)
    if status.said_ns is not None:
        yield _gauge("penstock_output_age_seconds", "Since a tick was said last.", _age_s(status.said_ns, now_ns))
    yield _count("penstock_passed_ticks", "Ticks passed over for newer ones: scoring was behind.", report.passed_ticks)
    yield _count("penstock_passed_predictions", "Withheld for that.", report.passed)
    yield _gauge("penstock_sources_held", "1: sources are not read, since scoring is behind.", float(status.held))
    yield _gauge("penstock_overdue_seconds", "How long the oldest closed tick waits to be said.", status.overdue_s)
    if status.closed is not None and status.next_tick is not None:
        waiting = max(0, status.closed - status.next_tick)
        yield _gauge("penstock_lag_ticks", "Ticks that are closed and not said.", waiting)


def _journal(status: Status, now_ns: int) -> Iterator[Metric]:
    yield _gauge("penstock_journal_bytes", "That the journal keeps.", status.journal_bytes)
    waiting = GaugeMetricFamily("penstock_journal_sequences", "Of the journal, not done yet.", labels=["not"])
    waiting.add_metric(["archived"], max(0, status.tail - status.archived))
    if status.said is not None:
        waiting.add_metric(["said"], max(0, status.tail - 1 - status.said))
    yield waiting
    if status.archived_ns is not None:
        age_s = _age_s(status.archived_ns, now_ns)
        yield _gauge("penstock_archive_age_seconds", "Since the archive had all that the journal had.", age_s)
    readings = CounterMetricFamily("penstock_readings", "Readings taken in, by what became of them.", labels=["as"])
    report = status.report
    for name, number in (("accepted", report.readings), ("rejected", report.rejected), ("late", report.late)):
        readings.add_metric([name], number)
    readings.add_metric(["quarantined"], report.quarantined)
    readings.add_metric(["revised"], report.revised)
    yield readings


def _work(status: Status) -> Iterator[Metric]:
    report = status.report
    yield _count("penstock_worker_restarts", "Dask workers beyond those at the start.", report.worker_restarts)
    yield _count("penstock_rereadings", "Times the log was read again.", report.rereadings)
    yield _count("penstock_resubmitted_steps", "Steps submitted again.", report.resubmitted)
    yield _count("penstock_graph_repairs", "Times a part of the graph had died.", report.repairs)
    yield _gauge("penstock_backlog_values", "Values that wait for the scorer.", status.backlog)


def _sources(status: Status, now_ns: int) -> Iterator[Metric]:
    up = GaugeMetricFamily("penstock_source_up", "1: the line is up.", labels=["source"])
    heard = GaugeMetricFamily("penstock_source_heard_seconds", "Since anything came.", labels=["source"])
    newest = GaugeMetricFamily("penstock_source_reading_age_seconds", "Of its newest reading.", labels=["source"])
    garbage = CounterMetricFamily("penstock_source_garbage", "Unreadable messages.", labels=["source"])
    connects = CounterMetricFamily("penstock_source_connects", "Times it came up.", labels=["source"])
    for name, told in status.sources.items():
        up.add_metric([name], float(told["up"]))
        garbage.add_metric([name], told["garbage"])
        connects.add_metric([name], told["connects"])
        for family, then_ns in ((heard, told["heard_ns"]), (newest, told["newest_ns"])):
            if then_ns is not None:
                family.add_metric([name], _age_s(then_ns, now_ns))
    yield from (up, heard, newest, garbage, connects)


def _sinks(status: Status, now_ns: int) -> Iterator[Metric]:
    up = GaugeMetricFamily("penstock_sink_up", "1: the line is up.", labels=["sink"])
    lag = GaugeMetricFamily("penstock_sink_lag_ticks", "Ticks said and not acknowledged.", labels=["sink"])
    age = GaugeMetricFamily("penstock_sink_lag_seconds", "Since when it is behind.", labels=["sink"])
    sent = CounterMetricFamily("penstock_sink_messages", "Messages acknowledged.", labels=["sink"])
    failures = CounterMetricFamily("penstock_sink_failures", "Times it failed.", labels=["sink"])
    skipped = CounterMetricFamily("penstock_sink_skipped_ticks", "Ticks not sent, for newer ones.", labels=["sink"])
    for name, told in status.sinks.items():
        up.add_metric([name], float(told["up"]))
        lag.add_metric([name], told["behind_ticks"])
        age.add_metric([name], 0.0 if told["behind_ns"] is None else _age_s(told["behind_ns"], now_ns))
        sent.add_metric([name], told["sent"])
        failures.add_metric([name], told["failures"])
        skipped.add_metric([name], told["skipped"])
    yield from (up, lag, age, sent, failures, skipped)


def _count(name: str, what: str, value: float) -> Metric:
    return CounterMetricFamily(name, what, value=value)


def _gauge(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(name, what, value=value)


def _age_s(then_ns: int, now_ns: int) -> float:
    return max(0, now_ns - then_ns) / 1e9
