"""`make bench`: what it promises, what it tells, and with which exit code it ends."""

from __future__ import annotations

import io
import json
import os
import time

import pytest

from benchmarks import run
from benchmarks.targets import (
    Benchmark,
    Failed,
    Skipped,
    Target,
    carry_out,
    conclude,
    python,
)

FAST = Target("start-up", 15, "s")
RATIO = Target("ratio", 10, "x", at_most=False)
SEEN = Target("cell mean")


def benchmark(figures, *targets):
    def measure():
        if isinstance(figures, Exception):
            raise figures
        return figures

    return Benchmark("some", targets or (FAST, RATIO, SEEN), measure)


def carried_out(*benchmarks):
    """Exit code and output of a whole run."""
    stream = io.StringIO()
    outcomes = [o for b in benchmarks for o in carry_out(b, stream)]
    return conclude(outcomes, stream), stream.getvalue()


GOOD = benchmark({"start-up": 14.0, "ratio": 10.0, "cell mean": 0.5})


def test_targets_that_are_met():
    code, text = carried_out(GOOD)
    assert code == 0
    lines = [line.split("  ") for line in text.splitlines()]
    cells = [[c.strip() for c in line if c.strip()] for line in lines]
    assert ["start-up", "14 s", "<= 15 s", "pass"] in cells
    assert ["ratio", "10 x", ">= 10 x", "pass"] in cells
    assert ["cell mean", "0.5", "-", "measured"] in cells
    assert "failed" not in text and "missed" not in text


@pytest.mark.parametrize("figure", [9.9, float("nan")])
def test_a_missed_target_is_named(figure):
    code, text = carried_out(GOOD, benchmark({"ratio": figure}, RATIO))
    assert code == 1
    assert text.splitlines()[-1] == "missed: ratio"


def test_a_failed_benchmark_is_named_and_the_next_goes_on():
    code, text = carried_out(benchmark(Failed("no such thing"), FAST), GOOD)
    assert code == 1
    assert "FAILED: no such thing" in text
    assert text.splitlines()[-1] == "failed: start-up"
    assert "14 s" in text


def test_a_benchmark_without_its_figure_has_failed():
    code, text = carried_out(benchmark({"start-up": 1.0}))
    assert code == 1 and "no figure for: ratio, cell mean" in text


def test_what_is_skipped_is_no_failure():
    code, text = carried_out(benchmark(Skipped("get it so"), RATIO), GOOD)
    assert code == 0
    assert "skipped: get it so" in text
    assert text.splitlines()[-1] == "skipped: ratio"


def test_a_command_that_fails_says_what_it_said():
    output, seconds = python("-c", "print('{}')", limit=60)
    assert output == "{}\n" and seconds > 0
    code = "import sys; print('so far'); sys.exit('broken')"
    with pytest.raises(Failed, match=r"(?s)exit code 1.*so far.*broken"):
        python("-c", code, limit=60)
    with pytest.raises(Failed, match="exit code 1"):
        python("-c", code, limit=60, codes=(0, 3))
    assert python("-c", code, limit=60, codes=(0, 1))[0] == "so far\n"


def test_a_command_is_stopped_with_what_it_started(tmp_path):
    child = tmp_path / "child"
    code = (
        "import pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(9e9)'"
        f"])\npathlib.Path({str(child)!r}).write_text(str(child.pid))\ntime.sleep(9e9)"
    )
    with pytest.raises(Failed, match="stopped after its limit"):
        python("-c", code, limit=3)
    pid = int(child.read_text())
    for _ in range(500):
        if not _running(pid):
            return
        time.sleep(0.01)
    raise AssertionError(f"process {pid} is still running")


def _running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_real_data_come_from_where_one_says(tmp_path):
    (tmp_path / "movielens-1m").mkdir()
    assert run.data(tmp_path, *run.MOVIELENS) == tmp_path / "movielens-1m"
    how = f"tfmtl data download kuairand --out {tmp_path}/kuairand-pure"
    with pytest.raises(Skipped) as caught:
        run.data(tmp_path, *run.KUAIRAND)
    assert how in str(caught.value)
    assert f'make bench ARGS="--raw {tmp_path}"' in str(caught.value)
    with pytest.raises(Skipped, match="no folder of real data is given"):
        run.data(None, *run.KUAIRAND)


def test_the_cost_of_balancers_is_that_of_this_call(tmp_path, monkeypatch):
    (tmp_path / "kuairand-pure").mkdir()
    kept = tmp_path / "balancing" / "balancing_cost.json"
    kept.parent.mkdir()
    kept.write_text("of an earlier call")

    def fake(*arguments, limit):
        assert not kept.exists()
        rows = [
            {"name": n, "config": c, "cpu_ms": ms, "cpu_equal_ms": 10.0}
            for n, c, ms in [
                ("FAMO", {}, 14.0),
                ("PCGrad", {}, 30.0),
                ("PCGrad", {"gradients": "representation"}, 12.0),
            ]
        ]
        rows.append({"name": "GradNorm", "config": {}, "failed": "why"})
        kept.write_text(json.dumps(rows))
        return "", 1.0

    monkeypatch.setattr(run, "python", fake)
    assert run._balancers(tmp_path, tmp_path) == {
        "a step with FAMO, times Equal's": 1.4,
        "a step with PCGrad, times Equal's": 3.0,
        "a step with PCGrad at activations, times Equal's": 1.2,
    }


@pytest.mark.parametrize("how", ["argument", "variable", "neither"])
def test_the_whole_run(how, tmp_path, monkeypatch, capsys):
    seen = []

    def fake(work, raw, *, full, tests):
        assert work.is_dir()
        seen.append((raw, full, tests))
        return [benchmark(Failed("broken"), FAST), GOOD]

    monkeypatch.setattr(run, "benchmarks", fake)
    monkeypatch.delenv("TFMTL_DATA", raising=False)
    if how == "variable":
        monkeypatch.setenv("TFMTL_DATA", str(tmp_path))
    options = ["--raw", str(tmp_path), "--full"] if how == "argument" else ["--tests"]
    assert run.main(options) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "failed: start-up"
    raw = None if how == "neither" else tmp_path
    assert seen == [(raw, how == "argument", how != "argument")]


def test_a_folder_of_data_that_is_none(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        run.main(["--raw", str(tmp_path / "absent")])
    assert caught.value.code == 2
    assert "--raw must be a folder" in capsys.readouterr().err


def test_every_figure_has_a_name_of_its_own(tmp_path):
    quick = run.benchmarks(tmp_path, None, full=False, tests=False)
    every = run.benchmarks(tmp_path, None, full=True, tests=True)
    names = [t.name for b in every for t in b.targets]
    assert len(set(names)) == len(names)
    assert {t.name for b in quick for t in b.targets} < set(names)


def test_without_data_the_benchmarks_on_them_are_skipped(tmp_path):
    skipped = 0
    for one in run.benchmarks(tmp_path, None, full=True, tests=False):
        if any(
            word in one.title for word in ("KuaiRand", "MovieLens", "kuai", "movie")
        ):
            outcomes = carry_out(one, io.StringIO())
            assert {o.state for o in outcomes} == {"skipped"}
            skipped += 1
    assert skipped == 6
    assert os.listdir(tmp_path) == []


def test_a_command_without_figures_has_failed():
    assert run.json_lines('text\n{"a": 1}\n{"b": 2}\n') == [{"a": 1}, {"b": 2}]
    with pytest.raises(Failed, match="no figures"):
        run.json_lines("text\n")
