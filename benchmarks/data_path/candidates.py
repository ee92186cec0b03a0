"""The routers under comparison: how each is installed and started.

Each peer lives in a virtual environment of its own under the work folder. nginx comes from the system (Debian: apt
install nginx-light) and is left out, with a word, where it is missing.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """`command(port, worker_ports, folder)` is its argv."""

    name: str
    version: str
    command: Callable[[int, Sequence[int], Path], list[str]]


def trieway(policy: str | None) -> Candidate:
    """This checkout, with its default policy unless one is given."""

    def command(port: int, workers: Sequence[int], folder: Path) -> list[str]:
        argv = [sys.executable, "-m", "router", "serve", "--port", str(port), "--log-level", "warning"]
        if policy is not None:
            argv += ["--policy", policy]
        for worker in workers:
            argv += ["--worker", f"http://127.0.0.1:{worker}"]
        return argv

    git = ["git", "rev-parse", "--short", "HEAD"]
    head = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False)
    name = "trieway" if policy is None else f"trieway {policy}"
    return Candidate(name=name, version=head.stdout.strip() or "unknown", command=command)


def smg(work: Path, version: str = "1.13.0") -> Candidate:
    """SMG, the Rust gateway, with its cache-aware default."""
    python = _environment(work / f"smg-{version}", [f"smg=={version}", "setproctitle"])

    def command(port: int, workers: Sequence[int], folder: Path) -> list[str]:
        return [str(python.parent / "smg"), "launch", *_rust_arguments(port, workers, "warn")]

    return Candidate(name="smg", version=version, command=command)


def sglang_router(work: Path, version: str = "0.3.2") -> Candidate:
    """SMG's predecessor, as `sglang` installs it."""
    python = _environment(work / f"sglang-router-{version}", [f"sglang-router=={version}"])

    def command(port: int, workers: Sequence[int], folder: Path) -> list[str]:
        return [str(python), "-m", "sglang_router.launch_router", *_rust_arguments(port, workers, "warn")]

    return Candidate(name="sglang-router", version=version, command=command)


def nginx(work: Path) -> Candidate | None:
    """Round robin in C: the floor. None where nginx is not installed."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        return None

    def command(port: int, workers: Sequence[int], folder: Path) -> list[str]:
        servers = "".join(f"server 127.0.0.1:{worker}; " for worker in workers)
        (folder / "nginx.conf").write_text(
            f"worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log warn; daemon off;\n"
            "events { worker_connections 8192; }\n"
            "http { access_log off; client_max_body_size 64m; client_body_buffer_size 1m; keepalive_requests 1000000;\n"
            f"  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;\n"
            f"  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n"
            f"  upstream workers {{ {servers} keepalive 512; keepalive_requests 1000000; }}\n"
            f"  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://workers; proxy_http_version 1.1;\n"
            '    proxy_set_header Connection ""; proxy_buffering off; } }\n}\n'
        )
        return [program, "-p", str(folder), "-c", str(folder / "nginx.conf")]

    shown = subprocess.run([program, "-v"], capture_output=True, text=True, check=False).stderr.strip()
    return Candidate(name="nginx", version=shown.rpartition("/")[2], command=command)


def _rust_arguments(port: int, workers: Sequence[int], level: str) -> list[str]:
    urls = [f"http://127.0.0.1:{worker}" for worker in workers]
    return [
        "--host", "127.0.0.1", "--port", str(port), "--worker-urls", *urls, "--policy", "cache_aware",
        "--prometheus-port", str(port + 1), "--prometheus-host", "127.0.0.1", "--log-level", level,
    ]  # fmt: skip


def _environment(folder: Path, packages: Sequence[str]) -> Path:
    """The Python of a virtual environment with these packages, made when it is not there yet."""
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        print(f"installing {' '.join(packages)} ...", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True)
        (folder / "installed").touch()
    return python
