"""TLS both ways: workers are verified and shown our certificate, clients are served https and must show theirs."""

from __future__ import annotations

import shutil
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from router.errors import ConfigError
from router.security.access import SecurityConfig
from router.security.tls import server_options, worker_context
from router_fakes import config, running, upstream

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA, and a certificate of it for 127.0.0.1, made with openssl."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make certificates with")
    folder = tmp_path_factory.mktemp("pki")
    (folder / "ext").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    for argv in (
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=ca",
        "req -newkey rsa:2048 -nodes -keyout own.key -out own.csr -subj /CN=own",
        "x509 -req -in own.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out own.pem -days 2 -extfile ext",
    ):
        subprocess.run([openssl, *argv.split()], cwd=folder, check=True, capture_output=True)
    return folder


def worker_tls(pki: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(pki / "ca.pem"))
    context.load_cert_chain(pki / "own.pem", pki / "own.key")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


async def test_an_https_worker_is_verified_and_sees_our_certificate(pki: Path, chat: dict[str, Any]) -> None:
    files = {
        "worker_ca_file": str(pki / "ca.pem"),
        "worker_cert_file": str(pki / "own.pem"),
        "worker_key_file": str(pki / "own.key"),
    }
    async with upstream(tls=worker_tls(pki)) as worker, running(config(worker.url, security=files)) as router:
        reply = await router.client.post(CHAT, json=chat)

    assert worker.url.startswith("https://")
    assert reply.status_code == 200


async def test_a_worker_whose_certificate_nobody_signed_gets_no_request(pki: Path, chat: dict[str, Any]) -> None:
    async with upstream(tls=worker_tls(pki)) as worker, running(config(worker.url), ready=0) as router:
        reply = await router.client.post(CHAT, json=chat)

    assert reply.status_code in (502, 503)
    assert worker.calls == []


def test_the_router_serves_https_and_asks_for_a_certificate(pki: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    argv = ["serve", "--port", str(port), "--security-tls-cert-file", str(pki / "own.pem"), "--security-tls-key-file",
            str(pki / "own.key"), "--security-tls-client-ca-file", str(pki / "ca.pem")]  # fmt: skip
    process = subprocess.Popen([sys.executable, "-m", "router", *argv], stdin=subprocess.DEVNULL)
    try:
        trusting = ssl.create_default_context(cafile=str(pki / "ca.pem"))
        showing = ssl.create_default_context(cafile=str(pki / "ca.pem"))
        showing.load_cert_chain(pki / "own.pem", pki / "own.key")
        url = f"https://127.0.0.1:{port}"
        with httpx.Client(base_url=url, transport=httpx.HTTPTransport(verify=showing)) as client:
            answer = _patiently(client, process)
        with httpx.Client(base_url=url, transport=httpx.HTTPTransport(verify=trusting)) as stranger:
            with pytest.raises(httpx.TransportError):
                stranger.get("/health")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)

    assert answer == {"status": "ok"}


def _patiently(client: httpx.Client, process: subprocess.Popen[bytes]) -> Any:
    while True:
        assert process.poll() is None
        try:
            return client.get("/health").json()
        except httpx.ConnectError as error:
            if "refused" not in str(error):
                raise


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="tls_cert_file"):
        server_options(SecurityConfig(tls_cert_file="/no/cert", tls_key_file="/no/key"))
    with pytest.raises(ConfigError, match="worker_ca_file"):
        worker_context(SecurityConfig(worker_ca_file="/no/ca"))
