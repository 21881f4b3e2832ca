"""The tables of `benchmarks.balancing`: what a balancer costs, and what it buys."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from benchmarks.reproduction import plus_minus, t_interval
from benchmarks.targets import BALANCING
from benchmarks.trials import Record, table
from tfmtl.balance import BALANCERS

CONTROLS = ("Equal", "Fixed")


def limit_of(row: Record) -> float | None:
    """The promised ratio to Equal; None where none is promised."""
    name, protocol = row["name"], BALANCERS[row["name"]].protocol
    if name in BALANCING:
        return BALANCING[name]
    if protocol == "gradient weighting":
        at_cut = name == "MGDA-UB" or "representation" in row["config"].values()
        return BALANCING["representation" if at_cut else "full"]
    return BALANCING.get(protocol)


def ratios(row: Record) -> tuple[float, float]:
    """A step's processor time, and its time, each by that of Equal's."""
    return row["cpu_ms"] / row["cpu_equal_ms"], row["ms"] / row["equal_ms"]


def cost_table(rows: Iterable[Record]) -> str:
    """A line a variant."""
    rows = list(rows)
    peaks = [r["peak_mib"] for r in rows if r["name"] == "Equal" and "peak_mib" in r]
    lines = []
    for row in rows:
        how = row["config"].get("gradients", "")
        if not how and BALANCERS[row["name"]].backward_passes == "T":
            how = "full"
        if "failed" in row:
            reason = row["failed"].replace("|", "\\|")
            lines.append([row["name"], how, reason, *[""] * 4])
            continue
        spent, ratio = ratios(row)
        limit = limit_of(row)
        lines.append(
            [
                row["name"],
                how,
                f"{spent:.2f}",
                f"{ratio:.2f}",
                "-" if limit is None else f"{limit:.2f}",
                "-" if limit is None else "yes" if spent <= limit else "no",
                f"{row['peak_mib'] - peaks[0]:+.0f}" if peaks else "-",
            ]
        )
    head = ["balancer", "gradients", "times Equal's", "by the clock"]
    return table([*head, "at most", "kept", "MiB more"], lines)


class Accuracy:
    """Trials of one data set by balancer and seed.

    Args:
        tasks: Of the mean.
        trials: Of the balancers; those that failed are told apart.
    """

    def __init__(self, tasks: Sequence[str], trials: Iterable[Record]) -> None:
        self.tasks = tasks
        self.failed: dict[str, str] = {}
        self.runs: dict[str, dict[int, Record]] = {}
        for trial in trials:
            if "failed" in trial:
                self.failed[trial["model"]] = trial["failed"]
            else:
                self.runs.setdefault(trial["model"], {})[trial["seed"]] = trial

    def gains(self, name: str, control: str) -> list[float]:
        """Differences of the mean AUC from a control's, seed by seed."""
        mine, theirs = self.runs.get(name, {}), self.runs.get(control, {})
        both = sorted(set(mine) & set(theirs))
        return [mine[s]["mean_task_auc"] - theirs[s]["mean_task_auc"] for s in both]

    def table(self) -> str:
        """A line a balancer: mean AUC, gains over the controls, each task's AUC."""
        lines = [self._line(name) for name in BALANCERS]
        over = [f"over {control}" for control in CONTROLS]
        head = ["balancer", "mean AUC", *over, *self.tasks, "seeds"]
        return table(head, lines)

    def _line(self, name: str) -> list[str]:
        width = len(CONTROLS) + len(self.tasks)
        runs = list(self.runs.get(name, {}).values())
        if not runs:
            reason = self.failed.get(name)
            said = f"failed: {reason[:120]}".replace("|", "\\|") if reason else "-"
            return [name, said, *["-"] * width, "0"]
        return [
            name,
            plus_minus([r["mean_task_auc"] for r in runs]),
            *(self._gain(name, control) for control in CONTROLS),
            *(plus_minus([r["tasks"][t]["auc"] for r in runs]) for t in self.tasks),
            str(len(runs)),
        ]

    def _gain(self, name: str, control: str) -> str:
        gains = self.gains(name, control)
        if name == control or not gains:
            return "-"
        text = f"{statistics.mean(gains):+.4f}"
        if len(gains) > 1:
            low, high = t_interval(gains)
            text += f" ({low:+.4f} to {high:+.4f})"
        return text

    def findings(self) -> list[str]:
        """Who is ahead of a control, and behind, in all the paired intervals say."""
        lines = []
        for control in CONTROLS:
            ahead, behind, level = [], [], []
            for name in self.runs:
                gains = self.gains(name, control)
                if name == control or len(gains) < 2:
                    continue
                low, high = t_interval(gains)
                where = ahead if low > 0 else behind if high < 0 else level
                where.append((statistics.mean(gains), name))
            if not ahead + behind + level:
                lines.append(f"- Against {control}: no second seed, no spread to tell.")
                continue
            told = [
                ", ".join(f"{name} ({gain:+.4f})" for gain, name in group) or "none"
                for group in (sorted(ahead, reverse=True), sorted(behind))
            ]
            lines.append(
                f"- Against {control}, ahead beyond the seeds' spread: {told[0]}; "
                f"behind: {told[1]}; {len(level)} of "
                f"{len(ahead) + len(behind) + len(level)} not told apart."
            )
        return lines
