"""Ciao, Alibaba 2014, Adult, census-income, Ali-CCP, AliExpress."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from tests.unit.adapters import raws
from tfmtl.adapters import catalogue
from tfmtl.errors import DataError
from tfmtl.schema.load import load_experiment

DAY = 86_400


def prepared(name, tmp_path):
    """Rows, rejects and summary of the raw files in tmp_path."""
    summary = catalogue.prepare(name, tmp_path, tmp_path / "out")
    rows = pq.read_table(tmp_path / "out" / "logs").to_pylist()
    return (
        rows,
        pq.read_table(tmp_path / "out" / "rejected.parquet").to_pylist(),
        summary,
    )


def test_ciao_history_duplicates_and_rejects(tmp_path):
    raws.write_ciao(
        tmp_path,
        [
            [1, 10, 3, 5, 2, 5 * DAY],
            [1, 11, 4, 0, 1, 5 * DAY],
            [1, 12, 4, 2, 1, 5 * DAY + 9],
            [1, 13, 3, 4, 1, 6 * DAY],
            [1, 13, 3, 4, 1, 6 * DAY],
            [2, 10, 3, 1, 1, 7 * DAY],
        ],
    )
    rows, rejected, summary = prepared("ciao", tmp_path)
    assert (summary.rows_read, summary.duplicates_dropped) == (6, 1)
    assert [r["reason"] for r in rejected] == ["rating: 0 is not from 1 to 5"]
    assert [r["history_product"] for r in rows] == [[], [], [10, 12], []]
    assert rows[2]["history_rating"] == [5, 2] and rows[2]["history_days"] == [1, 1]
    assert rows[2]["user_mean"] == pytest.approx((7 + 20) / 7)
    assert rows[3]["product_mean"] == pytest.approx((5 + 20) / 6)


def test_ciao_wrong_file(tmp_path):
    (tmp_path / "ciao_rating_with_timestamp.mat").write_bytes(b"no matlab" * 99)
    with pytest.raises(DataError, match="MATLAB"):
        prepared("ciao", tmp_path)


def test_ciao_real(tmp_path, real_data):
    summary = catalogue.prepare("ciao", real_data("ciao"), tmp_path / "out")
    assert summary.rows_read == 284_086
    assert (summary.rows_rejected, summary.duplicates_dropped) == (34, 190)
    assert summary.positive_rates["rating >= 4"] == pytest.approx(0.80, abs=2e-3)
    assert summary.positive_rates["rating == 5"] == pytest.approx(0.489, abs=1e-3)
    assert summary.positive_rates["helpfulness >= 2"] == pytest.approx(0.302, abs=1e-3)
    assert len(summary.rows_by_scenario) == 28
    spec = load_experiment(tmp_path / "out" / "experiment.yaml").dataset
    assert set(spec.scenario_values) == set(summary.rows_by_scenario)


ALIBABA = """user_id,brand_id,type,visit_datetime
1,5,0,6-4
1,5,0,6-4
1,5,1,6月4日
1,6,0,6-4
1,5,0,6-5
1,5,1,6-9
1,6,3,6-20
1,6,9,6-20
1,6,0,2-30
"""


def test_alibaba_labels_look_ahead_and_inputs_back(tmp_path):
    (tmp_path / "t_alibaba_data.csv").write_text(ALIBABA, encoding="utf-8")
    rows, rejected, summary = prepared("alibaba-2014", tmp_path)
    assert [(r["brand_id"], r["timestamp"] // DAY - 15860) for r in rows] == [
        (5, 0),
        (6, 0),
        (5, 1),
        (5, 5),
        (6, 16),
    ]
    assert [r["clicks"] for r in rows] == [2, 1, 1, 0, 0]
    assert [r["click_1d"] for r in rows] == [1, 0, 0, 0, None]
    assert [r["buy_1d"] for r in rows] == [0, 0, 0, 0, None]
    assert [r["buy_7d"] for r in rows] == [1, 0, 1, 0, None]
    assert rows[3]["history_brand"] == [5, 6, 5]
    assert rows[3]["history_action"] == ["buy", "click", "click"]
    assert rows[3]["history_days"] == [5, 5, 4]
    assert rows[3]["past_pair_clicks"] == 3 and rows[3]["past_user_clicks"] == 4
    assert sorted(r["reason"][:10] for r in rejected) == ["type: 9 is", "visit_date"]
    assert (summary.rows_read, summary.duplicates_dropped) == (9, 2)


def test_alibaba_changing_a_day_leaves_inputs_up_to_it_alone(tmp_path):
    tables = []
    for name, text in (
        ("a", ALIBABA),
        ("b", ALIBABA.replace("1,5,1,6-9", "1,5,2,6-9")),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "t_alibaba_data.csv").write_text(text, encoding="utf-8")
        catalogue.prepare("alibaba-2014", tmp_path / name, tmp_path / f"{name}-out")
        tables.append(pq.read_table(tmp_path / f"{name}-out" / "logs"))
    labels = ("click_1d", "buy_1d", "click_7d", "buy_7d")
    inputs = [c for c in tables[0].column_names if c not in labels]
    first = [t.select(inputs).slice(0, 3) for t in tables]
    assert first[0].equals(first[1])
    assert not tables[0]["buy_7d"].equals(tables[1]["buy_7d"])


def test_alibaba_real(tmp_path, real_data):
    raw = real_data("alibaba-bigdata-2014") / "slices"
    summary = catalogue.prepare("alibaba-2014", raw, tmp_path / "out")
    first = 131_720
    assert summary.rows_read in (first, first + 51_160)
    assert summary.rows_rejected == 0
    assert 0.01 < summary.positive_rates["buy_7d"] < summary.positive_rates["click_7d"]


def test_adult(tmp_path):
    raws.write_adult(tmp_path, more="1, 2, 3\n" + raws.ADULT.replace("<=50K", "50K"))
    rows, rejected, summary = prepared("adult", tmp_path)
    assert [r["income_high"] for r in rows] == [0, 1, 0, 0, 0, 1]
    assert [r["never_married"] for r in rows] == [1, 0, 1, 1, 1, 0]
    assert rows[2]["workclass"] is None and rows[2]["sex"] == "Female"
    assert [r["split"] for r in rows[4:]] == ["test", "test"]
    assert {r["split"] for r in rows[:4]} <= {"train", "validation"}
    assert len(rejected) == 2 and summary.rows_read == 8


def test_adult_real(tmp_path, real_data):
    summary = catalogue.prepare("adult", real_data("adult"), tmp_path / "out")
    assert summary.rows_written == 48_842 and summary.rows_rejected == 0
    table = pq.read_table(tmp_path / "out" / "logs")
    test = table.filter(table["split"].to_numpy(zero_copy_only=False) == "test")
    assert test.num_rows == 16_281
    assert test["income_high"].to_numpy().mean() == pytest.approx(0.236, abs=5e-4)
    assert test["never_married"].to_numpy().mean() == pytest.approx(0.334, abs=5e-4)
    assert (table["split"].to_numpy(zero_copy_only=False) == "validation").sum() > 2_900


@pytest.mark.parametrize("number", ["", "7,"])
def test_census_income_with_and_without_row_numbers(tmp_path, number):
    low = raws.CENSUS.replace("50000+.", "- 50000.").replace("Never m", "M")
    lines = [raws.CENSUS, low, "1,2", raws.CENSUS.replace(" 50000+.", "x")]
    text = "".join(f"{number}{line}\n" for line in lines)
    (tmp_path / "census-income.data").write_text(text)
    rows, rejected, _ = prepared("census-income", tmp_path)
    assert [(r["income_high"], r["never_married"]) for r in rows] == [(1, 1), (0, 0)]
    assert rows[0]["migration_msa"] is None and rows[0]["age"] == 62
    assert len(rejected) == 2


def test_census_income_foreign_file(tmp_path):
    (tmp_path / "census-income.data").write_text("1,2,3\n")
    with pytest.raises(DataError, match=r"42 fields.*Received: 3"):
        prepared("census-income", tmp_path)


def test_ali_ccp_csv(tmp_path):
    bad = raws.CCP_ROW.replace("1,0", "2,0", 1)
    for part in ("train", "val", "test"):
        text = f"{raws.CCP_HEAD}\n{raws.CCP_ROW}\n"
        text += f"{bad}\n" if part == "test" else ""
        (tmp_path / f"ali_ccp_{part}.csv").write_text(text)
    rows, rejected, summary = prepared("ali-ccp", tmp_path)
    assert sorted(r["split"] for r in rows) == ["test", "train", "validation"]
    assert [r["row_id"] for r in rows] == [0, 1, 2]
    assert rows[0]["D853"] == 0.25 and rows[0]["301"] == "3"
    assert len(rejected) == 1 and summary.rows_by_scenario == {"3": 3}
    text = (tmp_path / "out" / "experiment.yaml").read_text()
    assert load_experiment(tmp_path / "out" / "experiment.yaml").name == "ali-ccp"
    assert "purchase" in text


def test_ali_ccp_esmm_text(tmp_path):
    lines = [
        "1,1,1,210:1,210:2,216:4,301:5,101:12,150_14:18,150_14:19",
        "2,0,0,101:13,301:6,205:7",
        "3,0,7,101:13",
        "4,0,0,101",
    ]
    (tmp_path / "esmm.txt").write_text("\n".join(lines) + "\n")
    rows, rejected, summary = prepared("ali-ccp", tmp_path)
    assert len(rejected) == 2 and summary.rows_read == 4
    assert rows[0]["210"] == ["1", "2"] and rows[0]["150_14"] == ["18", "19"]
    assert rows[1]["210"] == [] and rows[1]["216"] is None and rows[1]["205"] == "7"
    assert [(r["click"], r["purchase"]) for r in rows] == [(1, 1), (0, 0)]
    experiment = load_experiment(tmp_path / "out" / "experiment.yaml")
    assert experiment.name == "ali-ccp-esmm"


def test_aliexpress_markets_and_splits(tmp_path):
    for market in ("NL", "FR"):
        folder = tmp_path / f"AliExpress_{market}"
        folder.mkdir()
        train = raws.aliexpress_text(list(range(200)))
        (folder / "train.csv").write_text(train)
        (folder / "test.csv").write_text(raws.aliexpress_text([900]))
    rows, _, summary = prepared("aliexpress", tmp_path)
    assert summary.rows_by_scenario == {"FR": 201, "NL": 201}
    assert len({r["row_id"] for r in rows}) == 402
    assert sum(r["split"] == "test" for r in rows) == 2
    assert 15 < sum(r["split"] == "validation" for r in rows) < 70
    assert rows[1]["search"] == "FR-0" and rows[1]["numerical_63"] == 0.5
    splits = {r["market"] + str(r["split"]) for r in rows if r["search_id"] < 60}
    assert {"NLvalidation", "FRvalidation"} <= splits


def test_aliexpress_missing_columns(tmp_path):
    head = [h for h in raws.ALIEXPRESS_HEAD if h != "conversion"] + ["other"]
    (tmp_path / "train.csv").write_text(raws.aliexpress_text([1], head))
    with pytest.raises(DataError, match=r"lacks the columns \['conversion'\]"):
        prepared("aliexpress", tmp_path)


@pytest.mark.parametrize(
    ("name", "rows", "positives"),
    [("census-income", 200, 0.06), ("ali-ccp", 200, 0.08), ("aliexpress", 100, 0.6)],
)
def test_published_samples(tmp_path, real_data, name, rows, positives):
    raw = tmp_path / "raw"
    raw.mkdir()
    pattern = {
        "census-income": "census*",
        "ali-ccp": "ali_ccp*",
        "aliexpress": "aliex*",
    }
    for file in real_data("samples-tiny").glob(pattern[name]):
        (raw / file.name).write_bytes(file.read_bytes())
    summary = catalogue.prepare(name, raw, tmp_path / "out")
    assert (summary.rows_written, summary.rows_rejected) == (rows, 0)
    first = next(iter(summary.positive_rates.values()))
    assert first == pytest.approx(positives, abs=1e-6)


def test_published_esmm_sample(tmp_path, real_data):
    raw = tmp_path / "raw"
    raw.mkdir()
    name = "paddlerec_esmm_aliccp_train_small.txt"
    (raw / name).write_bytes((real_data("samples-tiny") / name).read_bytes())
    summary = catalogue.prepare("ali-ccp", raw, tmp_path / "out")
    assert summary.rows_written == 10
    row = pq.read_table(tmp_path / "out" / "logs").to_pylist()[2]
    assert len(row["210"]) == 11 and len(row["110_14"]) == 342
