"""Free memory under control groups: those of a container, of systemd and of Slurm, in both versions."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg.model.memory import CGROUP, OWN_GROUPS, available_bytes

MB = 1 << 20
NAMES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}
UNLIMITED = {1: str(2**63 - 4096), 2: "max"}


def make_group(folder: Path, release: int, limit: int | None, used: int = 0, cached: int = 0) -> None:
    most, now, cache = NAMES[release]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / most).write_text(f"{UNLIMITED[release] if limit is None else limit}\n")
    (folder / now).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon {used - cached}\n{cache} {cached}\nslab 5\n")


def own_file(folder: Path, release: int, path: str) -> Path:
    own = folder / "own"
    memory = f"4:cpu,memory:{path}\n" if release == 1 else ""
    own.write_text(f"9:name=systemd:/elsewhere\n{memory}0::{path if release == 2 else '/'}\n")
    return own


def top(folder: Path, release: int) -> Path:
    return folder / "memory" if release == 1 else folder


@pytest.mark.parametrize("release", [1, 2])
@given(data=st.data())
def test_the_tightest_of_all_groups_above_counts(tmp_path_factory, release: int, data: st.DataObject) -> None:
    """Whichever of them it is, less what is in use, and not less what is cache."""
    folder = tmp_path_factory.mktemp("groups")
    group, expected = top(folder, release), [psutil.virtual_memory().total]
    for part in ("", "slurm", "job_7", "step_0"):
        group = group / part
        limit = data.draw(st.none() | st.integers(0, 64 * MB))
        used = data.draw(st.integers(0, 16 * MB))
        cached = data.draw(st.integers(0, used))
        make_group(group, release, limit, used, cached)
        if limit is not None:
            expected.append(max(0, limit - (used - cached)))
    if len(expected) == 1:
        return
    own = own_file(folder, release, "/slurm/job_7/step_0")
    assert available_bytes(folder, own) == min(expected)


@pytest.mark.parametrize("release", [1, 2])
def test_a_container_that_sees_its_group_as_the_top(tmp_path: Path, release: int) -> None:
    """Its path is that of the machine, where nothing is for it."""
    make_group(top(tmp_path, release), release, 30 * MB, 10 * MB)
    assert available_bytes(tmp_path, own_file(tmp_path, release, "/docker/4f1")) == 20 * MB
    assert available_bytes(tmp_path, own_file(tmp_path, release, "/../../other")) == 20 * MB


def test_without_groups_it_is_the_machines(tmp_path: Path) -> None:
    found = available_bytes(tmp_path, tmp_path / "none")
    assert found == pytest.approx(psutil.virtual_memory().available, rel=0.2)


@pytest.fixture
def real_group() -> Iterator[Path]:
    """A control group of this machine of at most 200 MB, below the one that this process is in."""
    lines = [line.split(":", 2) for line in OWN_GROUPS.read_text().splitlines()]
    release, path = next(((1, p) for _, names, p in lines if "memory" in names.split(",")), (2, ""))
    path = path or next(p for number, _, p in lines if number == "0")
    folder = top(CGROUP, release) / path.lstrip("/") / f"geoseg_test_{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no control groups can be made here ({error.strerror})")
    try:
        if not (folder / NAMES[release][0]).exists():
            pytest.skip("memory is not delegated to control groups here")
        (folder / NAMES[release][0]).write_text(str(200 * MB))
        yield folder
    finally:
        folder.rmdir()


def test_a_real_group_of_this_machine(real_group: Path) -> None:
    code = (
        "import os, pathlib, sys; pathlib.Path(sys.argv[1], 'cgroup.procs').write_text(str(os.getpid()))\n"
        "from geoseg.model.memory import available_bytes\n"
        "before = available_bytes(); held = bytearray(b'x') * (80 << 20)\n"
        "print(before, available_bytes())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(real_group)], capture_output=True, text=True, check=True, timeout=60
    )
    before, after = map(int, done.stdout.split())
    assert before <= 200 * MB
    assert before - after == pytest.approx(80 * MB, rel=0.15)
