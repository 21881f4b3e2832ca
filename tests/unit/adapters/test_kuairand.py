"""KuaiRand: joins, duplicates, histories without the future, real counts."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.unit.adapters.raws import LOG, MIDNIGHT_MS, kuairand_rows, write_kuairand
from tfmtl.adapters import catalogue, kuairand
from tfmtl.errors import DataError
from tfmtl.schema.dataset import raw_columns
from tfmtl.schema.load import load_experiment

DAY = 86_400_000


def prepared(tmp_path, rows, name="out", **options):
    """Rows as dicts, the table and the summary of a prepared tiny log."""
    raw = tmp_path / f"raw-{name}"
    raw.mkdir()
    write_kuairand(raw, rows, **options)
    summary = catalogue.prepare("kuairand", raw, tmp_path / name)
    table = pq.read_table(tmp_path / name / "logs")
    return table.to_pylist(), table, summary


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("kuairand"), kuairand_rows(300))


def action(row):
    """The strongest outcome of an impression."""
    if row["is_like"]:
        return "like"
    return (
        ("long_view" if row["long_view"] else "click")
        if (row["is_click"] or row["long_view"])
        else "none"
    )


def slow_history(rows, row, strict=True):
    """The user's impressions before a row, by a loop over all."""
    now = row["time_ms"]
    return [
        other
        for other in rows
        if other["user_id"] == row["user_id"]
        and (other["time_ms"] < now if strict else other["time_ms"] <= now)
        and other["row_id"] != row["row_id"]
    ][-kuairand.HISTORY :]


def test_history_is_the_strict_past_newest_last(tiny):
    rows, _, _ = tiny
    ties = 0
    for row in rows:
        before = slow_history(rows, row)
        ties += before != slow_history(rows, row, strict=False)
        assert row["history_video"] == [b["video_id"] for b in before]
        assert row["history_author"] == [b["author_id"] for b in before]
        assert row["history_action"] == [action(b) for b in before]
        hours = [(row["time_ms"] - b["time_ms"]) / 3.6e6 for b in before]
        np.testing.assert_allclose(row["history_hours"], hours)
        assert all(np.diff(hours) <= 0)
        assert all(h > 0 for h in hours)
    # The data must be able to tell a history that looks at its own request.
    assert ties > 20


def test_changing_outcomes_changes_later_rows_only(tmp_path, tiny):
    rows = kuairand_rows(300)
    before = tiny[1]
    cut = rows[150][LOG.index("time_ms")]
    place = [LOG.index(name) for name in ("is_click", "is_like", "long_view")]
    for row in rows:
        if row[LOG.index("time_ms")] >= cut:
            for p in place:
                row[p] = 1 - row[p]
    after = prepared(tmp_path, rows)[1]
    inputs = [n for n in before.column_names if n not in LOG]
    keep = pc.less_equal(before["time_ms"], cut)
    for name in inputs:
        assert before[name].filter(keep).equals(after[name].filter(keep)), name
    later = pc.greater(before["time_ms"], cut + DAY)
    changed = [
        name
        for name in inputs
        if not before[name].filter(later).equals(after[name].filter(later))
    ]
    assert {"history_action", "user_click_rate", "video_click_rate"} <= set(changed)


def test_counters_against_loops(tiny):
    rows, _, _ = tiny
    for row in rows[::7]:
        own = [
            r
            for r in rows
            if r["user_id"] == row["user_id"] and r["time_ms"] < row["time_ms"]
        ]
        assert row["user_impressions"] == len(own)
        clicks = sum(r["is_click"] for r in own)
        assert row["user_click_rate"] == pytest.approx((clicks + 2) / (len(own) + 5))
        day = (row["time_ms"] - MIDNIGHT_MS) // DAY
        items = [
            r
            for r in rows
            if r["video_id"] == row["video_id"]
            and (r["time_ms"] - MIDNIGHT_MS) // DAY < day
        ]
        assert row["video_impressions"] == len(items)
        likes = sum(r["is_like"] for r in items)
        expected = (likes + 20 * 0.02) / (len(items) + 20)
        assert row["video_like_rate"] == pytest.approx(expected)


def test_history_file_comes_before_the_log(tiny):
    rows, _, _ = tiny
    for row in rows:
        known = {0: [1, 2, 3], 1: [4], 2: [1, 1]}.get(row["user_id"], [])
        assert row["past_watched"] == known
        everything = known + row["history_video"]
        assert row["recent_video"] == everything[-kuairand.HISTORY :]
        if row["user_id"] == 0 and len(everything) <= kuairand.HISTORY:
            assert row["recent_action"][:3] == ["seen", "seen_like", "seen_long"]
            assert row["recent_hours"][:3] == [None, None, None]
    first = rows[0]
    times = {1: 3, 2: 1, 3: 1, 4: 1}.get(first["video_id"], 0)
    assert first["past_video_impressions"] == times


def test_rows_that_the_history_file_overlaps_get_none_of_it(tmp_path):
    rows = kuairand_rows(60)
    early = MIDNIGHT_MS - DAY - 3_600_000
    for row in rows[:5]:
        row[0], row[LOG.index("time_ms")] = 0, early
    got, _, _ = prepared(tmp_path, rows)
    overlapped = [row for row in got if row["time_ms"] == early]
    assert len(overlapped) >= 3
    for row in overlapped:
        assert row["past_watched"] == [] and row["recent_video"] == []
        assert row["past_video_impressions"] == row["past_user_impressions"] == 0
        assert row["past_events"] is None and row["past_hours"] is None
    assert any(row["past_watched"] for row in got[5:])


def test_without_history_file(tmp_path):
    rows, _, summary = prepared(tmp_path, kuairand_rows(40), past=False)
    assert all(row["past_watched"] == [] for row in rows)
    assert all(row["recent_video"] == row["history_video"] for row in rows)
    assert any("none" in note for note in summary.notes)


def test_joins_and_counts(tmp_path, tiny):
    rows = kuairand_rows(50)
    rows.append(list(rows[3]))
    rows.append([*rows[4][:5], 7, *rows[4][6:]])
    got, _, summary = prepared(tmp_path, rows)
    assert (summary.rows_read, summary.rows_rejected) == (52, 1)
    assert summary.duplicates_dropped >= 1
    assert summary.rows_written == len(got) == 51 - summary.duplicates_dropped
    rejected = pq.read_table(tmp_path / "out" / "rejected.parquet").to_pylist()
    assert rejected[0]["reason"].startswith("is_click: 7")
    row = next(r for r in tiny[0] if r["video_id"] == 5 and r["user_id"] == 3)
    assert (row["author_id"], row["tags"], row["first_tag"]) == (102, ["3", "9"], "3")
    assert row["onehot_feat17"] is None and row["onehot_feat3"] == 1
    written = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert written["duplicates_dropped"] == summary.duplicates_dropped


def test_an_empty_log(tmp_path):
    rows, table, summary = prepared(tmp_path, [])
    assert rows == [] and summary.rows_read == 0
    assert "recent_video" in table.column_names


def test_missing_file_is_named(tmp_path):
    write_kuairand(tmp_path, kuairand_rows(10))
    (tmp_path / "video_features_basic_pure.csv").unlink()
    with pytest.raises(DataError, match=r"video_features_basic_\*\.csv.*zenodo"):
        catalogue.prepare("kuairand", tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_history_file_of_the_log_is_refused(tmp_path):
    rows = [r for r in kuairand_rows(30) if r[4] < MIDNIGHT_MS - DAY - 3_600_000]
    rows += [
        [*kuairand_rows(1)[0][:4], MIDNIGHT_MS - 2 * DAY, *kuairand_rows(1)[0][5:]]
    ]
    write_kuairand(tmp_path, rows)
    with pytest.raises(DataError, match="tell the future"):
        catalogue.prepare("kuairand", tmp_path, tmp_path / "out")


def test_real_data(tmp_path, real_data):
    summary = catalogue.prepare("kuairand", real_data("kuairand-pure"), tmp_path / "o")
    assert summary.rows_read == 94_784
    assert summary.duplicates_dropped == 2_750
    assert summary.rows_written == 92_034
    assert summary.rows_rejected == 0
    # Of all 94,784 rows the shares are 43.8, 30.7, 1.71 and 1.94 %.
    assert summary.positive_rates["is_click"] == pytest.approx(0.4468, abs=1e-3)
    assert summary.positive_rates["long_view"] == pytest.approx(0.3145, abs=1e-3)
    assert summary.rows_by_scenario["1"] == 70_003
    assert summary.rows_by_scenario["6"] < 5_704 - 2_500
    spec = load_experiment(tmp_path / "o" / "experiment.yaml").dataset
    wanted = {c for f in spec.features for c in raw_columns(f)}
    table = pq.read_table(tmp_path / "o" / "logs", columns=["day", "time_ms", "date"])
    schema = pq.read_schema(next((tmp_path / "o" / "logs").glob("*.parquet")))
    assert wanted <= set(schema.names)
    # The boundaries of the experiment are the midnights of the days in China.
    split = spec.split
    for day, mark in (
        ("2022-04-29", split.validation_from),
        ("2022-04-30", split.test_from),
    ):
        assert pc.all(
            pc.equal(
                pc.greater_equal(table["time_ms"], int(mark)),
                pc.greater_equal(table["day"], day),
            )
        ).as_py()
    same = pc.equal(
        pc.replace_substring(table["day"], "-", ""), pc.cast(table["date"], "string")
    )
    assert table.num_rows - pc.sum(same).as_py() == 785
