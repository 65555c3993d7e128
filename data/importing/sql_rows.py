"""The rows of an SQL query as blocks of columns, through SQLAlchemy: any database that has a driver for it.

The database is read as a stream, block by block, in the order that the query gives. Waits are the
driver's: a deadline belongs into the URL (such as ``?connect_timeout=10``). A password never gets into a message.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from penstock.data.importing.table_rows import Table, plain
from penstock.errors import SourceError

if TYPE_CHECKING:
    from sqlalchemy import CursorResult


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlQuery:
    """A source of readings: columns time and tags, or time, tag, value, as in a file."""

    url: str
    """SQLAlchemy's, such as ``sqlite:///plant.db`` or ``postgresql+psycopg://user@host/plant``."""
    text: str
    """One SELECT. With ORDER BY an import that was killed goes on; without, it may begin anew."""

    def __repr__(self) -> str:
        return f"SqlQuery({self.text!r})"


def sql(query: SqlQuery, cells: int) -> Table:
    """The query's rows. Raises SourceError when the database or the query cannot be read."""
    with _result(query) as result:
        names = tuple(map(str, result.keys()))

    def batches(rows: int) -> Iterator[list[Any]]:
        with _result(query) as result:
            for part in result.partitions(rows):
                yield [_column(values) for values in zip(*part, strict=True)]

    return Table(names, None, batches, cells=cells)


def _column(values: tuple[Any, ...]) -> Any:
    try:
        return plain(pa.array(values))
    except (pa.ArrowException, TypeError, ValueError):  # SQLite keeps any type in any column: texts tell the bad cells
        return pa.array([None if value is None else str(value) for value in values], pa.string())


@contextmanager
def _result(query: SqlQuery) -> Iterator[CursorResult[Any]]:
    """The running query; everything is closed afterwards, also in the middle."""
    try:
        import sqlalchemy
        from sqlalchemy.exc import SQLAlchemyError
    except ModuleNotFoundError:
        raise SourceError("an SQL query needs SQLAlchemy: pip install 'penstock[sql]'") from None
    try:
        engine = sqlalchemy.create_engine(query.url, poolclass=sqlalchemy.pool.NullPool)
    except ModuleNotFoundError as error:
        raise SourceError(f"{_shown(query.url)}: its driver is missing ({error}); install that package") from None
    except SQLAlchemyError as error:
        raise SourceError(f"{_shown(query.url)}: {error}; write such as sqlite:///plant.db") from None
    try:
        with (
            engine.connect().execution_options(stream_results=True) as connection,
            connection.execute(sqlalchemy.text(query.text)) as result,
        ):
            if not result.returns_rows:
                raise SourceError(f"{query.text!r} gives no rows; give a SELECT")
            yield result
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        raise SourceError(f"{_shown(query.url)}: {query.text!r} cannot be read ({cause}); try it there") from None
    finally:
        engine.dispose()


def _shown(url: str) -> str:
    """The URL without its password."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return "the database's URL"
