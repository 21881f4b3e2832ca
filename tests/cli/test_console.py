"""Progress as lines and as bars, tables, and the report of an evaluation."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from tfmtl.cli import console, datasets
from tfmtl.cli.console import BarProgress, PlainProgress, print_table, progress
from tfmtl.cli.report import print_report


def test_lines_where_there_is_no_terminal():
    stream = io.StringIO()
    with progress(stream) as listener:
        listener.stage("read", 2000)
        listener.advance(2000)
        listener.note("a figure")
        listener.stage("write")
    lines = stream.getvalue().splitlines()
    assert lines[0] == "read (2,000)"
    assert lines[1] == "  a figure"
    assert lines[2].startswith("read: done in ") and lines[2].endswith(" s")
    assert lines[3] == "write"
    assert lines[4].startswith("write: done in ")
    assert len(lines) == 5


def test_long_stages_are_told_from_time_to_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    with PlainProgress(stream) as listener:
        listener.stage("read", 100)
        for second in range(25):
            now[0] = float(second)
            listener.advance(4)
    told = [line for line in stream.getvalue().splitlines() if " of " in line]
    assert told == ["  read: 44 of 100", "  read: 84 of 100"]


def test_a_stage_that_fails_is_not_called_done():
    stream = io.StringIO()
    with pytest.raises(RuntimeError), progress(stream) as listener:
        listener.stage("read")
        raise RuntimeError
    assert "read: stopped after" in stream.getvalue()
    assert "done" not in stream.getvalue()


def test_bars_on_a_terminal():
    stream = io.StringIO()
    terminal = Console(file=stream, force_terminal=True, width=100)
    with BarProgress(terminal) as listener:
        listener.stage("read", 100)
        listener.advance(60)
        listener.note("[a figure]")
        listener.advance(40)
        listener.stage("write")
        listener.advance()
    text = stream.getvalue()
    assert "read" in text and "100/100" in text and "[a figure]" in text
    assert "write" in text and "1/1" in text


def test_the_kind_follows_the_stream(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress(io.StringIO()) as listener:
        assert isinstance(listener, BarProgress)
    monkeypatch.delenv("FORCE_COLOR")
    with progress(io.StringIO()) as listener:
        assert isinstance(listener, PlainProgress)


def test_tables_are_not_cut_in_files(capsys):
    wide = "x" * 70
    print_table("title", ["a", "b"], [[wide, 1234567], [None, 0.123456]], numbers=["b"])
    out = capsys.readouterr().out
    assert wide in out and "1,234,567" in out and "0.1235" in out and "title" in out
    assert "-" in out.splitlines()[-2]
    assert console._cell("[red]x") == r"\[red]x"


def _report() -> dict[str, object]:
    cell = {"kind": "binary", "rows": 10, "positives": 3, "auc": 0.75, "gauc": None}
    cell |= {"auc_ci": [0.7, 0.8], "gauc_coverage": 0.5, "logloss": 0.5}
    empty = dict(cell, auc=None, auc_ci=None, rows=0, positives=0)
    other = {"kind": "regression", "rows": 4, "rmse": 1.5, "mae": 1.0, "r2": None}
    return {
        "split": "test",
        "rows": 10,
        "tasks": {
            "click": cell | {"scenarios": {"home": cell, "live": empty}},
            "stay": other | {"scenarios": {}},
        },
        "mean_task_auc": 0.75,
        "mean_cell_auc": None,
    }


def test_a_report_has_a_row_per_task_and_scenario(capsys):
    print_report(_report())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "test split, 10 rows: binary tasks"
    assert "test split, 10 rows: regression tasks" in lines
    (live,) = [line for line in lines if "live" in line]
    assert "0.7500" not in live and "-" in live
    (home,) = [line for line in lines if "home" in line]
    assert "0.7500" in home and "0.7000 .. 0.8000" in home
    (stay,) = [line for line in lines if "stay" in line]
    assert "1.5000" in stay and "all" in stay
    assert lines[-2:] == ["mean_task_auc: 0.7500", "mean_cell_auc: -"]
    assert not any("gauc_coverage" in line for line in lines)


def test_a_report_shows_the_order_inside_lists_and_that_of_the_score(capsys):
    order = {"by": "group", "lists": 7, "lists_without_positives": 2}
    order |= {"ndcg@1": 0.25, "ndcg@5": 0.5, "map@1": 0.125, "map@5": None, "mrr": 0.75}
    order["ci"] = dict.fromkeys(("ndcg@1", "ndcg@5", "map@1", "map@5", "mrr"))
    report = _report()
    click = report["tasks"]["click"]  # type: ignore[index]
    click["ranking"] = order
    click["scenarios"]["home"] = click["scenarios"]["home"] | {"ranking": order}
    fused = {"kind": "order", "ranking": dict(order, mrr=0.875), "scenarios": {}}
    report["fusion"] = {"form": "sum", "outputs": {"click": fused}}
    print_report(report)
    out = capsys.readouterr().out
    _, each, score = out.partition("order by each output, a list for each group")
    each, _, score = score.partition("order by the fused score")
    assert "map@5" in each and "map@1" not in each and "ndcg@1" in each
    assert each.count("0.7500") == 2 and "0.8750" in score
    assert "0.1250" not in out


def test_times_of_a_manifest_are_days():
    assert datasets._day(1_736_000_000_000_000.0) == "2025-01-04 14:13"
    assert datasets._day(None) == "?"
    assert datasets._day(1e30) == "1e+30"
