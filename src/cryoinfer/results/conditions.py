"""Conditions on columns of numbers, as a user writes them: ``z_1 > 0.5 and flag == 0``.

Python's own parser reads them, and what it makes of them is evaluated here, never by
Python: comparisons of names and numbers, ``and``, ``or``, ``not`` and parentheses are
all there is. A name may have slashes (``ctf/df1_A``), as fields of cryoSPARC do.
"""

import ast
import math
import operator
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cryoinfer.errors import InputError

_LONGEST = 2000
"""Characters of a condition: no person writes more."""

_KEYWORD = re.compile(r"\bclass\b")
"""A column that Python's parser takes for something else, and has by another name."""

_STAND_IN = "class_"

Columns = Mapping[str, NDArray[np.float64]]
_Rows = Callable[[Columns], NDArray[np.bool_]]
_Value = Callable[[Columns], Any]

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


@dataclass(frozen=True)
class Condition:
    """What rows are to satisfy.

    Attributes
    ----------
    text : str
        As it was written.
    names : tuple of str
        Of the columns that it asks for, each once.
    """

    text: str
    names: tuple[str, ...]
    _rows: _Rows

    @classmethod
    def of(cls, text: str) -> Self:
        """Read a condition.

        Raises
        ------
        InputError
            If it is none; the message says which part is not understood.
        """
        if len(text) > _LONGEST:
            raise InputError(
                f"A condition has {_LONGEST:,} characters or fewer, found {len(text):,}"
            )
        names: dict[str, None] = {}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what Python thinks of the text
                plain = _KEYWORD.sub(_STAND_IN, text.strip())
                tree = ast.parse(plain, mode="eval").body
            rows = _rows_of(tree, names)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise InputError(
                f"Cannot read the condition {text!r}: expected comparisons of columns "
                'with numbers, such as "z_1 > 0.5 and outlier < 3"'
            ) from error
        return cls(text, tuple(names), rows)

    def rows(self, columns: Columns) -> NDArray[np.bool_]:
        """Return which rows satisfy it, shape (n,); none of which a number is missing.

        Parameters
        ----------
        columns : mapping of str to array, shape (n,)
            Those of :attr:`names` at least; NaN where a number is missing.
        """
        return self._rows(columns) & self.known(columns)

    def known(self, columns: Columns) -> NDArray[np.bool_]:
        """Return of which rows all columns that it asks for have a number, (n,)."""
        return reduce(operator.and_, (~np.isnan(columns[name]) for name in self.names))


def _rows_of(node: ast.expr, names: dict[str, None]) -> _Rows:
    """Return what tells which rows satisfy a part, and note the names that it has."""
    if isinstance(node, ast.BoolOp):
        parts = [_rows_of(part, names) for part in node.values]
        join = operator.and_ if isinstance(node.op, ast.And) else operator.or_
        return lambda columns: reduce(join, (part(columns) for part in parts))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        part = _rows_of(node.operand, names)
        return lambda columns: ~part(columns)
    if isinstance(node, ast.Compare):
        return _comparison(node, names)
    raise _not_understood(node, "a comparison, such as z_1 > 0.5")


def _comparison(node: ast.Compare, names: dict[str, None]) -> _Rows:
    sides = [node.left, *node.comparators]
    values = [_value_of(side, names) for side in sides]
    pairs: list[_Rows] = []
    for i, kind in enumerate(node.ops):
        compare = _COMPARISONS.get(type(kind))
        if compare is None:
            raise _not_understood(node, "<, <=, >, >=, == or !=")
        if _name_of(sides[i]) is None and _name_of(sides[i + 1]) is None:
            raise _not_understood(node, "a column on one side of every comparison")
        pairs.append(_pair(compare, values[i], values[i + 1]))
    return lambda columns: reduce(operator.and_, (pair(columns) for pair in pairs))


def _pair(compare: Callable[[Any, Any], Any], left: _Value, right: _Value) -> _Rows:
    return lambda columns: np.asarray(compare(left(columns), right(columns)))


def _value_of(node: ast.expr, names: dict[str, None]) -> _Value:
    """Return what gives a column or a number, and note the name of the column."""
    name = _name_of(node)
    if name is not None:
        names[name] = None
        return lambda columns: columns[name]
    number = _number_of(node)
    if number is None:
        raise _not_understood(node, "the name of a column or a number")
    return lambda _: number


def _name_of(node: ast.expr) -> str | None:
    """Return the name of a column, which may have slashes, None if it is none."""
    if isinstance(node, ast.Name):
        return "class" if node.id == _STAND_IN else node.id
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        parts = _name_of(node.left), _name_of(node.right)
        return None if None in parts else "/".join(map(str, parts))
    return None


def _number_of(node: ast.expr) -> float | None:
    sign = 1.0
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        sign = -1.0 if isinstance(node.op, ast.USub) else 1.0
        node = node.operand
    value = node.value if isinstance(node, ast.Constant) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = sign * float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _not_understood(node: ast.expr, expected: str) -> InputError:
    return InputError(
        f"A condition holds {ast.unparse(node)[:100]!r}: expected {expected}"
    )
