"""Where POST /workers may point: schemes and networks, so that the router cannot be made to call other services.

Names are resolved and every address must be allowed. Addresses of cloud metadata services never are. What stands in
the configuration is trusted as it is. Called by fleet.admin through app.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from router.errors import ConfigError, InvalidField

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
NAMED = {
    "loopback": ("127.0.0.0/8", "::1/128"),
    "private": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"),
    "any": ("0.0.0.0/0", "::/0"),
}
NEVER = tuple(
    ipaddress.ip_network(text)
    for text in ("169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128", "100.100.100.200/32", "0.0.0.0/8", "224.0.0.0/4",
                 "ff00::/8", "::/128")
)  # fmt: skip
"""Link-local (metadata services of most clouds), those of AWS on IPv6 and of Alibaba, and what is no single host."""


class Networks:
    """`trusted_hosts` are hosts of configured workers: more workers may be added there."""

    def __init__(self, networks: Iterable[str], schemes: Iterable[str], trusted_hosts: Iterable[str] = ()) -> None:
        self._networks = tuple(network for text in networks for network in _parse(text))
        self._schemes = tuple(schemes)
        self._trusted = {host.lower() for host in trusted_hosts}
        self._names = ", ".join(networks)

    def replace(self, other: Networks) -> None:
        """From now on what `other` allows is allowed."""
        self._networks, self._schemes = other._networks, other._schemes
        self._trusted, self._names = other._trusted, other._names

    async def check(self, url: str) -> None:
        """Raises InvalidField for a URL whose scheme or address is not allowed, or whose name is unknown."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme not in self._schemes:
            allowed = ", ".join(self._schemes)
            raise InvalidField(f"A worker's URL must have the scheme {allowed} (security.worker_scheme).", param="url")
        if host.lower() in self._trusted:
            return
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, parts.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise InvalidField(f"The host {host!r} is not known here.", param="url") from None
        for entry in found:
            if not self.allows(ipaddress.ip_address(entry[4][0])):
                raise InvalidField(
                    f"The host {host!r} is in no network that workers may be added from: {self._names} "
                    "(security.worker_network).",
                    param="url",
                )

    def allows(self, address: Address) -> bool:
        """Whether a worker may be at this address. IPv4 in IPv6 counts as IPv4."""
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if any(address in network for network in NEVER):
            return False
        return any(address in network for network in self._networks)


def hosts_of(urls: Iterable[str]) -> list[str]:
    """The host of each URL."""
    return [host for url in urls if (host := urlsplit(url).hostname)]


def _parse(text: str) -> list[Network]:
    try:
        return [ipaddress.ip_network(each) for each in NAMED.get(text, (text,))]
    except ValueError as error:
        raise ConfigError(
            f"security.worker_network: {text!r} is none of {', '.join(NAMED)} and no network like 10.1.0.0/16.",
            param="security.worker_network",
        ) from error
