# The commands of this project. CI calls exactly these.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install compile up test test-sglang sglang-env check lock bench chaos compose audit

install: $(VENV)/.installed

$(VENV)/.installed: requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing what Trieway needs into $(VENV) (a minute the first time) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@echo "Compiling what every request runs (one or two minutes, once; without a C compiler it is interpreted) ..."
	@$(BIN)/python deploy/compile.py --optional
	@touch $@

# Again after a change of these modules: until then all of them are interpreted, and a change takes effect at once.
compile: install
	$(BIN)/python deploy/compile.py

up: install
	@exec $(BIN)/trieway up

check: install
	$(BIN)/ruff check router workers loadtests tests benchmarks docs deploy
	$(BIN)/mypy

# Three processes also on two cores, because many tests wait. Plain `pytest` works too, one test after another.
TEST_PROCESSES ?= 3
test: install
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadscope --no-loadscope-reorder $(PYTEST_OPTIONS)

# The same contract against the real SGLang server, on this machine's CPU, and SGLang's own clients through the router.
SGLANG_ENV ?= .cache/sglang-cpu
test-sglang: install sglang-env
	TRIEWAY_SGLANG_ENV=$(SGLANG_ENV) $(BIN)/python -m pytest tests/contract --worker=sglang

sglang-env:
	PYTHON=$(PYTHON) bash workers/sglang/cpu/setup.sh $(SGLANG_ENV)

# Pins and hashes of the lock; withdrawn versions and known vulnerabilities where the package index tells them.
audit: install
	$(BIN)/python deploy/audit.py

compose:
	docker compose up --build

# CPU, rate and latency beside other routers, which are installed into .cache/bench (10 minutes; two free cores).
bench: compile
	$(BIN)/python benchmarks/data_path --out benchmarks/data_path/result.json

# Half an hour of faults under load, after which every request is accounted for.
chaos: install
	$(BIN)/python benchmarks/chaos --minutes 30 --seed 1

# After a change of the dependencies in pyproject.toml.
lock:
	uv pip compile pyproject.toml --extra dev --extra loadtest --extra calibrate --extra exact --extra compile --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header --output-file requirements.lock
