"""RouterConfig: every module's own configuration composed into one frozen tree, and how it is loaded.

TOML file, environment and flags are all derived from the dataclass fields; a later source wins. Unknown keys and wrong
values are ConfigErrors that name the key and the nearest valid one. Called by cli and app.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from router.admission.admission import AdmissionConfig
from router.admission.held_queue import HoldConfig
from router.admission.retry import RetryConfig
from router.errors import ConfigError
from router.experiment.config import ExperimentConfig
from router.experiment.shadow import ShadowConfig
from router.fleet.breaker import BreakerConfig
from router.fleet.kv_events import KvEventsConfig
from router.fleet.load import LoadConfig
from router.fleet.native import NativeConfig
from router.fleet.vitals import HealthConfig
from router.knob import knob, require, section
from router.policies import POLICIES, PolicyConfigs
from router.request.dispatch import DispatchConfig
from router.request.exact import ExactConfig
from router.request.forward import ForwardConfig
from router.request.prompt_key import PromptKeyConfig
from router.security.access import SecurityConfig
from router.state.config import StateConfig
from router.telemetry.decision_log import DecisionLogConfig
from router.telemetry.recent_requests import ExplainConfig
from router.telemetry.tracing import TracingConfig

Tree = dict[str, Any]
MAX_PROCESSES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    host: str = knob("127.0.0.1", "address to listen on; anything but loopback is reachable by others")
    port: int = knob(8080, "port to listen on")
    max_body_bytes: int = knob(64 * 2**20, "largest request body accepted, in bytes")
    max_header_bytes: int = knob(64 * 2**10, "largest request line and headers accepted, in bytes")
    max_connections: int = knob(20_000, "connections held open at once; more are refused with 503")
    max_connections_per_address: int = knob(
        0, "connections held open at once from one address, which may be that of a proxy; more get 429; 0: no limit"
    )
    processes: int = knob(1, "router processes that share the port, each on a core of its own (1 to 64; Linux)")
    shutdown_grace_s: float = knob(30.0, "seconds that running requests get to finish when the router stops")
    shutdown_delay_s: float = knob(0.0, "seconds that new requests are answered 503 before the router stops listening")
    log_level: str = knob("info", "debug, info, warning or error")
    log_format: str = knob("text", "text for people, json for machines; one line per event either way")

    def __post_init__(self) -> None:
        require(0 <= self.port <= 65_535, "port must be between 0 and 65,535")
        require(1 <= self.processes <= MAX_PROCESSES, f"processes must be between 1 and {MAX_PROCESSES}")
        require(self.processes == 1 or sys.platform == "linux", "processes over 1 need Linux (SO_REUSEPORT)")
        require(self.max_body_bytes >= 1024, "max_body_bytes must be at least 1,024")
        require(self.max_header_bytes >= 1024, "max_header_bytes must be at least 1,024")
        require(self.max_connections_per_address >= 0, "max_connections_per_address must not be negative")
        require(self.log_level in ("debug", "info", "warning", "error"), "log_level: debug, info, warning or error")
        require(self.log_format in ("text", "json"), "log_format: text or json")


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterConfig:
    worker: tuple[str, ...] = knob((), "a worker as URL or NAME=URL; give it once per worker")
    worker_api_key_file: tuple[str, ...] = knob(
        (), "file with the API key to send to workers: FILE for all of the above, NAME=FILE for one"
    )
    policy: str = knob("expected_ttft", "how a worker is chosen; `trieway policies` lists them")
    seed: int | None = knob(None, "seed of all random choices; unset: different on every start")
    server: ServerConfig = section(ServerConfig)
    policies: PolicyConfigs = section(PolicyConfigs)
    prompt_key: PromptKeyConfig = section(PromptKeyConfig)
    dispatch: DispatchConfig = section(DispatchConfig)
    forward: ForwardConfig = section(ForwardConfig)
    retry: RetryConfig = section(RetryConfig)
    admission: AdmissionConfig = section(AdmissionConfig)
    hold: HoldConfig = section(HoldConfig)
    security: SecurityConfig = section(SecurityConfig)
    health: HealthConfig = section(HealthConfig)
    breaker: BreakerConfig = section(BreakerConfig)
    load: LoadConfig = section(LoadConfig)
    exact: ExactConfig = section(ExactConfig)
    kv_events: KvEventsConfig = section(KvEventsConfig)
    explain: ExplainConfig = section(ExplainConfig)
    decision_log: DecisionLogConfig = section(DecisionLogConfig)
    experiment: ExperimentConfig = section(ExperimentConfig)
    shadow: ShadowConfig = section(ShadowConfig)
    tracing: TracingConfig = section(TracingConfig)
    native: NativeConfig = section(NativeConfig)
    state: StateConfig = section(StateConfig)

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ValueError(f"there is no policy {self.policy!r}.{nearest(self.policy, POLICIES)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """One leaf of the tree: where it is, what type it has, what it means."""

    path: tuple[str, ...]
    type: Any
    default: Any
    help: str

    @property
    def key(self) -> str:
        return ".".join(self.path)

    @property
    def flag(self) -> str:
        """`server` and `policies` are left out of flags: --port, --prefix-match-load-factor."""
        words = [word for word in self.path[:-1] if word not in ("server", "policies")] + [self.path[-1]]
        return "--" + "-".join(words).replace("_", "-")


def knobs(tree: type[Any] = RouterConfig, path: tuple[str, ...] = ()) -> Iterator[Knob]:
    """Every leaf of the configuration, depth first."""
    hints = get_type_hints(tree)
    for each in fields(tree):
        here = (*path, each.name)
        if is_dataclass(hints[each.name]):
            yield from knobs(hints[each.name], here)
        else:
            yield Knob(path=here, type=hints[each.name], default=each.default, help=_help(each))


def _help(each: Field[Any]) -> str:
    text: str = each.metadata.get("help", "")
    return text


def load_config(file: Path | None, overrides: Mapping[tuple[str, ...], Any]) -> RouterConfig:
    """The configuration from a TOML file (if any) with `overrides` by path on top. Raises ConfigError."""
    tree: Tree = {} if file is None else _read_toml(file)
    for path, value in overrides.items():
        node = tree
        for name in path[:-1]:
            node = node.setdefault(name, {})
        node[path[-1]] = value
    _check_keys(tree, RouterConfig, "")
    try:
        return msgspec.convert(tree, RouterConfig, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"Configuration: {str(error).replace('`$.', '`')}") from error


def nearest(name: str, names: Mapping[str, object] | list[str]) -> str:
    """A hint naming the closest valid name, or all of them when none is close."""
    near = get_close_matches(name, list(names), n=1)
    return f" Did you mean {near[0]!r}?" if near else f" Valid: {', '.join(names)}."


def _read_toml(file: Path) -> Tree:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"Cannot read the configuration file {file}: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration file {file} is not valid TOML: {error}.") from error


def _check_keys(tree: Tree, shape: type[Any], path: str) -> None:
    hints = get_type_hints(shape)
    for name, value in tree.items():
        if name not in hints:
            raise ConfigError(f"Unknown configuration key '{path}{name}'.{nearest(name, hints)}", param=path + name)
        if is_dataclass(hints[name]):
            if not isinstance(value, dict):
                raise ConfigError(f"'{path}{name}' is a table of keys, not a value.", param=path + name)
            nested = hints[name]
            assert isinstance(nested, type)
            _check_keys(value, nested, f"{path}{name}.")
