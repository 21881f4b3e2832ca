"""Run directory -> weights of its fused score, found on stored predictions."""

from __future__ import annotations

import importlib.util
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pydantic

from tfmtl.errors import ConfigError
from tfmtl.files import atomic_write
from tfmtl.fusion.criteria import (
    Constraint,
    Criterion,
    parse_constraint,
    parse_criterion,
)
from tfmtl.fusion.figure import draw_front
from tfmtl.fusion.objective import Judge
from tfmtl.fusion.search import Found, search
from tfmtl.fusion.table import read_table
from tfmtl.metrics.arrays import Floats, Ints
from tfmtl.metrics.front import front, thinned
from tfmtl.progress import Listener, Silent
from tfmtl.schema.evaluation import GRADED
from tfmtl.schema.experiment import Experiment
from tfmtl.schema.fusion import WITH_BETA, Form, FusionSpec, check_free
from tfmtl.schema.task import outputs_of
from tfmtl.training.rundir import RunDirectory
from tfmtl.workflow.fusion import write_found
from tfmtl.workflow.validation import validation_predictions

FIGURE = "fusion.png"
_KEPT = 50  # points of the front in the document


def fuse(
    run: str | pathlib.Path,
    objective: str,
    constraints: Sequence[str] = (),
    *,
    evaluations: int = 2000,
    seed: int = 0,
    form: Form | None = None,
    predictions: str | pathlib.Path | None = None,
    dataset: str | pathlib.Path | None = None,
    figure: str | pathlib.Path | None = None,
    write: bool = True,
    listener: Listener | None = None,
) -> dict[str, Any]:
    """Searches the weights of a run's fused score, without training.

    Args:
        run: The run directory.
        objective: What to maximise: `output/metric@K`, `output@scenario/metric@K`;
            metrics are those of `tfmtl.metrics.ranking`.
        constraints: What must hold, such as `click/ndcg@10 >= 0.4` or
            `click/ndcg@10 >= baseline - 0.01`, the baseline being the configured
            weights.
        evaluations: Weights to try, at most.
        seed: Of the search.
        form: Of the score; the experiment's where None. The experiment's weights are
            the start, and say which outputs take part with which sign; without a
            `fusion` section these are all main tasks, with weights of equal influence.
            In a form that is not the experiment's the configured score stays what is
            compared with, in its own form; what is found may be worse.
        predictions: What `evaluate(predictions_file=...)` wrote; the validation
            predictions where None, computed once.
        dataset: Where the data set lies now, if it was moved.
        figure: A PNG file of the front; `fusion.png` in the run where None and
            matplotlib is installed.
        write: Write the weights into the run, as `fusion.json`: evaluate, export and
            score take them from there.
        listener: Told about the progress.

    Returns:
        `{"fusion": the section with the weights found, "objective", "constraints",
        "predictions", "rows", "evaluations", "seed", "configured": {"form", "weights",
        "metrics"}, "found": {same}, "front": [{"weights", "metrics"} ...],
        "front_size"}`: the front is over the metrics in `"metrics"`, thinned evenly to
        50 points, by falling objective. Of an output with a negative weight the front
        has small values.

    Raises:
        ConfigError: A name is unknown, nothing is to be searched, a metric is
            undefined, or no weights tried keep the constraints.
        DataError: The run is not finished, or its files are damaged.
    """
    listener = listener or Silent()
    experiment = RunDirectory(run).experiment()
    goal = parse_criterion(objective, experiment, "--objective")
    bounds = [parse_constraint(c, experiment) for c in constraints]
    start = _start(experiment, form)
    path = (
        validation_predictions(run, dataset, listener)
        if predictions is None
        else pathlib.Path(predictions)
    )
    table = read_table(path, experiment)
    asked = list(dict.fromkeys([goal, *(b.criterion for b in bounds)]))
    beside = [c for c in _beside(goal, experiment, start) if c not in asked]
    judge = Judge(table, experiment, start, [*asked, *beside], beside)
    criteria = judge.criteria
    if judge.left_out:
        said = ", ".join(map(str, judge.left_out))
        listener.note(f"undefined on these predictions, and left out: {said}")
    if experiment.fusion is None:
        start = _equal_influence(start, judge.spread)
    configured = experiment.fusion or start
    other_form = configured.form != start.form
    listener.stage("search weights", evaluations)
    found = search(
        judge,
        _weights(start),
        judge.spread,
        [(criteria.index(b.criterion), b) for b in bounds],
        baseline=(
            Judge(table, experiment, configured, criteria)(_weights(configured))
            if other_form
            else None
        ),
        evaluations=evaluations,
        seed=seed,
        tell=listener.advance,
    )
    _check_kept(found, criteria, bounds)
    sign = np.array([_direction(c, goal, bounds, start) for c in criteria])
    on_front = front(found.values * sign)

    def metrics(values: Floats) -> dict[str, float]:
        return dict(zip(map(str, criteria), values.tolist()))

    def point(row: int) -> dict[str, Any]:
        weights = _named(start, found.weights[row])
        return {"weights": weights, "metrics": metrics(found.values[row])}

    spec = start.model_copy(
        update={"weights": _named(start, found.weights[found.best])}
    )
    document = {
        "fusion": spec.model_dump(mode="json"),
        "objective": str(goal),
        "constraints": [str(b) for b in bounds],
        "predictions": "validation" if predictions is None else str(predictions),
        "rows": table.rows,
        "evaluations": len(found.values),
        "seed": seed,
        "configured": {
            "form": configured.form,
            "weights": configured.weights,
            "metrics": metrics(found.baseline),
        },
        "found": {"form": start.form, **point(found.best)},
        "front": [point(int(row)) for row in thinned(on_front, _KEPT)],
        "front_size": len(on_front),
    }
    if write:
        write_found(run, document)
    _draw(run, figure, write, criteria, found, on_front)
    return document


def _start(experiment: Experiment, form: Form | None) -> FusionSpec:
    """The form, the outputs and the signs that are searched from."""
    given = experiment.fusion
    try:
        if given is None:
            check_free(experiment.dataset)
            names = [
                t.name
                for t in experiment.dataset.tasks
                if t.role == "main" and t.type != "multiclass"
            ]
            spec = FusionSpec(form=form or "product", weights=dict.fromkeys(names, 1.0))
        elif form is None or form == given.form:
            spec = given
        else:
            spec = FusionSpec(
                form=form,
                weights=given.weights,
                beta=given.beta if form in WITH_BETA else {},
                transform=given.transform,
                floor=given.floor,
            )
        spec.check(experiment.dataset)
    except pydantic.ValidationError as error:
        raise ConfigError(f"`fusion`: {error.errors()[0]['msg']}") from error
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return spec


def _equal_influence(spec: FusionSpec, spread: Floats) -> FusionSpec:
    """Weights under which each output moves the rows of a list equally far."""
    scale = np.where(spread > 0.0, spread, 1.0)
    return spec.model_copy(update={"weights": _named(spec, scale[0] / scale)})


def _weights(spec: FusionSpec) -> Floats:
    """The weights [U] of the outputs that take part."""
    return np.array([spec.weights[name] for name in spec.used])


def _named(spec: FusionSpec, weights: Floats) -> dict[str, float]:
    """Weights [U] by name; outputs that are left out keep their 0."""
    return {**spec.weights, **dict(zip(spec.used, weights.tolist()))}


def _beside(
    goal: Criterion, experiment: Experiment, fusion: FusionSpec
) -> list[Criterion]:
    """The objective's metric of each output that takes part, as far as its type has
    it."""
    outputs = outputs_of(experiment.dataset.tasks)
    return [
        Criterion(name, goal.metric, goal.at, goal.scenario)
        for name in fusion.used
        if outputs[name].type == "binary" or goal.metric in GRADED
    ]


def _direction(
    criterion: Criterion,
    goal: Criterion,
    bounds: Sequence[Constraint],
    fusion: FusionSpec,
) -> float:
    """1 where a front has great values, -1 where small ones."""
    if criterion == goal:
        return 1.0
    for bound in bounds:
        if bound.criterion == criterion:
            return 1.0 if bound.sense == ">=" else -1.0
    return -1.0 if fusion.weights.get(criterion.output, 1.0) < 0 else 1.0


def _check_kept(
    found: Found, criteria: Sequence[Criterion], bounds: Sequence[Constraint]
) -> None:
    """Refuses a result that keeps not all constraints.

    Raises:
        ConfigError: It does not; says what was reached.
    """
    said = []
    for bound in bounds:
        place = criteria.index(bound.criterion)
        resolved = bound.resolved(float(found.baseline[place]))
        if resolved.violation(float(found.values[found.best, place])) > 0.0:
            column = found.values[:, place]
            best = column.max() if bound.sense == ">=" else column.min()
            said.append(f"{str(bound)!r} (reached by itself at best: {best:.4f})")
    if said:
        raise ConfigError(
            f"none of the {len(found.values):,} weights tried keeps all of "
            f"`--constraint`; the nearest misses {', '.join(said)}. Nothing was written"
        )


def _draw(
    run: str | pathlib.Path,
    figure: str | pathlib.Path | None,
    write: bool,
    criteria: Sequence[Criterion],
    found: Found,
    on_front: Ints,
) -> None:
    """Draws the front where it was asked for or can be."""
    installed = importlib.util.find_spec("matplotlib") is not None
    if figure is None and (not write or not installed):
        return
    if not installed:
        raise ConfigError("`--figure` needs matplotlib: pip install 'tfmtl[plot]'")
    target = pathlib.Path(run) / FIGURE if figure is None else pathlib.Path(figure)
    if len(criteria) > 1:
        names = [str(c) for c in criteria]
        picture = draw_front(names, found.values, on_front, found.baseline, found.best)
        atomic_write(target, picture)
