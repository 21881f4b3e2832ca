"""Names in an experiment file -> objects."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest

from tfmtl import build
from tfmtl._keras import keras, tf
from tfmtl.balance import Equal, Fixed
from tfmtl.data.read import Reader
from tfmtl.errors import ConfigError
from tfmtl.models import MODELS
from tfmtl.schema.experiment import ComponentSpec, Experiment
from tfmtl.testing.tiny import TIMED_KEYS, tiny_dataset, tiny_spec


def _experiment(**changes: Any) -> Experiment:
    return Experiment.model_validate(
        {
            "name": "tiny",
            "dataset": tiny_spec().model_dump(),
            "model": {"class": "SharedBottom", "config": {"bottom_units": [4]}},
            **changes,
        }
    )


def _component(name: str, **config: Any) -> ComponentSpec:
    return ComponentSpec.model_validate({"class": name, "config": config})


def test_names_and_paths_resolve() -> None:
    known = build.resolve(_component("MMoE"), MODELS, "model")
    path = "tfmtl.models.mmoe:MMoE"
    assert known is build.resolve(_component(path), MODELS, "model") is MODELS["MMoE"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("MMOE", r"`model.class` must be one of \[.*'MMoE'.*Received: 'MMOE'"),
        ("no.such.module:Model", "cannot be imported: No module"),
        ("tfmtl.models:NoModel", "cannot be imported: .*NoModel"),
        (":Model", "cannot be imported: Empty module name"),
        ("tfmtl.models:catalogue", "is no class"),
        ("collections:OrderedDict", "is no class with a `Config`"),
    ],
)
def test_bad_names_are_explained(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build.resolve(_component(name), MODELS, "model")


def test_check_finds_bad_settings() -> None:
    build.check(_experiment())
    wrong = _component("SharedBottom", botom_units=[4])
    with pytest.raises(ConfigError, match="botom_units: unknown key"):
        build.check(_experiment(model=wrong))
    with pytest.raises(ConfigError, match=r"names \['bye'\]"):
        build.check(_experiment(balancer=_component("Fixed", weights={"bye": 1})))


def test_check_tuning_tries_the_space_and_the_controls() -> None:
    space = {"model.config.bottom_units": {"type": "choice", "values": [[4], [8]]}}
    build.check_tuning(_experiment())
    build.check_tuning(_experiment(tuning={"space": space}))
    with pytest.raises(ConfigError, match=r"`tuning.controls` names 'Fixed'.*weights"):
        build.check_tuning(_experiment(tuning={"space": space, "controls": ["Fixed"]}))
    wrong = {"model.config.botom_units": space["model.config.bottom_units"]}
    with pytest.raises(ConfigError, match="did you mean 'bottom_units'") as caught:
        build.check_tuning(_experiment(tuning={"space": wrong}))
    assert caught.value.places == (("tuning", "space", *wrong),)


def test_balancers() -> None:
    assert isinstance(build.make_balancer(_experiment()), Equal)
    fixed = _experiment(balancer=_component("Fixed", weights={"buy": 2}))
    assert isinstance(build.make_balancer(fixed), Fixed)


def test_model_trainer_and_readers(tmp_path: pathlib.Path) -> None:
    manifest = tiny_dataset(tmp_path)
    asked = _experiment(
        seed=7, training={"batch_size": 50, "shuffle_blocks": 3, "shuffle": "groups"}
    )
    model = build.make_model(asked, manifest, tmp_path)
    assert model.built and model.seed == 7
    trainer = build.make_trainer(asked, model, 10)
    assert {v.ref() for v in trainer.optimizers.variables_in_order} == {
        v.ref() for v in model.trainable_variables
    }
    reader = build.make_reader(asked, manifest, tmp_path, "train", train=True)
    assert (reader.batch_size, reader.shuffle, reader.seed) == (50, "groups", 7)
    assert reader.pool_blocks == 3
    reader = build.make_reader(asked, manifest, tmp_path, "validation", keys=True)
    assert (reader.shuffle, reader.keys) == ("none", True)


def test_what_a_model_asks_for_is_drawn_to_train_on(tmp_path: pathlib.Path) -> None:
    spec = tiny_spec(keys=TIMED_KEYS)
    manifest = tiny_dataset(tmp_path, spec=spec)

    def reader(train: bool, **config: Any) -> Any:
        asked = _experiment(
            dataset=spec.model_dump(), model={"class": "DeepMCP", "config": config}
        )
        split = "train" if train else "validation"
        return build.make_reader(asked, manifest, tmp_path, split, train=train)

    samples = reader(train=True, window=3).samples
    assert (samples.task, samples.item, samples.window) == ("click", "item", 3)
    assert samples.columns == ("item", "tags", "price", "price_missing", "text")
    assert type(reader(train=False)) is Reader
    assert type(reader(train=True, beta=0)) is Reader


def test_precision_holds_for_the_model_alone(tmp_path: pathlib.Path) -> None:
    manifest = tiny_dataset(tmp_path)
    asked = _experiment(training={"precision": "bfloat16"})
    model = build.make_model(asked, manifest, tmp_path)
    assert model.compute_dtype == "bfloat16"
    assert keras.mixed_precision.global_policy().name == "float32"


def test_empty_features_fit_the_columns(tmp_path: pathlib.Path) -> None:
    manifest = tiny_dataset(tmp_path)
    found = build.empty_features(manifest, rows=3)
    assert set(found) == {c.name for c in manifest.columns if "/" not in c.name}
    assert found["hist_item"].shape == [3, 5] and found["hist_item"].dtype == tf.int32
    assert found["text"].shape == [3, 3] and found["text"].dtype == tf.float32
    assert all((np.asarray(v) == 0).all() for v in found.values())
