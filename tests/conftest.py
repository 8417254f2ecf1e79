"""Fixtures of several test files."""

from __future__ import annotations

import pytest
from kernel_backends import NAMES, Backend, backend


@pytest.fixture(name="backend", params=NAMES)
def _backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Backend:
    return backend(request.param, monkeypatch)
