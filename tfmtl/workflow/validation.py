"""A run's predictions on its validation split, computed once."""

from __future__ import annotations

import hashlib
import pathlib

import pyarrow as pa
import pyarrow.parquet as pq

from tfmtl import build
from tfmtl.errors import ConfigError
from tfmtl.progress import Listener
from tfmtl.schema.manifest import file_digest
from tfmtl.training.evaluation import predictions
from tfmtl.training.rundir import METRICS, RunDirectory
from tfmtl.workflow.evaluate import write_predictions
from tfmtl.workflow.fusion import FUSION
from tfmtl.workflow.restore import restore

CACHE = pathlib.Path("predictions") / "validation.parquet"
_STATE = b"tfmtl.run_state"


def validation_predictions(
    run: str | pathlib.Path,
    dataset: str | pathlib.Path | None,
    listener: Listener,
) -> pathlib.Path:
    """The validation predictions of the model that the run chose.

    Of a refitted run it is the model before the refit, which has not seen the split.
    They lie in the run as `predictions/validation.parquet`, and are made anew where a
    file that says what the run is has changed since.

    Args:
        run: The run directory.
        dataset: Where its data set lies now, if it was moved; not needed for
            predictions that are there.
        listener: Told about the progress.

    Returns:
        The Parquet file; see `evaluate.write_predictions`.

    Raises:
        ConfigError: There is no validation split.
        DataError: The run is not finished, its data set is gone or another one.
    """
    folder = RunDirectory(run)
    folder.result()  # of a finished run only
    path, state = folder.path / CACHE, _state(folder.path)
    if _read_state(path) == state:
        return path
    listener.stage("predict validation")
    restored = restore(run, dataset, same_dataset=True, refit=False)
    manifest = restored.manifest
    if "validation" not in manifest.splits:
        raise ConfigError(
            "weights are searched on the validation split, and the data set has "
            f"{sorted(manifest.splits)}; give other predictions with `--predictions`"
        )
    reader = build.make_reader(
        restored.experiment, manifest, restored.dataset, "validation", keys=True
    )
    predicted, labels, scenario, keys = predictions(restored.model, reader)
    write_predictions(
        path,
        predicted,
        labels,
        scenario,
        keys,
        manifest.dataset.scenario_values,
        metadata={_STATE.decode(): state},
    )
    return path


def _state(run: pathlib.Path) -> str:
    """A digest of the files that say what the run is, whatever they are called: a
    calibration fitted later changes predictions as another step does."""
    skipped = (FUSION, METRICS)
    files = sorted(
        p for p in run.iterdir() if p.is_file() and not p.name.startswith(".")
    )
    lines = [
        f"{p.name}\0{file_digest(p)}"
        for p in files
        if p.name not in skipped and p.suffix in (".json", ".yaml", ".npz")
    ]
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()


def _read_state(path: pathlib.Path) -> str | None:
    if not path.is_file():
        return None
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException):
        return None
    found = metadata.get(_STATE)
    return None if found is None else found.decode()
