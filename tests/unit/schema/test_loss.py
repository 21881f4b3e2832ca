"""Losses in the experiment file: names, settings, and what they need."""

from __future__ import annotations

import typing
from typing import Any

import pydantic
import pytest

from tfmtl.schema import loss
from tfmtl.schema.experiment import Experiment
from tfmtl.schema.task import TaskSpec
from tfmtl.testing.tiny import DATASET


def task(**changes: Any) -> TaskSpec:
    return TaskSpec.model_validate({"name": "y", "label": "y", **changes})


def classes(count: int, **changes: Any) -> TaskSpec:
    return task(type="multiclass", classes=count, **changes)


def test_every_list_of_the_losses_is_the_same() -> None:
    names = [c.model_fields["name"].default for c in loss.LOSSES]
    assert list(typing.get_args(loss.LossName)) == names
    assert typing.get_args(loss.AnyLoss) == loss.LOSSES
    assert len(set(names)) == len(names)


def test_defaults_of_the_types() -> None:
    assert task().fitted == loss.BCE()
    assert task(type="regression").fitted == loss.MSE()
    assert classes(4).fitted == loss.Softmax()


def test_a_name_is_the_loss_with_its_defaults() -> None:
    named = task(loss="focal")
    assert named == task(loss={"name": "focal"})
    assert named.fitted == loss.Focal(gamma=2, alpha=0.25)
    assert named != task(loss={"name": "focal", "gamma": 1})
    assert TaskSpec.model_validate_json(named.model_dump_json()) == named


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "mse"}, r"'y': `loss` of a binary task.*'bce'.*Received: 'mse'"),
        ({"loss": "bse"}, r"`loss` must be one of \['bce'.*Received: 'bse'"),
        ({"loss": {"gamma": 1}}, r"must be one of .*'gamma': 1"),
        ({"loss": {"name": "focal", "gama": 1}}, r"focal.gama"),
        ({"loss": {"name": "bce", "smoothing": 1}}, r"less than 1"),
        ({"loss": "distill"}, r"`teacher` belongs to `loss: distill`"),
        ({"teacher": "t"}, r"`teacher` belongs to `loss: distill`"),
        ({"loss": "jrc", "given": "x"}, r"'jrc|jrc` has 2 outputs.*given='x'"),
        ({"smearing": True}, r"`smearing` needs `transform: log1p`"),
        ({"type": "regression", "smearing": True}, r"`smearing` needs"),
        (
            {"type": "regression", "loss": "ziln", "transform": "log1p"},
            r"`loss: ziln` fits the label itself",
        ),
        (
            {
                "type": "regression",
                "loss": "bpr",
                "transform": "log1p",
                "smearing": True,
            },
            r"`smearing` needs .* a loss that fits",
        ),
        (
            {"type": "multiclass", "classes": 2, "loss": "ordinal"},
            r"needs 3 classes or more",
        ),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=message):
        task(**changes)


def test_smearing_goes_with_log1p() -> None:
    for name in ("mse", "huber", {"name": "bpr", "pointwise": 1}):
        made = task(type="regression", transform="log1p", smearing=True, loss=name)
        assert made.smearing


def test_raw_outputs() -> None:
    assert task().width == task(loss="bpr").width == 1
    assert task(loss="jrc").width == 2
    assert task(type="regression", loss="ziln").width == 3
    assert classes(5).width == 5
    assert classes(5, loss="ordinal").width == 4


def test_a_ranking_loss_fits_only_with_a_pointwise_part() -> None:
    assert not loss.ListMLE().fits
    assert loss.ListMLE(pointwise=0.1).fits
    assert all(c().fits for c in loss.LOSSES if "pointwise" not in c.model_fields)


def experiment(
    task_changes: dict[str, Any], training: dict[str, Any], **data: Any
) -> Experiment:
    tasks = [{**DATASET["tasks"][0], **task_changes}, *DATASET["tasks"][1:]]
    return Experiment.model_validate(
        {
            "name": "tiny",
            "dataset": {**DATASET, "tasks": tasks, **data},
            "model": {"class": "SharedBottom"},
            "training": training,
        }
    )


@pytest.mark.parametrize("name", ["bpr", "list_softmax", "listnet", "listmle"])
def test_losses_of_groups_need_groups_side_by_side(name: str) -> None:
    together = {"shuffle": "groups"}
    assert experiment({"loss": name}, together).dataset.tasks[0].fitted.reads_groups
    with pytest.raises(pydantic.ValidationError, match=r"'click'.*shuffle='rows'"):
        experiment({"loss": name}, {})
    with pytest.raises(pydantic.ValidationError, match=r"needs `keys: \{group"):
        experiment({"loss": name}, together, keys={})
    # Compared by something else, they do not.
    experiment({"loss": {"name": name, "within": "scenario"}}, {})


def test_losses_within_a_scenario_need_scenarios() -> None:
    within = {"loss": {"name": "bpr", "within": "scenario"}}
    with pytest.raises(pydantic.ValidationError, match=r"needs\s+`dataset.scenario`"):
        experiment(within, {}, scenario=None)


def test_a_funnel_multiplies_one_output_each() -> None:
    with pytest.raises(pydantic.ValidationError, match=r"'buy' is given 'click'.*loss"):
        experiment({"loss": "jrc"}, {"shuffle": "groups"})
