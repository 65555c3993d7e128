"""The pool at its bounds: deadlines, room, the next endpoint, answers that are too short, errors by the table."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import time

import numpy as np
import pytest
import tritonclient.grpc as grpc
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from penstock import errors
from penstock.serving import wire
from penstock.serving.backend.framing import pack, unpack
from penstock.serving.deploy import Deployer
from penstock.serving.pool import Pool

NOBODY = "127.0.0.1:9"


@pytest.fixture(scope="module")
def artifact(make_artifact):
    return make_artifact("pooled", seed=1)


@pytest.fixture
def deployed(deployer, artifact):
    deployer.deploy(artifact)
    return artifact


def test_the_next_endpoint_is_asked_when_one_is_away_and_remembered(triton, deployed):
    with Pool([NOBODY, triton.endpoint], deadline_s=10.0) as pool:
        assert pool.predict("pooled", deployed.golden.windows[0]).version == deployed.version
        assert pool.tick(np.array([0], np.int32), deployed.golden.windows[:1]).endpoint == triton.endpoint


def test_a_bad_request_is_not_retried_and_says_what_was_expected(triton, deployed):
    with Pool([triton.endpoint, NOBODY], deadline_s=10.0) as pool:
        with pytest.raises(errors.BadRequest, match="pooled"):
            pool.predict("pooled", deployed.golden.windows[:, :5])
        with pytest.raises(errors.BadRequest):
            pool.predict("pooled", deployed.golden.windows, version=77)
        with pytest.raises(errors.BadRequest, match="unknown admin request"):
            pool.admin({"do": "dance"})
        assert pool.predict("pooled", deployed.golden.windows, version=deployed.version).version == deployed.version


def test_a_deadline_is_kept_and_the_engine_drops_the_work(triton, deployed, pool):
    windows = np.tile(deployed.golden.windows, (6000, 1, 1))
    slots = np.zeros(len(windows), np.int32)
    before = pool.admin({"do": "health"})["dropped"]
    begun = time.monotonic()
    pool.tick(slots, windows)
    whole_s = time.monotonic() - begun
    for share in (0.8, 0.6, 0.5, 0.4, 0.3, 0.7, 0.9):  # until one ends after the request has arrived, before the answer
        with Pool(triton.endpoint, deadline_s=share * whole_s) as hasty:
            begun = time.monotonic()
            with contextlib.suppress(errors.DeadlineExceeded):  # a machine that is faster now answers in time
                hasty.tick(slots, windows)
            assert time.monotonic() - begun < share * whole_s + 5
        if pool.admin({"do": "health"})["dropped"] > before:
            break
    assert pool.admin({"do": "health"})["dropped"] > before
    assert pool.predict("pooled", deployed.golden.windows).version == deployed.version


def test_a_request_that_would_hold_up_the_others_is_refused(deployed, pool):
    with pytest.raises(errors.BadRequest, match="at most 8192: ask in pieces"):
        pool.predict("pooled", np.tile(deployed.golden.windows, (2000, 1, 1)))


def test_async_twins_and_a_bounded_queue(triton, deployed):
    async def ask(pool, n):
        return await asyncio.gather(
            *(pool.apredict("pooled", deployed.golden.windows) for _ in range(n)), return_exceptions=True
        )

    with Pool(triton.endpoint, deadline_s=10.0, in_flight=2, waiting=8) as pool:
        answers = asyncio.run(ask(pool, 40))
        tick = asyncio.run(pool.atick(np.array([0], np.int32), deployed.golden.windows[:1]))
    served = [a for a in answers if isinstance(a, wire.Prediction)]
    refused = [a for a in answers if isinstance(a, errors.Overloaded)]
    assert len(served) + len(refused) == 40
    assert len(served) >= 10
    assert refused
    assert tick.versions[0] == deployed.version


def test_a_pool_travels_by_its_addresses_and_can_be_closed_twice(triton):
    with Pool(triton.endpoint, deadline_s=7.0) as pool:
        copy = pickle.loads(pickle.dumps(pool))
    with copy:
        assert copy.limits.deadline_s == 7.0
        assert copy.admin({"do": "health"})["pid"] > 0
    copy.close()
    with pytest.raises(errors.Unavailable, match="closed"):
        copy.admin({"do": "health"})


def test_a_deploy_to_several_is_whole_or_not_at_all(triton, deployed, pool, make_artifact):
    with (
        Deployer([triton.endpoint, NOBODY]) as deployer,
        pytest.raises(errors.Unavailable, match=NOBODY.replace(".", r"\.")),
    ):
        deployer.deploy(make_artifact("pooled", seed=3))
    assert pool.predict("pooled", deployed.golden.windows).version == deployed.version
    assert [r["name"] for r in pool.admin({"do": "members"})["residents"]].count("pooled") == 1


@pytest.mark.parametrize("size", [0, 4, 12])
def test_an_output_of_the_wrong_length_is_a_bad_answer(size):
    response = service_pb2.ModelInferResponse()
    tensor = response.outputs.add(name="prediction", datatype="FP32")
    tensor.shape.extend([2, 1])
    response.raw_output_contents.append(bytes(size))
    call = wire.Call(model="nox", inputs={}, outputs=("prediction",))
    with pytest.raises(errors.BadAnswer, match=f"prediction.*{size} bytes"):
        wire.arrays_of(grpc.InferResult(response), call, "here")


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        ("StatusCode.UNAVAILABLE", "failed to connect", errors.Unavailable),
        ("StatusCode.INTERNAL", "Stub process 'engine_0_0' is not healthy.", errors.Unavailable),
        ("StatusCode.DEADLINE_EXCEEDED", "Deadline Exceeded", errors.DeadlineExceeded),
        ("StatusCode.CANCELLED", "cancelled", errors.DeadlineExceeded),
        ("StatusCode.RESOURCE_EXHAUSTED", "too large", errors.Overloaded),
        ("StatusCode.INVALID_ARGUMENT", "unexpected shape", errors.BadRequest),
        ("StatusCode.NOT_FOUND", "unknown model", errors.BadRequest),
        ("StatusCode.INTERNAL", "something else", errors.ServingError),
        (None, "no status at all", errors.ServingError),
    ],
)
def test_foreign_errors_are_translated_by_the_table(status, message, expected):
    error = wire.translate(InferenceServerException(message, status=status), "here:1", "nox")
    assert type(error) is expected
    assert "here:1: nox" in str(error)
    assert message in str(error)


json_values = st.dictionaries(st.text().filter(lambda k: k != "parts"), st.integers() | st.text() | st.none())


@given(header=json_values, parts=st.dictionaries(st.text(), st.binary()))
def test_a_frame_comes_back_as_it_went(header, parts):
    assert unpack(pack(header, parts)) == (header, parts)


@given(parts=st.dictionaries(st.text(), st.binary()), data=st.data())
def test_a_damaged_or_cut_frame_is_noticed(parts, data):
    frame = pack({"do": "write"}, parts)
    at = data.draw(st.integers(0, len(frame) - 1))
    flipped = bytes([frame[at] ^ data.draw(st.integers(1, 255))])
    for broken in (frame[:at], frame[:at] + flipped + frame[at + 1 :]):
        with pytest.raises(ValueError, match="frame"):
            unpack(broken)
