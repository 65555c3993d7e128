"""Files as other programs write them: letters that are not UTF-8, marks between thousands, decimal commas."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from penstock.data.importing.importers import Options, read
from penstock.data.importing.number_text import read_numbers
from penstock.data.importing.text_encoding import encoding_of
from penstock.data.plant import HOUR_NS, Plant, Tag
from penstock.data.registry import Registry
from penstock.errors import SourceError

PLANT = Plant(
    name="works", period_ns=HOUR_NS, models={},
    tags={"Zähler": Tag(name="Zähler", unit="m3"), "T": Tag(name="T", unit="degC")},
)  # fmt: skip
TEXT = "time,tag,value\n2024-01-01T00:00Z,Zähler,1\n2024-01-01T00:01Z,T,2\n"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    opened = Registry.open(tmp_path / "tags.sqlite")
    opened.register(list(PLANT.tags.values()))
    return opened


def counts(path: Path, registry: Registry, options: Options | None = None) -> tuple[int, list[str]]:
    """(readings, texts of the rejects)."""
    chunks = list(read(path, PLANT, registry, options))
    return sum(c.accepted for c in chunks), [text for c in chunks for text in c.rejects.text]


@pytest.mark.parametrize(
    ("encoding", "said"), [("utf-8", ""), ("utf-8-sig", ""), ("cp1252", "cp1252"), ("utf-16", "utf-16")]
)
def test_the_letters_are_told_from_the_file(
    encoding: str, said: str, registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.csv").write_bytes(TEXT.encode(encoding))
    with caplog.at_level(logging.WARNING):
        assert counts(tmp_path / "a.csv", registry) == (2, [])
    assert [f"read as {said}" in line for line in caplog.messages] == [True] * bool(said)


def test_letters_may_be_named_and_a_wrong_name_is_told(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(TEXT.encode("mac-roman"))
    assert counts(tmp_path / "a.csv", registry, Options(encoding="mac-roman")) == (2, [])
    assert counts(tmp_path / "a.csv", registry, Options(encoding="utf-8")) == (1, ["Z\ufffdhler"])
    with pytest.raises(SourceError, match=r"unknown encoding 'utf8x'; allowed: such as utf-8, cp1252"):
        counts(tmp_path / "a.csv", registry, Options(encoding="utf8x"))


def test_an_umlaut_far_down_is_read_too(registry: Registry, tmp_path: Path) -> None:
    """What the file's beginning tells does not hold for its end: a cell that is not UTF-8 is cp1252 then."""
    lines = "2024-01-01T00:01Z,T,2\n" * 200_000
    (tmp_path / "a.csv").write_bytes(("time,tag,value\n" + lines + "2024-01-01T00:00Z,Zähler,1\n").encode("cp1252"))
    assert counts(tmp_path / "a.csv", registry) == (200_001, [])


def test_a_beginning_may_end_within_a_letter() -> None:
    whole = "Zähler".encode()
    assert encoding_of(whole[:2]) == "utf-8"
    assert encoding_of(whole[:2] + b"h") == "cp1252"


COMMA = [
    ("1,5", 1.5), ("1.234,5", 1234.5), ("-1.234.567", -1234567.0), ("1.234", 1234.0), ("12 345,25", 12345.25),
    ("12\u00a0345", 12345.0), ("1'234,5", 1234.5), ("7", 7.0), ("1.5", None), ("1.23,4", None), ("1.234.5", None),
]  # fmt: skip
POINT = [
    ("1.5", 1.5), ("1,234.5", 1234.5), ("-1,234,567", -1234567.0), ("1,234", None), ("12 345.25", 12345.25),
    ("1'234'567", 1234567.0), ("1e3", 1000.0), ("1,23.4", None), ("1,5", None), ("12,345,6", None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("decimal", "text", "wanted"), [(",", *case) for case in COMMA] + [(".", *case) for case in POINT]
)
def test_marks_between_thousands(decimal: str, text: str, wanted: float | None) -> None:
    found = read_numbers(pa.array([text, "Bad", ""]), decimal)
    assert found.bad.tolist() == [wanted is None, True, False]
    assert np.isnan(found.values[0]) if wanted is None else found.values[0] == wanted
    alone = read_numbers(pa.array([text]), decimal)  # a column without texts takes another way
    assert alone.bad.tolist() == [wanted is None]
    np.testing.assert_array_equal(alone.values, found.values[:1])
