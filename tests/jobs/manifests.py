"""Schemas of what `kubectl apply` would check: Kubernetes' own kinds, and KubeRay's over them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml
from kubernetes_validate.utils import schema_contents
from referencing import Registry, Resource

KUBERNETES = "1.34"
KUBERAY = json.loads((Path(__file__).parent / "schemas" / "kuberay-v1.json").read_text())
CORE = schema_contents(f"kubernetes-json-schema/v{KUBERNETES}.0-local-strict/_definitions.json", KUBERNETES)


def documents(path: Path) -> list[dict[str, Any]]:
    """The resources of a file."""
    return list(yaml.safe_load_all(path.read_text()))


def check(manifest: dict[str, Any]) -> None:
    """Raise jsonschema.ValidationError where an API server would refuse the manifest, or drop a field of it."""
    if not manifest["apiVersion"].startswith("ray.io/"):
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
        return
    registry: Registry[Any] = Resource.from_contents(CORE) @ Registry()
    validator = jsonschema.Draft202012Validator(KUBERAY, registry=registry)
    errors = list(validator.iter_errors(manifest))
    if errors:
        raise jsonschema.exceptions.best_match(errors)


def containers(value: Any) -> Iterator[dict[str, Any]]:
    """Every container of a manifest, wherever its pod's template stands."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("containers", "initContainers"):
                yield from inner
            yield from containers(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from containers(inner)
