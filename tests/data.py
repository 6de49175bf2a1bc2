"""Where the real imagery lies, for tests that need it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("GEOSEG_DATA") or Path(__file__).resolve().parents[1].parent / "shared" / "data")

needs_data = pytest.mark.skipif(
    not (DATA / "dubai").is_dir(), reason=f"no real imagery in {DATA} (set GEOSEG_DATA to its folder)"
)
