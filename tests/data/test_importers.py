"""History goes in once, whole, whatever stands between the good rows."""

from __future__ import annotations

import csv
import gzip
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.data.frame import BAD, Frame
from penstock.data.importing.importers import ImportReport, Options, load, read
from penstock.data.journal import Journal
from penstock.data.layout import Layout
from penstock.data.plant import Plant, Tag
from penstock.data.registry import Registry
from penstock.errors import SourceError

TAGS = (
    Tag(name="A", aliases=("oldA",)),
    Tag(name="B", scale=0.5, offset=1.0),
    Tag(name="N", dtype="float64"),
    Tag(name="D", expr="A + B"),
)
PLANT = Plant(name="p", period_ns=10**9, timezone="Europe/Berlin", tags={t.name: t for t in TAGS}, models={})
Reading = tuple[str, str, float]
Cut = tuple[int, set[Reading], list[tuple[int, str]], int]
"""Of a chunk: offset, readings, rejects, how many readings it says."""


class Bench:
    """A site's parts that an import needs, in a folder."""

    def __init__(self, folder: Path, segment_bytes: int = 16 << 20) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.registry = Registry.open(folder / "tags.sqlite")
        self.registry.register(list(PLANT.tags.values()))
        self.layout = Layout(self.registry.dtypes(), 2)
        self.journal = Journal.open(folder / "journal", segment_bytes=segment_bytes)

    def load(self, source: object, **options: object) -> ImportReport:
        return load(
            self.journal,
            self.layout,
            self.registry,
            source,
            PLANT,
            rejects=self.folder / "rejects",
            options=Options(**options),  # type: ignore[arg-type]
        )

    def readings(self) -> set[Reading]:
        """Everything in the journal."""
        found: set[Reading] = set()
        for record in self.journal.read(self.journal.first, self.journal.tail):
            if record.readings is not None:
                part = record.readings
                found |= named(part if isinstance(part, Frame) else part.long(), self.registry)
        return found

    def rejects(self, report: ImportReport) -> list[dict[str, str]]:
        if report.rejects is None:
            return []
        with report.rejects.open(newline="") as file:
            return list(csv.DictReader(file))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "site")


def named(frame: Frame, registry: Registry) -> set[Reading]:
    names = registry.names()
    times = frame.times.view("datetime64[ns]")
    return {
        (names[tag], str(t)[:19], float(v)) for tag, t, v in zip(frame.tags, times, frame.values.tolist(), strict=True)
    }


def written(folder: Path, text: str | bytes, name: str = "in.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_wide_with_aliases_scaling_and_local_times(bench: Bench, tmp_path: Path) -> None:
    text = "Timestamp,oldA,B,N\n2024-07-01 12:00,1.5,3,16777217\n2024-07-01T10:01:00Z,,nan,2\n\n,,,\n"
    report = bench.load(written(tmp_path, text))
    assert (report.rows, report.accepted, report.rejected) == (2, 4, 0)
    assert bench.readings() == {
        ("A", "2024-07-01T10:00:00", 1.5),
        ("B", "2024-07-01T10:00:00", 2.5),
        ("N", "2024-07-01T10:00:00", 16777217.0),
        ("N", "2024-07-01T10:01:00", 2.0),
    }
    assert report.rejects is None


def test_long_with_quality(bench: Bench, tmp_path: Path) -> None:
    rows = ["A,1,good", "A,2,Bad", "A,,bad", "A,,good", "N,4,64", "B,5,192", "D,6,0", "oldA,7,", "Q,8,"]
    body = "".join(f"2024-07-01T10:00:0{i}Z,{row}\n" for i, row in enumerate(rows))
    report = bench.load(written(tmp_path, "time,tag,value,quality\n" + body))
    assert (report.rows, report.accepted, report.rejected) == (9, 5, 3)
    reasons = {int(r["line"]): (r["column"], r["reason"]) for r in bench.rejects(report)}
    assert set(reasons) == {7, 8, 10}
    assert reasons[7][1].startswith("unknown quality")
    assert reasons[8][1].startswith("a derived tag")
    assert reasons[10] == ("tag", "unknown tag")
    status = [r.readings.quality.tolist() for r in bench.journal.read(0, bench.journal.tail) if r.readings is not None]
    assert sorted(q for part in status for q in part) == [0, 0, 0x40, BAD, BAD]


def test_a_wide_cell_that_is_bad_costs_its_reading_alone(bench: Bench, tmp_path: Path) -> None:
    text = "time,A,B,Q,A\n2024-01-01T00:00Z,1,x,0,9\n2024-01-01T00:01Z,1e39,2,0,9\n"
    report = bench.load(written(tmp_path, text))
    assert (report.rows, report.accepted, report.rejected, report.readings) == (2, 2, 4, 6)
    assert [(r["line"], r["column"], r["reason"]) for r in bench.rejects(report)] == [
        ("1", "Q", "whole column: unknown tag"),
        ("1", "A", "whole column: a second column for A"),
        ("2", "B", "unparsable number"),
        ("3", "A", 'number too large for float32; dtype = "float64" holds it'),
    ]


MALFORMED = [
    "{t},A",  # too few columns
    "{t},A,1,0,9",  # too many
    "yesterday,A,1,0",
    "{t},A,twelve,0",
    "{t},Q,1,0",
    "{t},,1,0",
    ",A,1,0",
    "time,tag,value,quality",  # the header again
    "{t},A,1,excellent",
    '{t},"A,1,0',  # a quote that never closes
    "2024-03-31 02:30:00,A,1,0",  # never shown
    "1512-01-01T00:00:00Z,A,1,0",
    "{t},A,inf,0",
    "{t},D,1,0",
    "{t},A,\udcff,0",  # not UTF-8
]


def test_a_thousand_malformed_rows_among_ten_thousand_good(bench: Bench, tmp_path: Path) -> None:
    rng = random.Random(7)
    start = np.datetime64("2024-05-01T00:00:00")
    rows: list[tuple[bool, str]] = [(True, f"{start + np.timedelta64(i, 's')}Z,A,{i},0") for i in range(10_000)]
    bad = [MALFORMED[i % len(MALFORMED)].format(t=f"{start}Z") for i in range(1_000)]
    for text in bad:
        rows.insert(rng.randrange(len(rows) + 1), (False, text))
    body = "time,tag,value,quality\n" + "".join(text + "\n" for _, text in rows)
    report = bench.load(written(tmp_path, body.encode("utf-8", "surrogateescape")))
    assert (report.rows, report.accepted, report.rejected) == (11_000, 10_000, 1_000)
    rejects = bench.rejects(report)
    assert [int(r["line"]) for r in rejects] == [n for n, (good, _) in enumerate(rows, 2) if not good]
    assert all(r["reason"] for r in rejects)
    assert len({r["reason"] for r in rejects}) >= 11
    assert {v for _, _, v in bench.readings()} == set(map(float, range(10_000)))
    totals = bench.journal.totals()[report.source]
    assert (totals.accepted, totals.rejected) == (10_000, 1_000)


def test_twice_changes_nothing(bench: Bench, tmp_path: Path) -> None:
    path = written(tmp_path, "time,A\n2024-01-01T00:00Z,1\nbad,2\n2024-10-27 02:30,3\n")
    first = bench.load(path)
    before = (bench.journal.tail, first.rejects and first.rejects.read_bytes())
    second = bench.load(written(tmp_path, path.read_bytes(), "other name.csv"))
    assert (second.rows, second.accepted, second.rejected, second.already) == (0, 0, 0, 4)
    assert (bench.journal.tail, first.rejects and first.rejects.read_bytes()) == before
    changed = bench.load(path, timezone="UTC")
    assert changed.rows == 3


def test_the_night_with_25_hours(bench: Bench, tmp_path: Path) -> None:
    #  local   01:30  02:00  02:30 | 02:00  02:30  03:00      02:30 of the spring night never was
    rows = ["10-27 01:30", "10-27 02:00", "10-27 02:30", "10-27 02:00", "10-27 02:30", "10-27 03:00", "03-31 02:30"]
    body = "time;A\n" + "".join(f"2024-{t};{i},5\n" for i, t in enumerate(rows))
    report = bench.load(written(tmp_path, body), decimal=",")
    assert {(t[11:16], v) for _, t, v in bench.readings()} == {
        ("23:30", 0.5),
        ("00:00", 1.5),
        ("00:30", 2.5),
        ("01:00", 3.5),
        ("01:30", 4.5),
        ("02:00", 5.5),
    }
    assert [(r["line"], r["text"]) for r in bench.rejects(report)] == [("8", "2024-03-31 02:30")]


def test_quoted_files_and_quotes_that_never_close(bench: Bench, tmp_path: Path) -> None:
    good = '"time","A"\r\n"2024-01-01T00:00Z","1"\r\n'
    report = bench.load(
        written(tmp_path, good + '"2024-01-01T00:01Z",2\r\n"2024-01-01T00:02Z,"3\r\n2024-01-01T00:03Z,"4\r\n')
    )
    assert {v for _, _, v in bench.readings()} == {1.0, 2.0}
    assert [r["line"] for r in bench.rejects(report)] == ["4", "5"]
    assert all("quotes" in r["reason"] or "columns" in r["reason"] for r in bench.rejects(report))


TABLE = pa.table(
    {
        "time": pa.array(np.arange(5) * 10**9, pa.timestamp("ns", "UTC")),
        "A": pa.array([1.0, None, 3.0, float("nan"), 5.0]),
        "N": pa.array([1, 2, 3, 4, 2**53 + 2]),
    }
)
TRUTH = {("A", f"1970-01-01T00:00:0{i}", float(i + 1)) for i in (0, 2, 4)} | {
    ("N", f"1970-01-01T00:00:0{i}", float(v)) for i, v in enumerate((1, 2, 3, 4, 2**53 + 2))
}


def sources(folder: Path) -> dict[str, object]:
    pq.write_table(TABLE, folder / "in.parquet")
    frame = TABLE.to_pandas()
    text = written(folder, gzip.compress(frame.to_csv(index=False).encode()), "in.csv.gz")
    naive = frame.assign(time=frame.time.dt.tz_localize(None)).set_index("time")
    return {
        "parquet": folder / "in.parquet",
        "parquet as text": str(folder / "in.parquet"),
        "arrow": TABLE,
        "frame": frame,
        "indexed frame": frame.set_index("time"),
        "mixed frame": frame.assign(A=[1.0, None, "3", "x", 5]),
        "dataset": xr.Dataset.from_dataframe(naive),
        "matrix": xr.Dataset.from_dataframe(naive).to_dataarray("tag").transpose("time", "tag").to_dataset(name="v"),
        "gzip": text,
    }


@pytest.mark.parametrize("kind", ["parquet", "parquet as text", "arrow", "frame"])
def test_tables_on_disk_and_in_memory(bench: Bench, tmp_path: Path, kind: str) -> None:
    source = sources(tmp_path)[kind]
    report = bench.load(source)
    assert bench.readings() == TRUTH
    assert (report.rows, report.accepted, report.rejected) == (5, 8, 0)
    assert bench.load(source).rows == 0


@pytest.mark.parametrize("kind", ["indexed frame", "mixed frame", "dataset", "matrix", "gzip"])
def test_other_shapes_of_the_same_table(bench: Bench, tmp_path: Path, kind: str) -> None:
    source = sources(tmp_path)[kind]
    report = bench.load(source)
    assert bench.readings() == TRUTH
    assert report.rejected == (1 if kind == "mixed frame" else 0)
    assert bench.load(source).already == report.rows + (1 if kind == "gzip" else 0)


def test_local_times_of_tables_without_a_zone(bench: Bench) -> None:
    frame = pd.DataFrame({"time": pd.to_datetime(["2024-07-01 12:00", "2024-03-31 02:30"]), "A": [1.0, 2.0]})
    report = bench.load(frame)
    assert bench.readings() == {("A", "2024-07-01T10:00:00", 1.0)}
    assert report.rejected == 1


def test_mapped_and_left_out_columns(bench: Bench, tmp_path: Path) -> None:
    path = written(tmp_path, "when,TI-1,junk\n01.02.2024 10:00,4,5\n")
    report = bench.load(
        path,
        time_column="when",
        time_format="%d.%m.%Y %H:%M",
        timezone="UTC",
        columns={"TI-1": "A", "junk": None},
    )
    assert bench.readings() == {("A", "2024-02-01T10:00:00", 4.0)}
    assert report.rejected == 0


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty"),
        ("time\n2024-01-01\n", "one column only"),
        ("when,A\n2024-01-01,1\n", "name it with time_column"),
        ("time,X,Y\n2024-01-01,1,2\n", "no column is a tag"),
    ],
)
def test_sources_that_cannot_be_read_at_all(bench: Bench, tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(SourceError, match=why):
        bench.load(written(tmp_path, text))
    assert bench.journal.tail == 0


def test_other_things_that_are_no_sources(bench: Bench, tmp_path: Path) -> None:
    for source in (tmp_path / "none.csv", tmp_path / "none.parquet", 3, TABLE.drop_columns(["time"])):
        with pytest.raises(SourceError):
            bench.load(source)
    with pytest.raises(SourceError, match="Europe/Berlin or UTC"):
        bench.load(TABLE, timezone="Mars")


LINES = st.sampled_from(
    [
        "2024-10-27 02:{m}0,A,{i}",
        "2024-10-27 0{m}:30,B,{i}",
        "2024-06-01 0{m}:00,N,{i}",
        "{t},A,x",
        "a,b",
        "",
        '"',
        '"2024-06-01 0{m}:00",A,{i}',
    ]
)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(LINES, max_size=16), block=st.integers(20, 120), data=st.data())
def test_cut_and_resumed_anywhere_it_is_the_same(
    bench: Bench, tmp_path: Path, lines: list[str], block: int, data: st.DataObject
) -> None:
    body = "time,tag,value\n" + "\n".join(x.format(i=i, m=i % 6, t="2024-06-01") for i, x in enumerate(lines))
    path = written(tmp_path, body)

    def run(after: int, size: int) -> list[Cut]:
        return [
            (
                c.offset,
                set().union(*(named(p, bench.registry) for p in c.readings if isinstance(p, Frame))),
                list(zip(c.rejects.lines.tolist(), c.rejects.reasons, strict=True)),
                c.accepted,
            )
            for c in read(path, PLANT, bench.registry, after=after, block_bytes=size)
        ]

    def joined(
        chunks: list[Cut],
    ) -> tuple[set[Reading], list[tuple[int, str]]]:
        return set().union(*(c[1] for c in chunks)), [r for c in chunks for r in c[2]]

    whole, small = joined(run(0, 1 << 20)), run(0, block)
    assert joined(small) == whole
    if small:
        cut = data.draw(st.integers(0, len(small) - 1))
        again = run(small[cut][0], data.draw(st.integers(20, 120)))
        assert joined(small[: cut + 1] + again) == whole
        assert sum(c[3] for c in small[: cut + 1] + again) == sum(c[3] for c in small)


IMPORT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_importers import Bench
bench = Bench(Path(sys.argv[2]), 1 << 18)
print("ready", flush=True)
bench.load(Path(sys.argv[3]))
print("done", flush=True)
"""


def test_killed_and_begun_again_every_reading_is_in_once(tmp_path: Path) -> None:
    start = np.datetime64("2024-05-01T00:00:00")
    lines = [f"{start + np.timedelta64(i, 's')}Z,{i if i % 10 else 'bad'},{i}\n" for i in range(60_000)]
    path = written(tmp_path, "time,A,N\n" + "".join(lines))
    site = tmp_path / "site"
    command = [sys.executable, "-c", IMPORT, str(Path(__file__).parent), str(site), str(path)]
    killed = 0
    for pause in (0.1, 0.3, None):
        run = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert run.stdout is not None
        assert run.stdout.readline() == b"ready\n"
        if pause is not None:
            time.sleep(pause)
            os.kill(run.pid, signal.SIGKILL)
        rest = run.stdout.read()
        run.wait(60)
        run.stdout.close()
        killed += rest == b""
        if pause is None:
            assert rest == b"done\n"
    bench = Bench(site, 1 << 18)
    report = bench.load(path)
    assert (report.rows, report.already) == (0, 60_001)
    assert len(bench.readings()) == 54_000 + 60_000
    totals = bench.journal.totals()[report.source]
    assert (totals.accepted, totals.rejected) == (114_000, 6_000)
    assert [int(r["line"]) for r in bench.rejects(report)] == list(range(2, 60_002, 10))
    assert killed >= 1
