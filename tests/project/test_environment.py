"""environment.yml and pyproject.toml name the same packages with the same bounds."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def requirements(lines: list[str]) -> set[str]:
    found = set()
    for line in lines:
        text = re.sub(r"\s+", "", line)
        name, bound = re.fullmatch(r"([A-Za-z0-9_.\[\]-]+)(>=.*)", text).groups()  # type: ignore[union-attr]
        if name == "dask[distributed]":  # conda-forge has the extra as a package of its own
            found |= {f"dask{bound}", f"distributed{bound}"}
        else:
            found.add(name + bound)
    return found


def test_environment_yml_equals_pyproject() -> None:
    text = (ROOT / "environment.yml").read_text()
    listed = re.findall(r"^\s+- ([a-z][^\n]*>=[^\n]*)$", text, flags=re.M)
    conda = {line for line in listed if not line.startswith("python ")}
    wanted = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["site"]
    assert requirements(sorted(conda)) == requirements(wanted)


def test_constraints_pin_every_requirement() -> None:
    pinned = {
        re.sub(r"[-_.]+", "-", line.split("==")[0]).lower()
        for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    extras = PROJECT["optional-dependencies"]
    for line in PROJECT["dependencies"] + extras["site"] + extras["dev"]:
        name = re.sub(r"[-_.]+", "-", re.match(r"[A-Za-z0-9_.-]+", line).group()).lower()  # type: ignore[union-attr]
        assert name in pinned, f"constraints.txt does not pin {name}"
