"""Streaming metrics against those of whole arrays."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from tfmtl._keras import keras, tf
from tfmtl.errors import ConfigError
from tfmtl.metrics import exact, multiclass, regression
from tfmtl.metrics.streaming import StreamingMetrics
from tfmtl.metrics.streaming_values import StreamingMulticlass, StreamingRegression

TASKS = ("click", "like")
TABS = ("home", "search", "shop")


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


@pytest.fixture
def rows():
    generator = np.random.default_rng(0)
    logits = (generator.normal(size=(600, 2)) * 2 - 2).astype(np.float32)
    labels = (generator.random((600, 2)) < sigmoid(logits)).astype(np.float32)
    mask = generator.random((600, 2)) < 0.8
    scenario = generator.integers(0, 4, 600).astype(np.int32)
    return logits, labels, mask, scenario


def feed(metrics, rows, size=100):
    for start in range(0, len(rows[0]), size):
        metrics.update(*(array[start : start + size] for array in rows))
    return metrics


def cell(rows, task, scenario=None):
    logits, labels, mask, ids = rows
    kept = mask[:, task] & ((ids == scenario) | (scenario is None))
    return labels[kept, task], logits[kept, task]


def test_equals_exact_where_bins_separate_the_scores(rows):
    logits = np.random.default_rng(1).permutation(1200).reshape(600, 2)
    apart = (logits / 1200 * 30 - 15).astype(np.float32)  # 1/40 apart; bins 1/512.
    rows = (apart, *rows[1:])
    found = feed(StreamingMetrics(TASKS, TABS), rows).result()
    cells = []
    for t, task in enumerate(TASKS):
        for s, name in ((None, ""), (0, "@home"), (1, "@search"), (2, "@shop")):
            expected = exact.auc(*cell(rows, t, s))
            assert found[f"{task}{name}/auc"] == pytest.approx(expected, abs=1e-12)
            assert found[f"{task}{name}/auc_bound"] == 0.0
            cells += [] if s is None else [expected]
        unknown = exact.auc(*cell(rows, t, 3))
        assert found[f"{task}@unknown/auc"] == pytest.approx(unknown, abs=1e-12)
    assert found["mean_cell/auc"] == pytest.approx(np.mean(cells))
    tasks = [exact.auc(*cell(rows, t)) for t in range(2)]
    assert found["mean/auc"] == pytest.approx(np.mean(tasks))


@pytest.mark.parametrize("bins", [2, 16, 512])
def test_error_stays_within_the_reported_bound(rows, bins):
    found = feed(StreamingMetrics(TASKS, TABS, bins=bins), rows).result()
    errors = [
        abs(found[f"{task}/auc"] - exact.auc(*cell(rows, t)))
        for t, task in enumerate(TASKS)
    ]
    for error, task in zip(errors, TASKS, strict=True):
        assert error <= found[f"{task}/auc_bound"] + 1e-12
    assert max(errors) > 0.0


def test_loss_and_calibration_equal_exact(rows):
    found = feed(StreamingMetrics(TASKS, TABS), rows).result()
    for t, task in enumerate(TASKS):
        for s, name in ((None, ""), (1, "@search"), (3, "@unknown")):
            labels, logits = cell(rows, t, s)
            p = sigmoid(logits)
            key = f"{task}{name}"
            assert found[f"{key}/logloss"] == pytest.approx(
                exact.logloss(labels, p), rel=1e-6
            )
            assert found[f"{key}/pcoc"] == pytest.approx(exact.pcoc(labels, p), 1e-6)


def test_rare_labels_are_right_where_keras_auc_is_biased():
    generator = np.random.default_rng(2)
    logits = (generator.normal(size=(40_000, 1)) * 0.6 - 7.5).astype(np.float32)
    labels = (generator.random(logits.shape) < 20 * sigmoid(logits)).astype(np.float32)
    truth = exact.auc(labels[:, 0], logits[:, 0])
    metrics = StreamingMetrics(["buy"], [])
    metrics.update(logits, labels)
    assert metrics.result()["buy/auc"] == pytest.approx(truth, abs=2e-4)
    theirs = keras.metrics.AUC(num_thresholds=200)
    theirs.update_state(labels, sigmoid(logits))
    assert abs(float(theirs.result()) - truth) > 0.02


def test_masked_labels_do_not_matter_even_as_nan(rows):
    logits, labels, mask, scenario = rows
    expected = feed(StreamingMetrics(TASKS, TABS), rows).result()
    noise = np.where(mask, labels, np.nan).astype(np.float32)
    wild = np.where(mask, logits, np.nan).astype(np.float32)
    masked = feed(StreamingMetrics(TASKS, TABS), (wild, noise, mask, scenario))
    assert masked.result() == expected
    # NaN labels count as missing without a mask.
    everywhere = np.ones_like(mask)
    free = feed(StreamingMetrics(TASKS, TABS), (logits, noise, everywhere, scenario))
    assert free.result() == expected
    unmasked = (logits, labels, everywhere, scenario)
    assert feed(StreamingMetrics(TASKS, TABS), unmasked).result() != expected


def test_merge_equals_one_pass_and_reset_forgets(rows):
    whole = feed(StreamingMetrics(TASKS, TABS), rows).result()
    parts = []
    for half in (slice(0, 250), slice(250, None)):
        part = StreamingMetrics(TASKS, TABS)
        parts.append(feed(part, tuple(array[half] for array in rows)))
    parts[0].merge(parts[1])
    merged = parts[0].result()
    # float32 sigmoids differ in the last bit by their place in a batch; counts do not.
    assert merged == pytest.approx(whole, rel=1e-7)
    for key in [key for key in whole if "auc" in key]:
        assert merged[key] == whole[key]
    parts[0].reset()
    assert parts[0].result() == {}
    assert parts[1].result() != {}


def test_merge_refuses_what_does_not_fit():
    mine = StreamingMetrics(TASKS, TABS, bins=8)
    for other in (
        StreamingMetrics(TASKS, TABS, bins=16),
        StreamingMetrics(TASKS[::-1], TABS, bins=8),
        StreamingMetrics(TASKS, TABS, bins=8, weighted=True),
        StreamingRegression(TASKS, TABS),
    ):
        with pytest.raises(ConfigError, match="same type, tasks"):
            mine.merge(other)


def test_counts_beyond_float32_stay_exact():
    metrics = StreamingMetrics(["click"], [], bins=2)
    big = 2**24
    metrics.state[0].assign([big, 5, 1, big])
    metrics.update([[-1.0], [1.0]], [[0.0], [1.0]])
    counts = metrics.histograms()
    assert counts.dtype == np.int64
    assert counts.reshape(-1).tolist() == [big + 1, 5, 1, big + 1]
    assert np.float32(big) + np.float32(1) == big


def test_one_trace_serves_all_batch_sizes_and_works_inside_a_function(rows):
    metrics = StreamingMetrics(TASKS, TABS)
    traces = []

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 2], tf.float32),
            tf.TensorSpec([None, 2], tf.float32),
            tf.TensorSpec([None, 2], tf.bool),
            tf.TensorSpec([None], tf.int32),
        ]
    )
    def step(logits, labels, mask, scenario):
        traces.append(1)
        metrics.update(logits, labels, mask, scenario)

    for start, stop in ((0, 1), (1, 8), (8, 300), (300, 600), (600, 600)):
        step(*(array[start:stop] for array in rows))
    expected = feed(StreamingMetrics(TASKS, TABS), rows)
    np.testing.assert_array_equal(metrics.histograms(), expected.histograms())
    assert metrics.result() == pytest.approx(expected.result(), rel=1e-7)
    assert len(traces) == 1
    # Eager calls with several batch sizes share one graph as well.
    expected.update(*(array[:7] for array in rows))
    assert expected._update.experimental_get_tracing_count() == 1


def test_undefined_cells_are_absent_never_one_half():
    metrics = StreamingMetrics(TASKS, TABS)
    labels = np.array([[1, 0], [0, 0], [1, 0]], np.float32)
    metrics.update(np.zeros((3, 2)), labels, None, [0, 0, 1])
    found = metrics.result()
    assert found["click/auc"] == 0.5  # Both classes, all tied.
    assert "click@search/auc" not in found  # Positives only.
    assert found["click@search/pcoc"] == 0.5
    assert not [key for key in found if key.startswith("like") and "auc" in key]
    assert "like/pcoc" not in found
    assert "click@shop/logloss" not in found  # No row at all.
    assert "click@unknown/logloss" not in found
    assert found["mean/auc"] == found["mean_cell/auc"] == 0.5


def test_ids_out_of_range_are_unknown_and_a_cell_mean_leaves_them_out():
    metrics = StreamingMetrics(["click"], ["a"])
    metrics.update(
        [[0.0], [1.0], [0.0], [1.0]], [[0.0], [1.0], [1.0], [0.0]], None, [0, 0, -1, 9]
    )
    found = metrics.result()
    assert found["click@a/auc"] == found["mean_cell/auc"] == 1.0
    assert found["click@unknown/auc"] == 0.0
    assert found["click/auc"] == 0.5


def test_a_scenario_named_unknown_keeps_its_name():
    metrics = StreamingMetrics(["click"], ["unknown"])
    metrics.update([[0.0], [1.0]], [[0.0], [1.0]], None, [0, 1])
    assert {"click@unknown/logloss", "click@_unknown/logloss"} <= set(metrics.result())


def test_without_scenarios_a_task_is_one_cell(rows):
    logits, labels, mask, _ = rows
    metrics = StreamingMetrics(TASKS, [])
    metrics.update(logits, labels, mask)
    found = metrics.result()
    assert found["mean_cell/auc"] == found["mean/auc"]
    assert not [key for key in found if "@" in key]


def test_logits_that_are_not_finite_leave_the_cell_undefined():
    metrics = StreamingMetrics(TASKS, TABS)
    logits = [[np.nan, 0.0], [2.0, 1.0], [-60.0, 60.0], [3.0, 0.0]]
    labels = [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]
    metrics.update(logits, labels, None, [0, 0, 1, 1])
    found = metrics.result()
    assert "click/auc" not in found
    assert "click@home/auc" not in found
    assert found["click@search/auc"] == 1.0
    assert found["like/auc"] == 1.0


def test_weights_count_as_repeated_rows(rows):
    logits, labels, mask, scenario = rows
    weights = np.random.default_rng(3).random((600, 2)) * 3
    metrics = StreamingMetrics(TASKS, TABS, bins=64, weighted=True)
    metrics.update(logits, labels, mask, scenario, weights)
    found = metrics.result()
    kept = mask[:, 0] & (scenario == 1)
    y, s, w = labels[kept, 0], logits[kept, 0], weights[kept, 0]
    binned = np.clip(np.floor((s + 16) * 2), 0, 63)
    assert found["click@search/auc"] == pytest.approx(exact.auc(y, binned, w))
    assert found["click@search/logloss"] == pytest.approx(
        exact.logloss(y, sigmoid(s), w), rel=1e-6
    )
    with pytest.raises(ConfigError, match="`weights` must be given exactly"):
        metrics.update(logits, labels)
    with pytest.raises(ConfigError, match="`weights` must be given exactly"):
        StreamingMetrics(TASKS, TABS).update(logits, labels, None, None, weights)


def test_low_precision_logits_are_accepted(rows):
    logits, labels, mask, scenario = rows
    metrics = StreamingMetrics(TASKS, TABS)
    metrics.update(tf.cast(logits, tf.bfloat16), labels, mask, scenario)
    found = metrics.result()["click/auc"]
    assert found == pytest.approx(exact.auc(*cell(rows, 0)), abs=5e-3)


def test_state_is_saved_in_checkpoints_and_not_trainable(rows, tmp_path):
    metrics = feed(StreamingMetrics(TASKS, TABS, bins=64), rows)
    assert metrics.trainable_variables == ()
    path = tf.train.Checkpoint(metrics=metrics).write(str(tmp_path / "state"))
    other = StreamingMetrics(TASKS, TABS, bins=64)
    tf.train.Checkpoint(metrics=other).read(path).assert_consumed()
    assert other.result() == metrics.result()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], []), "at least one task"),
        ((["a", "a"], []), "`tasks` must be distinct"),
        ((["a"], ["x", "x"]), "`scenarios` must be distinct"),
        ((["a"], [], 1), "`bins` must be >= 2"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        StreamingMetrics(*arguments)


def test_regression_equals_scikit_learn(rows):
    _, _, mask, scenario = rows
    generator = np.random.default_rng(4)
    labels = generator.normal(size=(600, 2)) * 50
    guess = labels + generator.normal(size=(600, 2))
    labels = np.where(mask, labels, np.nan)
    metrics = StreamingRegression(["watch", "stay"], TABS)
    feed(metrics, (guess, labels, np.ones_like(mask), scenario))
    found = metrics.result()
    for t, task in enumerate(("watch", "stay")):
        for s, name in ((None, ""), (2, "@shop"), (3, "@unknown")):
            kept = mask[:, t] & ((scenario == s) | (s is None))
            pair = labels[kept, t], guess[kept, t]
            mse = reference.mean_squared_error(*pair)
            assert found[f"{task}{name}/rmse"] == pytest.approx(np.sqrt(mse))
            mae = reference.mean_absolute_error(*pair)
            assert found[f"{task}{name}/mae"] == pytest.approx(mae)
    mean = (found["watch/rmse"] + found["stay/rmse"]) / 2
    assert found["mean/rmse"] == pytest.approx(mean)
    metrics.reset()
    assert metrics.result() == {}


def test_multiclass_equals_scikit_learn(rows):
    _, _, mask, scenario = rows
    generator = np.random.default_rng(5)
    sizes = {"stars": 5, "mood": 3}
    logits = {n: generator.normal(size=(600, c)) for n, c in sizes.items()}
    labels = np.stack([generator.integers(0, c, 600) for c in sizes.values()], axis=1)
    noise = np.where(mask, labels, np.nan)
    metrics = StreamingMulticlass(sizes, TABS)
    for start in range(0, 600, 150):
        part = slice(start, start + 150)
        metrics.update(
            {n: x[part] for n, x in logits.items()},
            noise[part],
            mask[part],
            scenario[part],
        )
    found = metrics.result()
    for t, (task, classes) in enumerate(sizes.items()):
        kept = mask[:, t] & (scenario == 1)
        p = np.exp(logits[task][kept])
        p /= p.sum(axis=1, keepdims=True)
        y = labels[kept, t]
        accuracy = reference.accuracy_score(y, p.argmax(axis=1))
        assert found[f"{task}@search/accuracy"] == pytest.approx(accuracy)
        loss = reference.log_loss(y, p, labels=range(classes))
        assert found[f"{task}@search/logloss"] == pytest.approx(loss, rel=1e-5)
    mean = (found["stars/accuracy"] + found["mood/accuracy"]) / 2
    assert found["mean/accuracy"] == pytest.approx(mean)
    with pytest.raises(ConfigError, match="missing: \\['mood'\\]"):
        metrics.update({"stars": logits["stars"]}, labels)
    with pytest.raises(ConfigError, match="`classes` must be >= 2"):
        StreamingMulticlass({"stars": 1}, TABS)


def test_weights_of_regression_and_classes_are_those_of_whole_arrays(rows):
    _, _, mask, scenario = rows
    generator = np.random.default_rng(6)
    weights = generator.random((600, 1)) * 3
    label = generator.integers(0, 3, (600, 1)).astype(np.float64)
    guess = label + generator.normal(size=(600, 1))
    logits = generator.normal(size=(600, 3))
    observed = mask[:, :1]
    kept = observed[:, 0] & (scenario == 1)
    y, w = label[kept, 0], weights[kept, 0]

    numbers = StreamingRegression(["watch"], TABS)
    numbers.update(guess, label, observed, scenario, weights)
    found = numbers.result()
    rmse = regression.rmse(y, guess[kept, 0], w)
    assert found["watch@search/rmse"] == pytest.approx(rmse)
    mae = regression.mae(y, guess[kept, 0], w)
    assert found["watch@search/mae"] == pytest.approx(mae)
    assert rmse != pytest.approx(regression.rmse(y, guess[kept, 0]))

    classes = StreamingMulticlass({"stars": 3}, TABS)
    classes.update({"stars": logits}, label, observed, scenario, weights)
    found = classes.result()
    p = np.exp(logits[kept])
    p /= p.sum(axis=1, keepdims=True)
    accuracy = multiclass.accuracy(y, p, w)
    assert found["stars@search/accuracy"] == pytest.approx(accuracy)
    loss = multiclass.multiclass_logloss(y, p, w)
    assert found["stars@search/logloss"] == pytest.approx(loss, rel=1e-5)
    assert accuracy != pytest.approx(multiclass.accuracy(y, p))
