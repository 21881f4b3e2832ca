"""Post-hoc calibration: how it is asked for, and `calibration.json` of a run.

A calibrator maps the logit s of one output, in one scenario, to another logit by a
strictly rising function, so that the ranking inside the scenario is untouched.
"""

from __future__ import annotations

import itertools
import math
import pathlib
from typing import Literal

import pydantic
from pydantic import Field, model_validator

from tfmtl.errors import DataError
from tfmtl.files import atomic_write
from tfmtl.schema.base import Spec

CALIBRATION_FILE = "calibration.json"

Method = Literal["none", "bias", "platt", "isotonic"]
By = Literal["task", "scenario"]


class CalibrationSpec(Spec):
    """Calibrators of binary outputs, fitted on the validation split after training.

    Outputs that are trained on their own (`click`, `buy|click`) are calibrated; `buy`
    is the product of its calibrated steps.
    """

    method: Method = "none"
    """`bias` adds a constant to the logit, `platt` scales it too, `isotonic` takes any
    rising form that the data show. Under each, predicted and observed positives of the
    rows it was fitted on are equal."""
    by: By = "task"
    """One calibrator an output, or one for each output and scenario. Rows of an unknown
    scenario take that of all rows."""
    min_positives: int = Field(default=50, ge=1)
    """A scenario with fewer takes its output's calibrator of all rows; an output with
    fewer stays as it is."""
    min_negatives: int = Field(default=50, ge=1)
    """The same for negatives."""


class Calibrator(Spec):
    """A strictly rising, piecewise linear function of a logit.

        f(s) = y_1 + low_slope (s - x_1)                        s <= x_1
        f(s) = linear between (x_k, y_k) and (x_k+1, y_k+1)
        f(s) = y_K + high_slope (s - x_K)                       s >= x_K

    A bias b is x = (0), y = (b); Platt's a s + b has both slopes a.
    """

    x: tuple[float, ...] = Field(default=(0.0,), min_length=1)
    """Knots, rising."""
    y: tuple[float, ...] = Field(default=(0.0,), min_length=1)
    """What they become, rising."""
    low_slope: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Before the first knot."""
    high_slope: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """After the last one."""

    @model_validator(mode="after")
    def _rising(self) -> Calibrator:
        if len(self.x) != len(self.y):
            raise ValueError(
                "`x` and `y` must be of one length. Received: "
                f"{len(self.x)} and {len(self.y)}"
            )
        for name, values in (("x", self.x), ("y", self.y)):
            rising = all(a < b for a, b in itertools.pairwise(values))
            if not rising or not all(math.isfinite(v) for v in values):
                raise ValueError(
                    f"`{name}` must be finite and strictly rising, or the calibrator "
                    f"changes the ranking. Received: {list(values)[:10]}"
                )
        return self

    @property
    def slopes(self) -> tuple[float, ...]:
        """Of the K + 1 pieces."""
        points = itertools.pairwise(zip(self.x, self.y))
        inner = [(y1 - y0) / (x1 - x0) for (x0, y0), (x1, y1) in points]
        return (self.low_slope, *inner, self.high_slope)

    @property
    def is_identity(self) -> bool:
        """Whether it changes nothing."""
        return self.x == self.y and set(self.slopes) == {1.0}


class CellCalibration(Spec):
    """One output in one scenario, or in all rows."""

    source: Literal["cell", "task", "identity"]
    """What the calibrator was fitted on: these rows, all rows of the output, or nothing
    at all."""
    rows: int
    """Rows of the validation split with a label."""
    positives: int
    """Of these."""
    pcoc_before: float | None = None
    """Predicted over observed positives there; None without a positive."""
    pcoc_after: float | None = None
    """The same with the calibrator."""
    calibrator: Calibrator = Calibrator()
    """Applied to the logit; the identity in a product's record, which has none."""


class OutputCalibration(Spec):
    """One output."""

    product: bool = False
    """The output is the product of its calibrated steps: it has no calibrator."""
    all: CellCalibration
    """Of all rows; unknown scenarios take its calibrator."""
    scenarios: dict[str, CellCalibration] = {}
    """Of each declared scenario."""

    def calibrators(self) -> tuple[Calibrator, ...]:
        """Of each scenario and of unknown ones: S + 1 calibrators."""
        cells = [*self.scenarios.values(), self.all]
        return tuple(c.calibrator for c in cells)


class Calibration(Spec):
    """`calibration.json`: the calibrators of a run, and what they were fitted on."""

    format_version: Literal[1] = 1
    method: Method
    by: By
    min_positives: int
    min_negatives: int
    step: int
    """Training step of the model that they were fitted with."""
    outputs: dict[str, OutputCalibration] = {}
    """Binary outputs; none where `method` is `none`."""


def read_calibration(run: pathlib.Path) -> Calibration | None:
    """The calibrators of a run; None where it has none.

    Raises:
        DataError: The file is damaged, or a calibrator in it is not monotone.
    """
    path = run / CALIBRATION_FILE
    if not path.exists():
        return None
    try:
        return Calibration.model_validate_json(path.read_text())
    except (OSError, pydantic.ValidationError) as error:
        raise DataError(f"{str(path)!r} is damaged: {error}") from error


def write_calibration(calibration: Calibration, run: pathlib.Path) -> None:
    """Writes the calibrators of a run, whole or not at all."""
    text = calibration.model_dump_json(indent=1) + "\n"
    atomic_write(run / CALIBRATION_FILE, text)
