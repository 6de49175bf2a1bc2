"""Manifests as Kubernetes sees them: its schemas, and network policies as a network plugin applies them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.data import DATA

CRDS = Path(os.environ.get("GEOSEG_KUBERAY_CRDS") or DATA.parent / "tools" / "crds")
"""KubeRay's custom resource definitions: ray-operator/config/crd/bases of its release 1.7."""
SCALARS = (
    "type",
    "enum",
    "required",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "pattern",
)

Document = dict[str, Any]


def documents(*paths: Path) -> list[Document]:
    return [found for path in paths for found in yaml.safe_load_all(path.read_text()) if found]


def schema_errors(document: Document) -> list[str]:
    """What the API server would refuse under strict validation. Skips where the schema is not here."""
    if document["apiVersion"].startswith("ray.io/"):
        return _custom_errors(document)
    reason = "needs kubernetes-validate, which brings the schemas of Kubernetes"
    kubernetes = pytest.importorskip("kubernetes_validate", reason=reason)
    try:
        kubernetes.validate(document, kubernetes.latest_version(), strict=True)
    except (jsonschema.ValidationError, kubernetes.ValidationError) as error:
        return [str(error)]
    return []


def _custom_errors(document: Document) -> list[str]:
    celpy = pytest.importorskip("celpy", reason="needs cel-python for the rules in KubeRay's definitions")
    path = CRDS / f"ray.io_{document['kind'].lower()}s.yaml"
    if not path.is_file():
        pytest.skip(f"no KubeRay definitions in {CRDS} (set GEOSEG_KUBERAY_CRDS to their folder)")
    crd = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    (version,) = (v for v in crd["spec"]["versions"] if document["apiVersion"].endswith(f"/{v['name']}"))
    schema = version["schema"]["openAPIV3Schema"]
    closed = _closed(schema)
    closed["properties"]["metadata"] = {"type": "object"}
    found = [
        f"{e.json_path}: {e.message}" for e in jsonschema.Draft202012Validator(closed).iter_errors(document)
    ]
    environment = celpy.Environment()
    for where, rule, value in _rules(schema, document, "$"):
        program = environment.program(environment.compile(rule["rule"]))
        if not program.evaluate({"self": celpy.json_to_cel(value)}):
            found.append(f"{where}: {rule.get('message', rule['rule'])}")
    return found


def _closed(schema: Document) -> Document:
    """JSON Schema of a structural schema, in which fields that are not named are refused."""
    out = {key: schema[key] for key in SCALARS if key in schema}
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    if "properties" in schema:
        out["properties"] = {name: _closed(part) for name, part in schema["properties"].items()}
        out["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    if isinstance(schema.get("additionalProperties"), dict):
        out["additionalProperties"] = _closed(schema["additionalProperties"])
    if "items" in schema:
        out["items"] = _closed(schema["items"])
    return out


def _rules(schema: Document, value: Any, where: str) -> Iterator[tuple[str, Document, Any]]:
    """Rules in CEL that apply; those over changes, which name oldSelf, have nothing to say of a new object."""
    for rule in schema.get("x-kubernetes-validations", ()):
        if "oldSelf" not in rule["rule"]:
            yield where, rule, value
    if isinstance(value, dict):
        for name, part in value.items():
            below = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
            if isinstance(below, dict):
                yield from _rules(below, part, f"{where}.{name}")
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for i, part in enumerate(value):
            yield from _rules(schema["items"], part, f"{where}[{i}]")


@dataclass(frozen=True)
class Pod:
    """Somebody on the network."""

    namespace: str
    labels: tuple[tuple[str, str], ...] = ()


def reaches(policies: list[Document], source: Pod, target: Pod, port: int, protocol: str = "TCP") -> bool:
    """Whether a connection opens, as https://kubernetes.io/docs/concepts/services-networking/network-policies says.

    Both ends must allow it; an end that no policy of a direction selects allows all of that direction.
    """
    return _allows(policies, source, target, "Egress", "to", port, protocol) and _allows(
        policies, target, source, "Ingress", "from", port, protocol
    )


def _allows(
    policies: list[Document], pod: Pod, peer: Pod, direction: str, key: str, port: int, protocol: str
) -> bool:
    selected = [
        policy["spec"]
        for policy in policies
        if policy["metadata"]["namespace"] == pod.namespace
        and _selects(policy["spec"]["podSelector"], dict(pod.labels))
        and direction in policy["spec"]["policyTypes"]
    ]
    rules = [rule for spec in selected for rule in spec.get(direction.lower(), ())]
    return not selected or any(
        _names(rule.get(key), peer, pod.namespace) and _opens(rule.get("ports"), port, protocol)
        for rule in rules
    )


def _names(peers: list[Document] | None, pod: Pod, home: str) -> bool:
    if not peers:
        return True
    for peer in peers:
        assert set(peer) <= {"podSelector", "namespaceSelector"}, f"{peer} is not understood here"
        namespace = {"kubernetes.io/metadata.name": pod.namespace}
        there = (
            _selects(peer["namespaceSelector"], namespace)
            if "namespaceSelector" in peer
            else pod.namespace == home
        )
        if there and _selects(peer.get("podSelector", {}), dict(pod.labels)):
            return True
    return False


def _opens(ports: list[Document] | None, port: int, protocol: str) -> bool:
    return not ports or any(p.get("protocol", "TCP") == protocol and p["port"] == port for p in ports)


def _selects(selector: Document, labels: dict[str, str]) -> bool:
    wanted = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    for term in selector.get("matchExpressions", ()):
        assert term["operator"] == "In", f"{term} is not understood here"
        wanted &= labels.get(term["key"]) in term["values"]
    return wanted
