"""`penstock doctor` tells what is wrong with a site, by name, and changes nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.doctor import Finding, _mismatch, examine
from penstock.site import Site

PLANT = '[plant]\nname = "p"\nperiod = "1s"\n[tags]\nT = {}\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "plant.toml").write_text(PLANT)
    with Site.create(tmp_path / "site", tmp_path / "plant.toml") as site:
        return site.folder


def found(folder: Path) -> dict[str, Finding]:
    return {finding.check: finding for finding in examine(folder)}


def site_checks(folder: Path) -> dict[str, str]:
    """State by check, those of the site alone."""
    return {name: f.state for name, f in found(folder).items() if name in CHECKS}


CHECKS = ("site.json", "site.toml", "plant.toml", "tags", "archive", "journal", "models", "locks")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_whole_site_is_well_and_untouched(folder: Path) -> None:
    before = contents(folder)
    assert set(site_checks(folder).values()) == {"ok"}
    assert set(site_checks(folder)) == set(CHECKS)
    assert contents(folder) == before


BREAKS = [
    ("site.json", lambda f: (f / "site.json").write_text("{")),
    ("site.toml", lambda f: (f / "site.toml").write_text("shardz = 2")),
    ("site.toml", lambda f: (f / "site.toml").write_text('triton.endpoints = ["127.0.0.1:1"]')),
    ("plant.toml", lambda f: (f / "plant.toml").write_text(PLANT + "[sources.import]\ndezimal = ','\n")),
    ("tags", lambda f: (f / "tags.sqlite").write_bytes(b"no database" * 99)),
    ("tags", lambda f: (f / "tags.sqlite").unlink()),
    ("journal", lambda f: (f / "journal" / "tail").unlink()),
    (
        "models",
        lambda f: (f / "models").mkdir(exist_ok=True) or (f / "models/registry.sqlite").write_bytes(b"x" * 9999),
    ),
    ("archive", lambda f: (f / "archive").rename(f / "elsewhere")),
]


@pytest.mark.parametrize(("check", "spoil"), BREAKS)
def test_what_is_broken_is_named_with_a_remedy(check: str, spoil: object, folder: Path) -> None:
    spoil(folder)  # type: ignore[operator]
    told = found(folder)[check]
    assert told.state == "wrong"
    assert told.what
    assert told.todo
    assert sum(state == "wrong" for state in site_checks(folder).values()) <= 2


def test_packages_are_held_against_what_is_asked_for() -> None:
    from packaging.requirements import Requirement

    assert _mismatch(Requirement("numpy>=2")) == ""
    assert "numpy" in _mismatch(Requirement("numpy<1"))
    assert _mismatch(Requirement("no-such-package>=1")) == "no-such-package is missing"
    assert _mismatch(Requirement('no-such-package>=1; extra == "dev"')) == ""


def test_the_exit_code_tells_a_program(folder: Path) -> None:
    (folder / "site.json").write_text("{")
    run = subprocess.run(
        [sys.executable, "-m", "penstock", "doctor", str(folder), "--json"], capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 1, run.stderr
    told = json.loads(run.stdout.splitlines()[-1])
    assert told["wrong"] >= 1
    assert {"check", "state", "what", "todo"} == set(told["findings"][0])
