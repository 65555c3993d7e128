"""Which run a training belongs to, where the record and the store do not say the same."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import waterworks

from penstock.batch.plan import Wish
from penstock.data.archive import Archive
from penstock.data.models import Draft, Golden, ModelStore
from penstock.data.runs import Run, Runs
from penstock.errors import ModelError
from penstock.runs import key_of, run_for

NOW = "2026-01-02T03:04:05+00:00"
WISH = Wish(models=["flow", "level"], end_ns=7, lstm={"units": 3})
PLANT = waterworks.plant(flow=waterworks.model("flow"), level=waterworks.model("level"))
KEY = key_of(PLANT, ["flow", "level"], {"start": None, "end": "2014"})


@dataclass(frozen=True)
class Books:
    runs: Runs
    store: ModelStore
    archive: Archive

    def run(self, key: str = KEY, anew: bool = False, *, interrupted: bool = False, now: str = NOW) -> Run:
        try:
            with run_for(self.runs, self.store, self.archive, WISH, key=key, now=now, anew=anew) as run:
                if interrupted:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            return self.runs.all()[0]
        return run

    def save(self, name: str, run: str | None) -> int:
        one = np.ones((1, 1), np.float32)
        golden = Golden(windows=np.ones((1, 2, 1), np.float32), predictions=one, scale=np.ones(1, np.float32))
        card = {"run": run, "trained": {"snapshot": self.archive.head().snapshot}}
        draft = Draft(name=name, kind="lstm", card=card, keras=b"k", golden=golden, serving={"a": one})
        return self.store.save(draft).version


@pytest.fixture
def books(tmp_path: Path) -> Books:
    waterworks.archive(tmp_path / "archive", 50)
    archive = Archive.open(tmp_path / "archive")
    return Books(runs=Runs(tmp_path / "runs"), store=ModelStore(tmp_path / "models"), archive=archive)


def test_what_was_stored_but_not_recorded_when_the_kill_came_is_done(
    books: Books, caplog: pytest.LogCaptureFixture
) -> None:
    books.save("flow", None)
    first = books.run(interrupted=True)
    books.save("flow", first.id)
    books.save("flow", None)  # by hand, meanwhile
    with caplog.at_level(logging.WARNING):
        again = books.run()
    assert (again.id, again.done, again.snapshot) == (first.id, {"flow": 2}, first.snapshot)
    assert "going on with the run of 2026-01-02 03:04 UTC: 1 of 2 done; --anew starts over" in caplog.text
    (told,) = books.runs.all()
    assert told.done == {"flow": 2}
    assert told.ended is not None
    assert (told.start_ns, told.end_ns, told.lstm, told.models) == (None, 7, {"units": 3}, ("flow", "level"))


def test_a_run_with_nothing_done_is_given_up(books: Books) -> None:
    first = books.run(interrupted=True)
    later = books.run(now="2026-01-02T04:00:00+00:00")
    assert later.id != first.id
    assert all(run.ended for run in books.runs.all())


def test_anew_and_another_command_begin_another_run(books: Books) -> None:
    first = books.run(interrupted=True)
    books.save("flow", first.id)
    assert books.run(key="another").id != first.id
    assert [run.ended is None for run in books.runs.all() if run.id == first.id] == [True]
    assert books.run(anew=True).id != first.id
    assert books.run().id != first.id, "it was given up for good"


def test_the_key_is_the_command_and_what_plant_toml_says() -> None:
    words = {"start": None, "end": "2014"}
    assert key_of(PLANT, ["level", "flow"], words) == KEY
    assert key_of(PLANT, ["flow"], words) != KEY
    assert key_of(PLANT, ["flow", "level"], words | {"end": "2015"}) != KEY
    changed = replace(PLANT, models=dict(PLANT.models) | {"flow": waterworks.model("flow", window=9)})
    assert key_of(changed, ["flow", "level"], words) != KEY
    assert key_of(replace(PLANT, tags={}), ["flow", "level"], words) != KEY


def test_two_processes_do_not_train_the_same(books: Books) -> None:
    with books.runs.held(KEY), pytest.raises(ModelError, match="under way"):
        books.run()
