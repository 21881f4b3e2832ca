"""The forms of a fused score: what must not change the order, and what must."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import rankdata

from tfmtl._keras import tf
from tfmtl.errors import ConfigError, DataError
from tfmtl.fusion import graph
from tfmtl.fusion.scores import fuse, terms
from tfmtl.schema.fusion import FusionSpec

FORMS = (
    "product",
    "sum",
    "shifted_product",
    "exponential_sum",
    "exponential_product",
    "rank",
)
WEIGHTS = {"click": 1.0, "like": 0.5, "hide": -0.7}


def spec(form="product", weights=WEIGHTS, **changes):
    return FusionSpec(form=form, weights=weights, **changes)


@pytest.fixture(scope="module")
def predictions():
    draw = np.random.default_rng(0)
    found = {name: draw.random(60).astype(np.float32) for name in WEIGHTS}
    found["click"][:4] = [0.0, 0.0, 1e-12, 1.0]
    found["hide"][2:9] = 0.25
    found["watch"] = draw.normal(20, 15, 60).astype(np.float32)
    return found


def direct(form, p, w, beta, offset):
    """The formulas as they are written, without logarithms."""
    p = {name: p[name].astype(np.float64) for name in w}
    parts = {
        "product": lambda t: np.maximum(p[t], 1e-8) ** w[t],
        "sum": lambda t: w[t] * p[t],
        "shifted_product": lambda t: (1 + beta[t] * p[t]) ** w[t],
        "exponential_sum": lambda t: w[t] * np.exp(beta[t] * p[t]),
        "exponential_product": lambda t: np.exp(w[t] * beta[t] * p[t]),
        "rank": lambda t: w[t] / (rankdata(-p[t]) + offset),
    }[form]
    join = np.prod if "product" in form else np.sum
    return join([parts(t) for t in w], axis=0)


@pytest.mark.parametrize("form", FORMS)
def test_log_form_is_the_direct_form(form, predictions):
    betas = form in ("shifted_product", "exponential_sum", "exponential_product")
    beta = {"click": 2.0, "like": 0.5, "hide": 1.0}
    offset = 7.0 if form == "rank" else 60.0
    found = fuse(predictions, spec(form, beta=beta if betas else {}, offset=offset))
    if "product" in form:
        found = np.exp(found)
    wanted = direct(form, predictions, WEIGHTS, beta, offset)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    other = direct(form, predictions, {**WEIGHTS, "like": 0.6}, beta, offset)
    assert np.abs(found - other).max() > 1e-4


def order(scores):
    return rankdata(scores)


@pytest.mark.parametrize("form", FORMS)
def test_which_forms_do_not_see_the_scale_of_an_output(form, predictions):
    """Miscalibration by a constant."""
    scaled = {**predictions, "like": predictions["like"] / 16}
    same = np.array_equal(
        order(fuse(predictions, spec(form))),
        order(fuse(scaled, spec(form))),
    )
    assert same == (form in ("product", "rank"))


@pytest.mark.parametrize("form", FORMS)
def test_a_common_factor_of_the_weights_does_not_matter(form, predictions):
    scaled = {name: 4.0 * w for name, w in WEIGHTS.items()}
    found = order(fuse(predictions, spec(form)))
    np.testing.assert_array_equal(found, order(fuse(predictions, spec(form, scaled))))
    turned = {name: -w for name, w in WEIGHTS.items()}
    assert not np.array_equal(found, order(fuse(predictions, spec(form, turned))))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("name", "sign"), [("click", 1), ("hide", -1)])
def test_monotone_in_each_output(form, name, sign, predictions):
    rows = np.linspace(0.01, 0.99, 30)
    one = {n: np.full(30, 0.4) for n in WEIGHTS} | {name: rows}
    steps = np.diff(fuse(one, spec(form)))
    assert (sign * steps > 0).all()


@pytest.mark.parametrize("form", FORMS)
def test_a_single_task_orders_as_it_does_itself(form, predictions):
    alone = spec(form, {"like": 0.3, "click": 0.0})
    assert alone.used == ("like",)
    found = fuse(predictions, alone)
    np.testing.assert_array_equal(order(found), order(predictions["like"]))
    turned = fuse(predictions, spec(form, {"like": -0.3}))
    np.testing.assert_array_equal(order(turned), order(-predictions["like"]))


@pytest.mark.parametrize("form", FORMS)
def test_the_served_graph_says_the_same(form, predictions):
    outputs = {name: tf.constant(v) for name, v in predictions.items()}
    options = {
        "weights": {**WEIGHTS, "watch": 0.2},
        "transform": {"watch": "log1p"},
    }
    if form.startswith(("shifted", "exp")):
        options["beta"] = {"click": 3.0, "watch": 0.5}
    found = graph.fuse(outputs, spec(form, **options))
    assert found.dtype == tf.float32 and found.shape == [60]
    wanted = fuse(predictions, spec(form, **options))
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    options["weights"]["watch"] = 0.2001
    changed = fuse(predictions, spec(form, **options))
    assert np.abs(found - changed).max() > 1e-6 * np.abs(wanted).max()
    # A batch of one, and none.
    for rows in (1, 0):
        few = {name: v[:rows] for name, v in outputs.items()}
        assert graph.fuse(few, spec(form)).shape == [rows]


def test_ranks_are_of_the_list(predictions):
    groups = np.array([b"a", b"b", b"c"], object)[np.arange(60) % 3]
    found = fuse(predictions, spec("rank"), groups)
    for group in (b"a", b"b", b"c"):
        rows = groups == group
        one = {name: v[rows] for name, v in predictions.items()}
        np.testing.assert_allclose(found[rows], fuse(one, spec("rank")), rtol=1e-12)
    assert not np.allclose(found, fuse(predictions, spec("rank")))


def test_probabilities_of_zero_and_amounts_below_zero_have_a_score():
    rows = {"click": np.array([0.0, 1e-30, 1.0]), "watch": np.array([-5.0, 0.0, 1e30])}
    for form in FORMS:
        found = spec(form, {"click": 3.0, "watch": 2.0})
        assert np.isfinite(fuse(rows, found)).all()
        served = {name: tf.constant(v, tf.float32) for name, v in rows.items()}
        assert np.isfinite(graph.fuse(served, found)).all()


def test_terms_do_not_depend_on_the_weights(predictions):
    other = {name: 9 * w for name, w in WEIGHTS.items()}
    np.testing.assert_array_equal(
        terms(predictions, spec()), terms(predictions, spec(weights=other))
    )


def test_a_product_beyond_32_bits_still_orders():
    """The product itself would be 0 on all rows."""
    rows = {"click": np.geomspace(1e-8, 1e-6, 9), "buy": np.geomspace(1e-8, 1e-7, 9)}
    heavy = spec(weights={"click": 5.0, "buy": 3.0})
    served = graph.fuse({n: tf.constant(v, tf.float32) for n, v in rows.items()}, heavy)
    assert (np.diff(served) > 0).all()
    assert (np.exp(served).astype(np.float32) == 0).all()


def test_what_is_missing_is_named(predictions):
    with pytest.raises(ConfigError, match=r"names \['buy'\], of which there are no"):
        fuse(predictions, spec(weights={"buy": 1.0}))
    with pytest.raises(DataError, match="`click` must not be NaN"):
        fuse({"click": np.array([np.nan])}, spec(weights={"click": 1.0}))
