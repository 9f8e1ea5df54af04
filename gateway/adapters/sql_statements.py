"""Statements that SQLite and PostgreSQL both take, and the steps in which a handler asks for them.

A handler is a generator. It yields a step - a statement and its values - and is sent what came of it; in between it
decides. How a step travels is the business of whoever runs the handler: SQLite runs it on the spot, and PostgreSQL
runs a step of many units as one statement, whose input is a table of their values:

    change("tenant text, scope bytea, owner text", "DELETE FROM keys WHERE tenant = :tenant AND scope = :scope ...")

    SQLite       DELETE FROM keys WHERE tenant = ?1 AND scope = ?2 ...
    PostgreSQL   DELETE FROM keys USING unnest($1::text[], $2::bytea[], ...) WITH ORDINALITY AS i(...)
                 WHERE tenant = i.tenant_ AND scope = i.scope_ ... RETURNING i.n_

The first values are the tenant and what the statement is about, so that rows can be taken in one order by all.
Times are stored as integers, microseconds of Unix time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, TypeAlias, TypeVar

from gateway.operations import Operation, Row, Rows

_NAME = re.compile(r"(?<!:):([a-z_]+)")
_INSERT = re.compile(r"INSERT INTO (\w+) \(([^)]*)\)\s+VALUES \((.*?)\)(\s+ON CONFLICT .*)?", re.DOTALL)


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """`sqlite` is empty for what only matters where others write too: it comes to nothing there.

    A statement that `reads` answers a list of rows, any other how many rows it changed; it `writes` if it can change
    any. On PostgreSQL the first column of a row is the position (from 1) of the values that it answers; one that is
    `certain` changes a row for each. The first value of one that is `of_tenant` is the tenant.
    """

    sqlite: str
    postgres: str
    reads: bool
    writes: bool
    certain: bool = False
    of_tenant: bool = True


Values: TypeAlias = tuple[Any, ...]
Step: TypeAlias = tuple[Statement, Values | list[Values]]
"""One result is sent for a tuple of values; a list of results for a list of them."""
R = TypeVar("R", covariant=True)  # noqa: PLC0105
Steps: TypeAlias = Generator[Step, Any, R]
Handlers: TypeAlias = Mapping[type[Operation[Any]], Callable[[Any, Rows], Steps[Row]]]

DONE: Final = Row()
REFUSED: Final = Row(refused=True)


def query(columns: str, text: str, *, lock: bool = False, postgres: str | None = None) -> Statement:
    """A SELECT; on PostgreSQL it is `postgres`, if given. With `lock` its rows are nobody else's from then on."""
    return _statement(columns, text, _selecting(postgres or text, lock=lock), reads=True, writes=False)


def change(columns: str, text: str, *, key: str = "", postgres: str | None = None) -> Statement:
    """An INSERT, UPDATE or DELETE; on PostgreSQL it is `postgres`, if given.

    `key` are the columns by which an INSERT that may do nothing knows its rows.
    """
    return _statement(columns, text, _changing(postgres or text, key), reads=False, writes=True)


def returning(columns: str, text: str, returned: str) -> Statement:
    """An UPDATE or DELETE that answers columns of what it changed."""
    there = f"{_changing(text, '')}, {returned}"
    return _statement(columns, f"{text} RETURNING {returned}", there, reads=True, writes=True)


def hold(columns: str, text: str, *, writes: bool = False) -> Statement:
    """What has to be held on PostgreSQL before somebody goes on; `{input}` stands for the table of values."""
    return _statement(columns, "", text, reads=True, writes=writes)


def _statement(columns: str, here: str, there: str, *, reads: bool, writes: bool) -> Statement:
    names = [name for name, _ in _declared(columns)]
    return Statement(
        sqlite=_NAME.sub(lambda found: f"?{names.index(found[1]) + 1}", here),
        postgres=_there(columns, there),
        reads=reads,
        writes=writes,
        certain=here.startswith("INSERT") and "ON CONFLICT" not in here,
        of_tenant=names[:1] == ["tenant"],
    )


def _declared(columns: str) -> list[list[str]]:
    """Names and types of values."""
    return [column.split() for column in columns.split(",") if column]


def _there(columns: str, text: str) -> str:
    """Names of values are columns of the input: `:tenant` is `i.tenant_`."""
    declared = _declared(columns)
    arrays = ", ".join(f"${n}::{kind}[]" for n, (_, kind) in enumerate(declared, 1))
    names = ", ".join(f"{name}_" for name, _ in declared)
    table = f"unnest({arrays}) WITH ORDINALITY AS i({names}, n_)" if declared else "(VALUES (1)) AS i(n_)"
    return _NAME.sub(r"i.\1_", text).replace("{input}", table)


def _selecting(text: str, *, lock: bool) -> str:
    return f"SELECT i.n_, q.* FROM {{input}} CROSS JOIN LATERAL ({text}{' FOR UPDATE' if lock else ''}) AS q"


def _changing(text: str, key: str) -> str:
    """The same for every row of the input, telling which of them changed something."""
    inserting = _INSERT.fullmatch(text)
    if inserting is not None:
        return _inserting(*inserting.groups(), key=key)
    into = "USING" if text.startswith("DELETE") else "FROM"
    head, condition = text.split("WHERE", 1)
    return f"{head}{into} {{input}} WHERE{condition} RETURNING i.n_"


def _inserting(table: str, columns: str, values: str, conflict: str | None, *, key: str) -> str:
    insert = f"INSERT INTO {table} ({columns}) SELECT {values} FROM {{input}} ORDER BY i.n_{conflict or ''}"
    if conflict is None:
        return insert
    same = " AND ".join(f"done.{column} = :{column}" for column in key.split())
    returned = ", ".join(key.split())
    grouped = ", ".join(f"done.{column}" for column in key.split())
    told = f"SELECT min(i.n_) FROM {{input}} JOIN done ON {same} GROUP BY {grouped}"
    return f"WITH done AS ({insert} RETURNING {returned}) {told}"


def by_tenant(keys: Iterable[tuple[str, ...]]) -> Iterable[list[tuple[str, ...]]]:
    """Those of one tenant at a time, in one order for all who ask."""
    return (list(of_tenant) for _, of_tenant in groupby(sorted(set(keys)), itemgetter(0)))


def taken(due: Statement, take: Statement, now: int, until: int, limit: int) -> Steps[list[Any]]:
    """Rows that are due, and until then nobody else's: `due` finds their keys, `take` leases those it still can."""
    keys = yield due, (now, limit)
    rows: list[Any] = []
    for of_tenant in by_tenant(keys):
        for found in (yield take, [(*key, now, until) for key in of_tenant]):
            rows += found
    return rows


def micros(seconds: float) -> int:
    """A time as it is stored."""
    return round(seconds * 1_000_000)


def seconds(stored: int) -> float:
    """A time as it was before."""
    return stored / 1e6


def seconds_if_any(stored: int | None) -> float | None:
    """The same of what may have no time yet."""
    return None if stored is None else seconds(stored)


def changed(count: int) -> Row:
    """Done if a row was found to be changed, else refused."""
    return DONE if count else REFUSED
