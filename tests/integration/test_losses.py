"""Every loss in one model: trained, evaluated, restored, served in the label's unit."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tfmtl import build, workflow
from tfmtl._keras import tf
from tfmtl.data.read import Position
from tfmtl.export.signature import ServingModule
from tfmtl.losses.units import to_unit
from tfmtl.schema.experiment import Experiment
from tfmtl.schema.manifest import DatasetManifest, RecordColumn
from tfmtl.schema.task import TaskSpec
from tfmtl.testing.records import write_records
from tfmtl.testing.tiny import COLUMNS, tiny_columns, tiny_spec
from tfmtl.training.trainer import forward
from tfmtl.workflow.restore import restore

SECONDS: dict[str, Any] = {"label": "seconds", "type": "regression"}
GRADE: dict[str, Any] = {"label": "grade", "type": "multiclass", "classes": 4}
LOSSES: dict[str, dict[str, Any]] = {
    "bce": {"loss": {"name": "bce", "smoothing": 0.1}},
    "focal": {"loss": "focal"},
    "l2r": {"loss": "l2r", "normalization": "sum"},
    "distill": {"loss": "distill", "teacher": "t"},
    "jrc": {"loss": "jrc"},
    "bpr": {"loss": {"name": "bpr", "within": "group_scenario"}},
    "pointwise": {"loss": {"name": "bpr", "within": "scenario", "pointwise": 0.5}},
    "list_softmax": {"loss": "list_softmax"},
    "listnet": {"loss": "listnet"},
    "listmle": {"loss": "listmle"},
    "mse": {**SECONDS, "loss": "mse"},
    "log1p": {**SECONDS, "transform": "log1p", "smearing": True},
    "huber": {**SECONDS, "loss": {"name": "huber", "delta": 5}},
    "watch": {**SECONDS, "loss": "weighted_logistic"},
    "ziln": {**SECONDS, "loss": "ziln"},
    "levels": {**SECONDS, "loss": {"name": "bpr", "gap": True}},
    "softmax": {**GRADE, "loss": {"name": "softmax", "smoothing": 0.1}},
    "ordinal": {**GRADE, "loss": "ordinal"},
}
TASKS = [{"name": n, "label": "click", **more} for n, more in LOSSES.items()]


def _columns(rows: int, seed: int) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    found = tiny_columns(rows, seed)
    click, price = found.pop("label/click"), found["price"]
    grade = np.digitize(price + draw.normal(0, 0.5, rows), [-1, 0, 1]).astype(float)
    seconds = np.exp(2 + 0.8 * price + draw.normal(0, 1, rows)) * (
        draw.random(rows) < 0.8
    )
    labels = {"click": click, "grade": grade, "seconds": seconds}
    labels["click"][::11] = labels["seconds"][::13] = np.nan
    teacher = np.where(np.arange(rows) % 5, 3 * price, np.nan)
    return {
        **{k: v for k, v in found.items() if not k.startswith("label/")},
        **{f"label/{t['name']}": labels[t["label"]].copy() for t in TASKS},
        "teacher/distill": teacher,
    }


def _experiment(**training: Any) -> Experiment:
    return Experiment.model_validate(
        {
            "name": "losses",
            "dataset": tiny_spec(tasks=TASKS).model_dump(),
            "model": {"class": "SharedBottom", "config": {"bottom_units": [8]}},
            "optimizers": {"default": {"learning_rate": 0.02}},
            "training": {
                "batch_size": 128,
                "epochs": 3,
                "shuffle": "groups",
                "monitor": "ziln/mae",
                "patience": None,
                **training,
            },
        }
    )


@pytest.fixture(scope="module")
def data(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[pathlib.Path, DatasetManifest]:
    folder = tmp_path_factory.mktemp("losses")
    spec = tiny_spec(tasks=TASKS)
    columns = tuple(c for c in COLUMNS if not c.name.startswith("label/"))
    names = [*(f"label/{t['name']}" for t in TASKS), "teacher/distill"]
    columns += tuple(RecordColumn(name=n, dtype="float") for n in names)
    sizes = {"train": 600, "validation": 300, "test": 300}
    splits = {s: _columns(n, i) for i, (s, n) in enumerate(sizes.items())}
    return folder, write_records(folder, spec, columns, splits)


def test_each_loss_falls_in_a_few_steps(
    data: tuple[pathlib.Path, DatasetManifest],
) -> None:
    folder, manifest = data
    experiment = _experiment()
    model = build.make_model(experiment, manifest, folder)
    trainer = build.make_trainer(experiment, model, 100)
    reader = build.make_reader(experiment, manifest, folder, "train", train=True)
    assert reader.keys == ("group",)
    whole = next(iter(reader.stream(Position(), 1).unbatch().batch(600)))
    assert set(whole.keys) == {"group"} and set(whole.teachers) == {"distill"}

    @tf.function(autograph=False)
    def losses() -> Any:
        return forward(model, trainer.losses, whole)[:2]

    before, present = losses()
    assert np.all(present)
    iterator = iter(reader.stream(Position(), 8))
    sums = trainer.train_chunk(iterator, tf.constant(30, tf.int64))
    assert int(sums.steps) == 30 and bool(sums.finite)
    after, _ = losses()
    fell = dict(zip(LOSSES, (before - after).numpy()))
    assert all(v > 0 for v in fell.values()), fell
    answers = _answers(model.tasks, model(whole.features), model)
    for task in model.tasks:
        _check_unit(task, answers[task.name])
        variables = model.variable_groups()[f"task/{task.name}"]
        assert variables[-1].shape[-1] == task.width


def _answers(tasks: Any, outputs: Any, model: Any) -> dict[str, np.ndarray]:
    return {
        t.name: to_unit(t, outputs[t.name], model.smearing.get(t.name)).numpy()
        for t in tasks
    }


def _check_unit(task: TaskSpec, answer: np.ndarray) -> None:
    assert np.isfinite(answer).all()
    if task.type == "multiclass":
        assert answer.shape[1:] == (task.classes,)
        np.testing.assert_allclose(answer.sum(1), 1, rtol=1e-4)
    else:
        assert answer.ndim == 1
    if task.type == "binary":
        assert ((answer > 0) & (answer < 1)).all()
    if task.name in ("watch", "ziln"):
        assert (answer > 0).all() and 1 < answer.mean() < 100, task.name


@pytest.fixture(scope="module")
def run(
    data: tuple[pathlib.Path, DatasetManifest], tmp_path_factory: Any
) -> pathlib.Path:
    target = tmp_path_factory.mktemp("run") / "run"
    workflow.train(_experiment(), data[0], target)
    return target


def test_streaming_metrics_are_those_of_the_report(run: pathlib.Path) -> None:
    report = workflow.evaluate(run, "validation")["tasks"]
    streamed = restore(run).result["metrics"]
    for name, more in LOSSES.items():
        kind = more.get("type", "binary")
        metric = {"binary": "auc", "regression": "rmse"}.get(kind, "logloss")
        # AUC is streamed from a histogram.
        assert streamed[f"{name}/{metric}"] == pytest.approx(
            report[name][metric], rel=2e-3
        ), name


def test_evaluated_restored_and_refitted_in_the_labels_unit(
    data: tuple[pathlib.Path, DatasetManifest], run: pathlib.Path
) -> None:
    folder, _ = data
    chosen = restore(run).model
    factor = float(chosen.smearing["log1p"])
    result = workflow.train(_experiment(), folder, run, resume=True, refit=True)
    assert result.refit
    refitted = restore(run)
    # Another model, with the factor of rows that the chosen one had not seen.
    assert float(refitted.model.smearing["log1p"]) == factor
    assert any(
        not np.allclose(a, b)
        for a, b in zip(chosen.trainable_variables, refitted.model.trainable_variables)
    )
    # Residuals of a spread of about 1, and zeros: far above 1.
    assert factor > 1.2
    file = run.parent / "predictions.parquet"
    report = workflow.evaluate(run, "test", predictions_file=file)
    table = pq.read_table(file)
    reader = build.make_reader(
        _experiment(), refitted.manifest, folder, "test", keys=True
    )
    batch = next(iter(reader.epoch()))
    outputs = refitted.model(batch.features)
    answers = _answers(refitted.model.tasks, outputs, refitted.model)
    for task in refitted.model.tasks:
        written = np.array(table[f"prediction/{task.name}"].to_pylist())
        np.testing.assert_allclose(written, answers[task.name], rtol=1e-4, atol=1e-6)
        assert report["tasks"][task.name]["rows"] > 250
    plain = to_unit(
        TaskSpec(name="y", label="y", type="regression", transform="log1p"),
        outputs["log1p"],
    ).numpy()
    np.testing.assert_allclose(answers["log1p"] + 1, factor * (plain + 1), rtol=1e-4)
    label = np.array(table["label/log1p"].to_pylist(), float)
    known = ~np.isnan(label)
    # The geometric mean is far below the mean of what was seen; smearing is near it.
    ratios = [v[known].mean() / label[known].mean() for v in (answers["log1p"], plain)]
    assert abs(np.log(ratios[0])) < 0.35 and ratios[1] < 0.65, ratios


class _Transform:
    """Stands for a transform graph: hands the price on, all else is missing."""

    def __init__(self, manifest: DatasetManifest) -> None:
        self._manifest = manifest

    def apply_transform_model(self, raw: Any) -> Any:
        price = raw["price"]
        features = build.empty_features(self._manifest, 1)
        rows = tf.shape(price)[0]
        found = {
            k: tf.repeat(v, rows, axis=0) for k, v in features.items() if k != "price"
        }
        for name in ("tags", "hist_item", "hist_age"):
            found[name] = tf.RaggedTensor.from_tensor(found[name])
        return {**found, "price": price}


def test_an_exported_module_answers_in_the_labels_unit(
    run: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    model = restore(run).model
    names = list(LOSSES)
    module = ServingModule(model, _Transform(model.manifest), names)
    tf.saved_model.save(module, str(tmp_path), signatures=module.signatures())
    loaded = tf.saved_model.load(str(tmp_path))
    price = np.linspace(-2, 2, 5).astype("f")
    raw: dict[str, Any] = {}
    for name, spec in (
        loaded.signatures["serving_default"].structured_input_signature[1].items()
    ):
        shape = [5, *(3 if name == "text" else 1 for _ in spec.shape[1:])]
        raw[name] = tf.zeros(shape) if spec.dtype == tf.float32 else tf.fill(shape, "")
    raw["price"] = tf.constant(price)
    answers = loaded.signatures["serving_default"](**raw)
    features = {
        k: v.to_tensor() if isinstance(v, tf.RaggedTensor) else v
        for k, v in _Transform(model.manifest).apply_transform_model(raw).items()
    }
    expected = _answers(model.tasks, model(features), model)
    for task in model.tasks:
        np.testing.assert_allclose(
            answers[task.name], expected[task.name], rtol=1e-4, atol=1e-6
        )
        _check_unit(task, answers[task.name].numpy())
    # Dearer ones are watched longer, and graded higher.
    assert np.all(np.diff(answers["log1p"]) > 0)
    order = answers["ordinal"].numpy() @ np.arange(4)
    assert order[-1] > order[0]
