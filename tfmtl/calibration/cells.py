"""Calibrators of all outputs and scenarios, from the logits of a split."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from tfmtl.calibration.fit import FITS, apply
from tfmtl.metrics.arrays import Floats
from tfmtl.metrics.exact import pcoc
from tfmtl.schema.calibration import (
    Calibration,
    CalibrationSpec,
    Calibrator,
    CellCalibration,
    OutputCalibration,
)
from tfmtl.schema.funnel import steps_of
from tfmtl.schema.task import TaskSpec, outputs_of


@dataclasses.dataclass(frozen=True, eq=False)
class OutputLogits:
    """One binary output on N rows.

    Attributes:
        logits: [N], corrected for sampling.
        labels: [N]; NaN outside the output's population.
        weights: [N], or None.
    """

    logits: Floats
    labels: Floats
    weights: Floats | None = None


def calibrate_outputs(
    spec: CalibrationSpec,
    tasks: Sequence[TaskSpec],
    outputs: Mapping[str, OutputLogits],
    scenario: np.ndarray,
    scenarios: Sequence[str],
    step: int,
) -> Calibration:
    """Fits the calibrators of a model.

    `click` and `buy|click` get calibrators; `buy` becomes the product of its calibrated
    steps. Calibrated on its own, `buy` could exceed `click`, and would no longer be
    p(click) p(buy | click); the price is that its own PCOC is near 1, not 1, and that
    its ranking is that of the product.

    Args:
        spec: Which method, by what, from how many rows.
        tasks: All tasks.
        outputs: Each binary output of the tasks.
        scenario: [N] position of each row's scenario.
        scenarios: The S declared values.
        step: Training step of the model.
    """
    names = {n: t for n, t in outputs_of(tasks).items() if t.type == "binary"}
    found: dict[str, OutputCalibration] = {}
    after: dict[str, Floats] = {}
    for name, task in names.items():
        if name == task.conditional:
            found[name], after[name] = _output(spec, outputs[name], scenario, scenarios)
    for name in names:
        if name not in found:
            steps = [after[t.conditional] for t in steps_of(tasks, name)]
            product = np.exp(-sum(np.logaddexp(0.0, -s) for s in steps))
            found[name] = _joint(outputs[name], product, scenario, scenarios)
    return Calibration(
        method=spec.method,
        by=spec.by,
        min_positives=spec.min_positives,
        min_negatives=spec.min_negatives,
        step=step,
        outputs={n: found[n] for n in names},
    )


def _output(
    spec: CalibrationSpec,
    output: OutputLogits,
    scenario: np.ndarray,
    scenarios: Sequence[str],
) -> tuple[OutputCalibration, Floats]:
    """Calibrators of an output, and its logits [N] afterwards."""
    everything = np.ones(len(scenario), bool)
    common = _fitted(spec, output, everything)
    source = "identity" if common is None else "cell"
    common = common or Calibrator()
    cells: dict[str, CellCalibration] = {}
    after = apply(common, output.logits)
    for number, name in enumerate(scenarios):
        rows = scenario == number
        own = _fitted(spec, output, rows) if spec.by == "scenario" else None
        used = own or common
        after[rows] = apply(used, output.logits[rows])
        of = "cell" if own else ("task" if source == "cell" else "identity")
        cells[name] = _cell(output, rows, _sigmoid(after), of, used)
    whole = _cell(output, everything, _sigmoid(after), source, common)
    return OutputCalibration(all=whole, scenarios=cells), after


def _joint(
    output: OutputLogits, after: Floats, scenario: np.ndarray, scenarios: Sequence[str]
) -> OutputCalibration:
    """The record of an output that is a product; `after` are probabilities [N]."""

    def cell(rows: np.ndarray) -> CellCalibration:
        return _cell(output, rows, after, "identity", Calibrator())

    return OutputCalibration(
        product=True,
        all=cell(np.ones(len(scenario), bool)),
        scenarios={s: cell(scenario == i) for i, s in enumerate(scenarios)},
    )


def _fitted(
    spec: CalibrationSpec, output: OutputLogits, rows: np.ndarray
) -> Calibrator | None:
    """The calibrator of some rows; None where they are too few."""
    rows = rows & ~np.isnan(output.labels)
    weights = None
    if output.weights is not None:
        rows = rows & (output.weights > 0)
        weights = output.weights[rows]
    labels = output.labels[rows]
    positives = int(labels.sum())
    if positives < spec.min_positives or len(labels) - positives < spec.min_negatives:
        return None
    return FITS[spec.method](labels, output.logits[rows], weights)


def _cell(
    output: OutputLogits,
    rows: np.ndarray,
    after: Floats,
    source: str,
    calibrator: Calibrator,
) -> CellCalibration:
    rows = rows & ~np.isnan(output.labels)
    labels = output.labels[rows]
    weights = None if output.weights is None else output.weights[rows]
    before = _sigmoid(output.logits[rows])
    return CellCalibration.model_validate(
        {
            "source": source,
            "rows": len(labels),
            "positives": int(labels.sum()),
            "pcoc_before": _defined(pcoc(labels, before, weights)),
            "pcoc_after": _defined(pcoc(labels, after[rows], weights)),
            "calibrator": calibrator,
        }
    )


def _sigmoid(logits: Floats) -> Floats:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)))


def _defined(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
