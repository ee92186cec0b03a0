"""Where workers may be added from: no service that only the router can reach may be reached through it."""

from __future__ import annotations

import ipaddress

import pytest

from router.errors import ConfigError, InvalidField
from router.security.networks import Networks


def allowed(address: str, *networks: str) -> bool:
    return Networks(networks, ("http",)).allows(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_loopback_is_allowed_however_it_is_written(address: str) -> None:
    assert allowed(address, "loopback")


@pytest.mark.parametrize("address", ["10.0.0.1", "192.168.1.1", "8.8.8.8", "fd00::1"])
def test_other_networks_are_not_allowed_unless_named(address: str) -> None:
    assert not allowed(address, "loopback")


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "fd00:ec2::254", "0.0.0.0", "224.0.0.1", "::"]
)
def test_metadata_services_and_addresses_of_no_host_are_never_allowed(address: str) -> None:
    assert not allowed(address, "any", "private", "loopback", "169.254.0.0/16")


def test_a_network_of_ones_own_is_allowed() -> None:
    assert allowed("10.1.2.3", "10.1.0.0/16")
    assert not allowed("10.2.2.3", "10.1.0.0/16")
    with pytest.raises(ConfigError, match="worker_network"):
        Networks(["10.1.0.0/99"], ("http",))


async def test_a_name_is_judged_by_its_addresses_and_a_configured_host_is_trusted() -> None:
    networks = Networks(["loopback"], ["http"], trusted_hosts=["gpu7.example"])
    await networks.check("http://localhost:30000")
    await networks.check("http://GPU7.example:30001")
    for url in ("https://localhost:1", "http://169.254.169.254/latest", "http://10.0.0.1:1", "http://2130706434.invalid:1"):
        with pytest.raises(InvalidField):
            await networks.check(url)


async def test_an_address_in_disguise_is_seen_through() -> None:
    with pytest.raises(InvalidField):
        await Networks(["loopback"], ["http"]).check("http://0x0a000001:80")  # 10.0.0.1
