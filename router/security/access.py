"""Who is asking, and may they: API keys of clients, admin keys of the control routes. No I/O after `load`.

Without a keys file everything is open, as on a laptop; with one, model calls need a key and control routes an admin
key. Called by request.dispatch for model calls, and by security.guard for all other routes.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from router.compiled import interpreted
from router.errors import AdminOnly, InvalidApiKey, ModelForbidden
from router.knob import knob, require
from router.security.client import ANONYMOUS, Client
from router.security.keys_file import hash_of, read_keys_file

MAX_KEY_CHARS = 1024
CREDENTIALS = frozenset({b"authorization", b"x-api-key", b"proxy-authorization", b"cookie"})
"""Headers that are for the router when it checks keys, and for no worker."""
UNNAMED = "default"
"""What SGLang takes as the name of whatever model it serves."""
RawHeaders = list[tuple[bytes, bytes]]


@interpreted
@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityConfig:
    api_keys_file: str = knob("", "TOML file of hashed API keys (`trieway keys new`); without one everybody is let in")
    open_metrics: bool = knob(True, "let anybody read /metrics, which names workers, models and error codes")
    worker_scheme: tuple[str, ...] = knob(("http", "https"), "URL schemes that POST /workers may name")
    worker_network: tuple[str, ...] = knob(
        ("loopback",), "networks that POST /workers may name besides the configured workers' hosts: loopback, private, "
        "any, or like 10.1.0.0/16"
    )  # fmt: skip
    tls_cert_file: str = knob("", "certificate chain (PEM) to serve https with")
    tls_key_file: str = knob("", "its private key (PEM)")
    tls_client_ca_file: str = knob("", "CA (PEM) whose certificates clients must show (mTLS)")
    worker_ca_file: str = knob("", "CA (PEM) that signed the https workers' certificates; empty: the system's")
    worker_cert_file: str = knob("", "certificate (PEM) to show to https workers (mTLS)")
    worker_key_file: str = knob("", "its private key (PEM)")

    def __post_init__(self) -> None:
        require(bool(self.tls_cert_file) == bool(self.tls_key_file), "tls_cert_file and tls_key_file belong together")
        require(not self.tls_client_ca_file or bool(self.tls_cert_file), "tls_client_ca_file needs tls_cert_file")
        require(
            bool(self.worker_cert_file) == bool(self.worker_key_file),
            "worker_cert_file and worker_key_file belong together",
        )
        require(all(scheme in ("http", "https") for scheme in self.worker_scheme), "worker_scheme: http or https")


class Access:
    """The keys of one app. `load` swaps them whole."""

    def __init__(self, keys: Mapping[str, Client] | None = None) -> None:
        self._keys = keys
        self._entries = _by_prefix(keys or {})

    @classmethod
    def of(cls, config: SecurityConfig) -> Access:
        """Raises ConfigError for a file that cannot be used."""
        return cls(read_keys_file(Path(config.api_keys_file)) if config.api_keys_file else None)

    def replace(self, other: Access) -> None:
        """From now on the keys of `other` count."""
        self._keys, self._entries = other._keys, other._entries

    @property
    def closed(self) -> bool:
        """Whether a key is needed at all."""
        return self._keys is not None

    @property
    def admins(self) -> bool:
        return self._keys is not None and any(client.admin for client in self._keys.values())

    def identify(self, headers: Mapping[str, str]) -> Client:
        """The client of a model call by its headers (lower-case names). Raises InvalidApiKey."""
        if self._keys is None:
            return ANONYMOUS
        client = self._find(_key_of(headers, basic=False))
        if client is None or client.admin:
            raise InvalidApiKey(
                "An admin key makes no model calls." if client else "A valid API key is needed: 'Authorization: Bearer'"
            )
        return client

    def routed_model(self, client: Client, model: str | None, served: Callable[[], Collection[str]]) -> str | None:
        """The model that workers are chosen by: the one named, if the client may use it. Raises ModelForbidden.

        A request that names none (/generate has no such field) gets the first of its key's models that is `served`.
        """
        if client.models is None:
            return model
        own = sorted(client.models)
        if model is not None and model != UNNAMED:
            if not client.may_use(model):
                raise ModelForbidden(f"The key {client.name} may use: {', '.join(own)}.", param="model")
            return model
        here = served()
        for name in own:
            if name in here or not here:  # nothing is known of any worker yet: no reason to refuse
                return name
        raise ModelForbidden(
            f"The request names no model, and no model of the key {client.name} is served here: {', '.join(own)}.",
            param="model",
        )

    def check_admin(self, headers: Mapping[str, str], *, reads: bool) -> None:
        """Raises InvalidApiKey or AdminOnly. A browser's Basic login (any name, the key as password) may only read, so
        that no other site can have it act."""
        if self._keys is None:
            return
        client = self._find(_key_of(headers, basic=reads))
        if client is None:
            raise InvalidApiKey("This route needs an admin key: 'Authorization: Bearer'.")
        if not client.admin:
            raise AdminOnly("This route needs an admin key; yours is for model calls.")

    def _find(self, key: str | None) -> Client | None:
        """Looked up by hash, which tells an attacker's clock nothing about any key; compared in constant time."""
        if key is None or self._keys is None or len(key) > MAX_KEY_CHARS:
            return None
        digest = hash_of(key)
        for known, client in self._entries.get(digest[:8], ()):
            if hmac.compare_digest(known, digest):
                return client
        return None


def _by_prefix(keys: Mapping[str, Client]) -> dict[str, list[tuple[str, Client]]]:
    entries: dict[str, list[tuple[str, Client]]] = {}
    for digest, client in keys.items():
        entries.setdefault(digest[:8], []).append((digest, client))
    return entries


def _key_of(headers: Mapping[str, str], *, basic: bool) -> str | None:
    """The key that stands in Authorization (Bearer, or Basic as its password) or x-api-key."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if basic and scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return None
    return headers.get("x-api-key")


def without_credentials(headers: RawHeaders) -> RawHeaders:
    """The headers less what proves to us who the client is: workers get keys of their own."""
    return [(name, value) for name, value in headers if name not in CREDENTIALS]
