"""`penstock init --from opc.tcp://...`: a real server is looked through, and what is written runs as it stands."""

from __future__ import annotations

import asyncio
import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from opcua_process import Known, ServerProcess, Spec
from source_peers import free_port, take
from typer.testing import CliRunner

import penstock
from penstock.cli import app
from penstock.data.plants.plant_file import load_plant
from penstock.site_toml import read_settings
from penstock.sources import live_sources

VARIABLES = {"T1": "Double", "Flow rate": "Float", "Pump on": "Boolean", "Hours": "Int32", "Note": "String"}
KNOWN = {
    "T1": Known(unit="°C", range=(-20.0, 120.0), description="Inlet, before\nthe valve"),
    "Flow rate": Known(unit="m³/h", range=(5.0, 5.0)),
}


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    made = ServerProcess(Spec(port=free_port(), variables=VARIABLES, known=KNOWN))
    made.start()
    yield made
    made.kill()


def init(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["init", *words])
    return done.exit_code, done.output if done.exception is None else f"{done.output}{done.exception}"


def test_a_server_becomes_a_plant_that_reads_it(server: ServerProcess, tmp_path: Path) -> None:
    url, folder = f"opc.tcp://127.0.0.1:{server.spec.port}", tmp_path / "line"
    code, said = init(str(folder), "--from", url, "--json")
    assert code == 0, said
    answer = json.loads(said.splitlines()[-1])
    assert (answer["tags"], answer["models"], answer["next"]) == (4, [], f"penstock stream --site {folder}")
    assert "left out, as they are no single numbers: ns=2;s=small.Note" in answer["notes"]  # nor units, ranges

    with (folder / "tags.csv").open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["T1", "Flow_rate", "Pump_on", "Hours"]
    assert rows["T1"] | {"max_gap": ""} == {
        "name": "T1", "unit": "degC", "description": "Inlet, before the valve", "kind": "", "dtype": "",
        "low": "-20.0", "high": "120.0", "max_gap": "",
    }  # fmt: skip
    assert (rows["Flow_rate"]["unit"], rows["Flow_rate"]["low"]) == ("m³/h", "")  # a range of no width is none
    assert rows["Pump_on"]["kind"] == "state"
    assert rows["Hours"]["dtype"] == "float64"

    source = load_plant(folder / "plant.toml").sources["opcua"]
    assert source.columns == {"ns=2;s=small.Flow rate": "Flow_rate", "ns=2;s=small.Pump on": "Pump_on"}
    assert read_settings(folder / "site.toml").sources["opcua"].url == url
    with penstock.open(folder) as site:
        assert site.plant.tags["T1"].description == "Inlet, before the valve"
        ((made, _),) = live_sources(site)
        server.put([("T1", 10**9, 21.5, 0), ("Flow rate", 10**9, 3.0, 0), ("Pump on", 10**9, True, 0)])
        found = asyncio.run(take(made, 3))
        names = site.registry.names()
    got = {(names[tag], value) for d in found for tag, value in zip(d.readings.tags, d.readings.values, strict=True)}
    assert got == {("T1", 21.5), ("Flow_rate", 3.0), ("Pump_on", 1.0)}


def test_a_part_of_a_server(server: ServerProcess, tmp_path: Path) -> None:
    url = f"opc.tcp://127.0.0.1:{server.spec.port}"
    code, said = init(
        str(tmp_path / "a"), "--from", url, "--node", "ns=2;s=small.T1", "--node", "ns=2;s=none", "--json"
    )
    assert code == 0, said
    answer = json.loads(said.splitlines()[-1])
    assert answer["tags"] == 1
    assert "the server knows no node ns=2;s=none" in answer["notes"]
    assert load_plant(tmp_path / "a" / "plant.toml").sources["opcua"].nodes == ("ns=2;s=small.T1", "ns=2;s=none")


def test_what_cannot_be_looked_at_makes_no_site(server: ServerProcess, tmp_path: Path) -> None:
    url, folder = f"opc.tcp://127.0.0.1:{server.spec.port}", tmp_path / "none"
    for words, why in [
        ([f"opc.tcp://127.0.0.1:{free_port()}"], "cannot be reached"),
        (["http://plant"], "cannot be looked at"),
        ([url, "--node", "hello"], "hello: is no node id"),
        ([url, "--node", "ns=2;s=small.Note"], "nothing there looks like a tag"),
        ([url, "--cert-file", str(tmp_path / "ours.pem")], "an encrypted session needs"),
        ([url, "--password-file", str(tmp_path / "secret")], "cannot be read"),
    ]:
        code, said = init(str(folder), "--from", *words)
        assert code != 0
        assert why in said
        assert not folder.exists()
