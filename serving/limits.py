"""How large a request may be, apart from the server so that it can be known cheaply."""

from __future__ import annotations

MAX_BODY_BYTES = 64 * 2**20
