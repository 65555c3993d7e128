"""When retrains are due: cron as crontab has it, what was missed, and a retrain that cannot be done."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.data.plants.cron_text import parse_cron
from penstock.data.plants.plant_file import check_plant, load_plant
from penstock.data.runs import Run
from penstock.errors import SiteError
from penstock.schedule import Schedule
from penstock.site import Site
from penstock.turns import Turn, brought_up, listing, missed, next_time, trigger_of, turns
from penstock.up.commands import plans

PLANT = """
[plant]
name = "mill"
period = "1h"
timezone = "Europe/Berlin"
[tags]
A = {}
Y = {}
[defaults.model]
target = "Y"
inputs = ["A"]
window = "4h"
retrain = { cron = "0 3 * * SUN" }
[model.one]
[model.two]
retrain = { cron = "30 4 1 * *" }
[model.three]
[model.never]
retrain = { cron = "" }
"""
DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
RUN = Run(
    id="r", begun="2026-03-01T02:00:00+00:00", key="k", models=("one", "three"), start_ns=None, end_ns=None, lstm={},
    snapshot="S", ended="2026-03-01T02:10:00Z", kind="retrain",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "plant.toml").write_text(PLANT)
    Site.create(tmp_path / "site", tmp_path / "plant.toml").close()
    return tmp_path / "site"


def test_models_of_one_expression_are_retrained_together(folder: Path) -> None:
    assert turns(load_plant(folder / "plant.toml")) == [
        Turn(cron="0 3 * * SUN", models=("one", "three")),
        Turn(cron="30 4 1 * *", models=("two",)),
    ]


def fits(text: str, at: datetime) -> bool:
    """Crontab, word for word: a day of the month or of the week will do where both are restricted."""
    minute, hour, day, month, weekday = text.split()

    def among(field: str, value: int, low: int, high: int) -> bool:
        for part in field.split(","):
            span, _, step = part.partition("/")
            for number, name in enumerate(DAYS):
                span = span.replace(name, str(number))
            begin, _, end = (f"{low}-{high}" if span == "*" else span).partition("-")
            last = int(end) if end else high if step else int(begin)
            if value in range(int(begin), last + 1, int(step or 1)):
                return True
        return False

    today = at.isoweekday() % 7
    on_weekday = among(weekday, today, 0, 7) or (today == 0 and among(weekday, 7, 0, 7))
    on_day = among(day, at.day, 1, 31)
    both = not day.startswith("*") and not weekday.startswith("*")
    return (
        among(minute, at.minute, 0, 59)
        and among(hour, at.hour, 0, 23)
        and among(month, at.month, 1, 12)
        and (on_day or on_weekday if both else on_day and on_weekday)
    )


def field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    span = st.tuples(number, number).map(lambda ends: f"{min(ends)}-{max(ends)}")
    stepped = st.tuples(st.one_of(st.just("*"), span), st.integers(1, 9)).map(lambda pair: f"{pair[0]}/{pair[1]}")
    part = st.one_of(number.map(str), span, stepped)
    return st.one_of(st.just("*"), st.lists(part, min_size=1, max_size=2).map(",".join))


CRONS = st.tuples(
    st.sampled_from(["0", "30", "*/20", "5,45"]), st.sampled_from(["*", "3", "6-22/4"]), field(1, 31),
    st.just("*"), st.one_of(field(0, 7), st.sampled_from(["SUN", "MON-FRI", "TUE,THU", "5-7"])),
).map(" ".join)  # fmt: skip


@given(CRONS, st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 1)))  # noqa: DTZ001
@settings(max_examples=120, deadline=None)
def test_the_next_time_is_the_first_minute_that_fits(text: str, after: datetime) -> None:
    """Days are tried one after the other, and of the first that fits every minute."""
    after = after.replace(tzinfo=UTC)
    turn = Turn(cron=text, models=())
    found = next_time(turn, "UTC", after)
    at = after.replace(second=0, microsecond=0) + timedelta(minutes=1)
    wanted = None
    while wanted is None and at < after + timedelta(days=80):
        day_fits = fits(" ".join(["*", "*", *text.split()[2:]]), at)
        if day_fits and fits(text, at):
            wanted = at
        at = at + timedelta(minutes=1) if day_fits else (at + timedelta(days=1)).replace(hour=0, minute=0)
    if wanted is not None:
        assert found == wanted
    else:
        assert found is None or found >= after + timedelta(days=79)


def test_weekdays_are_those_of_crontab_and_times_those_of_the_plant() -> None:
    sunday = datetime(2026, 3, 29, 3, tzinfo=UTC)
    for text in ("0 3 * * 0", "0 3 * * 7", "0 3 * * SUN", "0 3 * * sun"):
        assert next_time(Turn(cron=text, models=()), "UTC", datetime(2026, 3, 23, tzinfo=UTC)) == sunday
    assert parse_cron("0 0 * * FRI-SUN").weekdays == (0, 5, 6)
    berlin = trigger_of("0 3 * * SUN", "Europe/Berlin").get_next_fire_time(None, datetime(2026, 3, 23, tzinfo=UTC))
    assert berlin.astimezone(UTC) == datetime(2026, 3, 29, 1, tzinfo=UTC), "summer time has begun an hour before"
    assert next_time(Turn(cron="0 0 30 2 *", models=()), "UTC", sunday) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [("0 3 * *", "five fields"), ("60 * * * *", "minute is '60'; it lies within 0-59"), ("0 24 * * *", "hour"),
     ("0 0 0 * *", "day"), ("0 0 * 13 *", "month"), ("0 0 * * FUN", "weekday"), ("0 0 * * 5-2", "weekday"),
     ("*/0 * * * *", "minute"), ("a b c d e", "minute")],
)  # fmt: skip
def test_a_wrong_expression_is_a_mistake_of_the_plant_file(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_cron(text)
    (tmp_path / "plant.toml").write_text(PLANT.replace("30 4 1 * *", text))
    with pytest.raises(Exception, match=r"model\.two\.retrain\.cron: found"):
        load_plant(tmp_path / "plant.toml")


def test_what_was_missed_is_due_once() -> None:
    """
    run of Sunday 1st, 02:00 | ... Sunday 8th 03:00 is a time of the turn ... | now
    """
    turn = Turn(cron="0 3 * * SUN", models=("one", "three"))
    before, after = datetime(2026, 3, 8, 2, 59, tzinfo=UTC), datetime(2026, 3, 20, tzinfo=UTC)
    assert missed(turn, [RUN], "UTC", datetime(2026, 3, 1, 2, 30, tzinfo=UTC)) is False
    assert missed(turn, [replace(RUN, begun="2026-03-01T03:00:30+00:00")], "UTC", before) is False
    assert missed(turn, [RUN], "UTC", after) is True
    caught_up = replace(RUN, id="s", begun="2026-03-20T00:00:01+00:00")
    assert missed(turn, [caught_up, RUN], "UTC", after) is False
    assert missed(turn, [replace(caught_up, kind="train"), RUN], "UTC", after) is True, "a training is no retrain"
    assert missed(turn, [replace(caught_up, models=("one",)), RUN], "UTC", after) is True, "not all of them"
    assert missed(turn, [replace(caught_up, models=("one", "two", "three")), RUN], "UTC", after) is False
    assert missed(turn, [replace(caught_up, ended=None), RUN], "UTC", after) is True, "it was interrupted"
    assert missed(turn, [], "UTC", after) is False, "never retrained: it waits for its time"
    rows = listing([turn], [RUN], "UTC", "2026-03-20T00:00:00+00:00")
    assert rows == [
        {
            "cron": "0 3 * * SUN", "command": "retrain", "models": ["one", "three"], "drift": False,
            "next": "2026-03-22T03:00:00+00:00", "missed": True,
        }
    ]  # fmt: skip


def test_views_have_turns_of_their_own_and_are_caught_up_by_what_they_say_of_themselves(folder: Path) -> None:
    text = PLANT.replace('retrain = { cron = "0 3 * * SUN" }', 'view = { cron = "15 * * * *" }')
    (folder / "plant.toml").write_text(text.replace("[model.three]", '[model.three]\nview = { cron = "" }'))
    plant = load_plant(folder / "plant.toml")
    assert turns(plant) == [
        Turn(cron="30 4 1 * *", models=("two",)),
        Turn(cron="15 * * * *", models=("one", "two", "never"), command="recompute"),
    ]
    (_, turn), now = turns(plant), datetime(2026, 3, 20, 12, 20, tzinfo=UTC)
    assert missed(turn, [RUN], "UTC", now) is False, "nothing is live"
    assert missed(turn, [], "UTC", now, {"one": "2026-03-20T12:16:00+00:00"}) is False
    assert missed(turn, [], "UTC", now, {"one": "2026-03-20T12:14:59+00:00"}) is True
    assert missed(turn, [], "UTC", now, {"one": "2026-03-20T12:16:00+00:00", "two": ""}) is True, "it has no view yet"
    assert missed(turn, [], "UTC", now, {"three": ""}) is False, "another turn's"
    assert brought_up(folder, plant) == {}
    assert [row["command"] for row in listing(turns(plant), [], "UTC", now.isoformat())] == ["retrain", "recompute"]
    assert "schedule" in [plan.name for plan in plans(folder, None, 0)]


def test_a_view_of_a_model_that_is_not_live_is_passed_over(folder: Path) -> None:
    """A process for it would say that it is not live, again and again."""
    (folder / "plant.toml").write_text(PLANT.replace('retrain = { cron = "0 3 * * SUN" }', "").replace(
        "[model.one]", '[model.one]\nview = { cron = "* * * * *" }'))  # fmt: skip
    with Site.open(folder) as site:
        kept = Schedule(site.folder, site.plant)
        turn = Turn(cron="* * * * *", models=("one",), command="recompute")
        assert kept._ready(turn) == ()
        kept._due(turn)
        site.models.record("one", 1, "deploy", "test")
        assert kept._ready(turn) == ("one",)


@pytest.mark.parametrize(
    ("table", "key", "allowed"),
    [('cron = "61 * * * *"', "cron", "minute is '61'"), ('history = "0s"', "history", "longer than 0"),
     ('history = "often"', "history", "a duration"), ('every = "1h"', "every", "history, cron")],
)  # fmt: skip
def test_a_mistake_in_view_is_told_at_its_place(folder: Path, table: str, key: str, allowed: str) -> None:
    (folder / "plant.toml").write_text(PLANT.replace("[model.one]", f"[model.one]\nview = {{ {table} }}"))
    (mistake,) = check_plant(folder / "plant.toml")
    assert mistake.key == f"model.one.view.{key}"
    assert allowed in mistake.allowed


def test_up_runs_the_schedule_where_there_is_one(folder: Path) -> None:
    named = [plan.name for plan in plans(folder, None, 0)]
    assert named == ["schedule", "page", "dask", "triton"]
    (schedule,) = (plan for plan in plans(folder, None, 0) if plan.name == "schedule")
    assert set(schedule.needs) == {"dask", "triton"}
    (folder / "plant.toml").write_text(PLANT.replace('cron = "0 3 * * SUN"', 'span = "1y"').replace("30 4 1 * *", ""))
    assert "schedule" not in [plan.name for plan in plans(folder, None, 0)]
    with (
        Site.open(folder) as site,
        pytest.raises(SiteError, match=r"no model of plant.toml has retrain.cron, on_drift or live, or view.cron"),
    ):
        Schedule(site.folder, site.plant)


def test_a_retrain_that_cannot_be_done_is_tried_again_and_told(folder: Path) -> None:
    """There is no history. The run that was interrupted makes it due at once."""
    said: list[str] = []
    stop, failed = threading.Event(), threading.Event()

    def told(what: str) -> None:
        said.append(what)
        if "could not be retrained" in what:
            failed.set()

    with Site.open(folder) as site:
        kept = Schedule(site.folder, site.plant, pauses_s=[0.1])
        thread = threading.Thread(target=kept.run, args=([replace(RUN, ended=None)], told, stop))
        thread.start()
        assert failed.wait(120)
        stop.set()
        thread.join(60)
    assert not thread.is_alive()
    assert "retrains one, three" in said
    assert "next at " in said[-1]
    assert "one, three could not be retrained: penstock: there is no history to train on" in said[-1]
