"""`report.md`: the report of a search for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_LOW_R2 = 0.2
_SHOWN = 20  # points of the front in the table


def markdown(document: Mapping[str, Any]) -> str:
    """The page of a document that `summary.summarize` returned."""
    parts = [
        "# Report of a search",
        *_asked(document),
        *_winner(document),
        *_retrained(document),
        *_top(document),
        *_front(document),
        *_importance(document),
        *_ends(document),
    ]
    return "\n\n".join(parts) + "\n"


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table; numbers stand on the right, bars in cells are escaped."""
    right = [
        any(isinstance(row[place], int | float) for row in rows)
        for place in range(len(columns))
    ]
    lines = [
        _line([_cell(column) for column in columns]),
        _line(["---:" if number else "---" for number in right]),
        *(_line([_cell(value) for value in row]) for row in rows),
    ]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = f"{value:.4f}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _value(value: Any) -> str:
    """A hyper-parameter's value, with four digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


def _values(values: Mapping[str, Any]) -> str:
    """`path: value` of each."""
    return ", ".join(f"{path}: {_value(value)}" for path, value in values.items())


def _asked(document: Mapping[str, Any]) -> Iterator[str]:
    yield "## What was asked"
    lines = [
        f"- {'maximise' if o['maximize'] else 'minimise'} `{o['metric']}` (validation)"
        for o in document["objectives"]
    ]
    lines += [f"- keep `{bound}`" for bound in document["bounds"]]
    lines += [
        f"- {name}: {value if isinstance(value, str) else json.dumps(value)}"
        for name, value in document["asked"].items()
    ]
    yield "\n".join(lines)
    counts = document["trials"]
    said = (
        f"{counts['total']} trials in {counts['seconds']:.0f} s of training: "
        f"{counts['finished']} finished, {counts['pruned']} pruned, "
        f"{counts['failed']} failed; {counts['reused']} took the run of an equal one."
    )
    if document["bounds"]:
        said += f" {counts['keep_bounds']} keep all bounds."
    yield said


def _winner(document: Mapping[str, Any]) -> Iterator[str]:
    yield "## Winner"
    found = document["winner"]
    if found is None:
        yield "None: no trial has all metrics that the goal reads."
        return
    how = (
        f"by the mean over {found['seeds']} seeds"
        if found["seeds"] > 1
        else "by one seed, which may be luck"
    )
    yield f"**{found['label']}**, {how}: " + ", ".join(
        f"`{name}` {value:.4f}" for name, value in found["metrics"].items()
    )
    if not found["keeps_bounds"]:
        which = (
            "none of the trials that were trained again does, in the mean over seeds"
            if found["seeds"] > 1
            else "none does"
        )
        yield f"It does not keep all bounds: {which}, and it misses them by the least."
    if found["values"]:
        rows = [
            [f"`{p}`", _values({p: v})[len(p) + 2 :]]
            for p, v in found["values"].items()
        ]
        yield table(["hyper-parameter", "value"], rows)


def _retrained(document: Mapping[str, Any]) -> Iterator[str]:
    """Controls and tuned ones, over seeds: metrics, then gains, then cost."""
    rows = document["retrained"]
    if not rows:
        return
    yield "## Beside the controls"
    yield (
        "Mean and standard deviation over seeds. The winner was chosen on validation "
        "among the tuned rows, so that its own row there flatters it; test was not "
        "looked at."
    )
    for split in ("validation", "test"):
        names = [n for n in document["metrics"] if any(n in r[split] for r in rows)]
        if names:
            yield f"### On {split}"
            yield table(
                ["", "seeds", *names],
                [
                    [
                        _label(r),
                        len(r["seeds"]),
                        *(_spread(r[split].get(n)) for n in names),
                    ]
                    for r in rows
                ],
            )
            yield from _gains(document, split, names)
            yield from _over_rival(document, split, names)
    yield "### What they cost"
    yield table(
        [
            "",
            "trials spent",
            "seconds of these",
            "seconds of the seeds",
            "failed seeds",
        ],
        [
            [
                _label(r),
                r["trials"],
                round(r["spent"]),
                round(r["seconds"]),
                ", ".join(f"{s}: {why}" for s, why in r["failed"].items()) or "none",
            ]
            for r in rows
        ],
    )


def _gains(
    document: Mapping[str, Any], split: str, names: Sequence[str]
) -> Iterator[str]:
    over = document["gains_over"]
    rows = [r for r in document["retrained"] if r["gain"][split]]
    if over is None or not rows:
        return
    yield (
        f"Gain over {over} with the same seeds (above 0: better, of errors too), and "
        "the 95 % interval of Student's t over seeds:"
    )
    yield table(
        ["", *names],
        [[_label(r), *(_gain(r["gain"][split].get(n)) for n in names)] for r in rows],
    )


def _over_rival(
    document: Mapping[str, Any], split: str, names: Sequence[str]
) -> Iterator[str]:
    """What the winner has over the best gradient balancer."""
    rival = document["rival"]
    if rival is None or not rival["gain"][split]:
        return
    told = ", ".join(
        f"`{n}` {_gain(rival['gain'][split][n])}"
        for n in names
        if n in rival["gain"][split]
    )
    yield (
        f"Gain of the winner over the best gradient balancer, {rival['label']}, which "
        f"{rival['trials']} trials were spent on: {told}."
    )


def _label(row: Mapping[str, Any]) -> str:
    return f"**{row['label']}** (winner)" if row["winner"] else row["label"]


def _spread(found: Mapping[str, Any] | None) -> str | None:
    if found is None:
        return None
    sd = "" if found["sd"] is None else f" ± {found['sd']:.4f}"
    return f"{found['mean']:.4f}{sd}"


def _gain(found: Mapping[str, Any] | None) -> str | None:
    if found is None:
        return None
    if found["low"] is None:
        return f"{found['mean']:+.4f} (one seed)"
    return f"{found['mean']:+.4f} [{found['low']:+.4f}, {found['high']:+.4f}]"


def _top(document: Mapping[str, Any]) -> Iterator[str]:
    rows = document["top"]
    if not rows:
        return
    yield f"## The best {len(rows)} trials, of one seed each"
    names = list(rows[0]["metrics"])
    bounds = ["keeps bounds"] if document["bounds"] else []
    yield table(
        ["trial", *names, *bounds, "ended", "values"],
        [
            [
                row["trial"],
                *(row["metrics"][name] for name in names),
                *([row["keeps_bounds"]] if bounds else []),
                row["status"],
                _values(row["values"]),
            ]
            for row in rows
        ],
    )


def _front(document: Mapping[str, Any]) -> Iterator[str]:
    found = document["front"]
    if found is None:
        return
    yield "## Front"
    points = found["points"]
    if not points:
        yield "Empty: no trial keeps all bounds."
        return
    reference = ", ".join(f"`{n}` {v:.4f}" for n, v in found["reference"].items())
    yield (
        f"{len(points)} trials, none of which is at least as good in all objectives as "
        f"another. Hypervolume {found['hypervolume']:.6g} above {reference}, the worst "
        "that a trial of this search reached in each (or what was given)."
    )
    names = list(points[0]["metrics"])
    yield table(
        ["trial", *names, "values"],
        [
            [p["trial"], *(p["metrics"][n] for n in names), _values(p["values"])]
            for p in points[:_SHOWN]
        ],
    )
    if len(points) > _SHOWN:
        yield f"{len(points) - _SHOWN} more are in `report.json`."


def _importance(document: Mapping[str, Any]) -> Iterator[str]:
    found = document["importance"]
    if found is None:
        return
    yield "## Importance of the hyper-parameters"
    if found["found"]:
        yield (
            "Share of the variance that each decides by itself (functional ANOVA of a "
            "random forest); R2 is the forest's, on trials that it did not see."
        )
        targets = found["found"]
        paths = list(targets[0]["shares"])
        rows: list[list[Any]] = [
            [f"`{path}`", *(f"{t['shares'][path]:.0%}" for t in targets)]
            for path in paths
        ]
        rows.append(["interactions", *(f"{t['interactions']:.0%}" for t in targets)])
        known = [t["r2"] for t in targets]
        rows.append(["R2", *(None if r2 is None else f"{r2:.2f}" for r2 in known)])
        yield table(["", *(t["target"] for t in targets)], rows)
        doubtful = [t["target"] for t in targets if (t["r2"] or 0.0) < _LOW_R2]
        if doubtful:
            yield (
                f"Not to be believed of {', '.join(doubtful)}: the forest explains "
                f"less than {_LOW_R2:.0%} of what it did not see."
            )
    if found["reason"]:
        yield f"None of some or all: {found['reason']}."


def _ends(document: Mapping[str, Any]) -> Iterator[str]:
    """Failed and reused trials."""
    if document["failed"]:
        yield "## Failed trials"
        yield table(
            ["trial", "reason"], [[r["trial"], r["reason"]] for r in document["failed"]]
        )
    if document["reused"]:
        yield "## Reused trials"
        yield table(
            ["trial", "has the run of"],
            [[r["trial"], r["of"]] for r in document["reused"]],
        )
