"""What a model asks the reader to draw beside each training row."""

from __future__ import annotations

from pydantic import Field

from tfmtl.schema.base import Spec


class SampleSpec(Spec):
    """Other items of the training rows: a context item and negatives for each row.

    A positive is a row whose label of `task` is above 0. The records know nothing of
    this: an architecture asks for it, and only training batches have it.
    """

    task: str
    """The task whose positive rows are a user's events."""
    columns: tuple[str, ...] = Field(min_length=1)
    """Record columns that describe an item: what is delivered of the drawn ones."""
    item: str
    """Which of them names the item, to count how often it is among the positives."""
    window: int = Field(ge=1)
    """The context comes from so many of the user's events before, and after, the
    row's."""
    negatives: int = Field(ge=1)
    """Negatives a row."""
    power: float = Field(ge=0)
    """An item is drawn as a negative in proportion to its number of events to this
    power: 1 as often as it occurs, 0 all items alike."""
