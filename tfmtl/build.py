"""The composition root: experiment -> objects. The only place that resolves names."""

from __future__ import annotations

import importlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pydantic

from tfmtl._keras import keras, tf
from tfmtl.balance import BALANCERS, Balancer, TaskInfo
from tfmtl.data.read import Reader
from tfmtl.data.sampling import SamplingReader
from tfmtl.errors import ConfigError
from tfmtl.losses import TaskLosses
from tfmtl.models import MODELS, MultiTaskModel
from tfmtl.models.base import ModelConfig
from tfmtl.optim import OptimizerGroups
from tfmtl.schema.base import Spec
from tfmtl.schema.evaluation import RankingMetric
from tfmtl.schema.experiment import ComponentSpec, Experiment
from tfmtl.schema.load import explain, parse_experiment
from tfmtl.schema.manifest import DatasetManifest
from tfmtl.training.control import TaskControl
from tfmtl.training.evaluation import SplitEvaluator
from tfmtl.training.ranked import RankedEvaluator
from tfmtl.training.trainer import Trainer
from tfmtl.tuning.space import Space


def resolve(component: ComponentSpec, known: Mapping[str, type], what: str) -> Any:
    """The class that an experiment names: one of ours, or `package.module:Class`.

    Raises:
        ConfigError: The name is unknown, or the path leads to no class.
    """
    name = component.class_name
    if name in known:
        return known[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ConfigError(
            f"`{what}.class` must be one of {sorted(known)}, or package.module:Class. "
            f"Received: {name!r}",
            [(what, "class")],
        )
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"`{what}.class` = {name!r} cannot be imported: {error}",
            [(what, "class")],
        ) from error
    if not isinstance(found, type) or not hasattr(found, "Config"):
        raise ConfigError(
            f"`{what}.class` = {name!r} is no class with a `Config`", [(what, "class")]
        )
    return found


def resolve_config(component: ComponentSpec, found: Any, what: str) -> Spec:
    """The checked settings of a class.

    Raises:
        ConfigError: A setting is unknown or out of bounds.
    """
    try:
        config: Spec = found.Config.model_validate(component.config)
    except pydantic.ValidationError as error:
        at = (what, "config")
        raise explain(error, f"{what}.config", found.Config, at) from error
    return config


def check(experiment: Experiment) -> None:
    """Checks what the schema cannot: class names and their settings.

    Raises:
        ConfigError: One of them is wrong.
    """
    model = resolve(experiment.model, MODELS, "model")
    resolve_config(experiment.model, model, "model")
    make_balancer(experiment)


def trains_joint(experiment: Experiment) -> bool:
    """Whether the model fits a task with `given` by its joint output."""
    model = resolve(experiment.model, MODELS, "model")
    config = resolve_config(experiment.model, model, "model")
    return isinstance(config, ModelConfig) and config.given_loss == "joint"


def check_tuning(
    experiment: Experiment, also: Callable[[Experiment], None] | None = None
) -> None:
    """Checks what the schema cannot of a search: controls, rivals, every dimension.

    Args:
        experiment: With or without `tuning`.
        also: Takes the experiments at the ends of the space too, and raises
            ConfigError where there are no data for one.

    Raises:
        ConfigError: A control is no balancer, or a value of the space makes no
            experiment.
    """
    spec = experiment.tuning
    if spec is None:
        return
    rivals = spec.rivals(experiment.dataset.task_names)
    named = {("controls",): spec.controls, ("rival", "balancers"): rivals}
    for place, names in named.items():
        for number, name in enumerate(names):
            control = ComponentSpec(class_name=name)
            try:
                make_balancer(experiment.model_copy(update={"balancer": control}))
            except ConfigError as error:
                raise ConfigError(
                    f"`tuning.{'.'.join(place)}` names {name!r}, which is no balancer "
                    f"with its own defaults: {' '.join(str(error).split())}",
                    [("tuning", *place, number)],
                ) from error
    document = experiment.model_dump(mode="json", by_alias=True)

    def probe(trial: dict[str, Any]) -> None:
        found = parse_experiment(trial)
        check(found)
        if also is not None:
            also(found)

    Space(spec, document).check(probe)


def make_balancer(experiment: Experiment, steps_per_epoch: int = 1) -> Balancer:
    """The experiment's balancer.

    Args:
        experiment: Names the class and its settings.
        steps_per_epoch: For methods that look back over epochs.
    """
    found = resolve(experiment.balancer, BALANCERS, "balancer")
    config = resolve_config(experiment.balancer, found, "balancer")
    tasks = TaskInfo(
        experiment.dataset.task_names,
        tuple(t.type for t in experiment.dataset.tasks),
        steps_per_epoch,
        experiment.seed,
        tuple(t.classes for t in experiment.dataset.tasks),
    )
    balancer: Balancer = found(tasks, config)
    return balancer


def make_model(
    experiment: Experiment, manifest: DatasetManifest, directory: pathlib.Path
) -> MultiTaskModel:
    """The experiment's model with its variables created.

    Args:
        experiment: Names the class, its settings and the seed.
        manifest: Of the data set.
        directory: The dataset directory, for the vectors of side tables.
    """
    found = resolve(experiment.model, MODELS, "model")
    config = resolve_config(experiment.model, found, "model")
    policy = keras.mixed_precision.global_policy()
    if experiment.training.precision == "bfloat16":
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model: MultiTaskModel = found(
            manifest,
            config,
            seed=experiment.seed,
            regularization=experiment.regularization,
            side_tables={
                name: np.load(directory / path)
                for name, path in manifest.side_tables.items()
            },
        )
        model(empty_features(manifest), training=False)
    finally:
        keras.mixed_precision.set_global_policy(policy)
    return model


def empty_features(manifest: DatasetManifest, rows: int = 2) -> dict[str, Any]:
    """Features of rows in which everything is missing; builds a model's variables."""
    dtypes = {"int": tf.int32, "float": tf.float32}
    features = {}
    for column in manifest.columns:
        if "/" not in column.name:
            shape = [rows] if column.shape == "scalar" else [rows, column.size]
            features[column.name] = tf.zeros(shape, dtypes[column.dtype])
    return features


def make_trainer(
    experiment: Experiment,
    model: MultiTaskModel,
    planned_steps: int,
    steps_per_epoch: int = 1,
) -> Trainer:
    """Model, losses, balancer and optimizers as one.

    Args:
        experiment: Names their classes and settings.
        model: Has its variables.
        planned_steps: Where learning-rate decays end.
        steps_per_epoch: For balancers that look back over epochs.
    """
    losses = TaskLosses(
        model.tasks, {t.name: model.trained_output(t) for t in model.tasks}
    )
    groups = model.variable_groups()
    names = [t.name for t in model.tasks]
    control = TaskControl(names, experiment.training.tasks, groups)
    optimizers = OptimizerGroups(
        experiment.optimizers, groups, planned_steps, control.waiting
    )
    balancer = make_balancer(experiment, steps_per_epoch)
    return Trainer(model, losses, balancer, optimizers, control)


def make_reader(
    experiment: Experiment,
    manifest: DatasetManifest,
    directory: pathlib.Path,
    *splits: str,
    train: bool = False,
    keys: bool = False,
) -> Reader:
    """A reader of splits: shuffled to train on, in order to evaluate.

    To train on, its batches also hold what the model asks to be drawn beside each row,
    and the groups where a task's loss compares the rows of one.
    """
    spec = experiment.training
    groups = any(t.fitted.reads_groups for t in experiment.dataset.tasks)
    settings: dict[str, Any] = {
        "directory": directory,
        "manifest": manifest,
        "splits": splits,
        "batch_size": spec.batch_size if train else max(spec.batch_size, 8192),
        "shuffle": spec.shuffle if train else "none",
        "seed": experiment.seed,
        "pool_blocks": spec.shuffle_blocks if train else 4,
        "keys": ("group",) if train and groups and not keys else keys,
    }
    if train:
        model = resolve(experiment.model, MODELS, "model")
        config = resolve_config(experiment.model, model, "model")
        samples = model.samples(manifest, config)
        if samples is not None:
            return SamplingReader(**settings, samples=samples)
    return Reader(**settings)


def make_evaluator(
    experiment: Experiment,
    model: MultiTaskModel,
    manifest: DatasetManifest,
    directory: pathlib.Path,
) -> SplitEvaluator:
    """What measures the validation split during training, the monitor among it."""
    metric = experiment.training.monitor.rpartition("/")[2]
    ranked = RankingMetric.parse(metric) is not None
    reader = make_reader(experiment, manifest, directory, "validation", keys=ranked)
    if ranked:
        return RankedEvaluator(model, reader, experiment)
    return SplitEvaluator(model, reader)
