"""The simulator: shape of the files, truth, funnel, histories and determinism."""

from __future__ import annotations

import hashlib
import json
import math
import pathlib
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from tfmtl.adapters import simulate as module
from tfmtl.adapters.simulate import SimulationSummary, simulate
from tfmtl.adapters.simulator import constants as c
from tfmtl.adapters.simulator.bayes import bayes_cell
from tfmtl.adapters.simulator.history import make_histories
from tfmtl.adapters.simulator.impressions import Impressions, list_lengths
from tfmtl.adapters.simulator.outcomes import Labels, TasteMatch, intercept, sigmoid
from tfmtl.adapters.simulator.world import make_items, make_users, mix_tastes
from tfmtl.errors import ConfigError

ROWS = 150_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("simulated") / "out"
    simulate(out, rows=ROWS, seed=3, users=3_000, items=1_000)
    return out


@pytest.fixture(scope="module")
def log(folder: pathlib.Path) -> pd.DataFrame:
    return pq.read_table(folder / "logs").to_pandas()


@pytest.fixture(scope="module")
def truth(folder: pathlib.Path) -> pd.DataFrame:
    return pq.read_table(folder / "truth.parquet").to_pandas()


@pytest.fixture(scope="module")
def summary(folder: pathlib.Path) -> dict[str, object]:
    return json.loads((folder / "summary.json").read_text())


def digest(folder: pathlib.Path) -> str:
    """Hash of every file's content below `folder`."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            total.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return total.hexdigest()


def test_every_column_is_documented(folder: pathlib.Path) -> None:
    table = pq.read_table(folder / "logs")
    documented = {}
    for line in (module.__doc__ or "").splitlines():
        if line.startswith("| ") and not line.startswith("| column"):
            names, kind = line.split("|")[1:3]
            documented |= {name: kind.strip() for name in names.strip().split(", ")}
    assert list(documented) == table.column_names
    for name, kind in documented.items():
        found = str(table.schema.field(name).type).replace("element: ", "")
        found += ", null" if table[name].null_count else ""
        assert found == kind, name


def test_files_are_several_and_in_order_of_time(
    folder: pathlib.Path, log: pd.DataFrame
) -> None:
    parts = sorted((folder / "logs").iterdir())
    assert [part.name for part in parts] == [
        "part-00000.parquet",
        "part-00001.parquet",
    ]
    assert pq.read_metadata(parts[0]).num_rows == module.ROWS_PER_FILE
    assert len(log) == ROWS
    assert log.row_id.tolist() == list(range(ROWS))
    assert log.timestamp.is_monotonic_increasing
    assert log.request_id.is_monotonic_increasing
    seconds = log.timestamp - c.START
    assert seconds.min() >= 0
    assert 9 * c.DAY < seconds.max() < 10 * c.DAY


def test_requests_are_lists_of_one_user_with_distinct_items(log: pd.DataFrame) -> None:
    lists = log.groupby("request_id")
    assert lists.size().between(*c.LIST_LENGTH).all()
    assert 9.5 < lists.size().mean() < 10.5
    for name in ("user_id", "timestamp", "scenario"):
        assert (lists[name].nunique() == 1).all()
    assert (lists.item_id.nunique() == lists.size()).all()
    assert (log.position == lists.cumcount()).all()


def test_funnel_and_missing_labels(log: pd.DataFrame) -> None:
    assert not ((log.cart == 1) & (log.click == 0)).any()
    assert not ((log.favourite == 1) & (log.click == 0)).any()
    assert not ((log.buy == 1) & (log.cart == 0) & (log.favourite == 0)).any()
    assert not ((log.like == 1) & (log.click == 0)).any()
    assert (log.watch_time.notna() == (log.click == 1)).all()
    assert (log.watch_time.dropna() > 0).all()
    assert log.like[log.click == 0].notna().all()
    clicked = log[log.click == 1]
    young = clicked.like[clicked.user_age_group == "18-24"].isna().mean()
    old = clicked.like[clicked.user_age_group == "55-64"].isna().mean()
    assert 0.15 < young < 0.25 < old < 0.40


def test_base_rates(log: pd.DataFrame) -> None:
    share = log.scenario.value_counts(normalize=True)
    assert share["feed"] == pytest.approx(0.75, abs=0.02)
    assert share["search"] == pytest.approx(0.20, abs=0.02)
    assert share["live"] == pytest.approx(0.05, abs=0.01)
    rate = log.groupby("scenario").click.mean()
    for name, expected in zip(c.SCENARIOS, c.CLICK_RATE, strict=True):
        assert rate[name] == pytest.approx(expected, abs=0.015)
    clicked = log[log.click == 1]
    assert clicked.cart.mean() == pytest.approx(0.12, abs=0.01)
    assert clicked.favourite.mean() == pytest.approx(0.08, abs=0.01)
    assert clicked.like.mean() == pytest.approx(0.06, abs=0.01)
    wanted = clicked[(clicked.cart == 1) | (clicked.favourite == 1)]
    assert wanted.buy.mean() == pytest.approx(0.20, abs=0.02)
    assert log.buy.mean() >= 0.005


def test_truth_is_calibrated_and_consistent(
    log: pd.DataFrame, truth: pd.DataFrame
) -> None:
    assert (truth.row_id == log.row_id).all()
    known = log.like.notna()
    cases = [
        (truth.click, log.click),
        (truth.cart, log.cart),
        (truth.favourite, log.favourite),
        (truth.buy, log.buy),
        (truth.like_where_known[known], log.like[known]),
        (truth.cart_given_click[log.click == 1], log.cart[log.click == 1]),
        (truth.buy_given_click[log.click == 1], log.buy[log.click == 1]),
    ]
    for probability, label in cases:
        assert probability.between(0, 1).all()
        for _, part in label.groupby(pd.qcut(probability, 8, labels=False)):
            expected = probability[part.index]
            spread = math.sqrt((expected * (1 - expected)).sum())
            assert abs(part.sum() - expected.sum()) < 4.5 * spread
    np.testing.assert_allclose(truth.buy, truth.click * truth.buy_given_click)
    np.testing.assert_allclose(
        truth.buy_given_click, truth.intent_given_click * truth.buy_given_intent
    )
    # An unknown like is a click, so the plain joint probability must not fit there.
    excess = truth.like[known].sum() - log.like[known].sum()
    assert excess > 4.5 * math.sqrt(truth.like[known].sum())


def test_watch_time_follows_its_truth(log: pd.DataFrame, truth: pd.DataFrame) -> None:
    seen = log.watch_time.notna()
    error = np.log(log.watch_time[seen]) - truth.watch_time_log_mean[seen]
    assert error.mean() == pytest.approx(0.0, abs=0.02)
    assert error.std() == pytest.approx(c.WATCH_NOISE, abs=0.02)
    ratio = log.watch_time[seen].mean() / truth.watch_time_given_click[seen].mean()
    assert ratio == pytest.approx(1.0, abs=0.02)


def test_position_bias(log: pd.DataFrame, truth: pd.DataFrame) -> None:
    logit = np.log(truth.click / (1 - truth.click))
    first = np.log(truth.click_at_first_position / (1 - truth.click_at_first_position))
    np.testing.assert_allclose(
        logit - first, -c.POSITION_EFFECT * np.log1p(log.position), atol=1e-9
    )
    rate = log.groupby("position").click.mean()
    assert rate[0] > rate[4] > rate[9]


def test_bayes_auc(
    log: pd.DataFrame, truth: pd.DataFrame, summary: dict[str, object]
) -> None:
    tasks = summary["tasks"]
    click = tasks["click"]["joint"]
    assert click["auc"] == pytest.approx(roc_auc_score(log.click, truth.click))
    for cell in (click, *click["scenarios"].values()):
        assert 0.78 < cell["expected_auc"] < 0.85
        assert cell["auc"] == pytest.approx(cell["expected_auc"], abs=0.02)
    live = log.scenario == "live"
    assert click["scenarios"]["live"]["auc"] == pytest.approx(
        roc_auc_score(log.click[live], truth.click[live])
    )
    clicked = log.click == 1
    assert tasks["cart"]["given"]["auc"] == pytest.approx(
        roc_auc_score(log.cart[clicked], truth.cart_given_click[clicked])
    )
    wanted = (log.cart == 1) | (log.favourite == 1)
    assert tasks["buy"]["given"]["rows"] == wanted.sum()
    known = log.like.notna()
    assert tasks["like"]["joint"]["auc"] == pytest.approx(
        roc_auc_score(log.like[known], truth.like_where_known[known])
    )


def test_expected_auc_is_the_mean_over_labels() -> None:
    rng = np.random.default_rng(0)
    probability = rng.random(40).round(1)  # With ties.
    right = pairs = 0.0
    for i in range(40):
        for j in range(40):
            if i != j:
                weight = probability[i] * (1 - probability[j])
                order = np.sign(probability[i] - probability[j])
                right += weight * (order + 1) / 2
                pairs += weight
    label = rng.random(40) < probability
    cell = bayes_cell(probability, label)
    assert cell["expected_auc"] == pytest.approx(right / pairs, abs=1e-12)
    assert cell["auc"] == pytest.approx(roc_auc_score(label, probability))
    # Counting each row against itself is a visible error at this size.
    itself = probability @ (1 - probability)
    assert abs((right + itself / 2) / (pairs + itself) - right / pairs) > 1e-4
    assert bayes_cell(probability, np.zeros(40, np.bool_))["auc"] is None


def test_smoothed_means_miss_at_least_half_of_the_gap(
    log: pd.DataFrame, truth: pd.DataFrame
) -> None:
    train, test = log.index < 0.8 * ROWS, log.index >= 0.8 * ROWS
    rate = log.click[train].mean()
    score = np.zeros(test.sum())
    for name in ("user_id", "item_id", "scenario"):
        groups = log[train].groupby(name).click
        mean = (groups.sum() + 20 * rate) / (groups.size() + 20)
        mean = log[name][test].map(mean).fillna(rate)
        score += np.log(mean / (1 - mean)).to_numpy()
    reached = roc_auc_score(log.click[test], score) - 0.5
    attainable = roc_auc_score(log.click[test], truth.click[test]) - 0.5
    assert 0.1 < reached / attainable <= 0.5


def test_histories_are_the_last_clicks_before_the_request(log: pd.DataFrame) -> None:
    users = log.user_id.value_counts().index
    lengths = []
    for user in [users[0], users[50], users[1000]]:
        mine = log[log.user_id == user]
        for _, row in mine.groupby("request_id").head(1).iterrows():
            past = mine[(mine.timestamp < row.timestamp) & (mine.click == 1)].tail(50)
            assert list(row.hist_item) == past.item_id.tolist()
            action = np.select(
                [past.buy == 1, past.cart == 1, past.favourite == 1, past.like == 1],
                ["buy", "cart", "favourite", "like"],
                "click",
            )
            assert list(row.hist_action) == action.tolist()
            age = (row.timestamp - past.timestamp) / 3600
            np.testing.assert_allclose(row.hist_age_hours, age, rtol=1e-6)
            lengths.append(len(past))
    assert 0 in lengths
    assert 50 in lengths
    assert (np.concatenate(log.hist_age_hours.tolist()) > 0).all()


def test_simultaneous_requests_do_not_see_each_other() -> None:
    request = np.array([0, 1, 2])
    now = c.START + np.array([5, 5, 6])
    log = Impressions(
        request_user=np.zeros(3, np.int64),
        request_time=now,
        request_scenario=np.zeros(3, np.int64),
        offsets=np.arange(4),
        request=request,
        item=np.array([7, 8, 9]),
        position=np.zeros(3, np.int64),
    )
    everything = np.ones(3, np.bool_)
    event = dict.fromkeys(("click", "cart", "favourite", "buy", "like"), everything)
    labels = Labels(event=event, like_known=everything, watch_time=np.ones(3))
    histories = make_histories(log, labels)
    offsets, click, age = histories.rows(request, now)
    assert offsets.tolist() == [0, 0, 0, 2]
    assert histories.item[click].tolist() == [7, 8]
    assert age.tolist() == [1 / 3600, 1 / 3600]


def test_scenarios_shift_the_features(log: pd.DataFrame) -> None:
    by_scenario = log.groupby("scenario")
    price = by_scenario.item_price_level.mean()
    assert price["live"] > price["search"] + 0.3
    young = by_scenario.user_age_group.agg(lambda x: (x <= "25-34").mean())
    assert young["live"] > young["feed"] > young["search"]


def test_tastes_have_the_stated_moments() -> None:
    users, items = make_users(5, 4_000), make_items(5, 2_000)
    for taste, readable, weight, share in (
        (users.taste, users.readable_taste, users.activity, c.USER_READABLE),
        (items.taste, items.readable_taste, items.popularity, c.ITEM_READABLE),
    ):
        np.testing.assert_allclose(weight @ taste, 0.0, atol=1e-9)
        variance = weight @ taste**2
        # Residual and readable part are independent draws, not orthogonal ones.
        np.testing.assert_allclose(variance, 1.0, atol=0.15)
        np.testing.assert_allclose(weight @ readable**2, share, atol=1e-9)
        rest = taste - readable
        np.testing.assert_allclose(weight @ rest**2, 1 - share, atol=1e-9)
    explained = np.column_stack(
        [
            np.eye(c.CATEGORIES)[items.category],
            np.eye(200)[items.creator],
            items.content,
        ]
    )
    for columns, exact in ((slice(None), True), (slice(c.CATEGORIES + 200), False)):
        design = explained[:, columns]
        weights = np.linalg.lstsq(design, items.readable_taste, rcond=None)[0]
        error = np.abs(items.readable_taste - design @ weights).max()
        assert (error < 1e-9) == exact  # All of it is needed, and nothing else.
    user = pd.DataFrame(users.readable_taste)[np.diff(users.topic_offsets) == 0]
    rows = user.index
    same = user.groupby(
        [users.age_group[rows], users.gender[rows], users.city[rows]]
    ).std()
    assert same.dropna().max().max() < 1e-9  # Nothing else tells a user's taste.


def test_mixing_without_whitening_would_bias_the_share() -> None:
    rng = np.random.default_rng(0)
    skewed = rng.normal(size=(500, c.TASTE)) + 2.0
    weight = rng.random(500)
    residual = rng.normal(size=(500, c.TASTE))
    _, readable = mix_tastes([(1.0, skewed)], residual, 0.6, weight)
    moment = (readable * (weight / weight.sum())[:, None]).T @ readable
    np.testing.assert_allclose(moment, 0.6 * np.eye(c.TASTE), atol=1e-9)


def test_preferences_correlate_with_the_cosine(summary: dict[str, object]) -> None:
    users, items = make_users(5, 4_000), make_items(5, 2_000)
    rng = np.random.default_rng(0)
    rows = 100_000
    user = rng.choice(4_000, rows, p=users.activity)
    item = rng.choice(2_000, rows, p=items.popularity)

    def match(scenario: int, task: str) -> np.ndarray:
        log = Impressions(
            request_user=user,
            request_time=np.full(rows, c.START),
            request_scenario=np.full(rows, scenario),
            offsets=np.arange(rows + 1),
            request=np.arange(rows),
            item=item,
            position=np.zeros(rows, np.int64),
        )
        return TasteMatch(log, users, items)(task)

    feed = match(0, "click")
    assert feed.std() == pytest.approx(c.TASK_SCALE["click"], rel=0.1)
    stated = summary["preference_correlation"]
    for other, expected in (
        (match(1, "click"), stated["feed/search"]),
        (match(2, "click"), stated["feed/live"]),
        (match(0, "buy"), stated["click/buy"]),
        (match(0, "like"), stated["click/like"]),
    ):
        assert np.corrcoef(feed, other)[0, 1] == pytest.approx(expected, abs=0.04)
    both = np.corrcoef(match(1, "click"), match(2, "click"))[0, 1]
    assert both == pytest.approx(stated["search/live"], abs=0.04)
    assert stated["search/live"] < -0.3


def test_summary_matches_the_files(
    folder: pathlib.Path, log: pd.DataFrame, summary: dict[str, object]
) -> None:
    names = ["experiment.yaml", "logs", "summary.json", "truth.parquet"]
    assert sorted(p.name for p in folder.iterdir()) == names
    assert summary["rows"] == ROWS
    assert summary["requests"] == log.request_id.nunique()
    assert summary["seed"] == 3
    assert summary["scenarios"] == log.scenario.value_counts().to_dict()
    assert summary["counts"]["click"] == log.click.sum()
    assert summary["counts"]["buy"] == log.buy.sum()
    assert summary["counts"]["like_missing"] == log.like.isna().sum()
    assert summary["readable_share"] == {
        "user_taste": c.USER_READABLE,
        "item_taste": c.ITEM_READABLE,
        "match": round(c.USER_READABLE * c.ITEM_READABLE, 6),
    }


def test_same_seed_same_bytes(tmp_path: pathlib.Path) -> None:
    sizes = {"rows": 2_000, "users": 200, "items": 200}
    seen: list[tuple[int, int]] = []
    first = simulate(
        tmp_path / "a", seed=1, progress=lambda *at: seen.append(at), **sizes
    )
    second = simulate(tmp_path / "b", seed=1, **sizes)
    simulate(tmp_path / "c", seed=2, **sizes)
    assert isinstance(first, SimulationSummary)
    assert first == second
    assert seen == [(2_000, 2_000)]
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    one, other = (
        pq.read_table(tmp_path / name / "logs").drop(["row_id"]) for name in "ac"
    )
    assert not one.equals(other)


@pytest.mark.parametrize("rows", [100, 101, 104, 999])
def test_small_logs_have_exactly_the_rows(tmp_path: pathlib.Path, rows: int) -> None:
    simulate(tmp_path / "out", rows=rows, seed=0, users=100, items=200)
    assert pq.read_table(tmp_path / "out" / "logs").num_rows == rows
    json.loads((tmp_path / "out" / "summary.json").read_text())


def test_list_lengths_always_fit() -> None:
    for rows in range(20, 400):
        lengths = list_lengths(np.random.default_rng(rows), rows)
        assert lengths.sum() == rows
        assert lengths.min() >= c.LIST_LENGTH[0]
        assert lengths.max() <= c.LIST_LENGTH[1]


def test_intercept_sets_the_weighted_rate() -> None:
    rng = np.random.default_rng(0)
    logit, weight = rng.normal(0, 2, 1_000), rng.random(1_000)
    constant = intercept(logit, weight, 0.1)
    mean = np.average(sigmoid(logit + constant), weights=weight)
    assert mean == pytest.approx(0.1, abs=1e-9)
    empty = np.zeros(0)
    assert sigmoid(np.array(intercept(empty, empty, 0.1))) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rows": 99}, r"`rows` must be an integer from 100 .* Received: 99"),
        ({"rows": 1e6}, "`rows` must be an integer"),
        ({"seed": -1}, "`seed` must be an integer from 0"),
        ({"seed": True}, "`seed` must be an integer from 0"),
        ({"users": 5}, "`users` must be an integer from 100"),
        ({"items": 5}, "`items` must be an integer from 200"),
    ],
)
def test_bad_arguments_are_named(
    tmp_path: pathlib.Path, changed: dict[str, int], message: str
) -> None:
    arguments = {"rows": 1_000, "seed": 0, "users": 200, "items": 200} | changed
    with pytest.raises(ConfigError, match=message):
        simulate(tmp_path / "out", **arguments)
    assert not list(tmp_path.iterdir())


def test_a_full_folder_is_refused_unless_overwritten(tmp_path: pathlib.Path) -> None:
    (tmp_path / "mine").write_text("kept")
    sizes = {"rows": 200, "seed": 0, "users": 100, "items": 200}
    with pytest.raises(ConfigError, match="holds files"):
        simulate(tmp_path, **sizes)
    assert (tmp_path / "mine").read_text() == "kept"
    simulate(tmp_path, overwrite=True, **sizes)
    assert not (tmp_path / "mine").exists()


def test_schema_is_the_same_in_every_part(folder: pathlib.Path) -> None:
    first, second = (
        pq.read_schema(path) for path in sorted((folder / "logs").iterdir())
    )
    assert first.equals(second)
    assert first.field("hist_item").type == pa.list_(pa.string())


def test_import_needs_no_tensorflow() -> None:
    code = (
        "import sys, tfmtl.adapters.simulate; "
        "sys.exit('tensorflow' in sys.modules or 'pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
