"""What a finding is."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that looks wrong in a run.

    Attributes:
        kind: Such as `conflicting_tasks`.
        subject: The task, gate or expert.
        number: What was measured.
        threshold: What it was compared with.
        text: What is wrong, with its figures.
        advice: What to try.
    """

    kind: str
    subject: str
    number: float
    threshold: float
    text: str
    advice: str
