"""docker/kubernetes: KubeRay's own schema, a misspelled field being an error, and this repository's promises."""

from __future__ import annotations

import copy
import gzip
import json
import re
import shlex
from typing import Any

import jsonschema
import pytest
import yaml
from repository import ROOT, SCHEMAS, SECRET_NAME, compose_file, pins


def strict(schema: Any) -> Any:
    """The schema with unknown fields forbidden wherever fields are named, as `kubectl apply` forbids them; and what
    Kubernetes says of values that are a number or a string. An object without named fields may hold any."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: strict(value) for key, value in schema.items()}
    if isinstance(result.get("properties"), dict) and "type" in result:
        result.setdefault("additionalProperties", False)
    if result.pop("x-kubernetes-int-or-string", False):
        result.pop("anyOf", None)
        result["type"] = ["integer", "string"]
    return result


RAYJOB = strict(json.loads(gzip.decompress((SCHEMAS / "rayjob.json.gz").read_bytes())))
CLUSTER = RAYJOB["properties"]["spec"]["properties"]["rayClusterSpec"]["properties"]
POD = CLUSTER["headGroupSpec"]["properties"]["template"]["properties"]["spec"]


def manifests(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / "docker" / "kubernetes" / name).read_text(encoding="utf-8")))


@pytest.fixture
def rayjob() -> dict[str, Any]:
    (job,) = copy.deepcopy(manifests("rayjob.yaml"))  # anchors would share what a test changes
    return json.loads(json.dumps(job))


def errors(schema: dict[str, Any], what: object) -> list[str]:
    found = jsonschema.Draft7Validator(schema).iter_errors(what)
    return [f"{'/'.join(map(str, error.path))}: {error.message}" for error in found]


def pods(job: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    return [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def test_the_rayjob_keeps_to_kuberays_schema(rayjob: dict[str, Any]) -> None:
    assert errors(RAYJOB, rayjob) == []


@pytest.mark.parametrize(
    ("where", "field", "value"),
    [
        (lambda job: job["spec"], "entryPoint", "orchestrator"),
        (lambda job: job["spec"], "backoffLimit", "two"),
        (lambda job: job["spec"]["rayClusterSpec"], "authOption", {"mode": "token"}),
        (lambda job: job["spec"]["rayClusterSpec"]["authOptions"], "mode", "none"),
        (lambda job: job["spec"]["rayClusterSpec"]["headGroupSpec"], "rayStartParams", {"num-cpus": 0}),
        (lambda job: job["spec"]["rayClusterSpec"]["workerGroupSpecs"][1], "replica", 1),
        (lambda job: pods(job)[0]["containers"][0], "enviroment", []),
        (lambda job: pods(job)[1]["containers"][0]["securityContext"], "readonlyRootFilesystem", True),
        (lambda job: pods(job)[2]["containers"][0]["resources"], "limits", {"nvidia.com/gpu": 0.5}),
    ],
)
def test_a_misspelled_field_or_a_wrong_value_is_noticed(
    rayjob: dict[str, Any], where: Any, field: str, value: object
) -> None:
    where(rayjob)[field] = value
    assert len(errors(RAYJOB, rayjob)) == 1


def test_mlflows_pod_keeps_to_the_schema_of_pods() -> None:
    service, deployment = manifests("mlflow.yaml")
    pod = deployment["spec"]["template"]["spec"]
    assert errors(POD, pod) == []
    assert errors(POD, pod | {"container": []}) != []
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"] == labels
    assert pod["enableServiceLinks"] is False  # the service's MLFLOW_PORT would be taken for mlflow's own option


def test_ray_in_the_images_is_the_ray_that_kuberay_is_told(rayjob: dict[str, Any]) -> None:
    assert rayjob["spec"]["rayClusterSpec"]["rayVersion"] == pins("requirements.txt")["ray"]


def test_images_are_those_of_the_compose_file(rayjob: dict[str, Any]) -> None:
    services = compose_file()["services"]
    images = {container["image"] for pod in pods(rayjob) for container in pod["containers"]}
    assert images == {services["ray-head"]["image"]}
    (container,) = manifests("mlflow.yaml")[1]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == services["mlflow"]["image"]


def test_rays_token_and_every_secret_come_from_secrets(rayjob: dict[str, Any]) -> None:
    assert rayjob["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token", "secretName": "ray-auth-token"}
    deployment = manifests("mlflow.yaml")[1]["spec"]["template"]["spec"]
    for pod in (*pods(rayjob), deployment):
        for variable in pod["containers"][0]["env"]:
            assert not SECRET_NAME.search(variable["name"]) or "secretKeyRef" in variable["valueFrom"], variable
    assert deployment["containers"][0]["envFrom"] == [{"secretRef": {"name": "orchestrator-servers"}}]


def test_no_container_is_root_or_writes_outside_its_volumes(rayjob: dict[str, Any]) -> None:
    for pod in (*pods(rayjob), manifests("mlflow.yaml")[1]["spec"]["template"]["spec"]):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        assert {"name": "temporary", "emptyDir": {}} in pod["volumes"]
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_the_entry_point_is_a_command_of_this_version(rayjob: dict[str, Any]) -> None:
    import typer

    from orchestrator.cli import app

    program, command, *arguments = shlex.split(rayjob["spec"]["entrypoint"])
    assert program == "orchestrator"
    sweep = typer.main.get_command(app).commands[command]
    given = sweep.make_context(command, arguments).params
    assert given["address"] == "auto"
    assert str(given["runs_dir"]).startswith("s3:/")
    assert re.fullmatch(r"http://mlflow:\d+", given["tracking_uri"])
    assert (ROOT / str(given["file"]).removeprefix("/app/")).is_file()
