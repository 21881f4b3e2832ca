"""Hyper-parameters as numbers."""

import numpy as np
import pytest

from tfmtl.tuning.axes import Axis, encode

RATE = Axis("rate", 0.001, 0.1, log=True)
SIZE = Axis("size", 16, 48)
KIND = Axis("kind", choices=("Equal", "PCGrad", [1, 2], None))
FLAG = Axis("flag", choices=(False, True))


def test_places_on_scales():
    assert RATE.unit(0.01) == pytest.approx(0.5)
    assert SIZE.unit(24) == 0.25
    assert [SIZE.unit(v) for v in (0, 16, 48, 99)] == [0, 0, 1, 1]
    assert KIND.unit([1, 2]) == pytest.approx(2 / 3) and KIND.unit(None) == 1.0
    assert (FLAG.position(True), FLAG.unit(False)) == (1, 0.0)
    # 1 is not `true`.
    with pytest.raises(ValueError):
        FLAG.position(1)


def test_encodes_with_what_is_not_active():
    found = encode(
        [RATE, KIND, SIZE],
        [
            {"rate": 0.001, "kind": None, "size": 48},
            {"rate": 0.1, "size": 32},
            {"kind": "Equal", "size": 16},
        ],
    )
    assert found.names == ("rate", "kind", "size")
    assert found.columns == ("rate",) * 2 + ("kind",) * 5 + ("size",)
    assert found.kinds == (
        *("number", "inactive"),
        *("choice", "choice", "choice", "choice", "inactive"),
        "number",
    )
    wanted = [
        [0.0, 0, 0, 0, 0, 1, 0, 1.0],
        [1.0, 0, 0, 0, 0, 0, 1, 0.5],
        [0.5, 1, 1, 0, 0, 0, 0, 0.0],
    ]
    np.testing.assert_allclose(found.matrix, wanted)
    assert found.places("kind") == [2, 3, 4, 5, 6]
    assert found.places("kind", "inactive") == [6]
