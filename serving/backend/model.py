"""The engine: the one process inside Triton that executes every model.

Three kinds of request (docs/architecture.md, "Triton"): alias, tick, admin.
Requests run one after the other on Triton's thread; whatever takes long -
loading, compiling, checking - runs on one worker thread as a job that the
deployer polls, so that no tick waits for a deploy. Runs inside Triton, imports
nothing of penstock.

With numpy 2, `pb_utils.Tensor(name, array)` silently sends no bytes: every
output goes out through TensorFlow's dlpack, every input is copied on arrival.
"""

from __future__ import annotations

import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from .bank import Banks
from .framing import unpack
from .golden import Refusal
from .host import Stopped, seldom
from .slots import Slots
from .streamed import Streamed
from .tick import answer_tick
from .tuner import Tuner
from .view import Resident, View

SIDE = 64
"""Slots of a row of names: see `serving/repository.py`."""
CLAIM_S = 120.0
"""A deploy that has not settled by then has lost its claim on the name."""
JOBS_KEPT = 256
ALIAS_WINDOWS = 8192
"""Most windows in one alias request: an ensemble does not tell its steps that the caller has gone,
so this bounds for how long one request can hold up the others."""


class TritonPythonModel:
    """What Triton's python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the settings from config.pbtxt and the slots from the state folder."""
        tf.config.threading.set_inter_op_parallelism_threads(2)
        parameters = json.loads(args["model_config"])["parameters"]
        settings = {k: v["string_value"] for k, v in parameters.items()}
        self.slots = Slots(Path(settings["state"]), Path(args["model_repository"]).parent, int(settings["capacity"]))
        self.banks = Banks()
        self.worker = ThreadPoolExecutor(1, "deploys")
        self.tuner = Tuner(self.slots, self.worker)
        self.jobs: dict[int, dict[str, Any]] = {}
        self.claims: dict[str, tuple[str, float]] = {}
        self.lock = threading.Lock()
        self.dropped = 0

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response per request; an error answers its own request only."""
        return [self._respond(request) for request in requests]

    def finalize(self) -> None:
        """Let a running deploy end; the rest are dropped, and so are the processes of isolated members."""
        self.tuner.close()
        self.worker.shutdown(wait=True, cancel_futures=True)
        self.slots.close()

    def _respond(self, request: Any) -> Any:
        codes = pb_utils.TritonError
        try:
            return pb_utils.InferenceResponse(self._answer(request))
        except Stopped:
            self.dropped += 1
            error = codes("the caller has gone", codes.CANCELLED)
        except (Refusal, ValueError, KeyError, IndexError) as wrong:
            error = codes(f"engine: {wrong}", codes.INVALID_ARG)
        except Exception as failure:  # the process serves every model: it must outlive one request
            error = codes(f"engine: {type(failure).__name__}: {failure}", codes.INTERNAL)
        return pb_utils.InferenceResponse(error=error)

    def _answer(self, request: Any) -> list[Any]:
        given = {t.name(): t for t in request.inputs()}
        if "admin" in given:
            answer = self._admin(_array(given["admin"]).tobytes())
            return [_tensor("answer", np.frombuffer(json.dumps(answer).encode(), np.uint8))]
        view = self.slots.view
        if "entries" in given:
            return self._tick(view, given, request)
        return self._alias(view, given, request)

    def _tick(self, view: View, given: dict[str, Any], request: Any) -> list[Any]:
        """``entries``, ``rows`` and of a stream ``stream`` -> ``values``, ``told`` and ``generation``."""
        if request.is_cancelled():  # it waited in vain: asked at once, as a whole fleet's tick costs milliseconds
            raise Stopped
        entries = _array(given["entries"])
        slots, shapes, ticks = entries[:, 0], entries[:, 1:3], entries[:, 3]
        self.slots.used_at[slots[(slots >= 0) & (slots < self.slots.capacity)]] = time.monotonic()
        streamed = None
        if "stream" in given:
            streamed = Streamed(ticks, self.banks.of(int(_array(given["stream"])[0]), view.hosts))
        rows = np.from_dlpack(given["rows"])
        answer = answer_tick(view, slots, shapes, rows, seldom(request.is_cancelled), streamed)
        told = np.stack([answer.widths, answer.versions, answer.members, answer.kept], axis=1)
        generation = np.array([view.generation], np.int64)
        return [_tensor("values", answer.values), _tensor("told", told), _tensor("generation", generation)]

    def _alias(self, view: View, given: dict[str, Any], request: Any) -> list[Any]:
        """``window.<slot // SIDE>``, ``place.<slot % SIDE>``, both the window -> ``prediction`` and ``version``."""
        names = sorted(given)
        if len(given) != 2 or not (names[0].startswith("place.") and names[1].startswith("window.")):
            raise ValueError(f"one window per request, by an alias: not {names}")
        slot = int(names[1].removeprefix("window.")) * SIDE + int(names[0].removeprefix("place."))
        tensor = given[names[1]]
        resident = view.residents.get(slot)
        if resident is None:
            raise ValueError(f"slot {slot} is empty: the model was undeployed")
        self.slots.used_at[slot] = time.monotonic()
        windows = _array(tensor)
        if windows.ndim != 3 or windows.shape[1:] != resident.shape[:2] or not len(windows):
            raise ValueError(f"{resident.name}: windows are {windows.shape}, expected [n, *{resident.shape[:2]}]")
        if len(windows) > ALIAS_WINDOWS:
            raise ValueError(f"{resident.name}: {len(windows)} windows at once, at most {ALIAS_WINDOWS}: ask in pieces")
        values = view.hosts[resident.host].run_one(resident.row, windows, seldom(request.is_cancelled))
        outputs: dict[str, NDArray[Any]] = {
            "prediction": values,
            "version": np.array([resident.version], np.int64),
        }
        wanted = request.requested_output_names()
        return [_tensor(k, v) for k, v in outputs.items() if k in wanted]

    def _admin(self, frame: bytes) -> dict[str, Any]:
        header, _ = unpack(frame)
        match header["do"]:
            case "health":
                return self._health()
            case "members":
                return self._members(header.get("known"), header.get("have"))
            case "canary":
                return self._canary(header.get("name"))
            case "job":
                return self._job(int(header["job"]))
            case "optimize" | "write" | "publish" | "withdraw" | "free" | "settle" as what:
                return self._begin(what, header, frame)
        raise ValueError(f"unknown admin request {header['do']!r}")

    def _health(self) -> dict[str, Any]:
        view = self.slots.view
        return {
            "pid": os.getpid(),
            "generation": view.generation,
            "capacity": self.slots.capacity,
            "taken": len(view.residents),
            "members": len(view.published),
            "broken": self.slots.broken,
            "waiting": self.slots.waiting(),
            "dropped": self.dropped,
            "deploying": sum(until > time.monotonic() for _, until in list(self.claims.values())),
        }

    def _members(self, known: int | None, have: dict[str, str] | None) -> dict[str, Any]:
        """Everything held, or only the generation when the caller has it already.

        `have`: digest by name; of the published members only cards that are not these are told then.
        """
        view = self.slots.view
        if known == view.generation:
            return {"generation": view.generation}
        live = set(view.published.values())
        residents = [_described(r) | {"live": r.slot in live} for r in view.residents.values()]
        if have is not None:
            for r in residents:
                if not r["live"] or have.get(r["name"]) == r["digest"]:
                    del r["card"]
        return {"generation": view.generation, "residents": residents}

    def _canary(self, name: str | None) -> dict[str, Any]:
        """A golden window of a published member, what it must give, and where to ask; unnamed: of one not isolated."""
        view = self.slots.view
        slot = view.published.get(name) if name else self.slots.steady()
        if slot is None:
            return {"slot": -1}
        resident = view.residents[slot]
        windows, predictions, scale = resident.golden
        return _described(resident) | {
            "window": windows[:1].tolist(),
            "prediction": predictions[:1].tolist(),
            "scale": scale.tolist(),
            "tolerance": self.slots.tolerance(slot),
            "variant": self.slots.variant(slot),
        }

    def _job(self, number: int) -> dict[str, Any]:
        with self.lock:
            if number not in self.jobs:
                raise ValueError(f"no job {number}: the engine was restarted meanwhile; deploy again")
            return self.jobs[number]

    def _begin(self, what: str, header: dict[str, Any], frame: bytes) -> dict[str, Any]:
        """Queue a change for the worker, a solo's trials for the tuner; the answer names the job to poll."""
        with self.lock:
            number = time.monotonic_ns()
            self.jobs[number] = {"state": "running"}
            while len(self.jobs) > JOBS_KEPT:
                self.jobs.pop(next(iter(self.jobs)))
        thread = self.tuner if what == "optimize" and "name" in header else self.worker
        thread.submit(self._work, number, what, header, frame)
        return {"job": number}

    def _work(self, number: int, what: str, header: dict[str, Any], frame: bytes) -> None:
        try:
            done = {"state": "done"} | self._change(what, header, frame)
        except Refusal as refusal:
            done = {"state": "refused", "reason": str(refusal)}
        except Exception as failure:  # reported to the deployer, who waits for this job
            done = {"state": "refused", "reason": f"{type(failure).__name__}: {failure}"}
        with self.lock:
            self.jobs[number] = done

    def _change(self, what: str, header: dict[str, Any], frame: bytes) -> dict[str, Any]:
        """Runs on the worker thread, one at a time; a solo's trials on the tuner's."""
        if what == "optimize" and "name" in header:
            return {"chosen": self.tuner.optimize(header["name"], float(header["tolerance"]))}
        if what == "optimize":
            return {"chosen": self.slots.optimize(float(header["tolerance"])), "solos": self.tuner.names()}
        self._claim(header["name"], header["token"], release=what == "settle")
        match what:
            case "write":
                before = self.slots.view.published.get(header["name"])
                return {"slot": self.slots.write(frame).slot, "before": before}
            case "publish":
                return {"generation": self.slots.publish(header["name"], int(header["slot"]))}
            case "withdraw":
                before = self.slots.view.published.get(header["name"])
                return {"generation": self.slots.withdraw(header["name"]), "before": before}
            case "free":
                return {"freed": self.slots.free(int(header["slot"]), float(header["quiet_s"]))}
        self.tuner.later(header["name"])  # settled
        return {}

    def _claim(self, name: str, token: str, *, release: bool) -> None:
        """One deploy per name at a time; a dead deployer's claim runs out."""
        now = time.monotonic()
        holder, until = self.claims.get(name, (token, now))
        if holder != token and until > now:
            raise Refusal(f"another deploy of {name} is under way: wait for it, at most {until - now:.0f} s")
        self.claims[name] = (token, now + CLAIM_S)
        if release:
            del self.claims[name]


def _described(resident: Resident) -> dict[str, Any]:
    keys = ("slot", "name", "version", "digest", "card", "kind", "shape")
    return {k: getattr(resident, k) for k in keys}


def _array(tensor: Any) -> NDArray[Any]:
    return np.from_dlpack(tensor).copy()


def _tensor(name: str, array: NDArray[Any]) -> Any:
    return pb_utils.Tensor.from_dlpack(name, tf.experimental.dlpack.to_dlpack(tf.constant(array)))
