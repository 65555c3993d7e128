"""site.toml is read strictly; site.json says the format and the shards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from penstock.errors import PlantError, SiteError
from penstock.settings import create, migrated, open_settings
from penstock.site_toml import Settings, SourceSettings, parse_settings

CREATED = "2024-05-01T00:00:00+00:00"


def test_a_new_site_opens_with_what_was_given(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "site"
    made = create(folder, "# plant", created=CREATED, site_text="shards = 3\n[triton]\nendpoints = ['a:8001']\n")
    again = open_settings(folder)
    assert again == made
    assert (again.shards, again.file.created, again.settings.triton.endpoints) == (3, CREATED, ("a:8001",))
    assert (again.settings.journal.segment_mb, again.settings.dask.workers) == (64, 2)
    assert (again.settings.archive.commit_every_s, again.settings.retention.snapshots_ns) == (10.0, 86_400 * 10**9)
    assert (folder / "plant.toml").read_text() == "# plant"
    with pytest.raises(SiteError, match="is a site already"):
        create(folder, "", created=CREATED)


def test_all_mistakes_of_a_site_toml_at_once(tmp_path: Path) -> None:
    text = """
retention = { snapshots = "soon", journal = "7d" }
archive = { commit_every = "0s" }
[journal]
segment_md = 3
[dask]
workers = "2"
scheduler = "localhost"
[tritn]
[triton]
endpoints = ["a:8001", "b"]
"""
    with pytest.raises(PlantError) as caught:
        parse_settings(text, "site.toml")
    found = {m.key: m for m in caught.value.mistakes}
    assert set(found) == {
        "retention.snapshots",
        "retention.journal",
        "archive.commit_every",
        "journal.segment_md",
        "dask.workers",
        "dask.scheduler",
        "tritn",
        "triton.endpoints[1]",
    }
    assert found["journal.segment_md"].near == "segment_mb"
    assert found["tritn"].near == "triton"
    allowed = {key: mistake.allowed for key, mistake in found.items()}
    assert allowed["dask.workers"] == "a whole number from 1"
    assert allowed["dask.scheduler"] == 'an address such as "tcp://10.0.0.5:8786"'
    assert "host:port" in allowed["triton.endpoints[1]"]
    assert "longer than 0" in allowed["archive.commit_every"]


def test_how_long_what_stays() -> None:
    kept = parse_settings('retention = { keep = "3y", keep_models = 2 }', "site.toml").retention
    assert (kept.keep, kept.keep_models, kept.keep_said, kept.limited) == ("3y", 2, None, True)
    assert not parse_settings('retention.snapshots = "2d"', "site.toml").retention.limited, "all for ever"
    with pytest.raises(PlantError) as caught:
        parse_settings('retention = { keep = "0s", keep_said = 3, keep_models = 0, keeps = "1y" }', "site.toml")
    found = {m.key: m for m in caught.value.mistakes}
    assert set(found) == {f"retention.{key}" for key in ("keep", "keep_said", "keep_models", "keeps")}
    assert "longer than 0" in found["retention.keep"].allowed
    assert found["retention.keeps"].near == "keep"


def test_a_value_where_a_table_belongs() -> None:
    with pytest.raises(
        PlantError, match=r"site.toml: journal: found 3; allowed: a table, \[journal\], with segment_mb"
    ):
        parse_settings("journal = 3", "site.toml")


def test_a_mistake_in_a_source_is_told_with_its_name() -> None:
    text = """
[sources.plc]
url = "http://broker"
passwort_file = "secret"
[sources.line2]
user = 3
"""
    with pytest.raises(PlantError) as told:
        parse_settings(text, "site.toml")
    found = {mistake.key: mistake for mistake in told.value.mistakes}
    assert set(found) == {"sources.plc.url", "sources.plc.passwort_file", "sources.line2.url", "sources.line2.user"}
    assert "mqtts://" in found["sources.plc.url"].allowed
    assert found["sources.plc.passwort_file"].near == "password_file"
    assert found["sources.line2.url"].found == "nothing"


def test_every_setting_says_what_it_may_be() -> None:
    for section in (Settings, SourceSettings, *(type(field.default) for field in Settings.model_fields.values())):
        if not issubclass(section, BaseModel):
            continue
        for name, field in section.model_fields.items():
            assert field.description or isinstance(field.default, BaseModel), f"{section.__name__}.{name}"


def test_a_torn_creation_is_no_site(tmp_path: Path) -> None:
    (tmp_path / "plant.toml").write_text("")
    with pytest.raises(SiteError, match="penstock init"):
        open_settings(tmp_path)
    assert create(tmp_path, "again", created=CREATED).shards == 2


def test_mistakes_stop_a_creation_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(PlantError):
        create(tmp_path / "site", "", created=CREATED, site_text="shard = 2")
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ('{"format": 99, "shards": 2, "created": ""}', "upgrade penstock"),
        ('{"format": 0, "shards": 2, "created": ""}', "format is 0"),
        ('{"shards": 2}', "format"),
        ('{"format": 1}', "shards or created"),
        ("[]", "no object"),
        ("{", "cannot be read"),
    ],
)
def test_a_site_json_that_cannot_be_used(tmp_path: Path, content: str, why: str) -> None:
    create(tmp_path, "", created=CREATED)
    (tmp_path / "site.json").write_text(content)
    with pytest.raises(SiteError, match=why):
        open_settings(tmp_path)


def test_shards_stay_as_created(tmp_path: Path) -> None:
    create(tmp_path, "", created=CREATED)
    (tmp_path / "site.toml").write_text("shards = 4")
    with pytest.raises(PlantError, match="keeps its shards"):
        open_settings(tmp_path)


def test_migrations_run_in_order(tmp_path: Path) -> None:
    def step(key: str) -> Any:
        return lambda state: {**state, "log": [*state.get("log", []), key]}

    table = {1: step("to 2"), 2: step("to 3")}
    state = migrated({"format": 1, "shards": 2}, tmp_path, table, to=3)
    assert state == {"format": 3, "shards": 2, "log": ["to 2", "to 3"]}
    assert migrated({"format": 3}, tmp_path, table, to=3) == {"format": 3}


def test_site_json_is_plain(tmp_path: Path) -> None:
    create(tmp_path, "", created=CREATED, shards=5)
    assert json.loads((tmp_path / "site.json").read_text()) == {"format": 1, "shards": 5, "created": CREATED}
