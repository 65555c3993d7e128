"""What comes through a hatch is what lies in the site, bit for bit; who has no certificate gets nothing."""

from __future__ import annotations

import socket
import ssl
import struct
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import dask
import numpy as np
import pytest
import small_site as small
from certificates import Authority
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from source_peers import free_port

from penstock.data.archive.archiver import drain
from penstock.data.frame import Dense, Frame, Readings
from penstock.data.hatch import FarArchive, FarJournal, Hatch, Wire, marked, outside, plan_text
from penstock.data.hatch.answers import PAGE_BYTES, thinned
from penstock.data.hatch.message import LARGEST_REQUEST, MAGIC, PREFIX
from penstock.data.hatch.server import opened
from penstock.data.hatch.stores import PAGE_CELLS
from penstock.data.journal import Entry, Journal
from penstock.data.journal.record_format import drafts, records_in
from penstock.errors import ArchiveError, BadRequest, JournalCorrupt, JournalError, SiteError, Unavailable
from penstock.secure import _context, listening
from penstock.speed import shard
from penstock.speed.plan import ReadPlan
from penstock.speed.shard import Failure, Rows, Step, attempt, run_step

ALL = np.arange(5, dtype=np.int32)
NOWHERE = "/nowhere/site"
"""The site's path on a worker that does not have it."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def as_worker(authority: Authority) -> Iterator[None]:
    """This process has a worker's certificate, as Dask's configuration gives it."""
    cert, key = map(str, authority.certificate("worker"))
    with dask.config.set(
        {
            "distributed.comm.tls.ca-file": str(authority.ca),
            "distributed.comm.tls.worker.cert": cert,
            "distributed.comm.tls.worker.key": key,
        }
    ):
        yield


def context(authority: Authority, name: str) -> ssl.SSLContext:
    return _context(authority.security(name), "worker", listens=False)


@pytest.fixture
def tls(authority: Authority) -> ssl.SSLContext:
    return listening(authority.security("stream"))


@pytest.fixture
def wire(authority: Authority, tls: ssl.SSLContext, tmp_path: Path) -> Iterator[Wire]:
    """To the hatch of a site in `tmp_path`, which the test makes."""
    with opened(tmp_path, "127.0.0.1:0", tls) as hatch:
        made = Wire(hatch.address, context(authority, "worker"))
        yield made
        made.close()


# Steps


def laid(rows: tuple[Rows, ...], into: dict[int, tuple[bytes, bytes]]) -> None:
    """What the receiver holds afterwards: rows by tick."""
    for part in rows:
        block = part.block
        for tick in [t for t in into if t >= block.first]:
            del into[tick]
        for i in range(len(block.values)):
            into[block.first + i] = block.values[i].tobytes(), block.flags[i].tobytes()


def closes(rows: tuple[Rows, ...]) -> list[tuple[int, int]]:
    return [c for part in rows for c in part.closes]


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32), late=st.booleans(), members=st.sampled_from([(0,), (1,), (0, 1)]))
def test_a_step_comes_to_the_same_through_the_hatch(
    authority: Authority, tls: ssl.SSLContext, as_worker: None, seed: int, late: bool, members: tuple[int, ...]
) -> None:
    """Also where a worker begins anew, the archive moves on, and models read some tags of a shard only."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder), "127.0.0.1:0", tls) as hatch:
        journal, archive = small.make_site(Path(folder))
        small.append_all(journal, small.unruly(rng, 40, late=late), 2.0 if late else 6.5)
        plan = ReadPlan.of([small.MEMBERS[m].spec for m in members], small.resolve, small.LAYOUT, small.GRID)
        for part in plan.shards:
            name, at, want = part.save(Path(folder) / "speed"), 0, int(rng.integers(-9, 3))
            near: dict[int, tuple[bytes, bytes]] = {}
            far: dict[int, tuple[bytes, bytes]] = {}
            first: int | None = want
            while at < journal.tail:
                stop = min(journal.tail, at + int(rng.integers(1, 12)))
                step = Step(site=folder, shard=part.shard, start=at, stop=stop, want=first, plan=name)
                here, there = run_step(step), run_step(replace(step, site=NOWHERE, hatch=hatch))
                assert closes(here) == closes(there)
                laid(here, near)
                laid(there, far)
                # A late reading of a tag that no model reads sends rows again here and not there, older ones too.
                assert far.items() <= near.items()
                assert {t for t in near if t >= want} <= far.keys()
                at, first = stop, None
                if rng.random() < 0.3:
                    shard._kept.clear()
                if rng.random() < 0.3:
                    drain(journal, archive, small.LAYOUT, stop=int(rng.integers(0, journal.tail + 1)))
            assert len(far) > 30
        journal.close()


def test_a_hatch_that_closes_fails_its_steps_and_the_next_one_is_gone_on_with(
    authority: Authority, tls: ssl.SSLContext, as_worker: None, tmp_path: Path
) -> None:
    journal, _ = small.make_site(tmp_path)
    small.append_all(journal, [small.rows(i * 3, i * 3 + 3, 5) for i in range(9)], 0.0)
    part = ReadPlan.of([small.MEMBERS[0].spec], small.resolve, small.LAYOUT, small.GRID).shards[0]
    step = Step(site=NOWHERE, shard=part.shard, start=0, stop=4, want=0, plan=part.save(tmp_path / "speed"))
    with opened(tmp_path, "127.0.0.1:0", tls) as first:
        run_step(replace(step, hatch=first))
    answer = attempt(replace(step, start=4, stop=8, want=None, hatch=first))
    assert isinstance(answer, Failure)
    assert first.address in answer.reason
    assert "dask.records" in answer.reason
    with opened(tmp_path, "127.0.0.1:0", tls) as second:
        assert second.mark != first.mark
        again = run_step(replace(step, start=4, stop=8, want=None, hatch=second))
    assert closes(again) == closes(run_step(replace(step, site=str(tmp_path), start=4, stop=8, want=None)))


def test_another_site_at_the_same_path_is_another_site(tls: ssl.SSLContext, as_worker: None, tmp_path: Path) -> None:
    """A worker's cache is of one hatch: two machines may each have a site of that path, of the same plan."""
    part = ReadPlan.of([small.MEMBERS[0].spec], small.resolve, small.LAYOUT, small.GRID).shards[0]
    for seed in (1, 2):
        site = tmp_path / f"{seed}"
        site.mkdir()
        journal, _ = small.make_site(site)
        small.append_all(journal, [small.rows(i * 3, i * 3 + 3, seed) for i in range(9)], 0.0)
        step = Step(site=NOWHERE, shard=part.shard, start=0, stop=4, want=0, plan=part.save(site / "speed"))
        near: dict[int, tuple[bytes, bytes]] = {}
        far: dict[int, tuple[bytes, bytes]] = {}
        with opened(site, "127.0.0.1:0", tls) as hatch:
            if seed == 2:  # the first site's ring stands where the second one's step begins
                step = replace(step, start=4, stop=8, want=None)
            laid(run_step(replace(step, hatch=hatch)), far)
            laid(run_step(replace(step, site=str(site))), near)
        assert near == far
        assert far
        journal.close()


# Stores


def test_records_come_in_pages_and_none_is_lost(wire: Wire, tmp_path: Path) -> None:
    journal, _ = small.make_site(tmp_path)
    journal.close()
    journal = Journal.open(tmp_path / "journal", segment_bytes=64 << 20)
    wide = np.arange(5, dtype=np.int32)
    for number in range(6):
        values = np.random.default_rng(number).normal(size=(150_000, 5)).astype(np.float32)
        times = np.arange(150_000, dtype=np.int64) * small.SECOND + number
        dense = Dense(times=times, tags=wide, values=values, quality=np.zeros(values.shape, np.uint8))
        journal.append([Entry(source="s", source_offset=number, parts=small.LAYOUT.split(dense))])
    far = FarJournal(wire, np.array([0, 4], np.int32))
    assert far.first == journal.first
    # Shard 0 has the tags 0, 2, 4; two of three columns are less than all that matter.
    got = list(far.read(0, 6, 0))
    assert [r.sequence for r in got] == [0, 1, 2, 3, 4, 5]
    assert sum(r.readings.values.nbytes + r.readings.times.nbytes for r in got if r.readings) > PAGE_BYTES
    for mine, theirs in zip(got, journal.read(0, 6, 0), strict=True):
        assert mine.readings is not None
        assert theirs.readings is not None
        assert np.array_equal(mine.readings.times, theirs.readings.times)
        assert mine.readings.tags.tolist() == [0, 4]
        assert mine.readings.values.tobytes() == theirs.readings.values[:, [0, 2]].tobytes()
    whole = list(FarJournal(wire, wide).read(0, 6, 0))
    assert sum(r.readings.values.nbytes + r.readings.times.nbytes for r in whole if r.readings) > PAGE_BYTES
    assert [r.readings.values.tobytes() for r in whole if r.readings] == [
        r.readings.values.tobytes() for r in journal.read(0, 6, 0) if r.readings
    ]
    journal.close()


def test_cells_come_in_pages(wire: Wire, tmp_path: Path) -> None:
    journal, archive = small.make_site(tmp_path)
    small.append_all(journal, [small.rows(0, 300, 3)], 0.0)
    drain(journal, archive, small.LAYOUT)
    far, head = FarArchive(wire), archive.head()
    assert far.at(journal.tail) == head
    ticks = PAGE_CELLS // 5 + 1000
    mine, theirs = far.read(ALL, 300 - ticks, 300, snapshot=head.snapshot), archive.read(ALL, 300 - ticks, 300)
    assert mine.first == theirs.first
    for column in ("values", "quality", "offset"):
        assert getattr(mine, column).dtype == getattr(theirs, column).dtype
        assert getattr(mine, column).tobytes() == getattr(theirs, column).tobytes()
    assert far.read(ALL, 7, 7).values.shape == (0, 5)
    assert far.read(ALL[:0], 0, 9).values.shape == (9, 0)
    journal.close()


def test_what_the_site_refuses_is_refused_by_the_same_name(wire: Wire, tmp_path: Path) -> None:
    journal, _ = small.make_site(tmp_path)
    small.append_all(journal, [small.rows(0, 9, 3)], 0.0)
    with pytest.raises(JournalError, match="asked for"):
        list(FarJournal(wire, ALL).read(0, 10**6, 0))
    with pytest.raises(ArchiveError, match="no-such"):
        FarArchive(wire).read(ALL, 0, 9, snapshot="no-such")
    with pytest.raises(SiteError, match="plan-0-0123456789abcdef"):
        plan_text(wire, "plan-0-0123456789abcdef.json")
    secret = tmp_path / "site.toml"
    secret.write_text("a password")
    for name in ("../site.toml", str(secret), "plan-0-../../site.toml"):
        with pytest.raises(BadRequest, match="no name of a read plan"):
            plan_text(wire, name)
    with pytest.raises(BadRequest, match="knows no question"):
        wire.ask({"ask": "delete everything"})
    with pytest.raises(BadRequest, match="cells at once"):
        wire.ask({"ask": "cells", "first": 0, "last": 1 << 40, "snapshot": None}, ALL.tobytes())
    with pytest.raises(BadRequest, match="tag ids"):
        wire.ask({"ask": "cells", "first": 0, "last": 1, "snapshot": None}, np.array([-1], "<i4").tobytes())
    assert FarJournal(wire, ALL).closed_before(journal.tail) == journal.closed_before(journal.tail)
    journal.close()


@given(data=st.data())
def test_a_thinned_record_has_the_wanted_readings(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    readings: Readings = small.rows(0, int(rng.integers(1, 5)), 7)
    if data.draw(st.booleans()):
        long = readings.long()
        readings = Frame(times=long.times, tags=long.tags, values=long.values.astype("f8"), quality=long.quality)
    wanted = np.array(data.draw(st.lists(st.booleans(), max_size=7)), np.bool_)
    entry = Entry(source="näher", source_offset=3, parts={6: readings})
    raw = b"".join(drafts(entry)[0].bytes_at(4, 11, 99)[0])
    thin = thinned(raw, wanted)
    ids = [i for i in range(5) if i < len(wanted) and wanted[i]]
    if not any(i in ids for i in readings.tags.tolist()):
        assert thin == b""
        return
    (record,) = records_in(thin)
    assert (record.sequence, record.shard, record.source, record.source_offset) == (11, 6, "näher", 3)
    assert record.readings is not None

    def told(found: Readings) -> list[tuple[int, int, bytes, int]]:
        frame = found if isinstance(found, Frame) else found.long()
        rows = zip(frame.times.tolist(), frame.tags.tolist(), frame.values, frame.quality.tolist(), strict=True)
        return [(t, i, v.tobytes(), q) for t, i, v, q in rows if i in ids]

    assert told(record.readings) == told(readings)
    assert len(thin) <= len(raw)


def test_a_record_that_was_changed_on_the_way_is_noticed() -> None:
    raw = bytearray(
        b"".join(drafts(Entry(source="s", source_offset=3, parts={0: small.rows(0, 2, 7)}))[0].bytes_at(0, 1, 0)[0])
    )
    assert len(list(records_in(bytes(raw)))) == 1
    raw[-9] ^= 1
    with pytest.raises(JournalCorrupt):
        list(records_in(bytes(raw)))


# Who may


def test_nobody_gets_anything_without_a_certificate_of_the_authority(
    authority: Authority, tls: ssl.SSLContext, tmp_path: Path
) -> None:
    small.make_site(tmp_path)
    stranger = Authority(tmp_path / "stranger")
    unnamed = ssl.create_default_context(cafile=str(authority.ca))
    unnamed.check_hostname = False
    foreign = ssl.create_default_context(cafile=str(authority.ca))
    foreign.check_hostname = False
    foreign.load_cert_chain(*stranger.certificate("worker"))
    with opened(tmp_path, "127.0.0.1:0", tls) as hatch:
        for refused in (unnamed, foreign):
            with pytest.raises(Unavailable, match=f"{hatch.address}"):
                Wire(hatch.address, refused).ask({"ask": "first"})
        with pytest.raises(Unavailable, match="one authority"):  # the other way round: it is not our hatch
            Wire(hatch.address, context(stranger, "worker")).ask({"ask": "first"})
        mine = Wire(hatch.address, context(authority, "worker"))
        assert mine.ask({"ask": "first"})[0] == {"first": 0}
        mine.close()


def test_garbage_ends_its_own_wire_only(authority: Authority, tls: ssl.SSLContext, tmp_path: Path) -> None:
    small.make_site(tmp_path)
    with opened(tmp_path, "127.0.0.1:0", tls) as hatch:
        mine = Wire(hatch.address, context(authority, "worker"))
        assert mine.ask({"ask": "first"})[0] == {"first": 0}
        host, port = hatch.address.split(":")
        for garbage in (
            b"GET / HTTP/1.1\r\n\r\n",
            PREFIX.pack(MAGIC, 1 << 30, 0),
            PREFIX.pack(MAGIC, 2, LARGEST_REQUEST + 1) + b"{}",
            PREFIX.pack(MAGIC, 3, 0) + b"xyz",
            PREFIX.pack(MAGIC, 2, 0) + b"[]",
            struct.pack("<4s", b"half"),
        ):
            plain = socket.create_connection((host, int(port)), 10)
            with context(authority, "worker").wrap_socket(plain, server_hostname=host) as other:
                other.sendall(garbage)
                if garbage == b"half":
                    continue
                other.settimeout(10)
                with suppress(ConnectionError, ssl.SSLError):  # hung up on, politely or not
                    assert other.recv(1) == b""
        assert mine.ask({"ask": "first"})[0] == {"first": 0}
        mine.close()


def test_a_wire_that_was_let_go_of_is_made_again(authority: Authority, tls: ssl.SSLContext, tmp_path: Path) -> None:
    small.make_site(tmp_path)
    with opened(tmp_path, "127.0.0.1:0", tls) as hatch:
        wire = Wire(hatch.address, context(authority, "worker"))
        wire.ask({"ask": "first"})
    with pytest.raises(Unavailable, match="no answer"):
        wire.ask({"ask": "first"})
    with opened(tmp_path, hatch.address, tls):
        wire.ask({"ask": "first"})
    with opened(tmp_path, hatch.address, tls):
        assert wire.ask({"ask": "first"})[0] == {"first": 0}
    wire.close()


def test_a_hatch_needs_an_address_of_this_machine(tls: ssl.SSLContext, tmp_path: Path) -> None:
    with pytest.raises(SiteError, match=r"192\.0\.2\.1:8790.*dask\.records"), opened(tmp_path, "192.0.2.1:8790", tls):
        pass
    assert list((tmp_path / "records").iterdir()) == []


def test_several_hatches_share_a_named_address(authority: Authority, tls: ssl.SSLContext, tmp_path: Path) -> None:
    """A training beside a stream; when all eight ports are taken it is told."""
    small.make_site(tmp_path)
    with ExitStack() as held:
        first = held.enter_context(opened(tmp_path, f"127.0.0.1:{free_port()}", tls))
        others = [held.enter_context(opened(tmp_path, first.address, tls)) for _ in range(7)]
        addresses = {hatch.address for hatch in (first, *others)}
        assert len(addresses) == 8
        for hatch in others:
            wire = Wire(hatch.address, context(authority, "worker"))
            assert wire.ask({"ask": "first"})[0] == {"first": 0}
            wire.close()
        with pytest.raises(SiteError, match=r"in use.*dask\.records"), opened(tmp_path, first.address, tls):
            pass


def test_who_finds_the_mark_is_in_the_site(tmp_path: Path) -> None:
    site, copy = tmp_path / "site", tmp_path / "copy"
    for folder in (site, copy):
        folder.mkdir()
        small.make_site(folder)
    (site / "records").mkdir()
    (site / "records" / "mark-4194305-0123456789abcdef").touch()  # of a process that was killed
    with marked(site) as mark:
        hatch = Hatch(address="127.0.0.1:1", mark=mark)
        assert [path.name for path in (site / "records").iterdir()] == [mark]
        assert outside(site / "archive", hatch) is None
        assert outside(copy / "archive", hatch) == hatch
        assert outside(tmp_path / "nothing" / "archive", hatch) == hatch
    assert outside(site / "archive", None) is None
    with pytest.raises(SiteError, match=r"cannot read the site.*tls://"):
        outside(tmp_path / "nothing" / "archive", None)
    assert not (tmp_path / "nothing").exists()
