"""Members in processes of their own, on the real Triton: they may hang or die, and only they go without an answer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from ready_made import (
    EXIT,
    HANG,
    NOTHING,
    RAISE,
    WINDOWS,
    callable_artifact,
    formula,
    linear,
    moody,
    onnx_file,
    pickled,
    save,
    window,
)

from penstock.data.challengers import as_challenger
from penstock.data.models import Draft, ModelStore
from penstock.data.scoring import Ask
from penstock.errors import Refused, ServingError
from penstock.serving.backend import isolated
from penstock.serving.backend.child import Child, Down, Failed, Guest
from penstock.serving.backend.host import Stopped
from penstock.serving.backend.isolated import CALL_S, Isolated
from penstock.serving.score import Score
from penstock.serving.triton import Triton

FAILED = -3
BACK_S = 60.0
"""A busy machine's time to start a process again."""


def guests(engine: int) -> list[int]:
    """Living processes of isolated members below the engine."""
    below = psutil.Process(engine).children(recursive=True)
    return [p.pid for p in below if p.status() != psutil.STATUS_ZOMBIE and "guest" in " ".join(p.cmdline())]


def ended(pids: list[int], within_s: float = 20.0) -> bool:
    until = time.monotonic() + within_s
    while any(psutil.pid_exists(p) and psutil.Process(p).status() != psutil.STATUS_ZOMBIE for p in pids):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def log(triton) -> str:
    return (triton.folder / "triton.log").read_text()


def answered(pool, slot, rows, within_s=BACK_S):
    """The first answer of a slot that is none of -3; it comes back by itself."""
    until = time.monotonic() + within_s
    while (answer := pool.tick(np.array([slot], np.int32), [rows])).versions[0] == FAILED:
        assert time.monotonic() < until, pool.admin({"do": "health"})["waiting"]
        time.sleep(0.1)
    return answer


def test_every_kind_answers_in_one_tick_as_the_model_itself_does(deployer, pool, make_artifact, make_solo, tmp_path):
    ours, solo = make_artifact("ours", seed=1), make_solo("gru")
    alone = ModelStore(tmp_path).save(
        Draft(name="gru_alone", kind="solo", card={**solo.card, "isolate": True}, golden=solo.golden,
              saved_model=solo.saved_model)
    )  # fmt: skip
    made = [
        (callable_artifact(tmp_path, "formula", formula), WINDOWS[4], formula(WINDOWS)[4]),
        (save(tmp_path, "onnx", "onnx", onnx_file(), linear(WINDOWS)), WINDOWS[5], linear(WINDOWS)[5]),
        (save(tmp_path, "two", "onnx", onnx_file(batch=2), linear(WINDOWS)), WINDOWS[6], linear(WINDOWS)[6]),
        (alone, solo.golden.windows[1], solo.golden.predictions[1]),
        (ours, ours.golden.windows[0], ours.golden.predictions[0]),
    ]
    slots = [deployer.deploy(artifact).slots[0] for artifact, _, _ in made]
    answer = pool.tick(np.array(slots, np.int32), [rows for _, rows, _ in made])
    for (artifact, _, wanted), said in zip(made, answer.values, strict=True):
        assert np.abs(said - wanted).max() <= 1e-5 * artifact.golden.scale.min(), artifact.name
    assert answer.versions.tolist() == [artifact.version for artifact, _, _ in made]
    many = np.tile(WINDOWS, (30, 1, 1))
    assert np.abs(pool.predict("two", many).values - linear(many)).max() <= 1e-5 * linear(WINDOWS).std()
    assert len(guests(pool.admin({"do": "health"})["pid"])) == 4


@pytest.mark.parametrize("mood", [HANG, EXIT])
def test_one_that_hangs_or_dies_costs_its_own_answer_alone_and_comes_back(
    deployer, pool, make_artifact, tmp_path, mood
):
    """
    tick   |  moody    steady   ours
    mood   |   -3        1        1      killed, started anew
    next   |   -3        1        1      at once, while it is down
    later  |    1        1        1
    """
    ours = make_artifact("ours", seed=1)
    slots = [
        deployer.deploy(a).slots[0]
        for a in (callable_artifact(tmp_path, "moody"), callable_artifact(tmp_path, "steady"), ours)
    ]
    rows = [WINDOWS[1], ours.golden.windows[0]]
    before = guests(pool.admin({"do": "health"})["pid"])
    answer = pool.tick(np.array(slots, np.int32), [window(mood), *rows])
    assert (answer.versions < 0).tolist() == [True, False, False]
    assert answer.versions[0] == FAILED
    assert abs(answer.values[1][0] - formula(WINDOWS)[1]) <= 1e-5
    assert abs(answer.values[2] - ours.golden.predictions[0]).max() <= 1e-5 * ours.golden.scale.min()
    answer = pool.tick(np.array(slots, np.int32), [WINDOWS[0], *rows])
    assert answer.versions[1:].tolist() == [1, ours.version]
    back = answered(pool, slots[0], WINDOWS[0])
    assert abs(back.values[0][0] - formula(WINDOWS)[0]) <= 1e-5
    health = pool.admin({"do": "health"})
    assert health["waiting"] == {}
    assert len(set(before) & set(guests(health["pid"]))) == 1, "the other one's process was left alone"


@pytest.mark.parametrize(("mood", "why"), [(RAISE, "no such window"), (NOTHING, "not finite")])
def test_one_that_raises_or_says_no_number_keeps_its_process(deployer, pool, triton, tmp_path, mood, why):
    slot = deployer.deploy(callable_artifact(tmp_path, "moody")).slots[0]
    before = guests(pool.admin({"do": "health"})["pid"])
    answer = pool.tick(np.array([slot, slot], np.int32), [window(mood), WINDOWS[0]])
    assert answer.versions.tolist() == [FAILED, FAILED], "the windows of one request stand or fall together"
    with pytest.raises(ServingError, match=why):
        pool.predict("moody", window(mood)[np.newaxis])
    assert pool.predict("moody", WINDOWS).version == 1
    assert guests(pool.admin({"do": "health"})["pid"]) == before
    assert (
        f"moody@1: {'ArithmeticError' if mood == RAISE else 'gives values'}"
        in (triton.folder / "triton.log").read_text()
    )


def test_isolated_members_work_at_the_same_time(deployer, pool, tmp_path):
    """Each of the two waits in its call until the other one is in its own."""

    def meeting(me: str, other: str):
        def predict(windows):
            if HANG in windows[:, 0, 0]:
                (tmp_path / me).touch()
                until = time.monotonic() + CALL_S
                while not (tmp_path / other).exists() and time.monotonic() < until:
                    time.sleep(0.001)
            return formula(windows)

        return predict

    slots = [
        deployer.deploy(callable_artifact(tmp_path / "models", me, meeting(me, other))).slots[0]
        for me, other in (("left", "right"), ("right", "left"))
    ]
    for _ in range(3):  # a busy machine may let one of them wait too long once
        answer = pool.tick(np.array(slots, np.int32), [window(HANG)] * 2)
        if (answer.versions == 1).all():
            return
        for slot in slots:
            answered(pool, slot, WINDOWS[0])
        for file in (tmp_path / "left", tmp_path / "right"):
            file.unlink(missing_ok=True)
    pytest.fail(f"one of them waited for the other: {answer.versions}")


def test_a_refusal_leaves_the_version_before_and_no_process(deployer, pool, tmp_path):
    good = callable_artifact(tmp_path, "r", formula)
    deployer.deploy(good)
    engine = pool.admin({"do": "health"})["pid"]
    before = guests(engine)
    golden = formula(WINDOWS)
    for program, said, why in [
        (pickled(formula), golden + 1, "differ from Keras, or from what the model said before"),
        (pickled(lambda w: w[:, 0]), golden, r"gives \(9, 3\)"),
        (pickled(lambda w: os._exit(3)), golden, "ended with code 3"),
        (b"no pickle", golden, "UnpicklingError"),
        (pickled(lambda w: time.sleep(CALL_S * 1.5) or formula(w)), golden, "one window takes"),
    ]:
        with pytest.raises(Refused, match=why):
            deployer.deploy(save(tmp_path, "r", "callable", program, said))
    said = pool.predict("r", WINDOWS)
    assert said.version == good.version
    assert np.abs(said.values[:, 0] - golden).max() <= 1e-5
    assert guests(engine) == before


def test_twenty_deploys_leave_one_process_and_an_undeploy_none(deployer, pool, tmp_path):
    artifacts = [callable_artifact(tmp_path, "again", formula) for _ in range(2)]
    engine = pool.admin({"do": "health"})["pid"]
    assert guests(engine) == []
    for i in range(20):
        deployer.deploy(artifacts[i % 2])
    (last,) = guests(engine)
    deployer.undeploy("again")
    assert ended([last])
    assert guests(engine) == []
    assert pool.admin({"do": "health"})["pid"] == engine


def test_the_process_dies_with_the_engine_and_comes_back_with_it(triton, deployer, pool, make_artifact, tmp_path):
    deployer.deploy(make_artifact("ours", seed=1))
    slot = deployer.deploy(callable_artifact(tmp_path, "moody")).slots[0]
    engine = triton.canary().pid
    (guest,) = guests(engine)
    os.kill(engine, signal.SIGKILL)
    assert ended([guest])
    until = time.monotonic() + BACK_S
    while psutil.pid_exists(guest):  # the keeper takes it off the table of processes
        assert time.monotonic() < until
        time.sleep(0.05)
    assert triton.repair().pid != engine
    assert answered(pool, slot, WINDOWS[2]).versions.tolist() == [1]
    (guest,) = guests(triton.canary().pid)
    server = Triton.running(triton.folder)
    assert server is not None
    os.kill(server.server, signal.SIGKILL)  # its orphans come to the keeper, which sweeps them
    assert ended([guest])
    triton.restart()
    assert answered(pool, slot, WINDOWS[2]).versions.tolist() == [1]
    assert np.abs(pool.predict("moody", WINDOWS).values[:, 0] - formula(WINDOWS)).max() <= 1e-5


def test_a_member_that_is_down_is_no_reason_to_mend_the_server(triton, deployer, pool, tmp_path):
    slot = deployer.deploy(callable_artifact(tmp_path, "moody")).slots[0]
    pool.tick(np.array([slot], np.int32), [window(EXIT)])
    healthy = triton.canary()
    assert healthy.checked == "", "nothing inside the engine's own process is there to be checked"
    assert healthy.members == 1


ORPHANED = """
import sys, time
from pathlib import Path
import numpy as np
from penstock.serving.backend.child import Child, Guest

child = Child(Guest("m@1", "callable", Path(sys.argv[1]).read_bytes()), Path(sys.argv[1]).parent)
child.open(time.monotonic() + 60)
child.ask(np.load(sys.argv[2]), time.monotonic() + 60)
print(child.pid, flush=True)
time.sleep(600)
"""


def test_a_process_that_hangs_dies_with_its_killed_owner(tmp_path):
    (tmp_path / "m.pkl").write_bytes(pickled(moody))
    np.save(tmp_path / "x.npy", window(HANG)[np.newaxis])
    order = [sys.executable, "-c", ORPHANED, str(tmp_path / "m.pkl"), str(tmp_path / "x.npy")]
    with subprocess.Popen(order, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        child = int(owner.stdout.readline())
        assert psutil.pid_exists(child)
        owner.kill()
    assert ended([child])


def started(tmp_path: Path, predict=moody) -> Isolated:
    host = Isolated(Guest("m@1", "callable", pickled(predict)), tmp_path, 1, lambda said: "", WINDOWS)
    assert host.wait(BACK_S) == ""
    return host


def test_many_windows_go_in_pieces_and_one_who_has_gone_gets_no_answer_of_the_next(tmp_path):
    host = started(tmp_path)
    try:
        many = np.tile(WINDOWS, (20, 1, 1))
        assert np.abs(host.run_one(0, many, lambda: False)[:, 0] - formula(many)).max() <= 1e-5
        with pytest.raises(Stopped):
            host.run_one(0, many, lambda: True)
        host.begin(WINDOWS[:2])  # nobody collects it
        said = host.run_one(0, WINDOWS[5:6], lambda: False)
        assert said.shape == (1, 1)
        assert abs(said[0, 0] - formula(WINDOWS)[5]) <= 1e-5
    finally:
        host.drop(0)
    with pytest.raises(Down, match="was withdrawn"):
        host.begin(WINDOWS)


def test_starts_in_a_row_wait_longer_each_time(tmp_path, caplog):
    begun = time.monotonic()
    host = Isolated(Guest("m@1", "callable", pickled(lambda w: os._exit(9))), tmp_path, 1, lambda said: "", WINDOWS)
    try:
        assert "ended with code 9" in host.wait(BACK_S)
        until = begun + BACK_S
        while len(caplog.records) < 3 and time.monotonic() < until:
            time.sleep(0.05)
        first, second, third = (record.created for record in caplog.records[:3])
        assert second - first >= isolated.BACKOFF_S[0]
        assert third - second >= 2 * isolated.BACKOFF_S[0]
    finally:
        host.drop(0)


def test_a_process_that_is_killed_while_idle_is_replaced_before_anybody_asks(tmp_path):
    host = started(tmp_path)
    try:
        up = host._up
        assert up is not None
        os.kill(up.pid, signal.SIGKILL)
        until = time.monotonic() + BACK_S
        while host._up is up or host.trouble:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert len(host.run_one(0, WINDOWS, lambda: False)) == len(WINDOWS)
    finally:
        host.drop(0)


@pytest.mark.parametrize(
    ("kind", "program", "why"),
    [("onnx", b"no graph", "InvalidProtobuf"), ("callable", b"", "EOFError"), ("other", b"", "no process can be made")],
)
def test_what_cannot_be_opened_is_told(tmp_path, kind, program, why):
    child = Child(Guest("m@1", kind, program), tmp_path)
    try:
        with pytest.raises(Failed, match=why):
            child.open(time.monotonic() + BACK_S)
    finally:
        child.close()
    assert not child.alive()


def test_a_challenger_of_any_form_dies_alone(triton, deployer, pool, make_artifact, make_solo):
    """Its card does not ask for a process of its own: as a challenger it has one."""
    champion, challenger = make_artifact("nox", seed=1), as_challenger(make_solo("nox"))
    engine, windows = triton.canary().pid, champion.golden.windows
    deployer.deploy(champion)
    before = set(guests(engine))
    deployer.deploy(challenger)
    (own,) = set(guests(engine)) - before
    score = Score(pool)
    members = score.members()
    assert [member.name for member in members] == ["nox", "nox#challenger"]
    asks = [Ask(member=member, windows=windows) for member in members]
    assert [said.version for said in score.score(asks)] == [champion.version, challenger.version]
    os.kill(own, signal.SIGKILL)
    answered, silent = score.score(asks)
    assert (answered.version, silent.version) == (champion.version, -1)
    np.testing.assert_allclose(answered.values, champion.golden.predictions, atol=1e-4)
