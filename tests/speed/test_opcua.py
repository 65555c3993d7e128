"""What only OPC UA has: history, status codes, certificates, node ids. Against asyncua's own server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import opcua_papers as papers
import pytest
import small_site as small
from asyncua import ua
from opcua_peer import FLOATS, FOLDER, SOURCE, OpcUaPeer, opcua, readings
from opcua_process import ServerProcess, Spec
from source_peers import DEADLINE_S, assert_same, free_port, names_of, pairs, take

from penstock.data.frame import BAD, GOOD, UNCERTAIN, Dense, Frame
from penstock.data.importing.source_tags import SourceTags
from penstock.data.registry import Registry
from penstock.errors import PlantError, SourceError
from penstock.speed.formats.names import Names
from penstock.speed.link import Link
from penstock.speed.opcua.matching import matched
from penstock.speed.opcua.nodes import Variable
from penstock.speed.source import Access, Delivery
from penstock.speed.sources.opcua import OpcUa

SECOND = 10**9
OVERFLOW = 0x00000480


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    made = Registry.open(tmp_path / "tags.sqlite")
    made.register(list(small.TAGS.values()))
    return made


@pytest.fixture
def peer(registry: Registry, tmp_path: Path) -> Iterator[OpcUaPeer]:
    made = OpcUaPeer(registry, tmp_path / "peer")
    made.start()
    yield made
    made.close()


def whole(first: int, last: int) -> Dense:
    """Rows of all five tags, none missing."""
    k = last - first
    values = np.arange(first * 5, last * 5, dtype=np.float32).reshape(k, 5)
    times = small.GRID.times(first, last)
    return Dense(times=times, tags=np.arange(5, dtype=np.int32), values=values, quality=np.zeros((k, 5), np.uint8))


def taken(
    source: OpcUa, enough: Callable[[list[Delivery]], bool], begin: Sequence[Delivery] = (),
    once_up: Callable[[], None] = lambda: None,
) -> list[Delivery]:  # fmt: skip
    """Deliveries until `enough`; `once_up` happens when the source has found the server."""

    async def main() -> list[Delivery]:
        found: list[Delivery] = []
        deliveries = source.deliveries({d.part: d.offset for d in begin})
        telling = asyncio.create_task(tell())
        async with asyncio.timeout(DEADLINE_S):
            async for delivery in deliveries:
                found.append(delivery)
                if enough(found):
                    break
            await deliveries.aclose()  # type: ignore[attr-defined]
            await telling
        return found

    async def tell() -> None:
        while not source.link.connects:
            await asyncio.sleep(0.02)
        await asyncio.to_thread(once_up)

    return asyncio.run(main())


def told(source: OpcUa, what: str) -> None:
    """Until the link says so; nothing is delivered meanwhile."""

    async def main() -> None:
        waiting = asyncio.ensure_future(anext(source.deliveries({})))  # type: ignore[arg-type]
        try:
            async with asyncio.timeout(DEADLINE_S):
                while what not in (source.link.trouble or ""):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            pytest.fail(f"the link says {source.link.trouble!r}")
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    asyncio.run(main())


def frame(found: list[Delivery]) -> Frame:
    frames = [d.readings.long() if isinstance(d.readings, Dense) else d.readings for d in found]
    return Frame(
        times=np.concatenate([f.times for f in frames]), tags=np.concatenate([f.tags for f in frames]),
        values=np.concatenate([f.values for f in frames]), quality=np.concatenate([f.quality for f in frames]),
    )  # fmt: skip


def test_a_long_absence_through_a_kill_of_the_server_is_read_in_order_of_time(peer: OpcUaPeer) -> None:
    begin = taken(peer.source(), lambda found: len(frame(found)) >= 5, once_up=lambda: peer.send(whole(0, 1)))
    peer.send(whole(1, 300))
    peer.stop()
    peer.start()
    peer.send(whole(300, 620))  # more than is asked for at once, of each variable
    wanted = whole(0, 620)
    found = asyncio.run(take(peer.source(), 619 * 5, begin))
    assert_same([*begin, *found], [wanted], 620)
    history = [d for d in found if len(d.readings) > 5]
    newest = [int(d.readings.times.max()) for d in history]
    assert len(history) >= 2
    assert all(int(d.readings.times.min()) >= before for d, before in zip(history[1:], newest, strict=False))


def test_status_codes_become_quality_and_what_has_no_value_is_no_reading(peer: OpcUaPeer) -> None:
    said = [
        ("A", 1 * SECOND, 1.0, 0), ("A", 2 * SECOND, 2.0, ua.StatusCodes.GoodClamped),
        ("A", 3 * SECOND, 3.0, ua.StatusCodes.UncertainLastUsableValue),
        ("A", 4 * SECOND, 4.0, ua.StatusCodes.BadSensorFailure),
        ("A", 5 * SECOND, None, ua.StatusCodes.BadCommunicationError), ("A", 6 * SECOND, None, 0),
        ("A", 7 * SECOND, None, ua.StatusCodes.BadWaitingForInitialData), ("A", 8 * SECOND, 8.0, 0),
    ]  # fmt: skip
    got = frame(
        taken(peer.source(), lambda found: 8 * SECOND in frame(found).times, once_up=lambda: peer.server.put(said))
    )
    assert (got.times // SECOND).tolist() == [1, 2, 3, 4, 5, 8]
    assert got.quality.tolist() == [GOOD, GOOD, UNCERTAIN, BAD, BAD, GOOD]
    np.testing.assert_array_equal(got.values, [1, 2, 3, 4, np.nan, 8])


def test_readings_that_the_server_dropped_are_read_from_its_history(peer: OpcUaPeer) -> None:
    def meanwhile() -> None:
        peer.send(whole(0, 2))
        peer.server.put(readings(whole(2, 9)), aloud=False)
        peer.server.put([("A", 9 * SECOND, 45.0, OVERFLOW), *readings(whole(9, 10))[1:]])

    lost = {(time, 0) for time in (whole(2, 9).times).tolist()}
    found = taken(peer.source(), lambda found: lost <= {p for d in found for p in pairs(d)}, once_up=meanwhile)
    assert {(time, 1) for time, _ in lost}.isdisjoint({p for d in found for p in pairs(d)})  # of B none was dropped


def test_a_server_without_history_goes_on_and_the_link_says_what_that_costs(registry: Registry) -> None:
    server = ServerProcess(Spec(port=free_port(), variables=FLOATS))
    server.start()
    try:
        source = opcua(registry, server.spec.port)
        begin = taken(source, lambda found: len(frame(found)) >= 5, once_up=lambda: server.put(readings(whole(0, 1))))
        assert source.link.trouble == "the stream has ended"
        server.put(readings(whole(1, 3)))
        again = opcua(registry, server.spec.port)
        said: list[str | None] = []

        def meanwhile() -> None:
            server.put(readings(whole(3, 4)))

        def enough(found: list[Delivery]) -> bool:
            said.append(again.link.trouble)
            return (3 * SECOND, 4) in {p for d in found for p in pairs(d)}

        found = taken(again, enough, begin, meanwhile)
        assert said[-1] == "no history of A, B, C and 2 more: what they said while we were away is lost"
        assert SECOND not in frame(found).times  # it was never told, and is not known
    finally:
        server.kill()


def test_variables_are_found_by_node_id_or_by_a_browse_name_that_only_one_has(registry: Registry) -> None:
    columns = {"ns=2;s=x.PV": "A", "B": None, "ns=2;s=y.T": None}
    names = Names(SourceTags(small.PLANT, registry, columns), Link())
    found = [
        Variable(id=ua.NodeId.from_string(text), name=name)
        for text, name in (
            ("ns=2;s=x.PV", "PV"), ("ns=2;s=y.PV", "PV"), ("ns=2;s=y.B", "B"), ("ns=2;s=y.T", "C"),
            ("ns=2;i=7", "D"), ("ns=2;i=8", "E"), ("ns=2;i=9", "E"),
        )
    ]  # fmt: skip
    kept, others = matched(found, names)
    assert [(v.text, name) for v, name in kept] == [("ns=2;s=x.PV", "ns=2;s=x.PV"), ("ns=2;i=7", "D")]
    assert [v.text for v in others] == ["ns=2;s=y.PV", "ns=2;i=8", "ns=2;i=9"]  # B and y.T were left out


def test_nodes_that_are_not_there_cost_the_others_nothing(peer: OpcUaPeer, registry: Registry) -> None:
    spec = replace(SOURCE, nodes=("ns=2;s=nowhere", "ns=2;s=small.B"))
    source, said = opcua(registry, peer.server.spec.port, spec), []

    def enough(found: list[Delivery]) -> bool:
        said.append(source.link.trouble)
        return True

    found = frame(taken(source, enough, once_up=lambda: peer.send(whole(0, 1))))
    assert found.tags.tolist() == [1]
    assert said == ["the server knows no node ns=2;s=nowhere"]
    with pytest.raises(PlantError, match=r"sources\.plc\.nodes\[1\].*hello"):
        opcua(registry, 1, replace(SOURCE, nodes=(FOLDER, "hello")))


def test_names_that_are_no_tags_are_listed_and_not_asked_for(tmp_path: Path, registry: Registry) -> None:
    server = ServerProcess(Spec(port=free_port(), variables={"X": "Double", "A": "Double", "Note": "String"}))
    server.start()
    try:
        source = opcua(registry, server.spec.port)
        said = [("X", SECOND, 1.0, 0), ("Note", SECOND, "hot", 0), ("A", SECOND, 2.0, 0)]
        found = taken(source, lambda found: True, once_up=lambda: server.put(said))
        assert (frame(found).tags.tolist(), [d.rejected for d in found]) == ([0], [0])
        assert source.link.unmapped == {"ns=2;s=small.X": 0, "ns=2;s=small.Note": 0}
        told(opcua(registry, server.spec.port, replace(SOURCE, nodes=("ns=2;s=small.X",))), "none of the 1 variables")
    finally:
        server.kill()


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, Path]]:
    """A server that knows one user and trusts one certificate, and the folder of certificates."""
    folder = tmp_path_factory.mktemp("papers")
    papers.write(folder)
    spec = Spec(port=free_port(), variables=FLOATS, users={"penstock": "s3cret"}, secure=folder)
    server = ServerProcess(spec)
    server.start()
    yield server, folder
    server.kill()


def with_papers(
    folder: Path, ours: str = "client", theirs: str = "server.pem", password: str = "s3cret"
) -> dict[str, object]:
    return {
        "user": "penstock", "password": password, "ca_file": folder / theirs,
        "cert_file": folder / f"{ours}.pem", "key_file": folder / f"{ours}.key.pem",
    }  # fmt: skip


@pytest.mark.parametrize("theirs", ["server.pem", "server.der", "both.pem"])
def test_an_encrypted_session_with_a_server_that_we_know(
    secure: tuple[ServerProcess, Path], registry: Registry, theirs: str
) -> None:
    server, folder = secure
    source = opcua(registry, server.spec.port, **with_papers(folder, theirs=theirs))
    found = taken(source, lambda found: len(frame(found)) >= 5, once_up=lambda: server.put(readings(whole(0, 1))))
    assert frame(found).values.tolist()[:5] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"theirs": "stranger.pem"}, "is not trusted (CN=server)"),
        ({"theirs": "client.pem"}, "is not trusted (CN=server)"),
        ({"ours": "stranger"}, "refuses our certificate"),
        ({"password": "guess"}, "refuses user penstock"),
    ],
)
def test_who_is_not_trusted_is_told_why(
    secure: tuple[ServerProcess, Path], registry: Registry, wrong: dict[str, str], why: str
) -> None:
    server, folder = secure
    told(opcua(registry, server.spec.port, **with_papers(folder, **wrong)), why)


def test_a_server_that_wants_encryption_says_so(secure: tuple[ServerProcess, Path], registry: Registry) -> None:
    told(opcua(registry, secure[0].spec.port), "wants an encrypted session: set cert_file, key_file and ca_file")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"ca_file": None}, "needs cert_file and key_file"),
        ({"cert_file": None}, "needs cert_file and key_file"),
        ({"cert_file": "missing.pem"}, r"missing\.pem: cannot be read"),
        ({"cert_file": "client.key.pem"}, r"client\.key\.pem is no certificate"),
        ({"key_file": "client.pem"}, r"client\.pem is no private key"),
        ({"cert_file": "nameless.pem"}, r"nameless\.pem names no application"),
        ({"ca_file": "missing.pem"}, r"missing\.pem: cannot be read"),
    ],
)
def test_papers_that_cannot_be_used_are_named(
    secure: tuple[ServerProcess, Path], registry: Registry, change: dict[str, str | None], why: str
) -> None:
    folder = secure[1]
    access = with_papers(folder) | {key: name and folder / name for key, name in change.items()}
    with pytest.raises(SourceError, match=why):
        opcua(registry, 1, **access)


def test_an_address_that_is_none(registry: Registry) -> None:
    for url in ("opc.tcp://", "opc.tcp://plant:99999", "http://plant:4840"):
        with pytest.raises(SourceError, match=r"give opc\.tcp://HOST:PORT"):
            OpcUa(SOURCE, Access(url=url), names_of(registry))
