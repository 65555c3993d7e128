"""What the pool counts: by model, in bounded room, beside a slow obvious count; and what Prometheus is told."""

from __future__ import annotations

import urllib.request

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from penstock.errors import ServingError, Unavailable
from penstock.serving.metrics import registry_of, served
from penstock.serving.pool import Pool
from penstock.serving.tally import MODELS, OTHERS, SLICE_S, SLICES, Tally

NOBODY = "127.0.0.1:9"

requests = st.lists(
    st.tuples(
        st.lists(st.sampled_from(["nox", "tey", "co"]), unique=True, min_size=1),
        st.floats(0.0001, 90.0),
        st.floats(0.0, 100.0),
    ),
    max_size=60,
)


@given(requests)
def test_quantiles_equal_a_sorted_list_within_a_bucket(told) -> None:
    tally, now, all_of = Tally(), 0.0, {}
    for names, seconds, later in told:
        now += later
        tally.answered(tally.rows(names), seconds, now)
        for name in names:
            all_of.setdefault(name, []).append((int(now // SLICE_S), seconds))
    found = tally.counted(now)
    assert found.keys() == all_of.keys()
    for name, seen in all_of.items():
        recent = sorted(s for number, s in seen if number > int(now // SLICE_S) - SLICES)
        assert found[name].count == len(seen)
        assert found[name].seconds == pytest.approx(sum(s for _, s in seen))
        for share, value in ((0.5, found[name].p50_s), (0.99, found[name].p99_s)):
            if recent:
                assert value == pytest.approx(recent[int(np.ceil(share * len(recent))) - 1], rel=0.11)
            else:
                assert value is None


def test_errors_are_kept_by_kind_and_names_are_bounded() -> None:
    tally = Tally()
    tally.failed(tally.rows(["nox", "tey"]), "deadline")
    tally.failed(tally.rows(["nox"]), "deadline")
    tally.failed(tally.rows(["nox"]), "unavailable")
    for k in range(0, MODELS + 500, 100):
        tally.answered(tally.rows([f"m{i}" for i in range(k, k + 100)]), 0.01, 1.0)
    found = tally.counted(1.0)
    assert found["nox"].errors == {"deadline": 2, "unavailable": 1}
    assert found["tey"].errors == {"deadline": 1}
    assert found["nox"].p50_s is None
    assert len(found) == MODELS + 1
    assert found[OTHERS].count == 4600 - (MODELS - 2)
    assert tally.rows(["m7"]).tolist() == tally.rows(["m7"]).tolist()


def test_a_pool_counts_what_it_could_not_ask_and_prometheus_is_told() -> None:
    with Pool(NOBODY, deadline_s=2.0) as pool:
        for _ in range(4):
            with pytest.raises(Unavailable):
                pool.predict('n"ox\\1', np.zeros((1, 2, 3), np.float32))
        assert pool.stats().models['n"ox\\1'].errors == {"unavailable": 4}
        endpoint = pool.stats().endpoints[NOBODY]
        assert (endpoint.used, endpoint.asked, endpoint.failed, endpoint.in_flight) == (False, 4, 4, 0)
        assert NOBODY in endpoint.trouble
        told = samples(generate_latest(registry_of(pool)).decode())
        assert told["penstock_errors_total", ("kind", "unavailable"), ("model", 'n"ox\\1')] == 4
        assert told["penstock_endpoint_used", ("endpoint", NOBODY)] == 0
        assert told["penstock_endpoint_failures_total", ("endpoint", NOBODY)] == 4


def test_metrics_are_served_on_loopback_until_the_end_and_a_taken_port_is_told() -> None:
    with Pool(NOBODY) as pool:
        pool.tally.answered(pool.tally.rows(["nox"]), 0.05, 1.0)
        with served(pool, 0) as port:
            address = f"http://127.0.0.1:{port}/metrics"
            with urllib.request.urlopen(address, timeout=10) as answer:
                told = samples(answer.read().decode())
            with pytest.raises(ServingError, match=rf"127\.0\.0\.1:{port}: .*take another port"), served(pool, port):
                pass
        assert told["penstock_requests_total", ("model", "nox")] == 1
        with pytest.raises(OSError):
            urllib.request.urlopen(address, timeout=10)


class Beside(Collector):
    """What the stream tells, for example."""

    def collect(self) -> list[Metric]:
        return [GaugeMetricFamily("penstock_overdue_seconds", "How long a tick waits.", value=3.0)]


def test_others_tell_in_the_same_answer() -> None:
    with Pool(NOBODY) as pool, served(pool, 0, beside=[Beside()]) as port:
        pool.tally.answered(pool.tally.rows(["nox"]), 0.05, 1.0)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            told = samples(answer.read().decode())
    assert told["penstock_overdue_seconds",] == 3.0
    assert told["penstock_requests_total", ("model", "nox")] == 1


def samples(text: str) -> dict[tuple, float]:
    return {
        (s.name, *sorted(s.labels.items())): s.value for f in text_string_to_metric_families(text) for s in f.samples
    }
