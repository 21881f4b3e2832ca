"""Numbers of a search: steps, scales and what is nearest."""

from __future__ import annotations

import pydantic
import pytest

from tfmtl.schema.base import Misplaced
from tfmtl.schema.ranges import FloatDimension, IntDimension


def test_stepped_numbers():
    tenths = FloatDimension(min=0, max=1, step=0.1)
    assert [tenths.at(i) for i in range(tenths.count or 0)] == [
        0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0,
    ]  # fmt: skip
    assert (tenths.nearest(0.26), tenths.nearest(7), tenths.middle) == (0.3, 1.0, 0.5)
    assert tenths.has(0.3) and not tenths.has(0.35) and not tenths.has(True)
    short = FloatDimension(min=0, max=1.1, step=0.3)
    assert (short.count, short.ends) == (4, (0.0, 0.9))
    powers = IntDimension(min=3, max=50, scale="pow2")
    assert [powers.at(i) for i in range(powers.count or 0)] == [3, 6, 12, 24, 48]
    assert powers.has(24) and not powers.has(25)
    decades = FloatDimension(min=1e-3, max=10, scale="log", step=10)
    assert (decades.count, decades.middle) == (5, 0.1)
    assert FloatDimension(min=1e-3, max=10, scale="log").middle == pytest.approx(0.1)


def test_a_misplaced_error_is_an_error_of_its_class():
    with pytest.raises(pydantic.ValidationError) as caught:
        FloatDimension(min=2, max=1)
    cause = caught.value.errors()[0]["ctx"]["error"]
    assert isinstance(cause, Misplaced) and cause.place == ("min",)
