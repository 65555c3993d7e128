"""The README's and the documents' code blocks do what they say.

A block's kind stands in an HTML comment on the line before it:

    run       executed for real, in order, in one folder: bash, and python in this process
    output    what the block before it printed: equal but for numbers; "..." stands for anything
    shown     not executed; every command and option in it must exist
    file NAME written to that folder
    plant     a plant.toml, or parts of one: completed from BASE, then loaded without a mistake
    site      a site.toml, loaded without a mistake

One Triton and one Dask cluster serve all blocks, by address in site.toml, as they may at a user's.
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from typer.main import get_command

from penstock.cli import app
from penstock.cluster import local_cluster
from penstock.data.expressions import FUNCTIONS
from penstock.data.plant import LstmSpec
from penstock.data.plants.aggregate_table import KEYS as AGGREGATE_KEYS
from penstock.data.plants.live_table import CORRECT_KEYS
from penstock.data.plants.model_table import LSTM_KEYS, MODEL_KEYS
from penstock.data.plants.plant_file import PLANT_KEYS, load_plant
from penstock.data.plants.prepare_text import STEPS
from penstock.data.plants.retrain_table import RETRAIN_KEYS
from penstock.data.plants.sink_table import KEYS as SINK_KEYS
from penstock.data.plants.source_table import KEYS as SOURCE_KEYS
from penstock.data.plants.tag_file import FILE_COLUMNS
from penstock.data.plants.tag_table import TAG_KEYS
from penstock.data.plants.view_table import VIEW_KEYS
from penstock.serving.deploy import Deployer
from penstock.serving.triton import Triton
from penstock.site_toml import Settings, SourceSettings, parse_settings

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
KINDS = {"run", "output", "shown", "file", "plant", "site"}
BLOCK = re.compile(r"(?:<!-- ([a-z]+) ?(\S*) -->\n)?^```(\w*)\n(.*?)^```$", re.M | re.S)
BASE = """
[plant]
name = "base"
period = "1min"
[tags]
TEY = { unit = "MWh" }
FUEL = { unit = "kg/s" }
AT = { unit = "degC" }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    page: str
    line: int
    kind: str
    name: str
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(*kinds: str) -> list[Block]:
    """The blocks of those kinds, pages and lines in order."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in BLOCK.finditer(text):
            kind, name, language, body = (part or "" for part in match.groups())
            line = text.count("\n", 0, match.start(4)) + 1
            found.append(Block(page=page.name, line=line, kind=kind, name=name, language=language, text=body))
    return [block for block in found if not kinds or block.kind in kinds]


def test_every_block_of_code_says_what_it_is() -> None:
    for block in blocks():
        if block.language in {"bash", "python", "toml"} and block.page != "architecture.md":
            assert block.kind in KINDS, f"{block}: no <!-- kind --> before it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where run blocks run: a user's folder, and the parts that stand ready by address."""

    folder: Path
    triton: str
    scheduler: str

    def bash(self, text: str) -> str:
        """Standard output of the lines. A site that they make finds the parts that stand ready."""
        said = ""
        for line in text.splitlines():
            plain = re.fullmatch(
                r"penstock (?!stream|up)[\w./ -]+", line
            )  # `status` asks whether the stream's process lives, `up` leaves one
            said += self._here(line) if plain else self._shell(line)
            for made in self.folder.glob("*/site.toml"):
                if not made.read_text():
                    made.write_text(f'dask.scheduler = "{self.scheduler}"\ntriton.endpoints = ["{self.triton}"]\n')
        return said

    def _here(self, line: str) -> str:
        """A plain command, in this process: starting Python takes longer than most of them."""
        said = io.StringIO()
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(said):
            code = app(shlex.split(line)[1:], standalone_mode=False)
        assert not code, f"{line}: exit code {code}"
        return said.getvalue()

    def _shell(self, line: str) -> str:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "ADDRESS": self.triton, "CODE": str(ROOT)}
        done = subprocess.run(
            ["bash", "-euc", line], cwd=self.folder, env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr[-4000:]}"
        return done.stdout

    def python(self, text: str, names: dict[str, Any]) -> str:
        """Standard output of the block, in the names that earlier blocks left."""
        said = io.StringIO()
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(said):
            exec(compile(text, "block", "exec"), names)
        return said.getvalue()


@pytest.fixture
def place(triton: Triton, tmp_path: Path) -> Iterator[Place]:
    with local_cluster(1) as client, Deployer(triton.endpoint, drain_s=0.1) as deploys:
        yield Place(folder=tmp_path, triton=triton.endpoint, scheduler=client.scheduler.address)
        deploys.ensure([])


@pytest.mark.timeout(600)
def test_the_blocks_run_and_print_what_is_shown(place: Place) -> None:
    names: dict[str, Any] = {}
    printed = ""
    for block in blocks("file", "run", "output"):
        match block.kind, block.language:
            case "file", _:
                (place.folder / block.name).write_text(block.text)
            case "run", "python":
                printed = place.python(block.text, names)
            case "run", _:
                printed = place.bash(block.text)
            case _:
                assert re.fullmatch(pattern(block.text), skeleton(printed)), f"{block}: it printed\n{printed}"


def skeleton(text: str) -> str:
    """An output without white space, each number as 0: a missing one is noticed, another one is not."""
    return re.sub(r"\s+", "", re.sub(r"[+-]?\d[\d.,:]*", "0", text))


def pattern(shown: str) -> str:
    return ".*".join(re.escape(skeleton(part)) for part in shown.split("..."))


def test_a_changed_output_is_noticed() -> None:
    assert re.fullmatch(pattern("live: flow@1\nslots: [0]"), skeleton("live: flow@2\nslots:  [17]"))
    assert re.fullmatch(pattern("site: .../pump"), skeleton("site: /home/x/pump"))
    assert not re.fullmatch(pattern("live: flow@1"), skeleton("live: flow@1\nbefore: None"))
    assert not re.fullmatch(pattern("flow@1  2.5  3.5"), skeleton("flow@1  2.5     "))


def commands() -> list[tuple[Block, list[str]]]:
    """Every `penstock ...` and `make ...` line of bash blocks, comments cut off."""
    found = []
    for block in blocks("run", "shown"):
        for line in block.text.replace("\\\n", " ").splitlines() if block.language == "bash" else []:
            words = shlex.split(re.split(r" (?:2>&1|[|&>])", line)[0], comments=True)
            if words and words[0] in {"penstock", "make"}:
                found.append((block, words))
    return found


@pytest.mark.parametrize(("block", "words"), commands(), ids=lambda v: " ".join(v) if isinstance(v, list) else str(v))
def test_shown_commands_and_options_exist(block: Block, words: list[str]) -> None:
    if words[0] == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M)
        assert {word for word in words[1:] if "=" not in word} <= set(targets), block
        return
    known = get_command(app).commands  # type: ignore[attr-defined]
    if words[1].startswith("--"):
        return
    assert words[1] in known, f"{block}: no command {words[1]}"
    with known[words[1]].make_context(words[1], words[2:]):
        pass  # it raises for unknown options, missing arguments and values of a wrong type


def test_shown_python_compiles_and_its_names_exist() -> None:
    import penstock
    from penstock.site import Site

    for block in blocks("shown"):
        if block.language != "python":
            continue
        for node in ast.walk(ast.parse(block.text, str(block))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                owner = {"site": Site, "penstock": penstock}.get(node.value.id)
                assert owner is None or hasattr(owner, node.attr), f"{block}: no {node.value.id}.{node.attr}"


@pytest.mark.parametrize("block", blocks("plant"), ids=str)
def test_plant_examples_load(block: Block, tmp_path: Path) -> None:
    for file in blocks("file"):
        (tmp_path / file.name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file.name).write_text(file.text)
    base = tomllib.loads(BASE)
    own = tomllib.loads(block.text)
    tags = "" if "tags" not in own else BASE[: BASE.index("[tags]")]
    head = "" if "plant" in own else (tags or BASE)
    path = tmp_path / "plant.toml"
    path.write_text(head + block.text)
    plant = load_plant(path)
    assert plant.name == own.get("plant", base["plant"])["name"]


@pytest.mark.parametrize("block", blocks("site"), ids=str)
def test_site_examples_load(block: Block) -> None:
    assert parse_settings(block.text, str(block)).model_fields_set


def test_the_stock_client_is_the_one_that_is_tested() -> None:
    script = (ROOT / "tests" / "stories" / "stock_client.py").read_text()
    body = script.split('"""')[2].strip()
    assert body in (ROOT / "README.md").read_text()


def rows(heading: str) -> dict[str, str]:
    """First and second column of the table under a heading of docs/plant.md, without back-ticks."""
    page = (ROOT / "docs" / "plant.md").read_text()
    section = re.split(r"^#+ ", page.split(f"# {heading}\n", 1)[1], maxsplit=1, flags=re.M)[0]
    cells = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    return {c[0].replace("`", "").strip(): c[1].replace("`", "").strip() for c in cells}


TABLES = [
    ("[plant]", PLANT_KEYS),
    ("[tags]", TAG_KEYS),
    ("[model.NAME]", MODEL_KEYS),
    ("lstm", LSTM_KEYS),
    ("Beside a live prediction", CORRECT_KEYS),
    ("retrain", RETRAIN_KEYS),
    ("view", VIEW_KEYS),
    ("prepare", STEPS),
    ("[sources]", SOURCE_KEYS),
    ("[sinks]", SINK_KEYS),
    ("[aggregates]", AGGREGATE_KEYS),
    ("Where a source or sink is", tuple(SourceSettings.model_fields)),
    ("Functions", tuple(FUNCTIONS)),
]


@pytest.mark.parametrize(("heading", "known"), TABLES)
def test_plant_md_lists_every_key_and_no_other(heading: str, known: tuple[str, ...]) -> None:
    assert set(rows(heading)) == set(known)


def test_plant_md_lists_every_column_of_a_tag_file() -> None:
    page = (ROOT / "docs" / "plant.md").read_text()
    section = page.split("# Tag files\n", 1)[1].split("\n#", 1)[0]
    assert set(FILE_COLUMNS) <= set(re.findall(r"`(\w+)`", section))


def test_plant_md_gives_the_defaults_of_lstm() -> None:
    said = rows("lstm")
    for field in fields(LstmSpec):
        shown = "by past_target" if field.default is None else str(field.default)
        assert said[field.name] == (shown.lower() if field.default in (True, False) else shown), field.name


def test_plant_md_gives_every_setting_of_site_toml_with_its_default() -> None:
    wanted = {}
    for key, field in Settings.model_fields.items():
        if not isinstance(field.default, BaseModel):
            wanted[key] = field.default
            continue
        for name, inner in type(field.default).model_fields.items():
            wanted[f"{key}.{name}"] = inner.default
    said = rows("site.toml")
    assert set(said) == set(wanted)
    for key, default in wanted.items():
        shown = "none" if default in (None, ()) else f'"{default}"' if isinstance(default, str) else str(default)
        assert said[key] == shown, key
