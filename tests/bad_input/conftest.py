"""A small good scene, and a way to try the command line on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bad_input.attempt import Attempt, Try, attempt
from tests.run.results import write_scene


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return write_scene(tmp_path / "good.tif", 200, 300)


@pytest.fixture
def run(tmp_path: Path, tiny_bundle: Path) -> Try:
    """`geoseg run ... -o tmp_path/out --model tiny`."""

    def call(*arguments: object, output: Path = tmp_path / "out", model: Path = tiny_bundle) -> Attempt:
        return attempt(output, *arguments, "--model", model)

    return call
