"""TLS towards workers and clients, made from files. Raises ConfigError that names the option; keys stand in no message.

Called by app (workers) and cli (clients).
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from router.errors import ConfigError
from router.security.access import SecurityConfig


def worker_context(config: SecurityConfig) -> ssl.SSLContext:
    """How https workers are verified, and what is shown to them. Verification cannot be turned off."""
    _exist(config, "worker_ca_file", "worker_cert_file", "worker_key_file")
    try:
        context = ssl.create_default_context(cafile=config.worker_ca_file or None)
        if config.worker_cert_file:
            context.load_cert_chain(config.worker_cert_file, config.worker_key_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"security.worker_ca_file or worker_cert_file cannot be used ({type(error).__name__}).",
            param="security.worker_ca_file",
        ) from None
    return context


def server_options(config: SecurityConfig) -> dict[str, Any]:
    """uvicorn's options for https; none without a certificate."""
    _exist(config, "tls_cert_file", "tls_key_file", "tls_client_ca_file")
    if not config.tls_cert_file:
        return {}
    options: dict[str, Any] = {"ssl_certfile": config.tls_cert_file, "ssl_keyfile": config.tls_key_file}
    if config.tls_client_ca_file:
        options |= {"ssl_ca_certs": config.tls_client_ca_file, "ssl_cert_reqs": ssl.CERT_REQUIRED}
    return options


def _exist(config: SecurityConfig, *names: str) -> None:
    values = {
        "worker_ca_file": config.worker_ca_file,
        "worker_cert_file": config.worker_cert_file,
        "worker_key_file": config.worker_key_file,
        "tls_cert_file": config.tls_cert_file,
        "tls_key_file": config.tls_key_file,
        "tls_client_ca_file": config.tls_client_ca_file,
    }
    for name in names:
        if values[name] and not Path(values[name]).is_file():
            raise ConfigError(f"security.{name}: there is no file {values[name]}.", param=f"security.{name}")
