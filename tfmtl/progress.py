"""How long-running steps tell the command line, or anyone, where they are."""

from __future__ import annotations

from typing import Protocol


class Listener(Protocol):
    """Receives the progress of a long-running step."""

    def stage(self, name: str, total: int | None = None) -> None:
        """A stage begins; `total` units of work where known."""

    def advance(self, amount: int = 1) -> None:
        """So many units of the stage are done."""

    def note(self, text: str) -> None:
        """A figure or a warning worth a line."""


class Silent:
    """A listener that does nothing."""

    def stage(self, name: str, total: int | None = None) -> None:
        """Ignores it."""

    def advance(self, amount: int = 1) -> None:
        """Ignores it."""

    def note(self, text: str) -> None:
        """Ignores it."""
