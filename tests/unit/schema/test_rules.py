"""Every rule of the experiment file: one legal document, one that breaks it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tfmtl.errors import ConfigError
from tfmtl.schema.feature import NumericFeature, Vocabulary
from tfmtl.schema.load import apply_override, parse_experiment
from tfmtl.schema.split import HashSplit, TimeSplit
from tfmtl.schema.task import ScenarioSpec, TaskSpec

_SEQUENCE = "dataset.features.history"

# Overrides that keep the document legal, overrides that break a rule, and its message.
RULES: dict[str, tuple[list[str], list[str], str]] = {
    "name is an identifier": (
        ["dataset.features.price.name=price_2"],
        ["dataset.features.price.name=price-2"],
        r"must start with a letter.*Received: 'price-2'.*`column:`",
    ),
    "name is no keyword": (
        ["dataset.features.price.name=class_"],
        ["dataset.features.price.name=class"],
        "be no Python keyword",
    ),
    "name does not end in _bytes": (
        ["dataset.features.price.name=bytes_"],
        ["dataset.features.price.name=price_bytes"],
        "not end in _bytes",
    ),
    "feature names are distinct": (
        ["dataset.features.price.name=cost"],
        ["dataset.features.price.name=tags"],
        r"feature names must be distinct. Received twice: \['tags'\]",
    ),
    "task names are distinct": (
        ["dataset.tasks.stay.name=watch"],
        ["dataset.tasks.stay.name=buy"],
        r"task names must be distinct. Received twice: \['buy'\]",
    ),
    "inputs are distinct": (
        ["dataset.features.price.name=history_items"],
        ["dataset.features.price.name=history_item"],
        r"input names must be distinct. Received twice: \['history_item'\]",
    ),
    "scenario is a reserved input": (
        ["dataset.features.price.name=scenarios"],
        ["dataset.features.price.name=scenario"],
        r"input names must be distinct. Received twice: \['scenario'\]",
    ),
    "vocabularies are declared": (
        ["dataset.features.user_id.vocabulary=item"],
        ["dataset.features.user_id.vocabulary=itm"],
        r"vocabulary 'itm', which is not declared; declared: \['item'\]. Did you mean",
    ),
    "vocabularies are used": (
        [
            "dataset.vocabularies.u={max_size: 5}",
            "dataset.features.user_id.vocabulary=u",
        ],
        ["dataset.vocabularies.u={max_size: 5}"],
        r"no feature uses the declared vocabularies \['u'\]",
    ),
    "hashing excludes learning": (
        ["dataset.vocabularies.item={max_size: 5, min_count: 2}"],
        ["dataset.vocabularies.item={max_size: 5, hash_buckets: 8}"],
        "`hash_buckets` excludes `max_size` and `min_count`",
    ),
    "side tables have learnt keys": (
        ["dataset.vocabularies.item={oov_buckets: 2}"],
        ["dataset.vocabularies.item={hash_buckets: 8}"],
        "side table 'text' is keyed by 'item_id', whose vocabulary is hashed",
    ),
    "side tables are keyed by a categorical feature": (
        ["dataset.side_tables.text.feature=user_id"],
        ["dataset.side_tables.text.feature=price"],
        r"side table 'text' refers to 'price', which is no categorical feature",
    ),
    "vectors read declared tables": (
        ["dataset.features.meaning.table=null"],
        ["dataset.features.meaning.table=pixels"],
        r"reads side table 'pixels'; declared: \['text'\]",
    ),
    "crosses are of categorical features": (
        ["dataset.features.user_x_item.of=[item_id, user_id]"],
        ["dataset.features.user_x_item.of=[item_id, price]"],
        "refers to 'price', which is no categorical feature",
    ),
    "crosses are of two features": (
        ["dataset.features.user_x_item.buckets=2"],
        ["dataset.features.user_x_item.of=[item_id]"],
        "at least 2 items",
    ),
    "attention has a query": (
        [f"{_SEQUENCE}.pooling=mean", f"{_SEQUENCE}.query=null"],
        [f"{_SEQUENCE}.query=null"],
        "`query` names the feature that `pooling: attention` scores with",
    ),
    "only attention has a query": (
        [f"{_SEQUENCE}.pooling=sum", f"{_SEQUENCE}.query=null"],
        [f"{_SEQUENCE}.pooling=sum"],
        r"give both or neither. Received: pooling='sum', query='item_id'",
    ),
    "the query is a categorical feature": (
        [f"{_SEQUENCE}.query=user_id"],
        [f"{_SEQUENCE}.query=tags"],
        "refers to 'tags', which is no categorical feature",
    ),
    "query and events have one width": (
        [f"{_SEQUENCE}.columns.item.dim=4", "dataset.features.item_id.dim=4"],
        [f"{_SEQUENCE}.columns.item.dim=4"],
        "must have one width. Received: 8 and 4",
    ),
    "boundaries rise": (
        [f"{_SEQUENCE}.columns.age.boundaries=[-1, 0.5]"],
        [f"{_SEQUENCE}.columns.age.boundaries=[1, 1]"],
        r"`boundaries` must be rising numbers, at least one. Received: \(1.0, 1.0\)",
    ),
    "boundaries are not empty": (
        [f"{_SEQUENCE}.columns.age.boundaries=[0]"],
        [f"{_SEQUENCE}.columns.age.boundaries=[]"],
        "at least one",
    ),
    "numbers of a sequence have no vocabulary": (
        [f"{_SEQUENCE}.columns.age.dim=2"],
        [f"{_SEQUENCE}.columns.age.vocabulary=item"],
        r"`boundaries` \(numeric\) excludes `vocabulary`",
    ),
    "bucketize has buckets": (
        ["dataset.features.rank.buckets=null", "dataset.features.rank.boundaries=[1]"],
        ["dataset.features.rank.buckets=null"],
        "needs exactly one of `buckets` and `boundaries`",
    ),
    "bucketize has buckets or boundaries": (
        ["dataset.features.rank.buckets=5"],
        ["dataset.features.rank.boundaries=[1]"],
        r"Received: transform='bucketize', buckets=10, boundaries=\(1.0,\)",
    ),
    "only bucketize has buckets": (
        ["dataset.features.price.transform=none"],
        ["dataset.features.price.buckets=4"],
        "other transforms neither",
    ),
    "kinds are known": (
        ["dataset.features.price.kind=numeric"],
        ["dataset.features.price.kind=numerical"],
        "'numerical'.*'categorical', 'multivalent', 'sequence', 'numeric'",
    ),
    "a vector has a size": (
        ["dataset.features.picture.size=2"],
        ["dataset.features.picture.size=0"],
        "greater than or equal to 1. Received: 0",
    ),
    "labels parse": (
        ["dataset.tasks.click.label=clicked >= 1"],
        ["dataset.tasks.click.label=clicked >="],
        "an expression must be a column or a comparison",
    ),
    "populations parse": (
        ["dataset.tasks.stay.observed_when=clicked == 1 and rank_seen"],
        ["dataset.tasks.stay.observed_when=open('x')"],
        "with Call",
    ),
    "classes are for multiclass": (
        ["dataset.tasks.1={name: buy, label: b, type: multiclass, classes: 3}"],
        ["dataset.tasks.1={name: buy, label: b, classes: 3}"],
        "`classes` belongs to `type: multiclass`.*type='binary', classes=3",
    ),
    "multiclass has classes": (
        ["dataset.tasks.1={name: buy, label: b, type: multiclass, classes: 2}"],
        ["dataset.tasks.1={name: buy, label: b, type: multiclass}"],
        "and must be there",
    ),
    "transforms are for regression": (
        ["dataset.tasks.stay.transform=none"],
        ["dataset.tasks.buy.transform=log1p"],
        "`transform` belongs to `type: regression`. Received: type='binary'",
    ),
    "given names a binary task": (
        ["dataset.tasks.stay.given=buy"],
        ["dataset.tasks.buy.given=stay"],
        "task 'buy' is given 'stay', which is no binary task",
    ),
    "given names a task": (
        ["dataset.tasks.buy.given=null"],
        ["dataset.tasks.buy.given=clik"],
        "is given 'clik'.*Did you mean 'click'",
    ),
    "given has no circle": (
        ["dataset.tasks.click.given=null"],
        ["dataset.tasks.click.given=buy"],
        "tasks depend on each other",
    ),
    "multiclass has no given": (
        ["dataset.tasks.1={name: buy, label: b, type: multiclass, classes: 3}"],
        [
            "dataset.tasks.1={name: buy, label: b, type: multiclass, classes: 3, "
            "given: click}"
        ],
        "`given` is for binary and regression tasks",
    ),
    "a task is main": (
        ["dataset.tasks.buy.role=auxiliary"],
        ["dataset.tasks.buy.role=auxiliary", "dataset.tasks.click.role=auxiliary"],
        "at least one task must have `role: main`",
    ),
    "a feature reads no label": (
        ["dataset.features.price.column=cost"],
        ["dataset.features.price.column=bought"],
        "'price' reads column 'bought', which a task's label.*see its answer",
    ),
    "a feature reads no population": (
        ["dataset.tasks.stay.observed_when=shown"],
        ["dataset.tasks.stay.observed_when=price > 1"],
        "'price' reads column 'price'",
    ),
    "scenarios are distinct": (
        ["dataset.scenario.values=[a, b]"],
        ["dataset.scenario.values=[a, a]"],
        r"must be distinct, not empty and not 'unknown'.*Received: \('a', 'a'\)",
    ),
    "no scenario is called unknown": (
        ["dataset.scenario.values=[a, Unknown]"],
        ["dataset.scenario.values=[a, unknown]"],
        "not 'unknown'",
    ),
    "scenarios are text": (
        ["dataset.scenario.values=['0', '1']"],
        ["dataset.scenario.values=[0, 1]"],
        "should be a valid string. Received: 0",
    ),
    "splits by time have a timestamp": (
        ["dataset.keys.timestamp=null", "dataset.split={by: hash, column: user_id}"],
        ["dataset.keys.timestamp=null"],
        r"`split: \{by: time\}` needs `keys: \{timestamp: column\}`",
    ),
    "boundaries have a timestamp": (
        ["dataset.split={by: boundaries, validation_from: 3}"],
        [
            "dataset.split={by: boundaries, validation_from: 3}",
            "dataset.keys.timestamp=null",
        ],
        r"`split: \{by: boundaries\}` needs",
    ),
    "boundaries are in order": (
        ["dataset.split={by: boundaries, validation_from: 3, test_from: 4, end: 5}"],
        ["dataset.split={by: boundaries, validation_from: 3, test_from: 3}"],
        "`validation_from` < `test_from` < `end` must hold. Received: 3.0, 3.0, None",
    ),
    "something is left to train on": (
        ["dataset.split.test=0.8"],
        ["dataset.split.test=0.9"],
        r"`validation` \+ `test` must stay below 1. Received: 0.1 \+ 0.9",
    ),
    "there is a validation part": (
        ["dataset.split.validation=0.01"],
        ["dataset.split.validation=0"],
        "greater than 0. Received: 0",
    ),
    "splits are known": (
        ["dataset.split={by: given, column: part}"],
        ["dataset.split={by: random}"],
        "'time', 'boundaries', 'hash', 'given'",
    ),
    "optimizers have a default": (
        ["optimizers={default: {class: SGD}, task/*: {class: Adam}}"],
        ["optimizers={embedding: {class: Adam}}"],
        r"must have a `default`.*Received: \['embedding'\]",
    ),
    "optimizers are known": (
        ["optimizers={default: {class: LazyAdam}}"],
        ["optimizers={default: {class: AdamW}}"],
        "'LazyAdam'.*Received: 'AdamW'",
    ),
    "exported outputs are tasks": (
        ["export.outputs=[buy]"],
        ["export.outputs=[sell]"],
        r"`export.outputs` names 'sell', which is no task; tasks: \['buy', 'click'",
    ),
    "the monitor names a task": (
        ["training.monitor=buy/logloss"],
        ["training.monitor=sell/auc"],
        "`training.monitor` must be task/metric.*Received: 'sell/auc'",
    ),
    "the monitor names a metric": (
        ["training.monitor=mean_cell/auc"],
        ["training.monitor=buy/f1"],
        "metrics: .'auc', 'logloss'",
    ),
    "the monitor's metric is one of the task's type": (
        ["training.monitor=buy/logloss"],
        ["training.monitor=buy/rmse"],
        r"a binary task has the metrics \['auc', 'logloss'\].*'buy/rmse'",
    ),
    "the monitor names a scenario": (
        ["training.monitor=buy|click@home/auc"],
        ["training.monitor=buy@live/auc"],
        r"names scenario 'live'; scenarios: \['home', 'search'\]",
    ),
    "patience needs a metric of the task's own": (
        [
            "dataset.tasks.stay.loss={name: bpr, within: batch, pointwise: 1}",
            "training.tasks.stay.patience=2",
        ],
        [
            "dataset.tasks.stay.loss={name: bpr, within: batch}",
            "training.tasks.stay.patience=2",
        ],
        r"`training.tasks.stay.patience` needs.*`loss: bpr` alone.*`training.monitor: "
        r"stay/ndcg@10`",
    ),
    "groups are shuffled by a group key": (
        ["training.shuffle=groups"],
        ["training.shuffle=groups", "dataset.keys.group=null"],
        r"`training.shuffle: groups` needs `keys: \{group: column\}`",
    ),
    "a version is known": (["version=1"], ["version=2"], "version: .*Received: 2"),
    "an experiment's name is a file name": (
        ["name=a-b.c_1"],
        ["name=a/b"],
        "name: .*Received: 'a/b'",
    ),
    "rates are not negative": (
        ["optimizers={default: {learning_rate: 0}}"],
        ["optimizers={default: {learning_rate: -1e-9}}"],
        "greater than or equal to 0. Received: -1e-09",
    ),
}


def _bent(document: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    bent = copy.deepcopy(document)
    for override in overrides:
        apply_override(bent, override)
    return bent


@pytest.mark.parametrize("rule", RULES)
def test_rule(document, rule):
    legal, illegal, message = RULES[rule]
    parse_experiment(_bent(document, legal))
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        parse_experiment(_bent(document, illegal))


def test_specifications_are_frozen(document):
    experiment = parse_experiment(document)
    with pytest.raises(ValueError, match="frozen"):
        experiment.seed = 3


def test_defaults_that_documents_rely_on():
    assert Vocabulary().oov_buckets == 1
    assert NumericFeature(name="x").source == "x"
    assert NumericFeature(name="x", column="y").source == "y"
    assert TimeSplit().test == 0.1
    assert HashSplit(column="u").salt == ""
    assert ScenarioSpec(column="s", values=("a",)).dim == 8


def test_a_conditional_task_has_two_names():
    task = TaskSpec(name="buy", label="b", given="click", weight="w")
    assert task.conditional == "buy|click"
    assert task.columns == {"b", "w"}
    assert TaskSpec(name="click", label="a > c").conditional == "click"
