"""Evaluates label expressions on Arrow columns; null in, null out.

Any operand that is null makes the result null, also for `and` and `or`: a label is
known only where everything it is made of is known. NaN and "" count as null, and so
does the result of a division by zero.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import columns as columns_lib
from pipeline import typed_text
from tfmtl.errors import ConfigError, DataError
from tfmtl.schema.canonical import canonical_string
from tfmtl.schema.expression import Expression

_Values = TypeVar("_Values")

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: pc.add,
    ast.Sub: pc.subtract,
    ast.Mult: pc.multiply,
    ast.Div: pc.divide,
}


def evaluate(
    expression: Expression,
    columns: Mapping[str, pa.Array],
    rows: int,
    untyped: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Values of an expression, one a row.

    Args:
        expression: A parsed expression.
        columns: The raw columns it reads, of equal length.
        rows: Their length.
        untyped: Whether they come from a file without types; text constants are then
            read as its cells are.

    Returns:
        float64 [rows], NaN where the result is null, 1 and 0 for true and false; and a
        mask of the rows where a column does not parse.

    Raises:
        ConfigError: A text constant stands where a number is needed.
        DataError: A column has a type that cannot be used.
    """
    evaluator = _Evaluator(expression, columns, rows, untyped)
    result = evaluator.number(expression.tree)
    values = pc.fill_null(result, np.nan).to_numpy(zero_copy_only=False)
    return np.where(evaluator.bad, np.nan, values), evaluator.bad


class _Evaluator:
    def __init__(
        self,
        expression: Expression,
        columns: Mapping[str, pa.Array],
        rows: int,
        untyped: bool,
    ) -> None:
        self._expression = expression
        self._columns = columns
        self._rows = rows
        self._untyped = untyped
        self.bad = np.zeros(rows, bool)

    def number(self, node: ast.expr) -> pa.Array:
        """float64 [rows] with nulls."""
        match node:
            case ast.Name(id=name):
                values, bad = self._read(name, columns_lib.numbers)
                # An infinite cell is damage, unlike the result of a division by zero.
                self.bad |= bad | np.isinf(values)
                return self._finite(pa.array(values))
            case ast.Constant(value=int() | float() as value):
                return pa.array(np.full(self._rows, float(value)))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return pc.negate(self.number(operand))
            case ast.BinOp(left=left, op=op, right=right):
                function = _ARITHMETIC[type(op)]
                return self._finite(function(self.number(left), self.number(right)))
            case ast.Compare() | ast.BoolOp() | ast.UnaryOp(op=ast.Not()):
                return self.truth(node).cast(pa.float64())
        raise ConfigError(
            f"an expression must hold a number here. Received: {ast.unparse(node)} in "
            f"{self._expression.text!r}"
        )

    def _read(
        self, name: str, convert: Callable[[pa.Array], tuple[_Values, np.ndarray]]
    ) -> tuple[_Values, np.ndarray]:
        """A column as numbers or text; the error names column and expression."""
        try:
            return convert(self._columns[name])
        except DataError as error:
            raise DataError(
                f"column {name!r} cannot be read in the expression "
                f"{self._expression.text!r}: {error}"
            ) from error

    def truth(self, node: ast.expr) -> pa.Array:
        """bool [rows] with nulls; a number is true where it is not 0."""
        match node:
            case ast.BoolOp(op=op, values=values):
                # Not the Kleene variants: null and false is null here.
                join = pc.and_ if isinstance(op, ast.And) else pc.or_
                return functools.reduce(join, [self.truth(v) for v in values])
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return pc.invert(self.truth(operand))
            case ast.Compare(left=left, ops=ops, comparators=right):
                sides = [left, *right]
                pairs = [self._compare(a, op, b) for a, op, b in zip(sides, ops, right)]
                return functools.reduce(pc.and_, pairs)
        return pc.not_equal(self.number(node), 0.0)

    def text(self, node: ast.expr) -> pa.Array:
        """large_string [rows] with nulls."""
        if isinstance(node, ast.Name):
            values, bad = self._read(node.id, self._strings)
            self.bad |= bad
            return pc.if_else(
                pc.equal(values, ""), pa.scalar(None, pa.large_string()), values
            )
        if isinstance(node, ast.Constant):
            return pa.array(
                [self._constant(node.value)] * self._rows, pa.large_string()
            )
        raise ConfigError(
            "text can be compared with a column or a constant only. Received: "
            f"{ast.unparse(node)} in {self._expression.text!r}"
        )

    def _strings(self, array: pa.Array) -> tuple[pa.Array, np.ndarray]:
        return columns_lib.strings(array, self._untyped)

    def _constant(self, value: object) -> str:
        text = canonical_string(value)
        return typed_text.canonical_text(text) if self._untyped else text

    def _compare(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> pa.Array:
        if isinstance(op, ast.In | ast.NotIn):
            found = self._member(left, right)
            return pc.invert(found) if isinstance(op, ast.NotIn) else found
        if self._is_text(left) or self._is_text(right) or self._both_text(left, right):
            return _COMPARE[type(op)](self.text(left), self.text(right))
        return _COMPARE[type(op)](self.number(left), self.number(right))

    def _member(self, left: ast.expr, right: ast.expr) -> pa.Array:
        if not isinstance(right, ast.List | ast.Tuple):
            raise ConfigError(
                "`in` needs a list of constants. Received: "
                f"{ast.unparse(right)} in {self._expression.text!r}"
            )
        constants = [ast.literal_eval(e) for e in right.elts]
        if any(isinstance(c, str) for c in constants):
            values = self.text(left)
            wanted = pa.array([self._constant(c) for c in constants], values.type)
        else:
            values = self.number(left)
            wanted = pa.array([float(c) for c in constants], values.type)
        found = pc.is_in(values, value_set=wanted)
        return pc.if_else(pc.is_null(values), pa.scalar(None, pa.bool_()), found)

    def _is_text(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Constant) and isinstance(node.value, str)

    def _both_text(self, left: ast.expr, right: ast.expr) -> bool:
        return all(
            isinstance(n, ast.Name) and columns_lib.is_text(self._columns[n.id].type)
            for n in (left, right)
        )

    def _finite(self, values: pa.Array) -> pa.Array:
        finite = pc.is_finite(values)
        return pc.if_else(
            pc.fill_null(finite, False), values, pa.scalar(None, pa.float64())
        )


def holds(values: np.ndarray) -> np.ndarray:
    """Where a population's expression is true, neither false nor null: bool [rows]."""
    return np.asarray(~np.isnan(values) & (values != 0))
