"""docker-compose.yml: the Compose Specification's schema, and what this repository promises of it.

Interpolations and defaults are resolved by podman-compose's own function: Compose itself is not on these machines.
"""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from podman_compose import rec_subs
from repository import PYPROJECT, ROOT, SCHEMAS, SECRET_NAME, SECRETS, compose_file, run

SCHEMA = jsonschema.Draft7Validator(json.loads((SCHEMAS / "compose-spec.json").read_text(encoding="utf-8")))
VALUES = {name: f"value-of-{name}" for name in SECRETS}
ONE_SHOT = {"buckets", "sweep", "orchestrator"}
INTERPOLATION = re.compile(r"\$\{(\w+)([^}]*)\}")


def resolved(**environment: str) -> dict[str, Any]:
    """The services with their interpolations resolved. Raises ValueError where they are refused."""
    return rec_subs(compose_file()["services"], environment)


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return resolved(**VALUES)


def test_it_keeps_to_the_compose_specification(services: dict[str, Any]) -> None:
    assert [error.message for error in SCHEMA.iter_errors(compose_file())] == []
    assert [error.message for error in SCHEMA.iter_errors(compose_file() | {"services": services})] == []


@pytest.mark.parametrize(("service", "key", "value"), [("mlflow", "depend_on", {}), ("postgres", "ports", 5432)])
def test_a_key_that_the_specification_does_not_know_is_noticed(service: str, key: str, value: object) -> None:
    wrong = compose_file()
    wrong["services"][service][key] = value
    assert list(SCHEMA.iter_errors(wrong))


@pytest.mark.parametrize("name", SECRETS)
def test_it_refuses_to_start_while_a_secret_is_missing_or_empty(name: str) -> None:
    environments = [service.get("environment", {}) for service in compose_file()["services"].values()]
    for values in (VALUES | {name: ""}, {key: value for key, value in VALUES.items() if key != name}):
        with pytest.raises(ValueError, match=f"{name} is missing a value: run docker/make-secrets first"):
            rec_subs(environments, values)


def test_no_secret_has_a_default_or_stands_in_a_file() -> None:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    secrets = {(name, rest[:2]) for name, rest in INTERPOLATION.findall(text) if SECRET_NAME.search(name)}
    assert secrets == {(name, ":?") for name in SECRETS}
    for name, service in compose_file()["services"].items():
        for key, value in service.get("environment", {}).items():
            assert not SECRET_NAME.search(key) or INTERPOLATION.fullmatch(value), f"{name}: {key} is written out"
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    assert {name for name in SECRETS if f"\n{name}=\n" in example} == set(SECRETS)


def test_a_secret_goes_only_to_those_who_need_it(services: dict[str, Any]) -> None:
    drivers = {"sweep", "orchestrator"}
    ray = {"ray-head", "ray-worker-cpu", "ray-worker-gpu"} | drivers
    holders = {
        secret: {
            name
            for name, service in services.items()
            if f"value-of-{secret}" in service.get("environment", {}).values()
        }
        for secret in SECRETS
    }
    assert holders == {
        "POSTGRES_PASSWORD": {"postgres", "mlflow"},
        "MLFLOW_AUTH_ADMIN_PASSWORD": {"mlflow"} | drivers,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": {"mlflow"},
        "RAY_AUTH_TOKEN": ray,
        "AWS_ACCESS_KEY_ID": {"object-store", "buckets", "mlflow"} | ray,
        "AWS_SECRET_ACCESS_KEY": {"object-store", "buckets", "mlflow"} | ray,
    }


def test_only_mlflow_and_the_dashboard_are_published_and_only_on_the_loopback_interface(
    services: dict[str, Any],
) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {"mlflow": ["127.0.0.1:5000:5000"], "ray-head": ["127.0.0.1:8265:8265"]}


def test_they_are_published_elsewhere_if_asked() -> None:
    services = resolved(**VALUES, BIND_ADDRESS="192.0.2.7", MLFLOW_PUBLISHED_PORT="80")
    assert services["mlflow"]["ports"] == ["192.0.2.7:80:5000"]
    assert services["ray-head"]["ports"] == ["192.0.2.7:8265:8265"]


def test_the_database_is_only_where_mlflow_reaches_it(services: dict[str, Any]) -> None:
    members = {name for name, service in services.items() if "database" in service["networks"]}
    assert members == {"postgres", "mlflow"}
    assert services["postgres"]["networks"] == ["database"]
    assert compose_file()["networks"]["database"] == {"internal": True}


def test_every_image_has_a_full_version(services: dict[str, Any]) -> None:
    version = PYPROJECT["project"]["version"]
    for name, service in services.items():
        tag = service["image"].partition(":")[2]
        assert re.match(r"\d+\.\d+", tag), f"{name}: {service['image']}"
        assert "build" not in service or tag == version, name


def test_every_service_reports_its_health_or_ends(services: dict[str, Any]) -> None:
    for name, service in services.items():
        if name in ONE_SHOT:
            assert service["restart"] == "no", name
            assert "healthcheck" not in service, name
        else:
            assert service["restart"] == "unless-stopped", name
            assert service["healthcheck"]["test"][0] == "CMD", name


def test_services_start_when_what_they_need_is_there(services: dict[str, Any]) -> None:
    needs = {}
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            expected = "service_completed_successfully" if needed in ONE_SHOT else "service_healthy"
            assert how["condition"] == expected, f"{name}: {needed}"
        needs[name] = set(service.get("depends_on", {}))
    workers = {"ray-worker-cpu", "ray-worker-gpu"}
    assert needs == {
        "postgres": set(),
        "object-store": set(),
        "buckets": {"object-store"},
        "mlflow": {"postgres", "buckets"},
        "ray-head": set(),
        "ray-worker-cpu": {"ray-head"},
        "ray-worker-gpu": {"ray-head"},
        "sweep": {"mlflow", "buckets", "ray-head"} | workers,
        "orchestrator": {"mlflow", "buckets", "ray-head"} | workers,
    }
    sweep = services["sweep"]["depends_on"]
    assert {name for name in sweep if sweep[name].get("required") is False} == workers  # of one profile or the other


def test_what_our_containers_start_is_a_script_of_the_image(services: dict[str, Any]) -> None:
    started = {
        name: service.get("entrypoint", ["/app/docker/mlflow.sh"])
        for name, service in services.items()
        if "build" in service
    }
    assert started.keys() == services.keys() - {"postgres", "object-store"}
    for name, (program, *arguments) in started.items():
        script = arguments[0] if program == "python" else program
        file = ROOT / script.removeprefix("/app/")
        assert script.startswith("/app/docker/"), name
        assert file.is_file(), name
        assert program == "python" or os.access(file, os.X_OK), name


def test_what_must_last_is_in_named_volumes(services: dict[str, Any]) -> None:
    assert set(compose_file()["volumes"]) == {"postgres", "object-store"}
    assert "postgres:/var/lib/postgresql/data" in services["postgres"]["volumes"]
    assert services["object-store"]["volumes"] == ["object-store:/data"]
    for name, service in services.items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in ("postgres", "object-store", "/scratch") or volume.endswith(":ro"), f"{name}: {volume}"


def test_no_container_is_root_or_writes_outside_its_volumes(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service, name
        if "build" in service:
            instructions = (ROOT / service["build"]["dockerfile"]).read_text(encoding="utf-8")
            assert "\nUSER 1000\n" in instructions, name
            assert "user" not in service, name
        else:
            assert service["user"] in ("postgres", "1000:1000"), name


def test_cpu_and_gpu_workers_are_profiles_and_their_number_is_a_variable(services: dict[str, Any]) -> None:
    profiles = {name: service["profiles"] for name, service in services.items() if "profiles" in service}
    assert profiles == {
        "ray-worker-cpu": ["cpu"],
        "ray-worker-gpu": ["gpu"],
        "sweep": ["sweep"],
        "orchestrator": ["sweep"],
    }
    worker = resolved(**VALUES, CPU_WORKERS="5", CPUS_PER_WORKER="3")["ray-worker-cpu"]
    assert int(worker["scale"]) == 5
    assert worker["command"] == ["--num-cpus", "3", "--num-gpus", "0"]
    (device,) = services["ray-worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}


def test_the_example_environment_names_every_variable_with_the_default_of_the_compose_file() -> None:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    defaults = {name: rest[2:] for name, rest in INTERPOLATION.findall(text) if rest.startswith(":-")}
    lines = [line.lstrip("# ") for line in (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()]
    written = dict(line.split("=", 1) for line in lines if re.match(r"[A-Z_]+=", line))
    assert written == defaults | dict.fromkeys(SECRETS, "") | {"COMPOSE_PROFILES": "cpu"}


def test_secrets_are_made_at_random_once_and_for_their_owner_only(tmp_path: Path) -> None:
    files = [tmp_path / "one", tmp_path / "two"]
    for file in files:
        assert run(ROOT / "docker" / "make-secrets", file).returncode == 0
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    made = [
        dict(line.split("=", 1) for line in file.read_text().splitlines() if "=" in line and line[0] != "#")
        for file in files
    ]
    for name in SECRETS:
        assert len(made[0][name]) >= 20, name
    assert len({each[name] for each in made for name in SECRETS}) == 2 * len(SECRETS)
    resolved(**made[0])

    before = files[0].read_bytes()
    again = run(ROOT / "docker" / "make-secrets", files[0])
    assert again.returncode == 1
    assert "is not changed" in again.stderr
    assert files[0].read_bytes() == before
    assert ".env" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
