"""200 deploys and roll-backs in random order while clients ask without pause: one process, no failure, no mixture."""

from __future__ import annotations

import threading

import numpy as np

from penstock.data.scoring import Ask
from penstock.errors import PenstockError
from penstock.serving.deploy import Deployer
from penstock.serving.pool import Pool
from penstock.serving.score import Score

DEPLOYS = 200
NAMES = ("busy", "kiln", "mill", "stack")
VERSIONS = 3


class Client(threading.Thread):
    """Asks without pause; keeps what was said and what failed."""

    def __init__(self, ask):
        super().__init__(daemon=True)
        self.ask, self.said, self.failed, self.stop = ask, [], [], threading.Event()

    def run(self):
        while not self.stop.is_set():
            try:
                self.said += self.ask()
            except PenstockError as error:
                self.failed.append(error)


def test_deploys_and_roll_backs_in_random_order_under_load(triton, deployer, make_artifact):
    versions = {name: [make_artifact(name, seed=10 * k + v) for v in range(VERSIONS)] for k, name in enumerate(NAMES)}
    windows = versions["busy"][0].golden.windows
    expected = {}
    with (
        Pool(triton.endpoint, deadline_s=5.0) as by_name,
        Pool(triton.endpoint, deadline_s=5.0) as by_tick,
        Deployer(triton.endpoint, drain_s=0.02) as deploys,
    ):
        for name, artifacts in versions.items():
            for artifact in artifacts:
                deploys.deploy(artifact)
                expected[name, artifact.version] = by_name.predict(name, windows).values
        score = Score(by_tick)
        order = np.random.default_rng(4)

        def alias():
            name = NAMES[order.integers(len(NAMES))]
            return [(name, by_name.predict(name, windows))]

        def tick():
            members = score.members()
            said = score.score([Ask(member=m, windows=windows) for m in members])
            return [(m.name, s) for m, s in zip(members, said, strict=True)]

        pid = triton.canary().pid
        clients = [Client(alias), Client(tick)]
        for client in clients:
            client.start()
        choice = np.random.default_rng(5)
        for _ in range(DEPLOYS):
            deploys.deploy(versions[NAMES[choice.integers(len(NAMES))]][choice.integers(VERSIONS)])
        for client in clients:
            client.stop.set()
            client.join(10)
        assert triton.canary().pid == pid
    for client in clients:
        assert client.failed == []
        assert len(client.said) > DEPLOYS
        assert {name for name, _ in client.said} == set(NAMES)
        assert {said.version for _, said in client.said} == set(range(1, VERSIONS + 1))
        for name, said in client.said:
            # Two versions of one model, or two models, differ by far more than that.
            assert np.abs(said.values - expected[name, said.version]).max() <= 1e-4
    apart = [np.abs(a - b).max() for n, a in expected.items() for m, b in expected.items() if n != m]
    assert min(apart) > 0.1
