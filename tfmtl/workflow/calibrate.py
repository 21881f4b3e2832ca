"""Finished run -> calibrators, fitted anew or with another method."""

from __future__ import annotations

import pathlib
from typing import get_args

from tfmtl.errors import ConfigError
from tfmtl.progress import Listener, Silent
from tfmtl.schema.calibration import (
    By,
    Calibration,
    CalibrationSpec,
    Method,
    write_calibration,
)
from tfmtl.workflow.calibrators import fit_on_validation
from tfmtl.workflow.restore import restore


def calibrate(
    run: str | pathlib.Path,
    *,
    method: str | None = None,
    by: str | None = None,
    dataset: str | pathlib.Path | None = None,
    listener: Listener | None = None,
) -> Calibration:
    """Fits calibrators on the validation split and stores them in the run.

    Evaluation, scoring and export of the run apply them from then on. Of a refitted run
    the model before the refit is asked: the refitted one has seen the validation split,
    and looks better calibrated there than it is. It repeats that model on a few more
    rows, so that its bias is the same to a good approximation.

    Args:
        run: The run directory.
        method: `none`, `bias`, `platt` or `isotonic`; the experiment's where None.
            `none` takes calibrators away.
        by: `task` or `scenario`; the experiment's where None.
        dataset: Where the data set lies now, if it was moved.
        listener: Told about the progress.

    Returns:
        The calibrators, also in the run's `calibration.json`.

    Raises:
        ConfigError: An argument is wrong, or there is nothing to fit on.
        DataError: The run is not finished, its data set is gone or another one.
    """
    listener = listener or Silent()
    for name, value, legal in (("method", method, Method), ("by", by, By)):
        if value is not None and value not in get_args(legal):
            raise ConfigError(
                f"`{name}` must be one of {get_args(legal)}. Received: {value!r}"
            )
    restored = restore(run, dataset, same_dataset=True, refit=False)
    spec = _spec(restored.experiment.calibration, method, by)
    step = restored.result["step"]
    if spec.method == "none":
        found = Calibration(step=step, **spec.model_dump())
    else:
        listener.stage("calibrate on validation")
        found = fit_on_validation(
            restored.experiment,
            restored.manifest,
            restored.dataset,
            restored.model,
            spec,
            step,
        )
    write_calibration(found, pathlib.Path(run))
    return found


def _spec(
    asked: CalibrationSpec, method: str | None, by: str | None
) -> CalibrationSpec:
    if method is None and asked.method == "none":
        raise ConfigError(
            "`method` must be given where the experiment has no `calibration.method`; "
            f"one of {get_args(Method)}"
        )
    document = asked.model_dump()
    document |= {"method": method} if method is not None else {}
    document |= {"by": by} if by is not None else {}
    return CalibrationSpec.model_validate(document)
