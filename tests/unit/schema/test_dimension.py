"""Choices of a search."""

from __future__ import annotations

from tfmtl.schema.dimension import ChoiceDimension


def test_choices_of_numbers_texts_and_booleans():
    mixed = ChoiceDimension(values=(None, 1, 2.5))
    assert mixed.values == (None, 1.0, 2.5)
    assert [mixed.position(v) for v in (None, 1, 2.5, 3)] == [0, 1, 2, None]
    assert mixed.has(1) and not mixed.has("1") and not mixed.has(True)
    booleans = ChoiceDimension(values=(True, False))
    assert booleans.has(True) and not booleans.has(1)
