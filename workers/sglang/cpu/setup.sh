#!/usr/bin/env bash
# Builds a virtual environment in which the real SGLang 0.5.21 server runs on the CPU, with a tiny model in it.
#
#   setup.sh [VENV_DIR]       default: .cache/sglang-cpu in the repository; PYTHON=python3.11 chooses the interpreter
#
# About 2 minutes and 3 GB with a torch built for CPUs, more of both with the CUDA build that PyPI has for Linux on
# x86-64. A second run returns at once: the file `.ready` in VENV_DIR holds a hash of everything that went in. An
# interrupted run is simply run again.
#
# Why not `pip install sglang`: its dependencies are CUDA kernels (sgl-kernel, flashinfer, and others), gigabytes that
# cannot load without a GPU. So sglang is installed without its dependencies; what serving a small model on the CPU
# imports is in requirements.txt, each with its reason, at the versions in constraints.txt.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
venv=${1:-$root/.cache/sglang-cpu}
python=${PYTHON:-python3}

wanted=$(cat "$here"/setup.sh "$here"/requirements.txt "$here"/constraints.txt "$here"/shim.py \
  "$here"/make_tiny_model.py | sha256sum | cut -d' ' -f1)
if [ "$(cat "$venv/.ready" 2>/dev/null || true)" = "$wanted" ]; then
  exit 0
fi

if ! "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then
  echo "setup.sh: SGLang on the CPU is set up with Python 3.11, and $python is not; set PYTHON=python3.11" >&2
  exit 1
fi

started=$SECONDS
doing=
step() {
  doing=$*
  echo "sglang-cpu: $* ($((SECONDS - started)) s)"
}
trap 'echo "setup.sh: failed at: $doing. Real SGLang was NOT set up, and nothing was tested against it. If pip could
not reach its package index, mend that (or name a mirror in PIP_INDEX_URL) and run this again; it resumes." >&2' ERR

mkdir -p "$venv"
rm -f "$venv/.ready"
echo '*' > "$venv/.gitignore" # the environment may lie inside a checkout
step "setting up the real SGLang server in $venv; about 2 minutes the first time"
"$python" -m venv "$venv"
pip=("$venv/bin/python" -m pip install -qq --disable-pip-version-check --constraint "$here/constraints.txt")
step "torch"
"${pip[@]}" torch
step "what SGLang imports"
"${pip[@]}" --requirement "$here/requirements.txt"
step "SGLang"
# Without dependencies: each would pull a CUDA library, or pin another version of what requirements.txt installed.
"${pip[@]}" --no-deps sglang torchvision triton compressed-tensors xgrammar apache-tvm-ffi
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
cp "$here/shim.py" "$site/sitecustomize.py"
step "a tiny model"
"$venv/bin/python" "$here/make_tiny_model.py" "$venv/tiny-model"
echo "$wanted" > "$venv/.ready"
step "ready: $venv"
