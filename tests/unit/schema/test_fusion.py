"""The sections `fusion` and `evaluation`: names, types and forms that fit."""

from __future__ import annotations

import pytest
import yaml

from tfmtl.errors import ConfigError
from tfmtl.schema.fusion import FusionSpec
from tfmtl.schema.load import dump_experiment, parse_experiment
from tfmtl.testing.tiny import DATASET

TASKS = [
    {"name": "click", "label": "click"},
    {"name": "buy", "label": "buy", "given": "click"},
    {"name": "watch", "label": "watch", "type": "regression"},
    {"name": "grade", "label": "grade", "type": "multiclass", "classes": 3},
]


def parse(tasks=TASKS, keys=DATASET["keys"], **sections):
    dataset = {**DATASET, "tasks": tasks, "keys": keys}
    document = {"name": "t", "dataset": dataset, "model": {"class": "MMoE"}}
    return parse_experiment({**document, **sections})


def test_a_section_that_uses_everything_survives_its_file():
    fusion = {
        "form": "shifted_product",
        "weights": {"click": 1, "buy|click": 2.5, "watch": -0.5, "buy": 0},
        "beta": {"click": 2},
        "transform": {"watch": "log1p"},
    }
    evaluation = {"ranking": {"by": "user", "at": [10, 2], "value": "watch"}}
    found = parse(fusion=fusion, evaluation=evaluation)
    assert found.fusion.used == ("click", "buy|click", "watch")
    assert found.evaluation.ranking.at == (2, 10)
    assert parse_experiment(yaml.safe_load(dump_experiment(found))) == found
    for form in ("product", "rank"):
        spec = FusionSpec(form=form, weights={"click": 1.0})
        assert FusionSpec.model_validate(spec.model_dump()) == spec


@pytest.mark.parametrize(
    ("fusion", "message"),
    [
        ({"weights": {"clik": 1}}, "Did you mean 'click'"),
        ({"weights": {"grade": 1}}, "multiclass task has a probability for each class"),
        ({"weights": {}}, "at least 1 item"),
        ({"weights": {"click": 0}}, "one of them not 0"),
        ({"weights": {"click": float("inf")}}, "must be finite"),
        ({"form": "best", "weights": {"click": 1}}, "'product', 'sum'"),
        (
            {"weights": {"click": 1}, "beta": {"click": 1}},
            "`beta` belongs to the forms",
        ),
        (
            {"form": "exponential_sum", "weights": {"click": 1}, "beta": {"buy": 1}},
            r"`beta` names \['buy'\]",
        ),
        (
            {"form": "exponential_sum", "weights": {"click": 1}, "beta": {"click": -1}},
            "`beta` must be above 0",
        ),
        ({"weights": {"click": 1}, "offset": 3}, "`offset` belongs to `form: rank`"),
        (
            {"weights": {"click": 1}, "transform": {"click": "log1p"}},
            "`fusion.transform` is for regressions",
        ),
        ({"weights": {"click": 1}, "weigths": {}}, "unknown key"),
    ],
)
def test_fusions_that_do_not_fit(fusion, message):
    with pytest.raises(ConfigError, match=message):
        parse(fusion=fusion)


@pytest.mark.parametrize("form", ["product", "shifted_product"])
def test_a_score_without_a_level_has_no_logarithm(form):
    def tasks(**loss):
        found = {"name": "bpr", "within": "batch", **loss}
        graded = {"name": "stay", "label": "s", "type": "regression", "loss": found}
        return [*TASKS, graded, {"name": "like", "label": "like", "loss": found}]

    fusion = {"form": form, "weights": {"click": 1, "stay": 1}}
    with pytest.raises(ConfigError, match=rf"`fusion.form: {form}`.*'stay'.*`form: r"):
        parse(tasks=tasks(), fusion=fusion)
    assert parse(tasks=tasks(pointwise=0.1), fusion=fusion).fusion
    for fine in (
        {**fusion, "form": "rank"},
        {**fusion, "form": "sum"},
        {"form": form, "weights": {"click": 1, "stay": 0}},
        {"form": form, "weights": {"click": 1, "like": 1}},  # a sigmoid is above 0
    ):
        assert parse(tasks=tasks(), fusion=fine).fusion


def test_a_task_named_score_collides_only_where_outputs_are_fused():
    tasks = [*TASKS, {"name": "score", "label": "score"}]
    assert parse(tasks=tasks).fusion is None
    with pytest.raises(ConfigError, match="a task is named 'score'"):
        parse(tasks=tasks, fusion={"weights": {"click": 1}})


def test_ranks_need_lists():
    rank = {"form": "rank", "weights": {"click": 1}, "offset": 0}
    assert parse(fusion=rank).fusion.offset == 0
    assert parse(keys={"user": "u"}, fusion=rank).fusion.form == "rank"
    with pytest.raises(ConfigError, match=r"keys: \{group: column\}"):
        parse(keys={}, fusion=rank)


@pytest.mark.parametrize(
    ("ranking", "message"),
    [
        ({"by": "group"}, r"needs `keys: \{group: column\}`"),
        ({"at": []}, "distinct numbers"),
        ({"at": [3, 3]}, "distinct numbers"),
        ({"at": [0]}, "greater than or equal to 1"),
        ({"gain": {"clik": "linear"}}, r"`evaluation.ranking.gain` names \['clik'\]"),
        ({"value": "click"}, r"must be a regression task.*\['watch'\]"),
        ({"value": "price"}, "must be a regression task"),
    ],
)
def test_rankings_that_do_not_fit(ranking, message):
    with pytest.raises(ConfigError, match=message):
        parse(keys={"user": "u"}, evaluation={"ranking": ranking})


def test_what_a_list_is():
    for keys, wanted in (
        ({"user": "u", "group": "g"}, "group"),
        ({"user": "u"}, "user"),
        ({}, None),
    ):
        found = parse(keys=keys)
        assert found.evaluation.ranking.key(found.dataset) == wanted
    chosen = parse(
        keys={"user": "u", "group": "g"}, evaluation={"ranking": {"by": "user"}}
    )
    assert chosen.evaluation.ranking.key(chosen.dataset) == "user"
    assert parse(evaluation={"ranking": None}).evaluation.ranking is None
