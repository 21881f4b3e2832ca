"""Which fused score a run has: the weights found, or those of its experiment."""

from __future__ import annotations

import json
import pathlib
import typing
from typing import Any

import pydantic

from tfmtl.errors import ConfigError, DataError
from tfmtl.files import atomic_write
from tfmtl.schema.experiment import Experiment
from tfmtl.schema.fusion import FusionChoice, FusionSpec

FUSION = "fusion.json"
"""In a run directory: what `tfmtl fuse` found."""


def fusion_of(
    run: str | pathlib.Path, experiment: Experiment, choice: FusionChoice = "found"
) -> FusionSpec | None:
    """The fusion of a run.

    Args:
        run: The run directory.
        experiment: Of the run.
        choice: `found`: the weights that `tfmtl fuse` wrote into the run, those of the
            experiment where it has not been asked; `configured`: the experiment's;
            `none`: no fused score.

    Returns:
        None where there is none.

    Raises:
        ConfigError: An unknown choice.
        DataError: `fusion.json` is damaged.
    """
    choices = typing.get_args(FusionChoice)
    if choice not in choices:
        raise ConfigError(f"`fusion` must be one of {choices}. Received: {choice!r}")
    if choice == "none":
        return None
    path = pathlib.Path(run) / FUSION
    if choice == "configured" or not path.is_file():
        return experiment.fusion
    try:
        spec = FusionSpec.model_validate(json.loads(path.read_text())["fusion"])
        spec.check(experiment.dataset)
    except (OSError, KeyError, TypeError, ValueError, pydantic.ValidationError) as e:
        raise DataError(
            f"{str(path)!r} is damaged: {e}. Run `tfmtl fuse` again, or remove it"
        ) from e
    return spec


def write_found(run: str | pathlib.Path, document: dict[str, Any]) -> pathlib.Path:
    """Writes what a search found, `{"fusion": ...}` and how; whole or not at all."""
    path = pathlib.Path(run) / FUSION
    atomic_write(path, json.dumps(document, indent=1, allow_nan=False) + "\n")
    return path


def score_meaning(spec: FusionSpec) -> str:
    """What the output `score` is, in a line of the model card."""
    weights = ", ".join(f"{name} {spec.weights[name]:g}" for name in spec.used)
    what = {
        "product": "logarithm of the product of powers",
        "sum": "weighted sum",
        "shifted_product": "logarithm of the product of powers of 1 + beta x",
        "exponential_sum": "weighted sum of exponentials",
        "exponential_product": "logarithm of the product of exponentials",
        "rank": "weighted sum of 1 / (rank + offset) among all rows of a request, "
        "which must be one list (so no server may join requests)",
    }[spec.form]
    return f"to order by, greatest first: {what} of the outputs, by weights {weights}"
