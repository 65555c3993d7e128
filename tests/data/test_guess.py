"""`init --from`: what a file of another plant is taken for; the site that comes of it imports the file unedited."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from penstock.beginning import begin
from penstock.data.plants.plant_file import load_plant
from penstock.errors import PlantError, SiteError, SourceError
from penstock.guess import guess
from penstock.guess_columns import tag_names
from penstock.guess_text import plant_text, target
from penstock.import_options import read_options
from penstock.site import Site

BERLIN = ZoneInfo("Europe/Berlin")
ROWS = 2000


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A German historian's file over the end of summer time: semicolons, decimal commas, units, a gap, texts."""
    random.seed(3)
    lines = ["Zeitstempel;Temp. Außen [°C];Zähler 1 [kWh];Betrieb;Leistung (MW);Kommentar"]
    count = 2e7
    for k in range(ROWS):
        at = (datetime(2024, 10, 20, tzinfo=UTC) + timedelta(minutes=10 * k)).astimezone(BERLIN)
        power = 100 + 20 * math.sin(k / 50) + random.gauss(0, 0.5)
        count += power / 6
        if k in (700, 701):
            continue
        power = 99.5 if 1500 < k < 1600 else power
        cells = [f"{10 + 8 * math.sin(k / 24) + random.gauss(0, 0.3):.2f}", f"{count:.1f}", str(int(k % 500 > 20))]
        cells += [f"{power:.2f}" if k % 300 else "n/a", "geprüft"]
        lines.append(";".join([f"{at:%d.%m.%Y %H:%M}", *(c.replace(".", ",") if c != "n/a" else c for c in cells)]))
    (tmp_path / "odd.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "odd.csv"


def test_what_the_file_is_taken_for(odd: Path) -> None:
    found = guess(odd, "Europe/Berlin")
    assert found.period_ns == 600 * 10**9
    assert found.options == {"decimal": ",", "time_format": "%d.%m.%Y %H:%M", "time_column": "Zeitstempel"}
    columns = {column.source: column for column in found.columns}
    assert [(c.name, c.unit, c.kind) for c in found.columns] == [
        ("Temp_Außen", "degC", "value"),
        ("Zähler_1", "kWh", "counter"),
        ("Betrieb", "", "state"),
        ("Leistung", "MW", "value"),
    ]
    assert columns["Zähler 1 [kWh]"].double  # 2e7 kWh and tenths: more than float32 holds
    low, high = columns["Leistung (MW)"].range or (0, 0)
    assert low < 78
    assert 122 < high < 300
    assert columns["Leistung (MW)"].flat_after_ns is not None
    assert columns["Temp. Außen [°C]"].flat_after_ns is None
    assert any("Kommentar" in note for note in found.notes)
    assert target(found) == "Leistung"


def test_the_site_imports_the_file_with_no_edit(odd: Path, tmp_path: Path) -> None:
    begun = begin(tmp_path / "site", odd, "Europe/Berlin")
    with Site.open(begun.folder) as site:
        report = site.load(odd)
        assert report["rejected"] == 0  # the column of texts is left out by what was written
        assert report["rows"] == ROWS - 2
        values = site.archive()["value"]
        assert values.sizes["time"] == ROWS  # a gap stays a gap, the hour that came twice is two hours
        assert float(values.sel(tag="Leistung").notnull().sum()) == ROWS - 2 - 7
        assert float(values.sel(tag="Zähler_1")[0]) == pytest.approx(2e7 + 100 / 6, abs=1)
        site.plant.model(begun.models[0])
    with pytest.raises(SiteError, match="is a site already"):
        begin(tmp_path / "site", odd)


def test_the_zone_is_told_by_the_clock_change_and_said(odd: Path) -> None:
    found = guess(odd)
    assert found.timezone == "Europe/Berlin"
    assert "after 2024-10-27 02:50:00 they go back as in Europe/Berlin" in found.notes[0]
    assert found.period_ns == 600 * 10**9


def local(tmp_path: Path, zone: str, begin: str) -> Path:
    """Three days of local times, hour by hour."""
    start = datetime.fromisoformat(begin).replace(tzinfo=UTC)
    hours = [(start + timedelta(hours=k)).astimezone(ZoneInfo(zone)) for k in range(72)]
    path = tmp_path / "local.csv"
    path.write_text("time,T\n" + "".join(f"{at:%Y-%m-%d %H:%M},{k}.5\n" for k, at in enumerate(hours)))
    return path


@pytest.mark.parametrize(
    ("zone", "begin", "wanted"),
    [
        ("Europe/Paris", "2024-10-26", "Europe/Berlin"),  # the same clock
        ("Europe/London", "2024-10-26", "Europe/London"),
        ("Europe/Helsinki", "2024-10-26", "Europe/Athens"),
        ("America/Santiago", "2024-04-06", "America/Santiago"),
        ("America/Chicago", "2024-11-02", "UTC"),  # all of North America changes at the same local time
        ("Europe/Berlin", "2024-08-01", "UTC"),  # nothing changes
    ],
)
def test_a_zone_is_taken_only_where_one_alone_fits(zone: str, begin: str, wanted: str, tmp_path: Path) -> None:
    found = guess(local(tmp_path, zone, begin))
    assert found.timezone == wanted
    assert "before anything is imported" in found.notes[0]
    assert ("America/New_York, America/Chicago" in found.notes[0]) == (zone == "America/Chicago")


def test_rows_out_of_order_are_no_clock_change(tmp_path: Path) -> None:
    rows = "".join(f"2024-10-27 {h:02}:{m},1.{h}\n" for h in range(20) for m in ("30", "00"))
    (tmp_path / "a.csv").write_text("time,T\n" + rows)
    assert guess(tmp_path / "a.csv").timezone == "UTC"


def test_windows_letters_and_thousands(tmp_path: Path) -> None:
    """What a historian writes: cp1252, points between thousands, a meter whose tenths count."""
    lines = ["Datum/Uhrzeit;Gasmenge Zähler [m³];Wärmeleistung [kW];Zustand"]
    for k in range(300):
        meter = f"{1_234_567.8 + 2.3 * k:,.1f}".replace(",", "_").replace(".", ",").replace("_", ".")
        lines.append(f"{1 + k // 24:02}.01.2024 {k % 24:02}:00;{meter};{900 + k % 37},5;{'Ein' if k % 5 else 'Aus'}")
    (tmp_path / "w.csv").write_bytes("\r\n".join(lines).encode("cp1252"))
    found = guess(tmp_path / "w.csv", "Europe/Berlin")
    assert (found.options["encoding"], found.options["decimal"]) == ("cp1252", ",")
    assert "not UTF-8, read as cp1252" in found.notes[0]
    assert [(c.name, c.unit, c.kind, c.double) for c in found.columns] == [
        ("Gasmenge_Zähler", "m3", "counter", True),  # 1,234,570.1 is no float32
        ("Wärmeleistung", "kW", "value", False),
    ]
    assert found.left_out == ("Zustand",)
    begun = begin(tmp_path / "site with space", tmp_path / "w.csv", "Europe/Berlin")
    assert begun.models == ("waermeleistung",)
    assert begun.next.endswith("--site '" + str(tmp_path / "site with space") + "'")
    with Site.open(begun.folder) as site:
        report = site.load(tmp_path / "w.csv")
        assert (report["accepted"], report["rejected"]) == (600, 0)
        assert float(site.archive()["value"].sel(tag="Gasmenge_Zähler")[1]) == 1_234_570.1


@pytest.mark.parametrize(
    ("cells", "wanted"), [(["1,234", "2,345"], ","), (["1.234", "2.345"], "."), (["1.234,5"], ","), (["1,234.5"], ".")]
)
def test_a_lone_mark_is_the_decimal_mark(cells: list[str], wanted: str, tmp_path: Path) -> None:
    rows = "".join(f"2024-01-01T{h:02}:00Z;{cells[h % len(cells)]}\n" for h in range(20))
    (tmp_path / "a.csv").write_text("time;T\n" + rows)
    assert guess(tmp_path / "a.csv").options.get("decimal", ".") == wanted


def test_mistakes_in_how_files_are_read_are_told(tmp_path: Path) -> None:
    (tmp_path / "plant.toml").write_text('[sources.import]\ndecimale = ","\ncolumns = { A = true }\nencoding = 5\n')
    with pytest.raises(PlantError) as caught:
        read_options(tmp_path / "plant.toml")
    found = {m.key: m for m in caught.value.mistakes}
    assert found["sources.import.decimale"].near == "decimal"
    assert "false to leave it out" in found["sources.import.columns"].allowed
    assert found["sources.import.encoding"].allowed == "text"


def test_times_that_never_were_doubt_the_zone(tmp_path: Path) -> None:
    times = np.arange("2024-03-31T00:00", "2024-03-31T06:00", 10, "datetime64[m]")
    (tmp_path / "a.csv").write_text("time,T\n" + "".join(f"{t},{i}.5\n" for i, t in enumerate(times)))
    notes = guess(tmp_path / "a.csv", "Europe/Berlin").notes
    assert any("6 of the times never were in Europe/Berlin" in note for note in notes)
    assert not guess(tmp_path / "a.csv", "Africa/Tunis").notes


FORMS = [
    ("2024-01-05T10:00:00Z", None),
    ("2024-01-25 10:00", None),
    ("25.01.2024 10:00:00", "%d.%m.%Y %H:%M:%S"),
    ("25/01/2024 10:00", "%d/%m/%Y %H:%M"),
    ("01/25/2024 10:00", "%m/%d/%Y %H:%M"),
    ("1/25/2024 10:00:00 AM", "%m/%d/%Y %I:%M:%S %p"),
    ("1706176800", "epoch_s"),
    ("1706176800000", "epoch_ms"),
]


@pytest.mark.parametrize(("text", "form"), FORMS)
def test_forms_of_times(text: str, form: str | None, tmp_path: Path) -> None:
    second = text.replace("10:00", "11:00").replace("17061768", "17061804")
    (tmp_path / "a.csv").write_text(f"time,T\n{text},1\n{second},2\n")
    found = guess(tmp_path / "a.csv", "UTC")
    assert found.options.get("time_format") == form
    assert found.period_ns == 3600 * 10**9


def test_long_files_give_a_tag_per_name(tmp_path: Path) -> None:
    rows = "".join(
        f"2024-01-01T00:{m:02}Z,{tag},{m + at}.5\n" for m in range(30) for at, tag in enumerate(["A", "B 1"])
    )
    (tmp_path / "long.csv").write_text("time,tag,value\n" + rows)
    begun = begin(tmp_path / "site", tmp_path / "long.csv")
    assert begun.tags == ("A", "B_1")
    with Site.open(begun.folder) as site:
        report = site.load(tmp_path / "long.csv")
    assert (report["accepted"], report["rejected"]) == (60, 0)


def test_names_are_legal_and_each_once() -> None:
    found = tag_names(["A B", "A_B", "A-B", "P [bar]", "P (barg)", "1st", "max", "X (past 2)", "[%]"])
    names = [name for name, _ in found.values()]
    assert len(set(names)) == len(names)
    assert found["A_B"] == ("A_B", "")
    assert found["P [bar]"] == ("P", "bar")
    assert found["P (barg)"] == ("P_2", "barg")
    assert all(name.isidentifier() for name in names)


HARD = ['quote"d [°C]', "back\\slash", "a#b", "for_each", "file", "tag", "True", "日本 [m³/h]", "x.y", "~"]


def test_any_column_name_gives_a_plant_that_loads(tmp_path: Path) -> None:
    header = ",".join('"' + name.replace('"', '""') + '"' for name in HARD)
    rows = "".join(f"2024-01-01T{h:02}:00Z" + f",{h}.25" * len(HARD) + "\n" for h in range(20))
    (tmp_path / "a.csv").write_text(f"time,{header}\n{rows}")
    (tmp_path / "plant.toml").write_text(plant_text(guess(tmp_path / "a.csv"), 'odd "name"'))
    plant = load_plant(tmp_path / "plant.toml")
    assert [alias for tag in plant.tags.values() for alias in (tag.aliases or (tag.name,))] == HARD


WRONG = [
    ("", "is empty"),
    ("a,b\n1,2\n", "no column of times"),
    ("time,T\n", "no row"),
    ("time,T\n2024-01-01,1\n", "same time"),
    ("time,T\n2024-01-01,x\n2024-01-02,y\n", "no column of numbers"),
]


@pytest.mark.parametrize(("text", "reason"), WRONG)
def test_a_file_that_says_nothing_is_told_and_nothing_is_made(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(SourceError, match=reason):
        begin(tmp_path / "site", tmp_path / "a.csv")
    assert not (tmp_path / "site").exists()


def test_one_column_alone_makes_a_model_of_its_own_past(tmp_path: Path) -> None:
    rows = "".join(f"2024-01-01T{h:02}:00Z,{h}.25\n" for h in range(20))
    (tmp_path / "a.csv").write_text("time,level\n" + rows)
    assert begin(tmp_path / "site", tmp_path / "a.csv").models == ("level",)
