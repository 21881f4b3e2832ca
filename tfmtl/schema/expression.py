"""Label expressions: a small, safe part of Python over the columns of a row.

`rating >= 4`, `play_time_ms / duration_ms > 0.5 and tab in [0, 1]`, `not is_hate`.
This file parses and checks; the job evaluates (`pipeline.expressions`) on Arrow
columns, where an operand that is null makes the result null, so that an unknown label
stays unknown.
"""

from __future__ import annotations

import ast
import dataclasses
import functools

_COMPARE = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn)
_BINARY = (ast.Add, ast.Sub, ast.Mult, ast.Div)


@dataclasses.dataclass(frozen=True)
class Expression:
    """A checked expression.

    Attributes:
        text: As written.
        tree: The body of the parsed expression.
        columns: The columns it reads.
    """

    text: str
    tree: ast.expr
    columns: frozenset[str]


@functools.cache
def parse(text: str) -> Expression:
    """Parses a label expression.

    Raises:
        ValueError: It is not Python, or uses more than comparisons, `in`, `and`, `or`,
            `not`, + - * /, names, numbers and strings.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError) as error:
        raise ValueError(
            f"an expression must be a column or a comparison over columns such as "
            f"`rating >= 4`. Received: {text[:200]!r} ({type(error).__name__})"
        ) from error
    for node in ast.walk(tree):
        _check(node, text)
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    if not names:
        raise ValueError(f"an expression must name a column. Received: {text!r}")
    return Expression(text, tree, frozenset(names))


def _check(node: ast.AST, text: str) -> None:
    legal: bool
    match node:
        case ast.Compare(ops=ops):
            legal = all(isinstance(op, _COMPARE) for op in ops)
        case ast.BinOp(op=op):
            legal = isinstance(op, _BINARY)
        case ast.UnaryOp(op=op):
            legal = isinstance(op, ast.Not | ast.USub)
        case ast.Constant(value=value):
            legal = isinstance(value, str | int | float | bool)
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            legal = all(isinstance(e, ast.Constant | ast.UnaryOp) for e in elements)
        case _:
            legal = isinstance(
                node,
                ast.BoolOp
                | ast.boolop
                | ast.operator
                | ast.unaryop
                | ast.cmpop
                | ast.Name
                | ast.expr_context,
            )
    if not legal:
        raise ValueError(
            "an expression may hold comparisons, `in`, `and`, `or`, `not`, + - * /, "
            f"column names, numbers and strings. Received: {text[:200]!r}, with "
            f"{type(node).__name__}"
        )
