"""Two real Tritons behind one pool: requests spread, one killed, hung or emptied, and nobody who asks notices.

callers ── pool ─┬─ A   slots: only-a, nox, tey
                 └─ B   slots: nox, tey             a slot of A means nothing to B
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from ready_made import RAISE, callable_artifact, formula, moody, window

from penstock.data.models import Artifact
from penstock.data.scoring import Ask
from penstock.errors import PenstockError, Unavailable
from penstock.serving.bundle import Bundle
from penstock.serving.deploy import Deployer
from penstock.serving.pool import Pool
from penstock.serving.score import Score
from penstock.serving.streaming import Stream
from penstock.serving.tending import begin, complete, tended
from penstock.serving.triton import Triton, free_port

DEADLINE_S = 15.0
"""Of a call: the machine is shared with others."""


@dataclass
class Two:
    a: Triton
    b: Triton
    models: dict[str, Artifact]
    """On both."""
    only_a: Artifact

    @property
    def endpoints(self) -> list[str]:
        return [self.a.endpoint, self.b.endpoint]

    def artifact(self, name: str, version: int) -> Artifact:
        assert self.models[name].version == version
        return self.models[name]

    def wanted(self) -> dict[str, int]:
        return {name: model.version for name, model in self.models.items()}


@pytest.fixture(scope="module")
def servers(tmp_path_factory) -> Iterator[list[Triton]]:
    """A and B; who takes one away puts another one in its place."""
    folder = tmp_path_factory.mktemp("two")
    with Triton.start(folder / "a", capacity=8) as a, Triton.start(folder / "b", capacity=8) as b:
        servers = [a, b]
        yield servers
        for server in servers:
            server.stop()


@pytest.fixture
def two(servers, make_artifact) -> Iterator[Two]:
    a, b = servers
    models = {name: make_artifact(name, seed=seed) for seed, name in enumerate(("nox", "tey"))}
    only_a = make_artifact("only-a", seed=9)
    with Deployer(a.endpoint, drain_s=0.1) as to_a:
        to_a.deploy(only_a)  # whatever comes behind it has other slots than on B
    with Deployer([a.endpoint, b.endpoint], drain_s=0.1) as deployer:
        for model in models.values():
            assert len(set(deployer.deploy(model).slots)) == 2
        yield Two(a, b, models, only_a)
    for server in servers:
        if not server.alive():
            server.restart()
        with Deployer(server.endpoint, drain_s=0.1) as deployer:
            deployer.ensure([])


@dataclass
class Caller(threading.Thread):
    """Asks without pause, by name and by tick in turn; keeps what failed and what was wrong."""

    two: Two
    pool: Pool
    done: int = 0
    failed: list[PenstockError] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)
        self.stop = threading.Event()
        self.score = Score(self.pool)

    __hash__ = threading.Thread.__hash__

    def run(self) -> None:
        while not self.stop.is_set():
            try:
                self.check(self.by_name() if self.done % 2 else self.by_tick())
            except PenstockError as error:
                self.failed.append(error)
            self.done += 1
            time.sleep(0.002)

    def by_name(self) -> dict[str, tuple[int, np.ndarray]]:
        said = {n: self.pool.predict(n, m.golden.windows) for n, m in self.two.models.items()}
        return {n: (s.version, s.values) for n, s in said.items()}

    def by_tick(self) -> dict[str, tuple[int, np.ndarray]]:
        members = [m for m in self.score.members() if m.name in self.two.models]
        said = self.score.score([Ask(member=m, windows=self.two.models[m.name].golden.windows) for m in members])
        return {m.name: (s.version, s.values) for m, s in zip(members, said, strict=True)}

    def check(self, said: dict[str, tuple[int, np.ndarray]]) -> None:
        for name, model in self.two.models.items():
            version, values = said.get(name, (-1, np.empty(0)))
            if version != model.version or not right(values, model):
                self.wrong.append(f"{name}@{version}: {values}")

    def more(self, calls: int, deadline_s: float = 60.0) -> None:
        """Wait until so many further calls have ended."""
        goal = self.done + calls
        wait_for(lambda: self.done >= goal, deadline_s)


def right(values: np.ndarray, model: Artifact) -> bool:
    golden = model.golden
    return values.shape == golden.predictions.shape and bool(
        (np.abs(values - golden.predictions) <= 1e-5 * golden.scale).all()
    )


def wait_for(what, deadline_s: float = 60.0) -> None:
    until = time.monotonic() + deadline_s
    while not what():
        assert time.monotonic() < until, "it did not come about in time"
        time.sleep(0.02)


@pytest.fixture
def load(two: Two) -> Iterator[list[Caller]]:
    with Pool(two.endpoints, deadline_s=DEADLINE_S) as pool:
        callers = [Caller(two, pool) for _ in range(3)]
        for caller in callers:
            caller.start()
        yield callers
        for caller in callers:
            caller.stop.set()
            caller.join(30)


def asked(caller: Caller, endpoint: str) -> int:
    return caller.pool.stats().endpoints[endpoint].asked


def unharmed(callers: list[Caller]) -> None:
    for caller in callers:
        assert caller.failed == []
        assert caller.wrong == []


def test_requests_are_spread_and_every_answer_is_the_right_members(two, load) -> None:
    for caller in load:
        caller.more(100)
    stats = load[0].pool.stats()
    assert min(e.asked for e in stats.endpoints.values()) > 30
    assert {name: told.errors for name, told in stats.models.items()} == {"nox": {}, "tey": {}}
    assert stats.models["nox"].count > 200
    unharmed(load)


def test_a_server_is_killed_under_load_and_comes_back(two, load) -> None:
    """
    A ──────── kill -9 ┊   away   ┊ restarted ── asked again
    B ──────────────────────────────────────────────────────
    """
    for caller in load:
        caller.more(20)
    os.kill(Triton.running(two.a.folder).server, signal.SIGKILL)
    for caller in load:
        caller.more(100)
    wait_for(lambda: not load[0].pool.stats().endpoints[two.a.endpoint].used)
    unharmed(load)
    two.a.restart()
    before = asked(load[0], two.a.endpoint)
    wait_for(lambda: asked(load[0], two.a.endpoint) > before + 100)
    assert load[0].pool.stats().endpoints[two.a.endpoint].used
    unharmed(load)


def test_a_server_that_hangs_costs_no_call(two, load) -> None:
    pid = Triton.running(two.b.folder).server
    for caller in load:
        caller.more(20)
    os.kill(pid, signal.SIGSTOP)
    try:
        for caller in load:
            caller.more(6, deadline_s=120.0)
        unharmed(load)
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for(lambda: load[0].pool.stats().endpoints[two.b.endpoint].used)
    unharmed(load)


def test_a_stream_whose_server_hangs_is_answered_by_the_other(two) -> None:
    slots = {}
    for endpoint in two.endpoints:
        with Deployer(endpoint) as there:
            slots[endpoint] = np.array([m.slot for m in there.members() if m.name == "nox"], np.int32)
    random = np.random.default_rng(6)
    with Pool(two.endpoints, deadline_s=2.0) as pool:
        stream, past = Stream(pool), random.normal(20, 5, (1, 30, 3)).astype(np.float32)
        asked = [Bundle.of(past[:, k : k + 12].copy()) for k in range(5)]
        first = [stream.tick(["nox"], slots, bundle).endpoint for bundle in asked[:3]]
        hung = two.a if first[-1] == two.a.endpoint else two.b
        pid = Triton.running(hung.folder).server
        os.kill(pid, signal.SIGSTOP)
        try:
            said = [stream.tick(["nox"], slots, bundle) for bundle in asked[3:]]
        finally:
            os.kill(pid, signal.SIGCONT)
        assert {s.endpoint for s in said} == set(two.endpoints) - {hung.endpoint}
        assert all(s.versions[0] > 0 for s in said)


@contextmanager
def without_a(servers: list[Triton]) -> Iterator[int]:
    """The port of A, which has ended for good; afterwards it is there again with what it had."""
    folder, port = servers[0].folder, int(servers[0].endpoint.rpartition(":")[2])
    servers[0].stop()
    try:
        yield port
    finally:
        servers[0] = Triton.start(folder, capacity=8, ports=[port])


def test_a_server_that_comes_back_empty_is_given_its_models_and_is_asked_again(
    servers, two, load, tmp_path: Path
) -> None:
    for caller in load:
        caller.more(20)
    with (
        without_a(servers) as port,
        tended(two.endpoints, two.wanted, two.artifact, every_s=0.2),
        Triton.start(tmp_path / "empty", capacity=8, ports=[port]) as empty,
    ):
        assert empty.endpoint == two.a.endpoint
        with Deployer(empty.endpoint) as there:
            wait_for(lambda: {m.name for m in there.members()} == {"nox", "tey"})
        before = asked(load[0], empty.endpoint)
        wait_for(lambda: asked(load[0], empty.endpoint) > before + 100)
        unharmed(load)


def test_an_undeployed_or_new_model_is_seen_at_the_next_tick_on_both(two, make_artifact) -> None:
    with Pool(two.endpoints, deadline_s=DEADLINE_S) as pool, Deployer(two.endpoints, drain_s=0.1) as deployer:
        score = Score(pool)
        assert [m.name for m in score.members()] == ["nox", "only-a", "tey"]
        new = make_artifact("co", seed=4)
        deployer.deploy(new)
        windows = two.models["nox"].golden.windows
        nox = score.members()[0]
        score.score([Ask(member=nox, windows=windows)])  # this answer tells that something moved
        co = next(m for m in score.members() if m.name == "co")
        (said,) = score.score([Ask(member=co, windows=new.golden.windows)])
        assert right(said.values, new)
        deployer.undeploy("co")
        (said,) = score.score([Ask(member=co, windows=new.golden.windows)])
        assert said.version == -1
        wait_for(lambda: score.score([Ask(member=nox, windows=windows)]) and len(score.members()) == 3)


def test_what_only_one_server_has_is_asked_there(two) -> None:
    with Pool(two.endpoints[::-1], deadline_s=DEADLINE_S) as pool:
        score = Score(pool)
        member = next(m for m in score.members() if m.name == "only-a")
        nox = next(m for m in score.members() if m.name == "nox")
        for _ in range(3):
            asks = [
                Ask(member=member, windows=two.only_a.golden.windows),
                Ask(member=nox, windows=two.models["nox"].golden.windows),
            ]
            only, other = score.score(asks)
            assert right(only.values, two.only_a)
            assert right(other.values, two.models["nox"])
        said = pool.predict("only-a", two.only_a.golden.windows)  # B answers that it knows no such model: A is asked
        assert right(said.values, two.only_a)


def test_a_model_that_raises_at_one_is_asked_at_the_other(two, tmp_path) -> None:
    """Its own process may be down at one server only; here it is another function of the same name and version."""
    at_a = callable_artifact(tmp_path / "a", "moody", moody)
    at_b = callable_artifact(tmp_path / "b", "moody", formula)
    for endpoint, artifact in ((two.a.endpoint, at_a), (two.b.endpoint, at_b)):
        with Deployer(endpoint, drain_s=0.1) as deployer:
            deployer.deploy(artifact)
    with Pool([two.b.endpoint, two.a.endpoint], deadline_s=DEADLINE_S) as pool:
        score = Score(pool)
        members = {m.name: m for m in score.members()}  # A is asked last, so that the tick goes there
        before = pool.stats().endpoints
        windows = window(RAISE)[None]
        asks = [
            Ask(member=members["moody"], windows=windows),
            Ask(member=members["nox"], windows=two.models["nox"].golden.windows),
        ]
        told, other = score.score(asks)
        after = pool.stats().endpoints
    assert np.abs(told.values[0] - formula(windows)).max() < 1e-3
    assert right(other.values, two.models["nox"])
    asked_more = {e: after[e].asked - before[e].asked for e in two.endpoints}
    assert asked_more[two.a.endpoint] == 1
    assert asked_more[two.b.endpoint] >= 1  # and a look beside it, as `only-a` is not there


def test_nothing_changes_while_one_is_away(two, make_artifact) -> None:
    away = f"127.0.0.1:{free_port()}"
    with (
        Deployer([two.a.endpoint, away], drain_s=0.1) as deployer,
        Pool(two.a.endpoint, deadline_s=DEADLINE_S) as pool,
    ):
        generation = pool.admin({"do": "health"})["generation"]
        with pytest.raises(Unavailable, match=rf"nox@\d+ is not deployed: {away}.*every endpoint or to none: start"):
            deployer.deploy(make_artifact("nox", seed=7))
        with pytest.raises(Unavailable, match=rf"nox stays deployed: {away}"):
            deployer.undeploy("nox")
        assert pool.admin({"do": "health"})["generation"] == generation
        assert right(pool.predict("nox", two.models["nox"].golden.windows).values, two.models["nox"])


def test_a_stream_begins_on_what_is_there(two) -> None:
    away = f"127.0.0.1:{free_port()}"
    assert begin([two.b.endpoint, away], list(two.models.values())) == [away]
    with pytest.raises(Unavailable, match=away):
        begin([away], list(two.models.values()))
    assert complete(two.b.endpoint, two.wanted(), two.artifact) == []
