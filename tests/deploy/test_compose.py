"""docker-compose.yml against the Compose specification's schema and against what we promise of it."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

ROOT = Path(__file__).parents[2]
OURS = ("router", "worker-1", "worker-2", "worker-3", "worker-4", "router-gpu", "locust-master", "locust-worker")
SGLANG = tuple(f"sglang-{i}" for i in range(8))

Services = dict[str, dict[str, Any]]


def in_profile(services: Services, profile: str) -> set[str]:
    return {name for name, service in services.items() if profile in service.get("profiles", [])}


def test_it_is_valid_by_the_compose_specification(compose_as_written: Any) -> None:
    schema = json.loads(files("check_jsonschema.builtin_schemas.vendor").joinpath("compose-spec.json").read_text())
    errors = Draft7Validator(schema).iter_errors(compose_as_written)

    assert [f"{error.json_path}: {error.message}" for error in errors] == []


def test_without_a_profile_the_router_and_four_simulated_workers_run_and_no_gpu_is_asked_for(
    services: Services,
) -> None:
    default = {name: service for name, service in services.items() if "profiles" not in service}

    assert set(default) == {"router", "worker-1", "worker-2", "worker-3", "worker-4"}
    assert all("deploy" not in service for service in default.values())


def test_each_sglang_server_has_a_gpu_of_its_own(services: Services) -> None:
    for profile, gpus in (("gpu2", 2), ("gpu", 4), ("gpu8", 8)):
        servers = sorted(in_profile(services, profile) & set(SGLANG))
        devices = [services[name]["deploy"]["resources"]["reservations"]["devices"] for name in servers]
        assert devices == [[{"driver": "nvidia", "device_ids": [str(i)], "capabilities": ["gpu"]}] for i in range(gpus)]


def test_the_gpu_router_waits_for_the_servers_it_names(services: Services) -> None:
    router = services["router-gpu"]
    named = re.findall(r"\w+=http://([\w-]+):30000", router["environment"]["TRIEWAY_WORKER"])

    assert named == ["sglang-0", "sglang-1", "sglang-2", "sglang-3"]
    assert set(router["depends_on"]) == set(SGLANG)
    assert {how["condition"] for how in router["depends_on"].values()} == {"service_healthy"}


def test_no_service_depends_on_one_that_its_profiles_leave_out(services: Services) -> None:
    wrong = [
        f"{name} in {profile} needs {other}"
        for name, service in services.items()
        for other, how in service.get("depends_on", {}).items()
        if how.get("required", True) and "profiles" in services[other]
        for profile in service.get("profiles", ["(default)"])
        if profile not in services[other]["profiles"]
    ]

    assert wrong == []


def test_who_is_waited_for_until_healthy_has_a_health_check(services: Services) -> None:
    waited_for = {other for service in services.values() for other in service.get("depends_on", {})}

    assert waited_for - {"model"} == {
        name for name in waited_for if "test" in services[name].get("healthcheck", {})
    }
    assert {name for name, service in services.items() if "test" not in service.get("healthcheck", {})} == {
        "model",  # ends by itself
        "locust-worker",  # watched by Locust's master
    }


def test_ports_are_bound_to_this_machine_only(services: Services) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]

    assert len(ports) == 5
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_images_are_pinned(services: Services) -> None:
    loose = [
        service["image"] for service in services.values() if not re.search(r":v?\d+\.\d+\.\d+$", service["image"])
    ]

    assert loose == []


def test_every_container_is_limited_and_drops_all_capabilities(services: Services) -> None:
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert service["pids_limit"] > 0, name
        assert service["ulimits"]["nofile"] >= 65_536, name
        assert service["ulimits"]["core"] == 0, name


def test_only_sglangs_own_image_may_write_to_its_file_system(services: Services) -> None:
    writable = {name for name, service in services.items() if not service.get("read_only")}

    assert writable == {"model", *SGLANG}


@pytest.mark.parametrize("name", ["router", "router-gpu"])
def test_a_router_gets_longer_to_stop_than_it_gives_to_running_requests(services: Services, name: str) -> None:
    from router.config import RouterConfig

    assert float(services[name]["stop_grace_period"].removesuffix("s")) > RouterConfig().server.shutdown_grace_s


def test_what_is_built_or_mounted_exists(services: Services) -> None:
    dockerfile = (ROOT / "deploy/Dockerfile").read_text()
    for name, service in services.items():
        if "build" in service:
            assert (ROOT / service["build"]["dockerfile"]).is_file(), name
            assert f" AS {service['build']['target']}\n" in dockerfile, name
        for volume in service.get("volumes", []):
            source, _, mode = volume.split(":") if volume.count(":") == 2 else (*volume.split(":"), "")
            if source.startswith("."):
                assert (ROOT / source).exists(), name
                assert mode == "ro", name


def test_the_services_that_are_ours_are_the_ones_built_here(services: Services) -> None:
    assert {name for name, service in services.items() if "build" in service} == set(OURS)
