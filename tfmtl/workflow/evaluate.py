"""Run directory + split -> exact metrics, and every prediction if asked."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tfmtl import build
from tfmtl.errors import ConfigError
from tfmtl.files import atomic_write
from tfmtl.metrics.report import TaskPredictions, evaluate_predictions
from tfmtl.progress import Listener, Silent
from tfmtl.schema.calibration import Calibration
from tfmtl.schema.fusion import SCORE, FusionChoice
from tfmtl.schema.manifest import DatasetManifest
from tfmtl.schema.task import outputs_of
from tfmtl.training.evaluation import predictions
from tfmtl.workflow.fusion import fusion_of
from tfmtl.workflow.ranked import fused_report, fused_scores, gain_of, ranking_of
from tfmtl.workflow.restore import restore


def evaluate(
    run: str | pathlib.Path,
    split: str = "test",
    *,
    dataset: str | pathlib.Path | None = None,
    predictions_file: str | pathlib.Path | None = None,
    fusion: FusionChoice = "found",
    snapshot: str | None = None,
    refit: bool = True,
    resamples: int = 200,
    listener: Listener | None = None,
) -> dict[str, Any]:
    """Evaluates the model of a finished run on a split.

    Args:
        run: The run directory.
        split: `train`, `validation` or `test`.
        dataset: Where the data set lies now, if it was moved. Another one of the same
            schema is evaluated too, and the report says so: its ids come from
            vocabularies of its own, which must be the run's for the metrics to mean
            anything.
        predictions_file: A Parquet file to write: keys, scenario, and for each output
            its prediction and label (null outside its population), and the prediction
            `score` where outputs are fused.
        fusion: Which weights make the fused score: see `workflow.fusion.fusion_of`.
        snapshot: Evaluate the model of this task's own best step; the run's choice
            where None.
        refit: Of a refitted run, evaluate that model; else the chosen one before it,
            which has not seen the validation split.
        resamples: Of the 95 % intervals; 0 leaves them None, and saves their time.
        listener: Told about the progress.

    Returns:
        The report: `{"split", "rows", "tasks": {output: {metric: value}},
        "mean_task_auc", "mean_cell_auc", "same_dataset", "calibration", "fusion"}`;
        undefined values are None. `calibration` is its method, None without
        calibrators. An output is a task, or `buy|click` for a task with `given`; means
        are over the main tasks; a task's sample weights enter its metrics, but not
        those of the order inside lists. `same_dataset` says whether the data set is the
        one of the run, None where that is not known.
        `fusion` says how well the fused score orders each output's rows, None where
        there is none: see `workflow.ranked.fused_report`.

    Raises:
        ConfigError: The data set has no such split, or the run no such snapshot.
        DataError: The run is not finished or its data set is gone.
    """
    listener = listener or Silent()
    listener.stage(f"evaluate {split}")
    restored = restore(run, dataset, refit=refit, snapshot=snapshot)
    model, manifest = restored.model, restored.manifest
    if split not in manifest.splits:
        raise ConfigError(
            f"`split` must be one of {sorted(manifest.splits)}. Received: {split!r}"
        )
    reader = build.make_reader(
        restored.experiment, manifest, restored.dataset, split, keys=True
    )
    predicted, labels, scenario, keys = predictions(model, reader, restored.finish)
    scenarios = manifest.dataset.scenario_values
    experiment = restored.experiment
    fused = fusion_of(run, experiment, fusion)
    score = None
    if fused is not None:
        score = fused_scores(experiment, fused, predicted, keys)
    if predictions_file is not None:
        write_predictions(
            pathlib.Path(predictions_file),
            predicted,
            labels,
            scenario,
            keys,
            scenarios,
            score,
        )
    tasks = [
        TaskPredictions(
            name=name,
            kind=task.type,
            labels=labels[name]["labels"].astype(np.float64),
            predictions=predicted[name].astype(np.float64),
            weights=labels[name]["weights"].astype(np.float64) if task.weight else None,
            gain=gain_of(experiment, name),
        )
        for name, task in outputs_of(model.tasks).items()
    ]
    known = {name: values["labels"] for name, values in labels.items()}
    shared: dict[str, Any] = {
        "scenario": scenario if scenarios else None,
        "scenario_names": scenarios,
        "users": keys.get("user"),
        "ranking": ranking_of(experiment, keys, known),
        "resamples": resamples,
    }
    report = evaluate_predictions(
        split,
        tasks,
        mean_over=[t.name for t in model.tasks if t.role == "main"],
        **shared,
    )
    report["fusion"] = None
    if fused is not None and score is not None:
        report["fusion"] = fused_report(
            split, experiment, fused, score, known, **shared
        )
    report["same_dataset"] = restored.same_dataset
    calibration = restored.calibration
    report["calibration"] = calibration.method if calibration else None
    if calibration is not None and split == "validation":
        listener.note("the calibrators were fitted on the validation split")
    if manifest.splits[split].sampled_out:
        listener.note(
            f"the {split} split is down-sampled, {level_of(manifest, calibration)}"
        )
    if restored.same_dataset is False:
        listener.note(
            f"the data set {str(restored.dataset)!r} is another one than the run's: "
            "same schema, other content"
        )
    if split == "validation" and restored.refit:
        listener.note("the refitted model has seen the validation split in training")
    return report


def level_of(manifest: DatasetManifest, calibration: Calibration | None) -> str:
    """What a model's rates are to those of a down-sampled split, in words."""
    spec = manifest.dataset.sampling
    fitted = calibration is not None and calibration.method != "none"
    if spec is not None and spec.correction == "none" and not fitted:
        return (
            "and the model is not corrected for that (`sampling.correction: none`): "
            "PCOC, ECE and log-loss on it are of sampled rows, not of real traffic"
        )
    return (
        "and the model is corrected for that: PCOC, ECE and log-loss on it say nothing "
        "about real traffic"
    )


def write_predictions(
    path: pathlib.Path,
    predicted: dict[str, np.ndarray],
    labels: dict[str, dict[str, np.ndarray]],
    scenario: np.ndarray,
    keys: dict[str, np.ndarray],
    scenarios: tuple[str, ...],
    score: np.ndarray | None = None,
    metadata: dict[str, str] | None = None,
) -> None:
    """Writes what is known of each row to a Parquet file.

    Args:
        path: The file: keys by their names, `scenario`, and for each output
            `prediction/<output>`, in the unit of its label, and `label/<output>`.
        predicted: Output to [N] or [N, C].
        labels: Output to its labels, NaN outside the population, as null.
        scenario: [N] ids.
        keys: Key to [N].
        scenarios: Names of the ids.
        score: [N], the fused score, becomes `prediction/score`; or None.
        metadata: Kept with the file's schema.
    """
    columns: dict[str, Any] = {}
    for name, values in keys.items():
        text = values.dtype == object
        columns[name] = (
            pa.array(values, pa.binary()).cast(pa.string())
            if text
            else (pa.array(values))
        )
    if scenarios:
        names = np.array([*scenarios, "unknown"], dtype=object)
        columns["scenario"] = pa.array(names[scenario])
    for name, values in predicted.items():
        columns[f"prediction/{name}"] = (
            pa.array(list(values)) if values.ndim > 1 else pa.array(values)
        )
        columns[f"label/{name}"] = pa.array(labels[name]["labels"], from_pandas=True)
    if score is not None:
        columns[f"prediction/{SCORE}"] = pa.array(score)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns, metadata=metadata), sink)
    atomic_write(path, sink.getvalue().to_pybytes())
