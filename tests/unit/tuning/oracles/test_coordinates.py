import keras_tuner
import numpy as np
import pytest

from tests.unit.tuning.oracles.drive import CONDITIONAL, conditional
from tfmtl.tuning.oracles.coordinates import NEUTRAL, Axis, Coordinates
from tfmtl.tuning.oracles.values import defaults, legal


def _wide():
    space = keras_tuner.HyperParameters()
    space.Float("rate", 1e-4, 1e-1, sampling="log")
    space.Int("layers", 1, 4)
    space.Int("width", 8, 512, sampling="log")
    space.Int("wide", 8, 512, step=2, sampling="log")
    space.Float("share", 0.0, 1.0, step=0.25)
    space.Boolean("gated")
    space.Choice("kind", ["a", "b", "c"])
    space.Choice("size", [1, 2, 4], ordered=True)
    space.Int("one", 7, 7)
    space.Float("same", 0.5, 0.5)
    return space


def test_values_and_places_there_and_back():
    coordinates = Coordinates(_wide())
    cube = np.random.default_rng(0).random((300, coordinates.dimensions))
    rounded = coordinates.rounded(cube)
    np.testing.assert_array_equal(coordinates.rounded(rounded), rounded)
    rows = [coordinates.values(row) for row in rounded]
    np.testing.assert_allclose(coordinates.places(rows), rounded, atol=1e-9)
    assert all(legal(_wide(), values) == values for values in rows)
    for name, seen in {
        "layers": {1, 2, 3, 4},
        "wide": {8, 16, 32, 64, 128, 256, 512},
        "share": {0.0, 0.25, 0.5, 0.75, 1.0},
        "kind": {"a", "b", "c"},
        "size": {1, 2, 4},
        "one": {7},
        "same": {0.5},
    }.items():
        assert {values[name] for values in rows} == seen, name


def test_a_logarithmic_range_is_linear():
    axis = Axis.of(_wide().space[0])
    places = [axis.place(rate) for rate in (1e-4, 1e-3, 1e-2, 1e-1)]
    np.testing.assert_allclose(places, [0.0, 1 / 3, 2 / 3, 1.0])
    assert axis.value(1.0) <= 1e-1


def test_a_common_factor_moves_every_log_ratio_alike():
    """Ratios to a reference are the same, so nothing moves; of weights all do."""
    space = keras_tuner.HyperParameters()
    for name in ("like", "share"):
        space.Float(name, 0.01, 100.0, sampling="log")
    coordinates = Coordinates(space)
    weights = np.array([0.5, 2.0, 4.0])
    ratios = [
        {"like": w[1] / w[0], "share": w[2] / w[0]} for w in (weights, 3 * weights)
    ]
    one, other = coordinates.features(coordinates.places(ratios))
    np.testing.assert_allclose(one, other)
    half = coordinates.places(
        [{"like": 1.0, "share": 1.0}, {"like": 3.0, "share": 3.0}]
    )
    np.testing.assert_allclose(half[1] - half[0], np.log(3) / np.log(1e4))


def test_choices_are_one_hot_and_what_is_not_active_is_neutral():
    coordinates = Coordinates(conditional())
    places = coordinates.places(CONDITIONAL)
    features = coordinates.features(places)
    # model (3), experts (ordered: 1), levels, gated, share
    assert features.shape == (10, 7)
    np.testing.assert_array_equal(features[:, :3].sum(axis=1), 1.0)
    np.testing.assert_array_equal(features[-1, 3:], NEUTRAL)
    np.testing.assert_array_equal(features[:3, 4:], NEUTRAL)
    assert len(np.unique(features, axis=0)) == 10
    cube = np.random.default_rng(0).random((400, coordinates.dimensions))
    rounded = coordinates.rounded(cube)
    assert len(np.unique(rounded, axis=0)) == 10
    rows = {str(coordinates.values(row)) for row in rounded}
    assert rows == set(map(str, CONDITIONAL))
    assert coordinates.finite and not Coordinates(_wide()).finite


def test_an_unordered_choice_that_is_not_active_is_none_of_its_values():
    space = keras_tuner.HyperParameters()
    space.Boolean("on")
    with space.conditional_scope("on", [True]):
        space.Choice("how", ["a", "b"])
    coordinates = Coordinates(space)
    rows = coordinates.features(coordinates.places([{"on": False}]))
    np.testing.assert_array_equal(rows, [[0.25, 0.5, 0.5]])


@pytest.mark.parametrize(
    ("change", "fits"),
    [
        ({}, True),
        ({"levels": 3}, False),
        ({"levels": 2.0}, True),
        ({"levels": True}, False),
        ({"share": 0.7}, False),
        ({"share": "much"}, False),
        ({"experts": 2}, False),
        ({"model": "esmm"}, False),
        ({"gated": None}, False),
    ],
)
def test_values_from_elsewhere(change, fits):
    values = {**CONDITIONAL[5], **change}
    assert (legal(conditional(), values) is not None) is fits
    del values["share"]
    assert legal(conditional(), values) is None


def test_defaults_are_of_what_is_active():
    assert defaults(conditional()) == {"kind": "rank", "model": "mmoe", "experts": 2}
