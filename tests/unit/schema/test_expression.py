"""Label expressions: what is legal, and that nothing else gets through."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfmtl.schema.expression import parse


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("click", {"click"}),
        ("rating >= 4", {"rating"}),
        ("1 < rating <= 4", {"rating"}),
        ("play / duration > 0.5 and tab in [0, 1]", {"play", "duration", "tab"}),
        ("not is_hate", {"is_hate"}),
        ("a == 'x' or b != \"y\"", {"a", "b"}),
        ("tab not in (1, -2)", {"tab"}),
        ("-a * 2 + b - 3", {"a", "b"}),
        ("  rating >= 4  ", {"rating"}),
        ("ok == True", {"ok"}),
    ],
)
def test_legal_expressions_name_their_columns(text, columns):
    assert parse(text).columns == columns
    assert parse(text).text == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be a column or a comparison"),
        ("rating >=", r"Received: 'rating >='"),
        ("rating = 4", "must be a column or a comparison"),
        ("1 + 1", "must name a column"),
        ("f(rating)", "with Call"),
        ("rating.value", "with Attribute"),
        ("rating[0]", "with Subscript"),
        ("[r for r in rating]", "with ListComp"),
        ("lambda: rating", "with Lambda"),
        ("a if b else c", "with IfExp"),
        ("a ** 99999999", "with BinOp"),
        ("a << 3", "with BinOp"),
        ("a is b", "with Compare"),
        ("~a", "with UnaryOp"),
        ("(x := a)", "with NamedExpr"),
        ("a in {1, 2}", "with Set"),
        ("a == f'{b}'", "with JoinedStr"),
        ("a == None", "with Constant"),
        ("a in [b, 1]", "with List"),
        ("__import__('os').system('true')", "with Call"),
        ("a" + "+a" * 100_000, "must be a column"),
        ("a\x00b", "must be a column or a comparison"),
    ],
)
def test_everything_else_is_refused(text, message):
    with pytest.raises(ValueError, match=message) as caught:
        parse(text)
    assert len(str(caught.value)) < 500_000


@given(st.text(max_size=40))
def test_any_text_is_parsed_or_refused_with_a_value_error(text):
    try:
        parsed = parse(text)
    except ValueError as error:
        assert "expression" in str(error)
    else:
        assert parsed.columns
