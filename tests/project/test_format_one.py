"""A site of format 1, byte by byte as penstocks of then left it, opens, and everything works with it.

Nothing here is written by our present code: tables are their SQL, the archive is what Zarr and icechunk make of plain
arrays (zstd, a tick's cells together, a head without `newest`), the journal its bytes. The day the format changes this
test stays as it is, and says what a migration has to do.
"""

from __future__ import annotations

import json
import sqlite3
import struct
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import icechunk
import numpy as np
import pandas as pd
import pytest
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from penstock.errors import SiteError
from penstock.serving.deploy import Deployer
from penstock.site import Site

PLANT = """
[plant]
name = "mill"
period = "1h"
[tags]
T = { range = [-100, 100] }
P = {}
[model.m]
target = "T"
inputs = ["P"]
step = "1h"
window = "4h"
every = "1h"
past_target = true
lstm = { units = 4, epochs = 1 }
"""
HOUR_NS, SEGMENT = 3_600_000_000_000, 8784
FIRST = 438_600
"""A tick of January 2020: hours since 1970; the second segment begins 600 later."""
KEPT = 900
"""Hours that the archive has, from FIRST on."""
SEQUENCE = 5
"""The journal has been trimmed to here; the archive has all below."""


def value(ticks: np.ndarray) -> np.ndarray:
    """[k, 2] T and P."""
    t = np.sin(ticks / 12.0) * 20 + 40
    return np.stack([t, np.cos(ticks / 12.0) * 3], axis=1).astype(np.float32)


def table(first: int, last: int) -> pd.DataFrame:
    ticks = np.arange(first, last)
    times = pd.to_datetime(ticks * HOUR_NS, utc=True)
    return pd.DataFrame(value(ticks), columns=["T", "P"]).assign(time=times)


def write_archive(folder: Path) -> None:
    """As of the first version: an open segment and a closed one, each of a year."""
    icechunk.set_logs_filter("error")
    repo = icechunk.Repository.create(icechunk.local_filesystem_storage(str(folder)))
    session = repo.writable_session("main")
    root = zarr.create_group(session.store)
    root.attrs.update({"format": 1, "period_ns": HOUR_NS, "origin_ns": 0, "segment_ticks": SEGMENT})
    root.create_array("double", data=np.zeros(2, bool))
    ticks = np.arange(FIRST, FIRST + KEPT)
    fills = {"value": ("float32", np.nan), "quality": ("uint16", 0), "offset": ("uint32", 0)}
    for index in np.unique(ticks // SEGMENT):
        state, chunks = ("closed", (SEGMENT, 8)) if index < ticks[-1] // SEGMENT else ("open", (512, 64))
        rows = ticks[ticks // SEGMENT == index]
        for name, (dtype, fill) in fills.items():
            array = root.create_array(
                f"{HOUR_NS}/float32/{state}.{index}/{name}", shape=(SEGMENT, 2), chunks=chunks, dtype=dtype,
                fill_value=fill, compressors=[BloscCodec(cname="zstd", clevel=5, shuffle="shuffle"), Crc32cCodec()],
                dimension_names=["time", "tag"],
            )  # fmt: skip
            content = {"value": value(rows), "quality": 1 << 8, "offset": 0}[name]
            array[rows - index * SEGMENT] = np.broadcast_to(content, (len(rows), 2)).astype(dtype)
    session.commit(
        "position 5",
        metadata={
            "position": SEQUENCE, "closed": None, "source_offsets": {"import:old": KEPT},
            "totals": {"import:old": [2 * KEPT, 0, 0]}, "span": [FIRST, FIRST + KEPT],
        },
    )  # fmt: skip


def write_journal(folder: Path) -> None:
    """One segment without a record, that begins at SEQUENCE; what was before stands in the checkpoint."""
    folder.mkdir()
    chain, stamp = 77, 3
    head = struct.Struct("<QQQII32x")
    magic = 0x31474553_4B54534E
    crc = zlib.crc32(head.pack(magic, stamp, SEQUENCE, chain, 0))
    (folder / "0000000003.seg").write_bytes(head.pack(magic, stamp, SEQUENCE, chain, crc).ljust(64 << 20, b"\0"))
    tail = struct.Struct("<QQQQQII16x")
    fields = (stamp, stamp, 64, SEQUENCE, SEQUENCE, chain)
    (folder / "tail").write_bytes(tail.pack(*fields, zlib.crc32(tail.pack(*fields, 0))))
    totals = {"import:old": [2 * KEPT, 0, 0]}
    body = json.dumps({"sequence": SEQUENCE, "offsets": {"import:old": KEPT}, "totals": totals, "clock": None})
    (folder / "checkpoint.json").write_text(json.dumps({"crc": zlib.crc32(body.encode()), "body": body}))


def write_tables(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "tags.sqlite")) as db, db:
        db.executescript(
            "create table tags (id integer primary key, name text not null, dtype text not null);"
            "create table aliases (alias text primary key, id integer not null) without rowid;"
            "insert into tags values (0, 'T', 'float32'), (1, 'P', 'float32'); pragma user_version = 1;"
        )
    (folder / "models").mkdir()
    with closing(sqlite3.connect(folder / "models" / "registry.sqlite")) as db, db:
        db.executescript(
            "CREATE TABLE deployments (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, version INTEGER "
            "NOT NULL, action TEXT NOT NULL, who TEXT NOT NULL, "
            "at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')));"
            "INSERT INTO deployments (name, version, action, who, at) VALUES ('m', 6, 'deploy', 'ann', "
            "'2019-09-01T00:00:00.000Z'), ('m', 6, 'undeploy', 'ann', '2019-09-02T00:00:00.000Z');"
        )
    (folder / "runs").mkdir()
    with closing(sqlite3.connect(folder / "runs" / "runs.sqlite")) as db, db:
        db.executescript(
            "CREATE TABLE runs (id TEXT PRIMARY KEY, begun TEXT NOT NULL, key TEXT NOT NULL, models TEXT NOT NULL, "
            "start_ns INTEGER, end_ns INTEGER, lstm TEXT NOT NULL, snapshot TEXT NOT NULL, ended TEXT);"
            "CREATE TABLE results (run TEXT NOT NULL, model TEXT NOT NULL, version INTEGER, error TEXT, "
            "at TEXT NOT NULL, PRIMARY KEY (run, model));"
            "INSERT INTO runs VALUES ('r1', '2019-09-01T00:00:00+00:00', 'k', '[\"m\"]', NULL, NULL, '{}', 'S', 'x');"
        )


def write_view(folder: Path) -> None:
    """The speed view before there was anything beside the values, of its first format."""
    (folder / "views").mkdir()
    with closing(sqlite3.connect(folder / "views" / "speed.sqlite")) as db, db:
        db.executescript(
            "PRAGMA journal_mode=WAL;"
            "CREATE TABLE layouts (id INTEGER PRIMARY KEY, members TEXT NOT NULL UNIQUE);"
            "CREATE TABLE said (tick INTEGER NOT NULL, fleet TEXT NOT NULL, layout INTEGER NOT NULL REFERENCES "
            'layouts(id), "values" BLOB NOT NULL, versions BLOB NOT NULL, reasons BLOB NOT NULL, filled BLOB NOT NULL, '
            "hashes BLOB NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (tick, fleet)) WITHOUT ROWID;"
        )
        db.execute("INSERT INTO layouts VALUES (1, '[[\"old\", 1]]')")


@pytest.fixture
def folder(tmp_path: Path, triton) -> Iterator[Path]:
    site = tmp_path / "site"
    site.mkdir()
    (site / "site.json").write_text('{"format": 1, "shards": 2, "created": "2019-09-01T00:00:00+00:00"}')
    (site / "plant.toml").write_text(PLANT)
    (site / "site.toml").write_text(f'triton.endpoints = ["{triton.endpoint}"]\n')
    write_tables(site)
    write_journal(site / "journal")
    write_archive(site / "archive")
    write_view(site)
    yield site
    with Deployer(triton.endpoint, drain_s=0.1) as deploys:
        deploys.ensure([])


def test_a_site_of_format_1_lives_on(folder: Path, tmp_path: Path) -> None:
    ticks = np.arange(FIRST, FIRST + KEPT)
    with Site.open(folder) as site:
        assert len(np.unique(ticks // SEGMENT)) == 2, "a closed and an open segment"
        assert np.array_equal(site.archive().value.values, value(ticks))
        assert (site.models.champions(), [run.id for run in site.runs.all()]) == ({}, ["r1"])
        assert {row["part"]: row["state"] for row in site.status()}["archive"] == "ok"
        assert site.load(table(FIRST + KEPT, FIRST + KEPT + 50))["accepted"] == 100
        run = site.train("m")
        assert run.version == 7, "six were live once"
        site.deploy(run)
        told = site.stream(table(FIRST + KEPT + 50, FIRST + KEPT + 80))
        assert (told["ticks"], told["predictions"]) == (30, 30)
        answer = site.query("m", start="-30h")
        assert answer.version.values.tolist() == [7] * 30
        assert answer.prediction.notnull().all()
        site.backup(tmp_path / "copies")
        assert json.loads((folder / "site.json").read_text())["format"] == 1
    (folder / "site.json").write_text('{"format": 2, "shards": 2, "created": "2031-09-01T00:00:00+00:00"}')
    with pytest.raises(SiteError, match="a site of format 2, this penstock knows up to 1: upgrade penstock to open it"):
        Site.open(folder)
