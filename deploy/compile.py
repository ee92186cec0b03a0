"""Compiles the modules of every request's path with mypyc into router/_compiled: `compile.py [--optional]`.

The sources stay as they are and are what runs wherever this has not been done (router/compiled.py). Needs mypy with its
compiler (the `compile` extra), a C compiler and Python's headers; without them --optional says so and exits with 0.
One or two minutes. Which modules: those where a request spends its time, as far as compiling them pays. Not those that
define protocols for uvicorn or routes for FastAPI, which inherit or are inspected.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
os.environ["TRIEWAY_INTERPRETED"] = "1"  # this program imports router, and must not hold what it is about to replace

from router.compiled import FOLDER, MANIFEST, digest, usable  # noqa: E402

MODULES = (
    "router/admission/admission.py",
    "router/admission/door.py",
    "router/admission/fair_queue.py",
    "router/admission/held_queue.py",
    "router/admission/hold.py",
    "router/admission/retry.py",
    "router/experiment/choice.py",
    "router/experiment/desk.py",
    "router/experiment/steering.py",
    "router/fleet/breaker.py",
    "router/fleet/call_off.py",
    "router/fleet/collapse.py",
    "router/fleet/deadlines.py",
    "router/fleet/eligibility.py",
    "router/fleet/judge.py",
    "router/fleet/lease.py",
    "router/fleet/registry.py",
    "router/fleet/vitals.py",
    "router/fleet/worker.py",
    "router/policies/expected_ttft.py",
    "router/policies/expected_ttft_cache.py",
    "router/policies/expected_ttft_learned.py",
    "router/policies/expected_ttft_rate.py",
    "router/policies/expected_ttft_worker.py",
    "router/policies/known_match.py",
    "router/prefix/block_hash.py",
    "router/prefix/block_sizes.py",
    "router/prefix/cache_image.py",
    "router/processes/elsewhere.py",
    "router/processes/open_requests.py",
    "router/processes/rows.py",
    "router/processes/shared_limits.py",
    "router/processes/teller.py",
    "router/records.py",
    "router/request/body_edit.py",
    "router/request/client.py",
    "router/request/dispatch.py",
    "router/request/endpoints.py",
    "router/request/explain.py",
    "router/request/forward.py",
    "router/request/head.py",
    "router/request/model_call.py",
    "router/request/parse.py",
    "router/request/parsed_request.py",
    "router/request/progress.py",
    "router/request/prompt_key.py",
    "router/request/raw_request.py",
    "router/request/record.py",
    "router/request/relay.py",
    "router/request/relayed.py",
    "router/request/repeat.py",
    "router/request/reply.py",
    "router/request/strand.py",
    "router/request/usage.py",
    "router/request/worker_connection.py",
    "router/security/access.py",
    "router/telemetry/backlog.py",
    "router/telemetry/metrics.py",
    "router/telemetry/recent_requests.py",
    "router/telemetry/series.py",
    "router/telemetry/traffic.py",
)
FLAGS = ("-ffp-contract=off", "-fvisibility=hidden", "-fno-semantic-interposition")
"""For the C compiler. No fused multiply-add, where the machine has one: the compiled policy decides as the interpreted
one does. The others let the modules call each other directly, as nobody else calls what is in their library."""
GROUP = "trieway"
"""mypyc puts all modules into one library of this name, so that they call each other directly."""


def main() -> int:
    options = arguments()
    if options.into is not None:
        build(options.into)
        return 0
    if set(names()) <= usable().keys():
        sys.stdout.write(f"{FOLDER.relative_to(ROOT)} is of these sources already.\n")
        return 0
    with tempfile.TemporaryDirectory(prefix="trieway-compile-") as made:
        again = [sys.executable, __file__, "--into", made]
        done = subprocess.run(again, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603 - this file
        if done.returncode != 0:
            reason = (done.stderr or done.stdout).strip()
            sys.stderr.write(f"{reason if not options.optional else reason.splitlines()[-1]}\n")
            sys.stderr.write("Nothing was compiled; everything runs interpreted, which costs more CPU per request.\n")
            return 0 if options.optional else 1
        install(Path(made))
    sys.stdout.write(f"Compiled {len(MODULES)} modules into {FOLDER.relative_to(ROOT)}.\n")
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--optional", action="store_true", help="exit with 0 where it can't be done")
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def build(made: Path) -> None:
    """Translate and compile, in a process of its own: mypyc ends it where a source does not pass."""
    from mypyc.build import mypycify
    from mypyc.irbuild.specialize import specialize_function, translate_dataclasses_field_call
    from setuptools import Distribution

    lenient = ["--config-file=", "--ignore-missing-imports"]  # types are checked by `make check`, and extras may lack
    specialize_function("router.knob.knob")(translate_dataclasses_field_call)  # which it wraps: a field for now
    extensions: list[Any] = mypycify(
        [*lenient, *MODULES], opt_level="2", debug_level="0", target_dir=str(made / "c"), group_name=GROUP
    )
    os.environ["CFLAGS"] = f"{os.environ.get('CFLAGS', '')} {' '.join(FLAGS)}"
    command: Any = Distribution({"name": GROUP, "ext_modules": extensions}).get_command_obj("build_ext")
    command.build_lib = str(made / "lib")
    command.build_temp = str(made / "objects")
    command.parallel = os.cpu_count()
    command.ensure_finalized()
    command.run()


def install(made: Path) -> None:
    """Put what was built in the place of what was there; the manifest comes last."""
    suffix = EXTENSION_SUFFIXES[0]
    new = Path(tempfile.mkdtemp(prefix="_compiled-", dir=FOLDER.parent))
    modules: dict[str, str] = {}
    for library in sorted((made / "lib").rglob(f"*{suffix}")):
        name = ".".join(library.relative_to(made / "lib").parts).removesuffix(suffix)
        modules[name] = f"{name}{suffix}"
        shutil.copyfile(library, new / modules[name])
    manifest = {"suffix": suffix, "modules": modules, "sources": {each: digest(ROOT / each) for each in sources()}}
    (new / MANIFEST).write_text(json.dumps(manifest, indent=1))
    new.chmod(0o755)
    shutil.rmtree(FOLDER, ignore_errors=True)
    new.rename(FOLDER)


def names() -> list[str]:
    return [each.removesuffix(".py").replace("/", ".") for each in MODULES]


def sources() -> list[str]:
    """The modules, and what of this project they import: mypyc goes by the types that are declared there."""
    for name in names():
        import_module(name)
    ours = [module.__file__ for name, module in sys.modules.items() if name.partition(".")[0] == "router"]
    return sorted(Path(file).relative_to(ROOT).as_posix() for file in ours if file is not None)


if __name__ == "__main__":
    sys.exit(main())
