"""`--choose`: its grammar, its choice, its errors."""

import pytest

from tfmtl.errors import ConfigError
from tfmtl.tuning.choose import Choice, choose, parse_choice
from tfmtl.tuning.goals import Bound


@pytest.fixture
def trials(pairs):
    return pairs((0.80, 0.60), (0.70, 0.76), None, (0.75, 0.75), (0.75, 0.70))


def test_grammar():
    found = parse_choice(" like/auc >= 0.75 ,max click/auc, buy/logloss<=baseline+0.1")
    assert found == Choice(
        "click/auc",
        True,
        (
            Bound("like/auc", ">=", 0.75),
            Bound("buy/logloss", "<=", 0.1, relative=True),
        ),
    )
    assert parse_choice("min click@feed/logloss") == Choice("click@feed/logloss", False)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("like/auc >= 0.75, max click/auc", "0004"),
        ("max click/auc", "0001"),
        ("min click/auc", "0002"),
        ("click/auc <= 0.75, max like/auc", "0002"),
        ("like/auc >= baseline + 0.05, max click/auc", "0004"),
        ("like/auc >= baseline - 0.05, max click/auc", "0004"),
        ("like/auc >= 0.76, click/auc >= 0.7, max click/auc", "0002"),
        # Of equal ones the first.
        ("click/auc <= 0.75, max click/auc", "0004"),
    ],
)
def test_chooses(trials, text, wanted):
    assert choose(trials, text, {"like/auc": 0.70}).trial == wanted


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "exactly one `max METRIC` or `min METRIC`.* Received: none in ''"),
        ("  , ", "exactly one"),
        ("like/auc >= 0.75", "exactly one"),
        ("max click/auc, max like/auc", "Received: 'max click/auc', 'max like/auc'"),
        ("max click/auc, min like/auc", "exactly one"),
        ("max", "after `max` or `min` goes one metric.* Received: 'max'"),
        ("max click/auc like/auc", "after `max` or `min` goes one metric"),
        ("like/auc > 0.75, max click/auc", "a metric and a bound.*'like/auc > 0.75'"),
        ("max clik/auc", "no trial has a metric 'clik/auc'. Did you mean "),
        ("like/acu >= 0.1, max click/auc", "'like/acu'. Did you mean 'like/auc'"),
        ("like auc >= 0.1, max click/auc", "no trial has a metric .like auc.. Did"),
        ("max zzz", r"'zzz'. Known: \['click/auc', 'like/auc'\]"),
        ("like/auc >= baseline, max click/auc", "has no baseline"),
        (
            "like/auc >= 0.79, click/auc >= 0.705, max click/auc",
            r"none of 4 trials .* trial 0002, misses 'like/auc >= 0.79' by 0.03 "
            r"\(it has 0.7600\), 'click/auc >= 0.705' by 0.005 \(it has 0.7000\)",
        ),
    ],
)
def test_says_what_is_wrong(trials, text, said):
    with pytest.raises(ConfigError, match=said):
        choose(trials, text)


def test_nothing_to_choose_from(pairs, record):
    with pytest.raises(ConfigError, match="of 2 trials none has metrics"):
        choose(pairs(None, None), "max click/auc")
    apart = [record(1, {"click/auc": 0.7}), record(2, {"like/auc": 0.7})]
    with pytest.raises(ConfigError, match="no trial defines all of"):
        choose(apart, "like/auc >= 0.1, max click/auc")
