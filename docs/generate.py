"""Writes docs/experiment.md from the pydantic models and their docstrings.

    python docs/generate.py

Run it after a change of `tfmtl/schema` or of a model's or balancer's settings;
`tests/unit/test_docs.py` compares.
"""

from __future__ import annotations

import inspect
import pathlib
import re
import types
import typing
from collections.abc import Iterator

import pydantic
from pydantic.fields import FieldInfo

from tfmtl import balance, models
from tfmtl.models import matching
from tfmtl.schema import (
    base,
    calibration,
    control,
    dataset,
    dimension,
    evaluation,
    experiment,
    feature,
    fusion,
    loss,
    ranges,
    sampling,
    split,
    task,
    tuning,
    tuning_parts,
)

PAGE = pathlib.Path(__file__).parent / "experiment.md"

_INTRODUCTION = """\
# The experiment file

One document, YAML, TOML or JSON by its suffix, says everything from the raw columns to
the served model. Unknown keys are errors. `tfmtl config check FILE` checks it,
`tfmtl config show FILE` prints it with every default written out, and
`tfmtl config schema` prints the JSON Schema for editors. Every run keeps its resolved
file as `experiment.yaml`.

`--set dotted.path=value` overrides a value for one call, such as
`--set training.batch_size=512`. Items of a list go by position or by name:
`--set dataset.features.price.transform=log1p`. Values are read as YAML.

This page is written by `docs/generate.py`; a default of "required" has to be given.
"""

_SECTIONS: tuple[tuple[str, tuple[type[pydantic.BaseModel], ...]], ...] = (
    ("The whole", (experiment.Experiment,)),
    ("The data", (dataset.DatasetSpec, dataset.KeySpec)),
    (
        "Features",
        (
            feature.CategoricalFeature,
            feature.MultivalentFeature,
            feature.SequenceFeature,
            feature.SequenceColumn,
            feature.NumericFeature,
            feature.TimeFeature,
            feature.VectorFeature,
            feature.CrossFeature,
            feature.Vocabulary,
            feature.SideTable,
        ),
    ),
    ("Tasks and scenarios", (task.TaskSpec, task.ScenarioSpec)),
    ("Losses", loss.LOSSES),
    (
        "Splits",
        (split.TimeSplit, split.BoundarySplit, split.HashSplit, split.GivenSplit),
    ),
    ("Sampling", (sampling.SamplingSpec,)),
    (
        "Model, balancer, training, calibration, evaluation, export",
        (
            experiment.ComponentSpec,
            experiment.OptimizerSpec,
            experiment.ScheduleSpec,
            experiment.RegularizationSpec,
            experiment.TrainingSpec,
            control.TaskControlSpec,
            evaluation.EvaluationSpec,
            evaluation.RankingSpec,
            fusion.FusionSpec,
            calibration.CalibrationSpec,
            experiment.ExportSpec,
        ),
    ),
    (
        "Search",
        (
            tuning.TuningSpec,
            ranges.FloatDimension,
            ranges.IntDimension,
            dimension.ChoiceDimension,
            dimension.BooleanDimension,
            tuning_parts.PruningSpec,
            tuning_parts.HyperbandSpec,
            tuning_parts.RivalSpec,
        ),
    ),
)

_TITLES = {
    experiment.Experiment: "Top level",
    dataset.DatasetSpec: "`dataset`",
    dataset.KeySpec: "`dataset.keys`",
    feature.SequenceColumn: "A column of a sequence",
    feature.Vocabulary: "`dataset.vocabularies.<name>`",
    feature.SideTable: "`dataset.side_tables.<name>`",
    task.TaskSpec: "`dataset.tasks`",
    task.ScenarioSpec: "`dataset.scenario`",
    experiment.ComponentSpec: "`model` and `balancer`",
    matching.MMoESize: "ExpertFusion's `match_to`",
    experiment.OptimizerSpec: "`optimizers.<pattern>`",
    experiment.ScheduleSpec: "`optimizers.<pattern>.schedule`",
    experiment.RegularizationSpec: "`regularization`",
    experiment.TrainingSpec: "`training`",
    control.TaskControlSpec: "`training.tasks.<task>`",
    evaluation.EvaluationSpec: "`evaluation`",
    evaluation.RankingSpec: "`evaluation.ranking`",
    fusion.FusionSpec: "`fusion`",
    experiment.ExportSpec: "`export`",
    sampling.SamplingSpec: "`dataset.sampling`",
    calibration.CalibrationSpec: "`calibration`",
    tuning.TuningSpec: "`tuning`",
    tuning_parts.PruningSpec: "`tuning.pruning`",
    tuning_parts.HyperbandSpec: "`tuning.hyperband`",
    tuning_parts.RivalSpec: "`tuning.rival`",
}

_EXPRESSIONS = """\
### Expressions

`label` and `observed_when` take a column or an expression over columns: comparisons,
`in`, `and`, `or`, `not`, `+ - * /`, numbers and strings, such as `rating >= 4` or
`play_ms / length_ms > 0.5 and tab in [0, 1]`. Where an operand is null the result is
null, so an unknown label stays unknown.
"""

_LOSSES = """\
What they compute and what their outputs mean stands in [losses](losses.md).
"""

_GROUPS = """\
### Groups of variables

The patterns of `optimizers` are matched with `embedding`, `embedding/<feature>`
(features with `own_table`), `shared`, `gate/<task>`, `task/<task>`,
`scenario/<scenario>` and `cell/<scenario>/<task>`; which of them a model has is its own
affair. A pattern fits by shell rules (`task/*`), or as the first part of the name
(`embedding`). One that fits nothing is an error.
"""

_SEARCH = """\
A loss weight, a rate, a size, and a model whose setting the other has not:

```yaml
tuning:
  space:
    balancer.config.weights.like: {type: float, min: 0.1, max: 10}
    optimizers.embedding.learning_rate: {type: float, min: 1e-4, max: 1e-2, scale: log}
    training.batch_size: {type: int, min: 256, max: 4096, scale: pow2}
    model.class: {type: choice, values: [MMoE, SharedBottom]}
    model.config.expert_units:
      {type: choice, values: [[64], [128, 64]], when: {model.class: [MMoE]}}
  objective: click/auc
  constraints: ["like/auc >= baseline - 0.001"]
```
"""

_TAGS = ("kind", "by", "type")
"""Fields that say which class of a union a mapping is."""

_NESTED = {"ExpertFusion": matching.MMoESize}
"""Model to a class of settings inside its settings."""

_AFTER = {
    task.TaskSpec: _EXPRESSIONS,
    experiment.ScheduleSpec: _GROUPS,
    tuning.TuningSpec: _SEARCH,
}


def render() -> str:
    """The page."""
    return "\n".join(_parts())


def _parts() -> Iterator[str]:
    yield _INTRODUCTION
    for heading, classes in _SECTIONS:
        yield f"## {heading}\n"
        if classes is loss.LOSSES:
            yield _LOSSES
        for found in classes:
            yield from _class(found, _title(found), _doc(found))
            if found in _AFTER:
                yield _AFTER[found]
    yield "## Settings of the models\n"
    yield "Beside its own settings, each model takes those that all share:\n"
    yield _table(models.ModelConfig)
    for name, model in models.MODELS.items():
        source = model.citation[:1].upper() + model.citation[1:]
        text = f"{_first_line(model)} {source}."
        yield from _class(model.Config, f"`model.class: {name}`", text, _shared_names())
        if name in _NESTED:
            nested = _NESTED[name]
            yield from _class(nested, _title(nested), _doc(nested))
    yield "## Settings of the balancers\n"
    yield (
        "Balancers that look at the tasks' gradients share these, with these\n"
        "defaults where their own table has no others:\n"
    )
    yield _table(balance.GradientConfig)
    for name, balancer in balance.BALANCERS.items():
        text = _first_line(balancer)
        title = f"`balancer.class: {name}`"
        yield from _class(balancer.Config, title, text, _as_all(balancer.Config))


def _class(
    found: type[pydantic.BaseModel],
    title: str,
    text: str,
    without: frozenset[str] = frozenset(),
) -> Iterator[str]:
    yield f"### {title}\n"
    yield text + "\n"
    table = _table(found, without)
    if table:
        yield table


def _title(found: type[pydantic.BaseModel]) -> str:
    if found in _TITLES:
        return _TITLES[found]
    if issubclass(found, loss.LossSpec):
        return f"`loss: {found.model_fields['name'].default}`"
    for tag in _TAGS:
        if tag in found.model_fields:
            return f"`{tag}: {found.model_fields[tag].default}`"
    raise KeyError(f"{found.__name__} needs a title")


def _doc(found: type) -> str:
    return inspect.cleandoc(found.__doc__ or "")


def _first_line(found: type) -> str:
    return _doc(found).partition("\n")[0]


def _shared_names() -> frozenset[str]:
    return frozenset(models.ModelConfig.model_fields)


def _as_all(config: type[pydantic.BaseModel]) -> frozenset[str]:
    """Settings that a balancer has as all on gradients have them."""
    if not issubclass(config, balance.GradientConfig):
        return frozenset()
    shared = balance.GradientConfig.model_fields
    return frozenset(
        n for n, field in shared.items() if repr(field) == repr(config.model_fields[n])
    )


def _table(
    found: type[pydantic.BaseModel], without: frozenset[str] = frozenset()
) -> str:
    rows = [
        _row(found, field.alias or name, field)
        for name, field in sorted(found.model_fields.items(), key=_tags_first)
        if name not in without
    ]
    if not rows:
        return ""
    head = ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
    return "\n".join([*head, *rows]) + "\n"


def _tags_first(item: tuple[str, FieldInfo]) -> int:
    name, field = item
    first = (*_TAGS, "name", "column")
    if name == "type" and len(typing.get_args(field.annotation)) > 1:
        return len(first)  # a choice, no tag
    return first.index(name) if name in first else len(first)


def _row(found: type[pydantic.BaseModel], key: str, field: FieldInfo) -> str:
    default = "required" if field.is_required() else _default(field)
    bounds = _bounds(field)
    value = _type(field.annotation) + (f", {bounds}" if bounds else "")
    meaning = " ".join((field.description or "").split())
    if not meaning:
        if key not in _TAGS:
            raise ValueError(f"{found.__name__}.{key} has no docstring")
        meaning = "Says that it is this one."
    cells = [f"`{key}`", value, default, meaning]
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "none"
    if isinstance(value, pydantic.BaseModel):
        class_name = getattr(value, "class_name", None)
        return f"`{class_name}`" if class_name else "its defaults"
    if isinstance(value, dict) and value:
        parts = (f"{k}: {getattr(v, 'class_name', v)}" for k, v in value.items())
        return "`" + ", ".join(parts) + "`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(str(v) for v in value)}]`"
    return f"`{value!r}`" if value == "" or value == {} else f"`{value}`"


def _bounds(field: FieldInfo) -> str:
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    found = []
    for item in field.metadata:
        for name, sign in signs.items():
            limit = getattr(item, name, None)
            if limit is not None:
                found.append(f"{sign} {limit}")
        if getattr(item, "min_length", None) == 1 and field.annotation is not str:
            found.append("not empty")
    return ", ".join(found)


def _type(annotation: object) -> str:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is base.Name or origin is typing.Annotated:
        return _type(inner[0])
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin in (typing.Union, types.UnionType):
        shown = [_type(a) for a in inner if a is not types.NoneType]
        return " or ".join(dict.fromkeys(shown))
    if origin is tuple:
        return f"list of {_type(inner[0])}"
    if origin is dict:
        return f"mapping of name to {_type(inner[1])}"
    if inspect.isclass(annotation) and issubclass(annotation, pydantic.BaseModel):
        return _link(annotation)
    names: dict[object, str] = {
        str: "text",
        int: "integer",
        float: "number",
        bool: "`true` or `false`",
        typing.Any: "anything",
    }
    return names[annotation]


def _link(found: type[pydantic.BaseModel]) -> str:
    title = _title(found)
    anchor = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
    return f"[{title}](#{anchor})"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
