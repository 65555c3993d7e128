"""Fifty deploys and roll-backs while two clients ask: one process, no failure, every answer one version's."""

from __future__ import annotations

import threading
import time

import numpy as np

from penstock.data.scoring import Ask
from penstock.errors import PenstockError
from penstock.serving.deploy import Deployer
from penstock.serving.pool import Pool
from penstock.serving.score import Score

DEPLOYS = 50


class Client(threading.Thread):
    """Asks without pause; keeps what was said and what failed."""

    def __init__(self, ask):
        super().__init__(daemon=True)
        self.ask, self.said, self.failed, self.stop = ask, [], [], threading.Event()

    def run(self):
        while not self.stop.is_set():
            try:
                self.said.append(self.ask())
            except PenstockError as error:
                self.failed.append(error)
            time.sleep(0.002)


def test_fifty_deploys_and_roll_backs_under_load(triton, deployer, make_artifact):
    versions = {a.version: a for a in (make_artifact("busy", seed=1), make_artifact("busy", seed=2))}
    windows = versions[1].golden.windows
    expected = {1: versions[1].golden.predictions}
    deployer.deploy(versions[2])
    with (
        Pool(triton.endpoint, deadline_s=5.0) as by_name,
        Pool(triton.endpoint, deadline_s=5.0) as by_tick,
        Deployer(triton.endpoint, drain_s=0.1) as deploys,
    ):
        expected[2] = by_name.predict("busy", windows).values
        assert np.abs(expected[1] - expected[2]).max() > 0.1
        score = Score(by_tick)
        pid = triton.canary().pid
        clients = [
            Client(lambda: by_name.predict("busy", windows)),
            Client(lambda: score.score([Ask(member=m, windows=windows) for m in score.members()])[0]),
        ]
        for client in clients:
            client.start()
        for i in range(DEPLOYS):
            deploys.deploy(versions[1 + i % 2])
        for client in clients:
            client.stop.set()
            client.join(10)
        assert triton.canary().pid == pid
    for client in clients:
        assert client.failed == []
        assert len(client.said) > DEPLOYS
        assert {s.version for s in client.said} == {1, 2}
        for said in client.said:
            assert np.abs(said.values - expected[said.version]).max() <= 2e-5 * versions[1].golden.scale[0]
