"""What models of a user's behaviour sequence share: who reads what, and the heads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import Field

from tfmtl._keras import tf
from tfmtl.errors import ConfigError
from tfmtl.layers.embedding import Embedded
from tfmtl.layers.user_heads import Head, HeadKind, UserHeads
from tfmtl.models.base import ModelConfig, MultiTaskModel
from tfmtl.models.sides import features_by_side, pooled_without_items
from tfmtl.schema.dataset import DatasetSpec
from tfmtl.schema.feature import FeatureSpec, SequenceFeature


class BehaviourConfig(ModelConfig):
    """Settings of models that represent a user by a behaviour sequence."""

    interaction: Literal["none"] = "none"
    """Not for these models: they read no flat input."""
    tower_units: tuple[int, ...] = (128, 128)
    """Widths of the hidden layers of heads that read a user and an item."""
    sequence: str | None = None
    """The sequence feature; the only one where absent."""
    user_features: tuple[str, ...] | None = None
    """The user's profile; all other features of side `user` where absent."""
    query_features: tuple[str, ...] | None = None
    """The request; the features of side `context` where absent."""
    user_units: int = Field(default=128, ge=1)
    """Width of the profile's encoding."""
    heads: dict[str, HeadKind] = {}
    """Task to the kind of its head. `ctr` reads the user and the item, `ppp` the user
    alone, `l2r` weighs `ranking_features` by the user. Where absent, `ppp` for
    multiclass tasks and where there are no item features, else `ctr`."""
    head_item_features: dict[str, tuple[str, ...]] = {}
    """Task to what its `ctr` head reads of the item; the features of side `item` where
    absent. Features of the request may be named too."""
    item_units: int = Field(default=128, ge=1)
    """Width of a head's encoding of the item."""
    user_tower_units: tuple[int, ...] = (128,)
    """Widths of the hidden layers of heads that read the user alone."""
    ranking_features: tuple[str, ...] = ()
    """Numeric features that `l2r` heads weigh. No weight is negative: more of a feature
    must be better."""
    ranking_bias: bool = False
    """Add a bias to the scores of `l2r` heads, started at the base rate."""


class Roles(NamedTuple):
    """Who reads which features.

    Attributes:
        sequence: The behaviour sequence.
        user: The profile.
        query: The request.
        items: Task to what its head reads of the item; empty for heads without.
        heads: Task to the kind of its head.
        ranking: What `l2r` heads weigh.
    """

    sequence: SequenceFeature
    user: tuple[str, ...]
    query: tuple[str, ...]
    items: dict[str, tuple[str, ...]]
    heads: dict[str, HeadKind]
    ranking: tuple[str, ...]

    def unread(self, dataset: DatasetSpec) -> list[str]:
        """Features that nobody reads: they need no table."""
        read = {self.sequence.name, *self.user, *self.query, *self.ranking}
        read.update(*self.items.values())
        return [f.name for f in dataset.features if f.name not in read]


def assign_roles(
    dataset: DatasetSpec, config: BehaviourConfig, without: Sequence[str] = ()
) -> Roles:
    """Fills in what the configuration leaves out.

    Args:
        dataset: The data.
        config: What was chosen.
        without: Features that no part may read.

    Raises:
        ConfigError: A name is unknown, or a head cannot do its task.
    """
    sequence = _sequence(dataset, config.sequence)
    sides = features_by_side(dataset, without=[sequence.name, *without])
    user = sides["user"] if config.user_features is None else config.user_features
    query = sides["context"] if config.query_features is None else config.query_features
    known = [name for names in sides.values() for name in names]
    _check("user_features", user, known)
    _check("query_features", query, known)
    tasks = dataset.task_names
    _check("heads", config.heads, tasks)
    _check("head_item_features", config.head_item_features, tasks)
    numbers = [
        f.name
        for f in dataset.features
        if f.kind == "numeric" and f.transform != "bucketize"
    ]
    _check("ranking_features", config.ranking_features, numbers)
    heads: dict[str, HeadKind] = {}
    items: dict[str, tuple[str, ...]] = {}
    for task in dataset.tasks:
        of_item = config.head_item_features.get(task.name, sides["item"])
        _check(f"head_item_features.{task.name}", of_item, known)
        default: HeadKind = "ppp" if task.classes or not of_item else "ctr"
        kind = config.heads.get(task.name, default)
        scored = task.type == "binary" and task.width == 1
        if kind == "l2r" and not (scored and config.ranking_features):
            raise ConfigError(
                f"`model.config.heads.{task.name}`: `l2r` needs a binary task with one "
                f"output and `ranking_features`. Received: a {task.type} task, "
                f"{list(config.ranking_features)}, {task.width} output(s); numeric "
                f"features: {numbers}"
            )
        if kind == "ctr" and not of_item:
            raise ConfigError(
                f"`model.config.heads.{task.name}`: `ctr` needs features of side "
                f"`item` or `head_item_features`. Received: neither"
            )
        if kind != "ctr" and task.name in config.head_item_features:
            raise ConfigError(
                f"`model.config.head_item_features` is for `ctr` heads. Received: "
                f"{task.name!r}, whose head is {kind!r}"
            )
        heads[task.name] = kind
        items[task.name] = of_item if kind == "ctr" else ()
    ranking = config.ranking_features if "l2r" in heads.values() else ()
    return Roles(sequence, tuple(user), tuple(query), items, heads, ranking)


def _sequence(dataset: DatasetSpec, name: str | None) -> SequenceFeature:
    sequences = {f.name: f for f in dataset.features if isinstance(f, SequenceFeature)}
    if name is None and len(sequences) == 1:
        return next(iter(sequences.values()))
    if name not in sequences:
        raise ConfigError(
            "`model.config.sequence` must name a sequence feature. Received: "
            f"{name!r}; sequences: {sorted(sequences)}"
        )
    return sequences[name]


def _check(setting: str, names: Iterable[str], legal: Sequence[str]) -> None:
    unknown = sorted(set(names) - set(legal))
    if unknown:
        raise ConfigError(
            f"`model.config.{setting}` must hold names out of {list(legal)}. "
            f"Received: {unknown}"
        )


class BehaviourModel(MultiTaskModel):
    """Base of models whose heads read one representation of the user.

    A subclass makes its layers after `read`, and computes the representation [B, H] in
    `represent`.
    """

    Config = BehaviourConfig
    config: BehaviourConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.roles = assign_roles(self.manifest.dataset, self.config, self.left_out())
        self.user_heads = self._make_heads()

    def left_out(self) -> tuple[str, ...]:
        """Features that no part may read."""
        return ()

    def read(
        self,
        sequence: SequenceFeature | None = None,
        keep: Sequence[str] = (),
        **options: Any,
    ) -> Any:
        """The embedding of what this model reads.

        Args:
            sequence: The sequence with the columns that are read; all where None.
            keep: Features to keep although no part names them.
            **options: Of `make_embedding`.
        """
        dataset = self.manifest.dataset
        sequence = sequence or self.roles.sequence
        whole = sequence.model_copy(update={"pooling": "none", "query": None})
        exclude = [n for n in self.roles.unread(dataset) if n not in keep]
        replace: list[FeatureSpec] = [*pooled_without_items(dataset), whole]
        return self.make_embedding(
            "embedding", exclude=exclude, replace=replace, **options
        )

    def _make_heads(self) -> UserHeads:
        roles, config = self.roles, self.config
        return UserHeads(
            [
                Head(
                    f"task/{t.name}",
                    roles.heads[t.name],
                    t.width,
                    roles.items[t.name],
                    self.initial_output(t),
                )
                for t in self.tasks
            ],
            item_units=config.item_units,
            pair_units=config.tower_units,
            user_units=config.user_tower_units,
            ranking_features=len(roles.ranking),
            ranking_bias=config.ranking_bias,
            seed=self.seed_for("heads"),
            dropout=config.dropout,
            name="heads",
        )

    def logits(self, x: Embedded, training: bool) -> dict[str, Any]:
        user = self.represent(x, training)  # [B, H]
        items = {
            names: x.of(names) for names in set(self.roles.items.values()) if names
        }
        # A numeric feature is its value, then whether it was missing.
        ranking = [x.features[n][:, :1] for n in self.roles.ranking]
        weighed = tf.concat(ranking, axis=1) if ranking else None  # [B, R]
        self.keep_for_cut(user, *items.values())
        self.keep_for_inspection(representation=user)
        outputs = self.user_heads(user, items, weighed, training=training)
        return {t.conditional: logit for t, logit in zip(self.tasks, outputs)}


def side_by_side(x: Embedded, names: Sequence[str], scenario: bool = False) -> Any:
    """[B, D], the named features and the scenario; None where there is nothing.

    Args:
        x: The embedded features.
        names: Of features; those without a vector are left out.
        scenario: Whether the scenario's embedding is added.
    """
    parts = [x.features[n] for n in names if n in x.features]
    if scenario and x.scenario_vector is not None:
        parts.append(x.scenario_vector)
    return tf.concat(parts, axis=1) if parts else None
