"""One spelling for one category, whatever type it came in."""

from __future__ import annotations

import decimal
import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import ROOT
from tfmtl.errors import DataError
from tfmtl.schema.canonical import canonical_string


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5, "5"),
        (5.0, "5"),
        (-0.0, "0"),
        (5.5, "5.5"),
        (1e20, "1e+20"),
        (2**70, str(2**70)),
        (True, "true"),
        (False, "false"),
        ("", ""),
        (" a b ", " a b "),
        ("5.0", "5.0"),
        ("nan", "nan"),
        (b"\xc3\xbc", "ü"),
        (None, ""),
        (math.nan, ""),
        (math.inf, "inf"),
        (pd.NA, ""),
        (pd.NaT, ""),
        (decimal.Decimal("5.00"), "5"),
        (decimal.Decimal("-0.50"), "-0.5"),
        (decimal.Decimal("1E+3"), "1000"),
        (decimal.Decimal("-0"), "0"),
        (decimal.Decimal("NaN"), ""),
        (np.int64(5), "5"),
        (np.int8(-5), "-5"),
        (np.float64(5.0), "5"),
        (np.float64(0.1), "0.1"),
        (np.float32(5.0), "5"),
        (np.float32(0.1), "0.1"),
        (np.float32("nan"), ""),
        (np.bool_(True), "true"),
        (np.str_("a"), "a"),
        (np.array(7), "7"),
    ],
)
def test_canonical_string(value, expected):
    result = canonical_string(value)
    assert result == expected
    assert type(result) is str


@pytest.mark.parametrize("value", [[1], {}, object(), b"\xff", np.array([1]), 1j])
def test_no_scalar_is_refused(value):
    with pytest.raises(DataError, match="categorical value"):
        canonical_string(value)


@given(st.integers(-(2**53), 2**53))
def test_integers_and_integral_floats_meet(value):
    assert canonical_string(value) == canonical_string(float(value)) == str(value)


@given(st.floats(allow_nan=False))
def test_floats_read_back(value):
    assert float(canonical_string(value)) == value


@given(st.floats(allow_nan=False, width=32))
def test_float32_reads_back(value):
    assert np.float32(canonical_string(np.float32(value))) == np.float32(value)


def test_import_is_light():
    code = (
        "import sys, tfmtl.schema.canonical; "
        "sys.exit(bool({'tensorflow', 'numpy', 'pandas'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
