"""Columns of numbers, as texts or as Arrow numbers -> float64, whole columns at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from penstock.data.frame import BAD, GOOD, UNCERTAIN

NOT_NUMBER = "unparsable number"
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_MARKS = r"[ '’\x{a0}\x{202f}]"
_GROUPED = {
    ",": rf"^[+-]?\d{{1,3}}((\.|{_MARKS})\d{{3}})+(,\d*)?$",
    # A lone "1,234" may as well be a decimal comma that nobody told of: it is no number.
    ".": rf"^[+-]?\d{{1,3}}(({_MARKS}\d{{3}})+(\.\d*)?|(,\d{{3}})+\.\d*|(,\d{{3}}){{2,}})$",
}
"""Numbers with a mark between the thousands, by the decimal mark: 1.234,5 and 1,234.5."""
_SEPARATORS = {",": rf"\.|{_MARKS}", ".": rf",|{_MARKS}"}
_NOTHING = r"^(?i:nan|null|none|na|n/a)?$"
_NO_NUMBER = "?"
_STATUS = {
    "": GOOD,
    "good": GOOD,
    "uncertain": UNCERTAIN,
    "bad": BAD,
    str(GOOD): GOOD,
    str(UNCERTAIN): UNCERTAIN,
    str(BAD): BAD,
}
STATUS = "good, uncertain, bad, or 0, 64, 128"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Numbers:
    """A column of numbers."""

    values: NDArray[np.float64]
    """[n] NaN where missing or bad."""
    missing: NDArray[np.bool_]
    """[n] empty, null, NaN: no reading, and no mistake."""
    bad: NDArray[np.bool_]
    """[n] something else that is no finite number."""


def read_numbers(column: Any, decimal: str = ".") -> Numbers:
    """Numbers of an Arrow array of text, numbers or booleans; anything else is bad in every row that is not null."""
    if pa.types.is_string(column.type):
        return _text(column, decimal)
    if not _numeric(column.type):
        missing = column.is_null().to_numpy(zero_copy_only=False)
        return Numbers(values=np.full(len(column), np.nan), missing=missing, bad=~missing)
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    return _finite(column.cast(pa.float64(), safe=False))


def _numeric(kind: Any) -> bool:
    of = pa.types
    return bool(of.is_integer(kind) or of.is_floating(kind) or of.is_boolean(kind) or of.is_decimal(kind))


def _finite(column: Any) -> Numbers:
    values = np.array(column.fill_null(np.nan).to_numpy(zero_copy_only=False), np.float64)
    bad = np.isinf(values)
    missing = np.isnan(values)
    values[bad] = np.nan
    return Numbers(values=values, missing=missing, bad=bad)


def _text(column: Any, decimal: str) -> Numbers:
    texts = pc.utf8_trim_whitespace(column).fill_null("")
    if decimal in _SEPARATORS:
        texts = _ungrouped(texts, decimal)
    if decimal != ".":
        texts = pc.replace_substring(texts, decimal, ".")
    try:  # the usual case: all are numbers or empty
        return _finite(pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts).cast(pa.float64()))
    except pa.ArrowInvalid:
        pass
    missing = pc.match_substring_regex(texts, _NOTHING)
    right = pc.match_substring_regex(texts, _NUMBER)
    plain = pc.replace_substring_regex(pc.if_else(right, texts, pa.scalar(None, pa.string())), r"^\+", "")
    found = _finite(plain.cast(pa.float64()))
    gone = missing.to_numpy(zero_copy_only=False)
    return Numbers(values=found.values, missing=gone, bad=np.isnan(found.values) & ~gone)


def _ungrouped(texts: Any, decimal: str) -> Any:
    """Texts without marks between thousands. A point that is none of them is no number where a comma is the mark."""
    marks = _SEPARATORS[decimal]
    marked = pc.match_substring_regex(texts, marks)
    if not pc.any(marked).as_py():
        return texts
    grouped = pc.match_substring_regex(texts, _GROUPED[decimal])
    texts = pc.if_else(grouped, pc.replace_substring_regex(texts, marks, ""), texts)
    if decimal == ".":
        return texts
    wrong = pc.and_not(pc.match_substring(texts, "."), pc.match_substring_regex(texts, _NOTHING))
    return pc.if_else(wrong, _NO_NUMBER, texts)


def read_status(column: Any) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """(status [n] of `data.frame`, rows [n] whose status is not known), of text or whole numbers."""
    texts = pc.utf8_lower(pc.utf8_trim_whitespace(column.cast(pa.string()).fill_null("")))
    coded = texts.dictionary_encode()
    status = np.array([_STATUS.get(text, -1) for text in coded.dictionary.to_pylist()] or [0], np.int64)
    found = status[coded.indices.to_numpy(zero_copy_only=False)]
    return np.where(found < 0, 0, found).astype(np.uint8), found < 0
