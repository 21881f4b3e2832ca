"""Run directory -> a version that TensorFlow Serving loads."""

from __future__ import annotations

import pathlib
import time
from typing import Any

from pipeline.workspace import held, remove_leftovers
from serving.warmup import write_warmup
from tfmtl.errors import ConfigError
from tfmtl.export.saved_model import save, serving_module, versions_in
from tfmtl.export.signature import served_outputs
from tfmtl.files import atomic_directory
from tfmtl.progress import Listener, Silent
from tfmtl.schema.calibration import Calibration
from tfmtl.schema.funnel import steps_of
from tfmtl.schema.fusion import SCORE, FusionChoice, FusionSpec
from tfmtl.schema.manifest import DatasetManifest, ExportManifest, served_inputs
from tfmtl.schema.sampling import effects
from tfmtl.schema.task import TaskSpec, outputs_of
from tfmtl.training.rundir import RunDirectory
from tfmtl.versions import versions
from tfmtl.workflow.fusion import fusion_of, score_meaning
from tfmtl.workflow.restore import Restored, restore


def export(
    run: str | pathlib.Path,
    output: str | pathlib.Path,
    *,
    version: int | None = None,
    dataset: str | pathlib.Path | None = None,
    metrics: dict[str, Any] | None = None,
    fusion: FusionChoice = "found",
    snapshot: str | None = None,
    listener: Listener | None = None,
) -> ExportManifest:
    """Exports the model of a finished run as `output/<version>/`.

    The SavedModel holds the transform graph and its vocabularies: it needs neither the
    data set nor the run, and takes raw features.

    Args:
        run: The run directory.
        output: The model's base directory, which TensorFlow Serving watches.
        version: A number above the newest version there; the next one where None.
        dataset: Where the data set lies now, if it was moved.
        metrics: A report of `evaluate` for the model card; the validation metrics of
            the model's step where None (of a refitted run: of the model before it).
        fusion: Which weights make the output `score`: see `workflow.fusion.fusion_of`.
        snapshot: Export the model of this task's own best step; the run's choice where
            None.
        listener: Told about the progress.

    Returns:
        The model card, which lies in the version's `tfmtl.json` too.

    Raises:
        ConfigError: The version exists already, `metrics` is no report on this model,
            or the run has no such snapshot.
        DataError: The run is not finished, its data set is gone or another one.
    """
    listener = listener or Silent()
    listener.stage("export")
    base = pathlib.Path(output)
    number = _version(base, version)
    # The transform graph becomes part of the model.
    restored = restore(run, dataset, same_dataset=True, snapshot=snapshot)
    validated = restored.result["metrics"]
    if snapshot is not None:
        validated = RunDirectory(run).metrics_at(restored.step)
    fused = fusion_of(run, restored.experiment, fusion)
    manifest = _card(restored, metrics, validated, fused)
    spec = restored.experiment.export
    module = serving_module(
        restored.model, restored.dataset, spec.outputs, fused, restored.finish
    )
    began = time.perf_counter()
    _remove_leftovers(base)
    with (
        atomic_directory(base / str(number), name="export") as folder,
        held(folder),
    ):
        save(module, manifest, folder)
        write_warmup(
            folder,
            [{}],
            model_name=base.name,
            batch_sizes=spec.warmup_batch_sizes,
            sequence_length=1,
        )
    listener.note(
        f"version {number} of {base.name} in {time.perf_counter() - began:.1f} s"
    )
    return manifest


def _remove_leftovers(base: pathlib.Path) -> None:
    """Removes what exports left that were killed, of whatever version."""
    for number in {p.name.split(".")[1] for p in base.glob(".[0-9]*.*.partial")}:
        remove_leftovers(base / number)


def _version(base: pathlib.Path, wanted: int | None) -> int:
    existing = list(versions_in(base))
    number = wanted if wanted is not None else max(existing, default=0) + 1
    if number in existing or number < 1:
        raise ConfigError(
            f"`version` must be a new number above 0. Received: {number}; versions in "
            f"{str(base)!r}: {existing}"
        )
    return number


def _check_report(metrics: dict[str, Any], outputs: list[str]) -> None:
    """Refuses a report that is none, or one on other tasks."""
    tasks = metrics.get("tasks")
    if not isinstance(tasks, dict) or sorted(tasks) != sorted(outputs):
        found = sorted(tasks) if isinstance(tasks, dict) else sorted(metrics)
        raise ConfigError(
            "`metrics` must be a report of `tfmtl evaluate` on this run, whose `tasks` "
            f"are {sorted(outputs)}. Received: {found}"
        )


def meanings(
    manifest: DatasetManifest, calibration: Calibration | None
) -> dict[str, str]:
    """Output to what the exported graph answers there, for the model card.

    Args:
        manifest: Of the model's data set.
        calibration: The calibrators in the graph.
    """
    return {
        name: _meaning(name, task, _reservation(name, manifest, calibration))
        for name, task in outputs_of(manifest.dataset.tasks).items()
    }


def _meaning(name: str, task: TaskSpec, reservation: str) -> str:
    """What an output says."""
    if name != task.name:
        return f"probability of {task.name} given {task.given}{reservation}"
    if task.type == "binary":
        return f"probability of {task.name}{reservation}"
    if task.type == "multiclass":
        return f"probability of each class of {task.name}{reservation}"
    if task.orders_alone:
        return f"score that ranks by {task.name}: its size means nothing"
    if task.transform == "log1p" and not task.smearing:
        what = f"geometric mean of 1 + {task.name}, minus 1: below its expectation"
        return what + reservation
    return f"expected {task.name}, in the unit of its label{reservation}"


def _reservation(
    output: str,
    manifest: DatasetManifest,
    calibration: Calibration | None,
) -> str:
    """Where a number is none that can be relied on, and no calibrator mends it.

    A joint output is worth what all its steps are.
    """
    tasks = manifest.dataset.tasks
    task = outputs_of(tasks)[output]
    steps = (task,) if output == task.conditional else steps_of(tasks, output)
    mended = _calibrated(calibration)
    rest = [step for step in steps if step.conditional not in mended]
    said = []
    for step in rest:
        name = step.fitted.name
        if step.type == "binary" and not step.fitted.fits:
            said.append(f"not calibrated: `loss: {name}` orders rows alone")
        if name == "focal":
            said.append("not calibrated: `loss: focal` weighs easy rows down")
    sampling = manifest.dataset.sampling
    if sampling is not None and sampling.correction == "none":
        exposed = manifest.sampling.exposed if manifest.sampling else {}
        found = effects(tasks, sampling, exposed)
        if any(found[step.conditional] != "none" for step in rest):
            said.append("of sampled rows, not of real traffic (`correction: none`)")
    return "".join(f", {what}" for what in dict.fromkeys(said))


def _calibrated(calibration: Calibration | None) -> set[str]:
    """Outputs whose own logits a calibrator moves."""
    outputs = calibration.outputs if calibration else {}
    return {
        name
        for name, found in outputs.items()
        if not found.product and not all(c.is_identity for c in found.calibrators())
    }


def _card(
    restored: Restored,
    metrics: dict[str, Any] | None,
    validated: dict[str, float],
    fusion: FusionSpec | None,
) -> ExportManifest:
    model, manifest = restored.model, restored.manifest
    if metrics is not None:
        _check_report(metrics, list(outputs_of(model.tasks)))
    module_outputs = meanings(manifest, restored.calibration)
    served = served_outputs(manifest.dataset, restored.experiment.export.outputs)
    outputs = {name: module_outputs[name] for name in served}
    if fusion is not None:
        outputs[SCORE] = score_meaning(fusion)
    train = manifest.splits["train"]
    true_rates = manifest.sampling.tasks if manifest.sampling else train.tasks
    calibration = restored.calibration
    return ExportManifest(
        tfmtl_version=versions().get("tfmtl", ""),
        versions=versions(),
        name=restored.experiment.name,
        model=restored.experiment.model.class_name,
        schema_hash=manifest.schema_hash,
        dataset=manifest.dataset,
        inputs=served_inputs(manifest.dataset),
        outputs=outputs,
        fusion=fusion,
        scenarios=manifest.dataset.scenario_values,
        metrics=metrics or validated,
        data={
            "rows": {name: split.rows for name, split in manifest.splits.items()},
            "positive_rates": {t: s.mean for t, s in true_rates.items()},
            "sampled_out": train.sampled_out,
            "timestamp_min": train.timestamp_min,
            "timestamp_max": train.timestamp_max,
        },
        parameters=sum(int(v.shape.num_elements()) for v in model.trainable_variables),
        steps=restored.step,
        refit=restored.refit,
        calibration={}
        if calibration is None
        else calibration.model_dump(include={"method", "by", "step"}),
        seed=restored.experiment.seed,
    )
