"""Files for clusters: valid to the tools that read them, closed to strangers, and of the versions that geoseg has."""

from __future__ import annotations

import copy
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import geoseg
from geoseg.run.meters import METERS
from tests.infra.manifests import Document, Pod, documents, reaches, schema_errors
from tests.run.results import write_scene

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
KUBERAY = INFRA / "kuberay"
CLUSTERS = sorted((INFRA / "ray_up").glob("*.yaml"))
OURS = [
    path for path in INFRA.rglob("*") if path.is_file() and "qgis" not in path.parts and path.suffix != ".pyc"
]
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split("\n") if "==" in line)

RAYJOB = documents(KUBERAY / "rayjob.yaml")[0]
CLUSTER = RAYJOB["spec"]["rayClusterSpec"]
CORE = documents(*(KUBERAY / name for name in ("storage.yaml", "network.yaml", "nightly.yaml")))
POLICIES = [
    {**policy, "metadata": {**policy["metadata"], "namespace": "geoseg"}}
    for policy in CORE
    if policy["kind"] == "NetworkPolicy"
]
(CRONJOB,) = (document for document in CORE if document["kind"] == "CronJob")


def templates() -> Iterator[tuple[str, Document]]:
    yield "submitter", RAYJOB["spec"]["submitterPodTemplate"]
    yield "head", CLUSTER["headGroupSpec"]["template"]
    for group in CLUSTER["workerGroupSpecs"]:
        yield f"worker {group['groupName']}", group["template"]
    yield "starter", CRONJOB["spec"]["jobTemplate"]["spec"]["template"]


TEMPLATES = dict(templates())


@pytest.fixture(params=TEMPLATES)
def template(request: pytest.FixtureRequest) -> Document:
    return TEMPLATES[request.param]


# Kubernetes


@pytest.mark.parametrize(
    "document", [RAYJOB, *CORE], ids=lambda d: f"{d['kind']}-{d['metadata'].get('name', '')}"
)
def test_manifests_are_valid_to_the_api_server(document: Document) -> None:
    assert schema_errors(document) == []


def spoil(change: Callable[[Document], Any], document: Document) -> Document:
    spoilt = copy.deepcopy(document)
    change(spoilt)
    return spoilt


@pytest.mark.parametrize(
    ("document", "change"),
    [
        (RAYJOB, lambda d: d["spec"].update(shutdownAfterJobFinish=True)),
        (RAYJOB, lambda d: d["spec"].update(ttlSecondsAfterFinished="soon")),
        (RAYJOB, lambda d: d["spec"].update(deletionStrategy={})),  # only a rule in CEL refuses it
        (RAYJOB, lambda d: d["spec"]["rayClusterSpec"]["authOptions"].update(mode="none")),
        (
            RAYJOB,
            lambda d: d["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"].update(volume=[]),
        ),
        (CRONJOB, lambda d: d["spec"].update(concurrency="Forbid")),
        (CRONJOB, lambda d: d["spec"].pop("schedule")),
        (POLICIES[1], lambda d: d["spec"].update(policyType=["Ingress"])),
    ],
)
def test_the_check_refuses_what_the_api_server_would(
    document: Document, change: Callable[[Document], Any]
) -> None:
    assert schema_errors(spoil(change, document))


@pytest.fixture(scope="module")
def applied() -> list[Document]:
    """What `kubectl apply -k` sends."""
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl, to build what it would apply")
    done = subprocess.run(["kubectl", "kustomize", KUBERAY], capture_output=True, text=True, check=True)
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def test_the_cron_job_creates_the_ray_job_that_is_in_its_file(applied: list[Document]) -> None:
    assert all(schema_errors(document) == [] for document in applied)
    by_kind = {document["kind"]: document for document in applied}
    assert all(d["metadata"].get("namespace", "geoseg") == "geoseg" for d in applied)
    files = by_kind["ConfigMap"]["data"]
    pod = by_kind["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (volume,) = (v for v in pod["volumes"] if "configMap" in v)
    assert volume["configMap"]["name"] == by_kind["ConfigMap"]["metadata"]["name"]
    (mount,) = (m for m in container["volumeMounts"] if m["name"] == volume["name"])
    (path,) = (Path(a.partition("=")[2]) for a in container["args"] if a.startswith("--filename="))
    assert path.parent == Path(mount["mountPath"])
    assert yaml.safe_load(files[path.name]) == RAYJOB
    assert "Secret" not in by_kind


def test_the_entrypoint_reads_the_job_of_the_readme(tmp_path: Path) -> None:
    python, script, job = RAYJOB["spec"]["entrypoint"].split()
    assert (python, Path(script).parent, Path(job).parent) == (
        "python",
        Path("/opt/workflows"),
        Path("/data"),
    )
    (example,) = re.findall(r"```yaml\n(.*?)```", (INFRA / "README.md").read_text(), re.DOTALL)
    (tmp_path / Path(job).name).write_text(example)
    (tmp_path / "incoming").mkdir()
    write_scene(tmp_path / "incoming" / "town.tif", 64, 64)
    command = [sys.executable, ROOT / "workflows" / Path(script).name, tmp_path / Path(job).name, "--list"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "town" in done.stdout
    assert yaml.safe_load(example)["job"]["hours"] * 3600 < RAYJOB["spec"]["activeDeadlineSeconds"]


def test_nights_do_not_overlap() -> None:
    """The cron job ends when the RayJob is created, so that its own Forbid is not enough."""
    assert CRONJOB["spec"]["concurrencyPolicy"] == "Forbid"
    minute, hour, *days = CRONJOB["spec"]["schedule"].split()
    assert minute.isdecimal() and hour.isdecimal() and days == ["*"] * 3
    assert RAYJOB["spec"]["activeDeadlineSeconds"] + CRONJOB["spec"]["startingDeadlineSeconds"] <= 24 * 3600


def test_the_cluster_goes_when_the_job_is_done() -> None:
    assert RAYJOB["spec"]["shutdownAfterJobFinishes"] is True
    assert 0 < RAYJOB["spec"]["ttlSecondsAfterFinished"] <= 3600


def test_the_account_of_the_cron_job_can_only_create_ray_jobs() -> None:
    by_kind = {document["kind"]: document for document in CORE}
    assert by_kind["Role"]["rules"] == [
        {"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create"]}
    ]
    binding, account = by_kind["RoleBinding"], by_kind["ServiceAccount"]["metadata"]["name"]
    assert [subject["name"] for subject in binding["subjects"]] == [account]
    assert (binding["roleRef"]["kind"], binding["roleRef"]["name"]) == (
        "Role",
        by_kind["Role"]["metadata"]["name"],
    )
    assert TEMPLATES["starter"]["spec"]["serviceAccountName"] == account
    assert not any(kind.startswith("Cluster") for kind in by_kind)


def test_ray_asks_for_a_token_that_no_file_holds() -> None:
    assert CLUSTER["authOptions"] == {"mode": "token"}


def test_pods_give_up_what_the_restricted_standard_asks_and_more(template: Document) -> None:
    spec = template["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    assert not any("hostPath" in volume for volume in spec["volumes"])
    for container in spec["containers"]:
        assert_confined(container["securityContext"])
        writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
        assert "/tmp" in writable


def test_the_autoscaler_beside_the_head_is_confined_as_well() -> None:
    assert_confined(CLUSTER["autoscalerOptions"]["securityContext"])
    assert [mount["mountPath"] for mount in CLUSTER["autoscalerOptions"]["volumeMounts"]] == ["/tmp"]


def assert_confined(context: Document) -> None:
    assert context["allowPrivilegeEscalation"] is False
    assert context["readOnlyRootFilesystem"] is True
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert not context.get("privileged")


def test_only_who_speaks_to_the_api_server_has_a_token_for_it() -> None:
    """KubeRay gives the head an account of its own, with which its autoscaler asks for pods."""
    silent = [name for name, t in TEMPLATES.items() if t["spec"].get("automountServiceAccountToken") is False]
    assert sorted(set(TEMPLATES) - set(silent)) == ["head", "starter"]


def test_every_container_and_volume_has_its_limits(template: Document) -> None:
    volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
    for container in template["spec"]["containers"]:
        requests, limits = (container["resources"][key] for key in ("requests", "limits"))
        assert set(requests) == set(limits) >= {"cpu", "memory", "ephemeral-storage"}
        assert all(quantity(requests[name]) <= quantity(limits[name]) for name in limits)
        assert requests.get("nvidia.com/gpu") == limits.get("nvidia.com/gpu")
        for mount in container["volumeMounts"]:
            if "emptyDir" in (volume := volumes[mount["name"]]):
                assert quantity(volume["emptyDir"]["sizeLimit"]) <= quantity(limits["ephemeral-storage"])


def quantity(text: str) -> float:
    """Number of a Kubernetes quantity, such as 250m or 4Gi."""
    number, unit = re.fullmatch(r"([\d.]+)([a-zA-Z]*)", str(text)).groups()  # type: ignore[union-attr]
    scale = {"": 1.0, "m": 1e-3} | {f"{p}i": 1024.0**i for i, p in enumerate("KMGT", 1)}
    return float(number) * scale[unit]


def test_prometheus_finds_the_metrics_of_every_node() -> None:
    for name, template in TEMPLATES.items():
        if name not in ("submitter", "starter"):
            notes = template["metadata"]["annotations"]
            ports = {p["name"]: p["containerPort"] for p in template["spec"]["containers"][0]["ports"]}
            assert notes["prometheus.io/scrape"] == "true"
            assert int(notes["prometheus.io/port"]) == ports["metrics"] == 8080


def test_workers_of_both_kinds_scale_and_the_head_computes_nothing() -> None:
    assert CLUSTER["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert CLUSTER["enableInTreeAutoscaling"] is True
    groups = {group["groupName"]: group for group in CLUSTER["workerGroupSpecs"]}
    for group in groups.values():
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"] > 1
    gpu = groups["gpu"]["template"]["spec"]["containers"][0]
    assert gpu["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert gpu["image"].endswith("-cuda")


# The network

ROLES = {role: Pod("geoseg", (("geoseg-role", role),)) for role in ("head", "worker", "submitter", "starter")}
STRANGER = Pod("geoseg")
ELSEWHERE = Pod("default", (("geoseg-role", "head"),))
OPERATOR = Pod("kuberay-system", (("app.kubernetes.io/name", "kuberay-operator"),))
PROMETHEUS = Pod("monitoring", (("app.kubernetes.io/name", "prometheus"),))
DNS = Pod("kube-system", (("k8s-app", "kube-dns"),))
INTERNET = Pod("")
RAY_PORTS = (6379, 8076, 8080, 8265, 10001, 52365, 30000)


def test_roles_are_those_of_the_pods() -> None:
    assert {t["metadata"]["labels"]["geoseg-role"] for t in TEMPLATES.values()} == set(ROLES)


@pytest.mark.parametrize("port", RAY_PORTS)
@pytest.mark.parametrize("target", ["head", "worker"])
def test_only_nodes_of_the_cluster_reach_its_ports(target: str, port: int) -> None:
    for node in ("head", "worker"):
        assert reaches(POLICIES, ROLES[node], ROLES[target], port)
    for other in (STRANGER, ELSEWHERE, INTERNET, ROLES["starter"], DNS):
        assert not reaches(POLICIES, other, ROLES[target], port)
    dashboard = (target, port) == ("head", 8265)
    assert reaches(POLICIES, ROLES["submitter"], ROLES[target], port) == dashboard
    assert reaches(POLICIES, OPERATOR, ROLES[target], port) == dashboard
    assert reaches(POLICIES, Pod("kuberay-system"), ROLES[target], port) is False
    assert reaches(POLICIES, PROMETHEUS, ROLES[target], port) == (port == 8080)


@pytest.mark.parametrize("role", ROLES)
def test_nodes_reach_nothing_but_what_they_need(role: str) -> None:
    talks_to_api = role in ("head", "starter")
    assert reaches(POLICIES, ROLES[role], INTERNET, 6443) == talks_to_api
    assert reaches(POLICIES, ROLES[role], INTERNET, 443) == talks_to_api
    assert not reaches(POLICIES, ROLES[role], INTERNET, 80)
    assert reaches(POLICIES, ROLES[role], DNS, 53, "UDP") == (role != "starter")
    assert not reaches(POLICIES, ROLES[role], ELSEWHERE, 6379)


def test_pods_without_a_role_reach_nobody_and_are_reached_by_nobody() -> None:
    for pod in (*ROLES.values(), OPERATOR, PROMETHEUS, INTERNET):
        assert not reaches(POLICIES, pod, STRANGER, 80)
        assert not reaches(POLICIES, STRANGER, pod, 443)


def test_without_its_policies_the_cluster_would_be_open() -> None:
    assert reaches([], INTERNET, ROLES["head"], 8265)


# ray up


@pytest.fixture(params=CLUSTERS, ids=lambda path: path.stem)
def cluster(request: pytest.FixtureRequest) -> Document:
    return yaml.safe_load(request.param.read_text())


def starts(cluster: Document) -> dict[str, str]:
    """The command line that starts Ray, for each kind of node."""
    found = {}
    for kind in ("head", "worker"):
        (found[kind],) = (line for line in cluster[f"{kind}_start_ray_commands"] if "ray start" in line)
    return found


def ray_start_options(words: list[str]) -> dict[str, Any]:
    """Options as `ray start` reads them. Raises click's error for what it does not know."""
    import click
    from ray.scripts.scripts import start

    values, rest, _ = start.make_parser(click.Context(start)).parse_args(list(words))
    assert not rest
    return values


def test_ray_up_takes_the_file(cluster: Document, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import ray.autoscaler
    from ray.autoscaler._private import util

    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.Draft7Validator(schema).validate(cluster)
    prepared = util.prepare_config(copy.deepcopy(cluster))
    util.validate_config(prepared)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(ROOT)
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").touch()
    for local in cluster["file_mounts"].values():
        assert Path(local).expanduser().exists()
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(schema).validate({**cluster, "min_worker": 1})


def test_nodes_of_ray_up_ask_for_the_token_and_show_the_dashboard_to_themselves(cluster: Document) -> None:
    assert cluster["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    for kind, line in starts(cluster).items():
        words = shlex.split(line.partition(";")[2])
        program = next(i for i, word in enumerate(words) if word.endswith("/bin/ray"))
        assert "RAY_AUTH_MODE=token" in words[:program]
        options = ray_start_options(words[program + 2 :])
        assert options.get("head", False) is (kind == "head")
        if kind == "head":
            assert options["dashboard_host"] == "127.0.0.1"
            assert options["num_cpus"] == "0"


def test_ec2_lets_in_ssh_from_one_address_only() -> None:
    provider = yaml.safe_load((INFRA / "ray_up" / "aws.yaml").read_text())["provider"]
    for permission in provider["security_group"]["IpPermissions"]:
        assert permission["FromPort"] == permission["ToPort"] == 22
        assert all(r["CidrIp"].endswith("/32") for r in permission["IpRanges"])
        assert not permission.get("Ipv6Ranges")


def test_the_script_of_a_node_is_sound_and_keeps_the_token_to_its_owner() -> None:
    script = INFRA / "ray_up" / "setup_node.sh"
    subprocess.run(["bash", "-n", script], check=True)
    text = script.read_text()
    assert "set -euo pipefail" in text
    assert "chmod 600 ~/.ray/auth_token" in text


# All


def test_ray_knows_every_start_parameter_of_the_manifests() -> None:
    for group in (CLUSTER["headGroupSpec"], *CLUSTER["workerGroupSpecs"]):
        line = " ".join(f"--{name}={value}" for name, value in group["rayStartParams"].items())
        options = ray_start_options(shlex.split(line))  # as the shell in the pod splits it
        if "resources" in options:
            assert json.loads(options["resources"]) == {"gpu_node": 1}


def test_versions_are_those_of_the_constraints() -> None:
    import ray

    assert CLUSTER["rayVersion"] == PINS["ray"] == ray.__version__
    images = {container["image"] for t in TEMPLATES.values() for container in t["spec"]["containers"]}
    ours = {image for image in images if image.split(":")[0].endswith("geoseg")}
    assert ours == {f"geoseg:{geoseg.__version__}", f"geoseg:{geoseg.__version__}-cuda"}
    assert all(re.search(r":v?\d+\.\d+\.\d+", image) for image in images)
    for path in (INFRA / "Dockerfile", INFRA / "README.md"):
        tags = set(re.findall(r"geoseg:(\d[\d.]*\d)", path.read_text()))
        assert tags == {geoseg.__version__}, path


def test_no_file_holds_a_secret() -> None:
    secret = re.compile(
        r"AKIA[0-9A-Z]{16}|-----BEGIN|\beyJ[\w-]{10}|[0-9a-fA-F]{32}|"
        r"(?i:password|passwd|secret_?key|RAY_AUTH_TOKEN)\s*[:=]\s*\S"
    )
    for path in OURS:
        assert not secret.search(path.read_text()), path


def test_the_readme_names_files_that_are_there() -> None:
    text = (INFRA / "README.md").read_text()
    named = set(re.findall(r"\b(?:infra|workflows)/[\w./]+\w", text))
    assert len(named) > 5
    for name in named:
        assert (ROOT / name).exists(), name


def test_every_meter_is_listed() -> None:
    listed = dict(re.findall(r"^\| `(geoseg_\w+)` \| (.+) \|$", (INFRA / "README.md").read_text(), re.M))
    assert listed == METERS
