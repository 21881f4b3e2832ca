"""Shows the values in failing asserts of the inherited tests."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tfmtl.testing.conformance", "tfmtl.testing.balancers")
