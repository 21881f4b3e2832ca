"""Limits, ticks and names."""

import io

import numpy as np
import pytest

from tfmtl.tuning.plots.canvas import limits, new_figure, png, short_names, ticks


def test_limits_leave_out_what_is_far_worse_alone():
    low, high = limits([0.70, 0.71, 0.72, 0.73, 0.10])
    assert 0.69 < low < 0.70 and 0.73 < high < 0.74
    # What is far better stays.
    assert limits([0.70, 0.71, 0.72, 0.73, 0.99])[1] > 0.99
    low, high = limits([0.5, 0.5])
    assert low < 0.5 < high
    low, high = limits([-0.3])
    assert low < -0.3 < high


@pytest.mark.parametrize(
    ("low", "high", "log", "wanted"),
    [
        (0.1, 10.0, True, [0.1, 1.0, 10.0]),
        (1e-4, 0.3, True, [1e-4, 1e-3, 1e-2, 1e-1, 0.3]),
        (2.0, 9.0, True, [2.0, 5.0, 9.0]),
        (4.0, 16.0, False, [4.0, 10.0, 16.0]),
        (0.0, 0.5, False, [0.0, 0.2, 0.4, 0.5]),
    ],
)
def test_ticks_have_both_ends_and_keep_clear(low, high, log, wanted):
    np.testing.assert_allclose(ticks(low, high, log), wanted)


def test_names_tell_apart():
    assert short_names(
        ["optimizers.shared.learning_rate", "optimizers.task.learning_rate", "seed"]
    ) == {
        "optimizers.shared.learning_rate": "shared\nlearning_rate",
        "optimizers.task.learning_rate": "task\nlearning_rate",
        "seed": "seed",
    }
    assert short_names(["a.b.c", "x.b.c"]) == {"a.b.c": "a.b\nc", "x.b.c": "x.b\nc"}


def test_file_is_a_png():
    image = pytest.importorskip("matplotlib.image")
    figure = new_figure(2.0, 1.0)
    figure.subplots().plot([0, 1])
    pixels = image.imread(io.BytesIO(png(figure)))
    assert pixels.shape[:2] == (130, 260) and np.ptp(pixels) > 0.5
