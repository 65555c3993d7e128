"""plant.toml -> Plant: what it says, and every mistake told at once."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.data.durations import duration_text, parse_duration, parse_rate
from penstock.data.plant import CorrectSpec, LiveSpec
from penstock.data.plants.datasets import plant_path
from penstock.data.plants.plant_file import check_plant, load_plant
from penstock.data.plants.templates import Names, expand_range
from penstock.errors import Mistake, PlantError

HOUR = 3_600_000_000_000

HEAD = '[plant]\nname = "p"\nperiod = "10s"\n'
TAGS = '[tags]\nA = { unit = "bar" }\nB = {}\nC = {}\nY = {}\n'


def plant_file(folder: Path, text: str) -> Path:
    path = folder / "plant.toml"
    path.write_text(text, "utf-8")
    return path


def one_mistake(folder: Path, text: str) -> Mistake:
    mistakes = check_plant(plant_file(folder, text))
    assert len(mistakes) == 1, mistakes
    return mistakes[0]


def test_the_built_in_plant_is_read_as_written() -> None:
    plant = load_plant(plant_path("gas-turbine"))
    assert (plant.name, plant.period_ns, plant.clock, plant.timezone) == ("gas-turbine", HOUR, "replay", "UTC")
    assert list(plant.tags) == ["AT", "AP", "AH", "AFDP", "GTEP", "TIT", "TAT", "TEY", "CDP", "CO", "NOX"]
    assert plant.tags["NOX"].flat_after_ns == 12 * HOUR
    assert plant.tags["AH"].range == (0.0, 105.0)
    tey = plant.model("tey")
    assert tey.inputs == ("AT", "AP", "AH", "AFDP", "GTEP", "TIT", "TAT", "CDP")
    assert tey.past_target
    assert (tey.window, tey.step_ns, tey.every_ns) == (24, HOUR, HOUR)
    assert [step.name for step in tey.prepare["AT"]] == ["difference"]
    assert plant.model("nox").lstm.change_from_last is True
    shards = {list(plant.tags).index(name) % 2 for name in plant.model("nox_ahead").inputs}
    assert shards == {0, 1}


@pytest.mark.parametrize(
    ("tag", "place", "allowed"),
    [
        ('{ join = "linear" }', "tags.V.join_delay", "multiple of the plant's period"),
        ('{ join = "linear", join_delay = "15s" }', "tags.V.join_delay", "multiple of the plant's period"),
        ('{ join = "nearest", join_delay = "10s", kind = "counter" }', "tags.V.join", "plain values"),
        ('{ join = "nearest", join_delay = "10s", expr = "A" }', "tags.V.join", "plain values"),
        ('{ join = "nearest", join_delay = "10s", heartbeat = "1min" }', "tags.V.join", "plain values"),
        ('{ join = "nearest", join_delay = "10s", ahead = "1h" }', "tags.V.join", "last word"),
        ('{ join_delay = "10s" }', "tags.V.join_delay", 'join = "nearest"'),
        ('{ join = "linaer", join_delay = "10s" }', "tags.V.join", "linear"),
        ('{ valid = "A >" }', "tags.V.valid", "an expression over tags"),
        ('{ valid = "AA > 1" }', "tags.V.valid", "a tag of"),
        ('{ valid = "V > 1" }', "tags.V.valid", "other tags"),
        ('{ valid = "W > 1" }', "tags.V.valid", "other tags"),
        ('{ valid = "A > 1", expr = "A" }', "tags.V.valid", "stored tags"),
    ],
)
def test_joins_and_conditions_that_cannot_be(tmp_path: Path, tag: str, place: str, allowed: str) -> None:
    text = f'[tags]\nA = {{}}\nW = {{ expr = "V + A" }}\nV = {tag}\n'
    found = [m for m in check_plant(plant_file(tmp_path, HEAD + text)) if m.key == place]
    assert found, check_plant(tmp_path / "plant.toml")
    assert any(allowed in m.allowed for m in found)


def test_joins_and_conditions_are_read_from_both_files(tmp_path: Path) -> None:
    (tmp_path / "tags.csv").write_text("name,join,join_delay,valid\nL,,,\nF,nearest,10s,L > 20\n")
    text = '[tags]\nfile = "tags.csv"\nG = { join = "linear", join_delay = "30s", valid = "L > 20" }\n'
    plant = load_plant(plant_file(tmp_path, HEAD + text))
    found = {tag.name: (tag.join, tag.join_delay_ns // 10**9, tag.valid) for tag in plant.tags.values()}
    assert found == {"L": ("last", 0, None), "F": ("nearest", 10, "L > 20"), "G": ("linear", 30, "L > 20")}
    assert plant.wait == 3


def test_all_keys_of_a_tag(tmp_path: Path) -> None:
    text = """
[tags]
N = { dtype = "float64", kind = "counter", scale = 0.5, offset = 1, aliases = ["old"], rate = "5/min", unit = "m3" }
V = { range = [-1, 2.5], max_gap = "30s", substitute = 0, truth_delay = "1h", heartbeat = "5min" }
D = { expr = "V * 2 + N" }
"""
    tags = load_plant(plant_file(tmp_path, HEAD + text)).tags
    n, v = tags["N"], tags["V"]
    assert (n.dtype, n.kind, n.scale, n.offset, n.aliases) == ("float64", "counter", 0.5, 1.0, ("old",))
    assert n.rate == pytest.approx(5 / 60)
    assert (v.range, v.max_gap_ns, v.substitute) == ((-1.0, 2.5), 30 * 10**9, 0.0)
    assert (v.truth_delay_ns, v.heartbeat_ns) == (HOUR, HOUR // 12)
    assert tags["D"].expr == "V * 2 + N"


def test_ten_mistakes_give_ten_messages(tmp_path: Path) -> None:
    text = """
[plant]
name = "p"
period = "1 hour"
timezone = "Europe/Instanbul"
clock = "reply"
[tags]
AT = { unit = "degC", range = [50, -30] }
TEY = { unti = "MWh" }
NOX = { flat_after = 12 }
E = { expr = "TEY /" }
[model.nox]
target = "NOX"
inputs = ["AT", "TEYY", "NOX"]
step = "10s"
window = "25s"
"""
    path = plant_file(tmp_path, text)
    mistakes = {m.key: m for m in check_plant(path) if m.key != "model.nox.inputs"}
    inputs = [m for m in check_plant(path) if m.key == "model.nox.inputs"]
    assert set(mistakes) == {
        "plant.period",
        "plant.timezone",
        "plant.clock",
        "tags.AT.range",
        "tags.TEY.unti",
        "tags.NOX.flat_after",
        "tags.E.expr",
        "model.nox.window",
    }
    assert len(inputs) == 2
    assert mistakes["plant.timezone"].near == "Europe/Istanbul"
    assert mistakes["plant.clock"].near == "replay"
    assert mistakes["tags.TEY.unti"].near == "unit"
    assert "low below high" in mistakes["tags.AT.range"].allowed
    assert [m.near for m in inputs if "TEYY" in m.found] == ["TEY"]
    assert any("past_target" in m.allowed for m in inputs)
    with pytest.raises(PlantError) as caught:
        load_plant(path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 10
    assert all(line.startswith(f"{path}: ") and "allowed: " in line for line in lines)


MODEL = '[model.m]\ntarget = "Y"\ninputs = ["A"]\nwindow = "60s"\n'
WRONG = [
    ("", "", "plant.name"),
    (HEAD + TAGS + MODEL + 'step = "15s"', "multiple of the plant's period (10s)", "model.m.step"),
    (HEAD + TAGS + MODEL + 'step = "40s"', "multiple of step (40s)", "model.m.window"),
    (HEAD + TAGS + MODEL + 'every = "3s"', "multiple of the plant's period", "model.m.every"),
    (HEAD + TAGS + MODEL + 'horizon = "3s"', "multiple of the plant's period", "model.m.horizon"),
    (HEAD + TAGS + MODEL + 'every = "0s"', "longer than 0", "model.m.every"),
    (HEAD + TAGS + MODEL + 'when = "Q > 3"', "a tag", "model.m.when"),
    (HEAD + TAGS + MODEL + 'when = "A >"', "expression", "model.m.when"),
    (HEAD + TAGS + MODEL + 'network = "nets/a.py:build"', "is missing", "model.m.network"),
    (HEAD + TAGS + MODEL + "lstm = { unit = 3 }", "units", "model.m.lstm.unit"),
    (HEAD + TAGS + MODEL + "lstm = { validation = 1 }", "between 0 and 1", "model.m.lstm.validation"),
    (HEAD + TAGS + MODEL + 'retrain = { promote = "never" }', '"manual"', "model.m.retrain.promote"),
    (HEAD + TAGS + MODEL + 'correct = { by = "mean", over = "1h" }', '"bias"', "model.m.correct.by"),
    (HEAD + TAGS + MODEL + 'correct = { by = "bias" }', "longer than 0", "model.m.correct.over"),
    (HEAD + TAGS + MODEL + 'correct = { by = "ewm", over = "0s" }', "longer than 0", "model.m.correct.over"),
    (HEAD + TAGS + MODEL + 'correct = { by = "ewm", ofer = "1h", over = "1h" }', "over", "model.m.correct.ofer"),
    (HEAD + TAGS + MODEL + "interval = 90", "such as 0.9", "model.m.interval"),
    (HEAD + TAGS + MODEL + "limit = [1, 2]", "a list of 1", "model.m.limit"),
    (HEAD + TAGS + MODEL + 'limit = "high"', "a number", "model.m.limit"),
    (HEAD + TAGS + MODEL + 'prepare = { "A" = ["mean 15s"] }', "multiple of the plant's period", "model.m.prepare.A"),
    (HEAD + TAGS + MODEL + 'prepare = { "A" = ["deadband 1 15s"] }', "multiple of the plant's", "model.m.prepare.A"),
    (HEAD + TAGS + MODEL + 'prepare = { "A" = ["deadband 0 20s"] }', '"deadband 0.5 10min"', "model.m.prepare.A"),
    (HEAD + TAGS + MODEL + 'prepare = { "A" = ["deadband 0.5"] }', '"deadband 0.5 10min"', "model.m.prepare.A"),
    (HEAD + TAGS + MODEL + 'prepare = { "A" = ["diference"] }', '"difference"', "model.m.prepare.A"),
    (HEAD + TAGS + MODEL + 'prepare = { "B" = ["log"] }', "an input of this model", "model.m.prepare.B"),
    (HEAD + TAGS + MODEL.replace('"A"', '"Q*"'), "a glob over tags", "model.m.inputs"),
    (HEAD + TAGS + MODEL + 'for_each = "unti"\n[assets.unit]\nnames = ["U"]', '"unit"', "model.m.for_each"),
    (HEAD + TAGS + MODEL + "[override.n]\nevery = '10s'", "a model", "override.n"),
    (HEAD + TAGS + MODEL + "[defaults.modell]\n", "model", "defaults.modell"),
    (HEAD + TAGS + "[plants]\n", "plant", "plants"),
    (HEAD + TAGS + MODEL + 'prepare = { "A" = ["lag -20s"] }', 'ahead = "20s" or more at tag "A"', "model.m.prepare.A"),
    (
        HEAD + TAGS.replace("unit", 'ahead = "1h", unit') + MODEL + 'prepare.A = ["lag -15s"]',
        "multiple of the plant",
        "prepare.A",
    ),
    (HEAD + TAGS + 'D = { ahead = "15s" }', "multiple of the plant's period, at most", "tags.D.ahead"),
    (HEAD + TAGS + 'D = { ahead = "1000010s" }', "at most 1000000s", "tags.D.ahead"),
    (HEAD + TAGS + 'D = { expr = "A", ahead = "10s" }', "that it is computed from", "tags.D.ahead"),
    (HEAD + TAGS + 'D = { expr = "D + 1" }', "other tags", "tags.D.expr"),
    (HEAD + TAGS + 'D = { aliases = ["A"] }', "former names", "tags.D.aliases"),
    (HEAD + TAGS + 'D = { reports = "on change" }', "a duration", "tags.D.heartbeat"),
    (HEAD + TAGS + "D = { scale = 0 }", "not 0", "tags.D.scale"),
    (HEAD + TAGS + "D = 3", "a table", "tags.D"),
    (HEAD + "[tags]\nfile = 'tags.csv'", "missing", "tags.file"),
    (HEAD + "[tags]\nA = { unit = 'x'", "TOML", "(syntax)"),
    (HEAD.replace("10s", "300y"), "a duration", "plant.period"),
]


@pytest.mark.parametrize(("text", "allowed", "key"), WRONG)
def test_one_mistake_one_message(tmp_path: Path, text: str, allowed: str, key: str) -> None:
    mistakes = [m for m in check_plant(plant_file(tmp_path, text)) if m.key.endswith(key)]
    assert len(mistakes) == 1, check_plant(tmp_path / "plant.toml")
    assert allowed in mistakes[0].allowed


def test_what_stands_beside_live_predictions(tmp_path: Path) -> None:
    default = '[defaults.model]\ncorrect = { by = "bias", over = "1h" }\ninterval = 0.9\nwindow = "60s"\n'
    two = '[model.two]\ntarget = ["Y", "C"]\ninputs = ["A"]\ncorrect = { by = "none" }\nlimit = [60, 7.5]\n'
    one = '[model.one]\ntarget = "Y"\ninputs = ["A"]\ncorrect = { over = "2h" }\nlimit = 3\n'
    models = load_plant(plant_file(tmp_path, HEAD + TAGS + default + two + one)).models
    assert models["two"].live == LiveSpec(interval=0.9, limits=(60.0, 7.5))
    assert models["one"].live == LiveSpec(correct=CorrectSpec(by="bias", over_ns=2 * HOUR), interval=0.9, limits=(3.0,))
    assert models["one"].live.wanted
    assert not load_plant(plant_file(tmp_path, HEAD + TAGS + MODEL)).models["m"].live.wanted


def test_syntax_error_has_line_and_column(tmp_path: Path) -> None:
    mistake = one_mistake(tmp_path, "[plant]\nname = \n")
    assert "line 2, column 8" in mistake.found


def test_missing_file_is_one_mistake(tmp_path: Path) -> None:
    assert [m.found for m in check_plant(tmp_path / "plant.toml")] == ["no such file"]


def test_globs_keep_order_and_never_feed_the_target(tmp_path: Path) -> None:
    text = '[tags]\n"U.b" = {}\n"U.a" = {}\nY = {}\n"U.c" = {}\n'
    text += 'E = { expr = "Y / tag(\'U.a\')" }\nF = { expr = "E + 1" }\n'
    model = '[model.m]\ntarget = "Y"\ninputs = ["*", "!*.c"]\nwindow = "60s"\n'
    plant = load_plant(plant_file(tmp_path, HEAD + text + model))
    assert plant.model("m").inputs == ("U.b", "U.a")
    mistake = one_mistake(tmp_path, HEAD + text + model.replace('"*"', '"U.a", "F"'))
    assert "derived from the target" in mistake.found


def test_a_tag_with_its_unit_in_brackets_is_no_glob(tmp_path: Path) -> None:
    text = '[tags]\n"O2 [mg/l]" = {}\n"O2 m" = {}\nY = {}\n'
    model = '[model.m]\ntarget = "Y"\ninputs = ["O2 [mg/l]"]\nwindow = "60s"\nprepare = { "O2 [mg/l]" = ["log"] }\n'
    read = load_plant(plant_file(tmp_path, HEAD + text + model)).model("m")
    assert read.inputs == ("O2 [mg/l]",)
    assert [step.name for step in read.prepare["O2 [mg/l]"]] == ["log"]
    taken = model.replace('["O2 [mg/l]"]', '["O2*", "!O2 [mg/l]"]').replace('O2 [mg/l]" = [', 'O2*" = [')
    assert load_plant(plant_file(tmp_path, HEAD + text + taken)).model("m").inputs == ("O2 m",)


@pytest.mark.parametrize("name", ["two words", "engine", "-m", "größe"])
def test_a_model_name_that_triton_cannot_have_is_told_here(tmp_path: Path, name: str) -> None:
    mistake = one_mistake(tmp_path, HEAD + TAGS + MODEL.replace("[model.m]", f'[model."{name}"]'))
    assert name in mistake.found
    assert "letters, digits" in mistake.allowed


def test_exact_preparation_beats_globs(tmp_path: Path) -> None:
    steps = 'B = ["lag 20s", "log"], C = ["deadband 0.5 1 min"], "*" = ["difference"]'
    model = MODEL.replace('["A"]', '["A", "B", "C"]') + f"prepare = {{ {steps} }}\n"
    prepare = load_plant(plant_file(tmp_path, HEAD + TAGS + model)).model("m").prepare
    assert [[s.name for s in prepare[n]] for n in "ABC"] == [["difference"], ["lag", "log"], ["deadband"]]
    assert (prepare["C"][0].low, prepare["C"][0].span_ns) == (0.5, 60 * 10**9)
    assert prepare["B"][0].span_ns == 20 * 10**9


def test_a_lag_below_0_needs_all_that_the_input_comes_from_ahead(tmp_path: Path) -> None:
    tags = '[tags]\nA = { ahead = "1h" }\nC = { ahead = "10s" }\nB = { expr = "A + C" }\nY = {}\n'
    model = MODEL.replace('["A"]', '["A", "B"]') + 'prepare = { A = ["lag -20s", "lag -10s"], B = ["lag -10s"] }\n'
    prepare = load_plant(plant_file(tmp_path, HEAD + tags + model)).model("m").prepare
    assert [s.span_ns for s in prepare["A"]] == [-20 * 10**9, -10 * 10**9]
    further = one_mistake(tmp_path, HEAD + tags + model.replace('B = ["lag -10s"]', 'B = ["lag -20s"]'))
    assert further.found == "a lag of -20s"
    assert 'at tag "C"; it has "10s"' in further.allowed


def test_for_each_defaults_and_overrides(tmp_path: Path) -> None:
    text = """
[assets.unit]
range = "U1..U3"
[tags]
"{unit}.T" = { for_each = "unit", unit = "degC" }
"{unit}.P" = { for_each = "unit", expr = "tag('{unit}.T') * 2" }
"{unit}.Y" = { for_each = "unit" }
[defaults.model]
window = "60s"
lstm = { units = 16, layers = 2 }
[model.nox]
for_each = "unit"
target = "{unit}.Y"
inputs = ["{unit}.*"]
lstm = { units = 8 }
[override."nox.U2"]
window = "30s"
lstm = { seed = 7 }
"""
    plant = load_plant(plant_file(tmp_path, HEAD + text))
    assert list(plant.models) == ["nox.U1", "nox.U2", "nox.U3"]
    one, two = plant.model("nox.U1"), plant.model("nox.U2")
    assert two.targets == ("U2.Y",)
    assert two.inputs == ("U2.T", "U2.P")
    assert (one.window, two.window) == (6, 3)
    assert (two.lstm.units, two.lstm.layers, two.lstm.seed) == (8, 2, 7)
    assert one.lstm.seed == 1
    assert plant.tags["U3.P"].expr == "tag('U3.T') * 2"


def test_a_default_that_is_wrong_is_told_once_and_where_it_stands(tmp_path: Path) -> None:
    text = HEAD + TAGS + '[defaults.model]\nevery = "soon"\n' + MODEL + MODEL.replace("model.m", "model.n")
    assert one_mistake(tmp_path, text).key == "defaults.model.every"


def test_tags_from_csv_and_parquet_are_the_same(tmp_path: Path) -> None:
    csv = (
        "name,unit,low,high,rate,flat_after,max_gap,dtype,aliases,substitute\n"
        "A,bar,0,10,5/min,1h,30s,,old;older,\nB,,,,0.5,,,float64,,1.5\nY,,,,,,,,,\n"
    )
    (tmp_path / "tags.csv").write_text(csv)
    text = HEAD + '[tags]\nfile = "tags.csv"\nD = { expr = "A * 2" }\n' + MODEL
    plant = load_plant(plant_file(tmp_path, text))
    a, b = plant.tags["A"], plant.tags["B"]
    assert (a.unit, a.range, a.flat_after_ns, a.max_gap_ns) == ("bar", (0.0, 10.0), HOUR, 30 * 10**9)
    assert (a.rate, b.rate, b.dtype, b.substitute) == (pytest.approx(5 / 60), 0.5, "float64", 1.5)
    assert a.aliases == ("old", "older")
    assert (b.range, b.kind, b.scale, b.expr) == (None, "value", 1.0, None)
    assert list(plant.tags) == ["A", "B", "Y", "D"]
    table = pa.table(
        {
            "name": ["A", "B", "Y"],
            "unit": ["bar", None, None],
            "low": [0.0, None, None],
            "high": [10, None, None],
            "rate": ["5/min", "0.5", None],
            "flat_after": ["1h", None, None],
            "max_gap": ["30s", None, None],
            "dtype": ["float32", "float64", "float32"],
            "aliases": ["old;older", None, None],
            "substitute": [None, 1.5, None],
        }
    )
    pq.write_table(table, tmp_path / "tags.parquet")
    again = load_plant(plant_file(tmp_path, text.replace("tags.csv", "tags.parquet")))
    assert dict(again.tags) == dict(plant.tags)
    assert hash(again.tags["A"]) == hash(plant.tags["A"])


def test_mistakes_in_a_tag_file_name_line_and_column(tmp_path: Path) -> None:
    (tmp_path / "tags.csv").write_text("name,low,high,rate,colour\nA,5,1,fast,red\nA,,,,\n")
    found = {m.key: m for m in check_plant(plant_file(tmp_path, HEAD + '[tags]\nfile = "tags.csv"\n'))}
    assert set(found) == {"line 2, column low", "line 2, column rate", "column colour", "tags.A"}
    assert found["line 2, column rate"].file.endswith("tags.csv")


def test_a_broken_tag_file_lists_no_million(tmp_path: Path) -> None:
    body = "".join(f"T{i},bad{i}\n" for i in range(3000))
    (tmp_path / "tags.csv").write_text("name,rate\n" + body)
    mistakes = check_plant(plant_file(tmp_path, HEAD + '[tags]\nfile = "tags.csv"\n'))
    assert len(mistakes) < 300
    assert "2800 more" in mistakes[-1].found


@given(st.integers(0, 2**62))
def test_durations_read_back(span_ns: int) -> None:
    assert parse_duration(duration_text(span_ns)) == span_ns


@pytest.mark.parametrize("text", ["", "1", "h", "-1h", "1 h 2", "0.3ns", "1e3s", "1H", "9999999999y", "١s"])
def test_bad_durations(text: str) -> None:
    with pytest.raises(ValueError, match="is not"):
        parse_duration(text)


def test_rates_and_ranges() -> None:
    assert parse_duration("1.5 h") == HOUR * 3 // 2
    assert parse_rate("6/min") == pytest.approx(0.1)
    assert expand_range("U08..U11") == ("U08", "U09", "U10", "U11")
    for text in ("U1", "U2..U1", "U1..V2"):
        with pytest.raises(ValueError, match="not text"):
            expand_range(text)


NAMES = st.lists(st.text("ab.0*[", min_size=1, max_size=4), unique=True, max_size=20)


@given(NAMES, st.text("ab.0*?", min_size=1, max_size=4))
def test_globs_find_what_a_plain_loop_finds(names: list[str], pattern: str) -> None:
    from fnmatch import fnmatchcase

    assert Names(names).matching(pattern) == [name for name in names if fnmatchcase(name, pattern)]


def test_a_former_name_points_to_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "plant.toml"
    path.write_text(
        '[plant]\nname = "a"\nperiod = "1h"\n[tags]\nNEW = { aliases = ["AT"] }\nTAT = {}\nY = {}\n'
        '[model.m]\ntarget = "Y"\ninputs = ["AT"]\nwindow = "3h"\n'
    )
    (mistake,) = check_plant(path)
    assert (mistake.found, mistake.near) == ('unknown tag "AT"', "NEW")
