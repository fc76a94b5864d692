# Tunesmith. `make help` lists what can be done.

PYTHON ?= python3
# what `make demo` tunes: tiny, or smollm2
BASE   ?= tiny
VENV   := .venv
BIN    := $(VENV)/bin
# a test process computes on one thread and waits for a third of its time: one more than there are cores
SIDE_BY_SIDE := -n $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1) --maxprocesses 8
# tests that start the whole service; those of a file share one
SERVICES := tests/end_to_end tests/faults
# llama.cpp: its sources, converters and server come with the sources of its Python package
LLAMA  := build/llama.cpp
LLAMA_PACKAGE := llama_cpp_python-0.3.36
LLAMA_SOURCES := build/$(LLAMA_PACKAGE)/vendor/llama.cpp
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# where it is set, every process of the tests compiles all modules again
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo up migrate real-bases test test-services test-all test-real test-gpu test-clients check format bench-training bench-serving bench-streams bench-batches bench-embeddings bench-auto bench-planning bench-sweeps bench-distillation bench-quality llama-server gguf bench-gpu bench-service constraints dist clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-16s %s\n", $$1, $$2}'

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/service.stamp: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) -e '.[train,demo]'
	@touch $@

$(VENV)/test.stamp: $(VENV)/service.stamp
	$(PIP) -e '.[train,demo,test]'
	@touch $@

setup: $(VENV)/service.stamp ## install the service into .venv

demo: setup $(if $(filter smollm2,$(BASE)),real-bases) ## start the service, tune a model, compare it with its base, stop; BASE=smollm2: a real one
	$(BIN)/python -m examples.demo --base $(BASE)

up: setup ## keep the service running on 127.0.0.1:8000
	$(BIN)/tunesmith up

real-bases: $(VENV)/test.stamp ## make SmolLM2-135M-Instruct and all-MiniLM-L6-v2 from two packages (175 MB)
	$(BIN)/python -m examples.real_bases

migrate: setup ## bring the database named by TUNESMITH_DATABASE_URL to the newest schema
	$(BIN)/python -m migrations.upgrade

test: $(VENV)/test.stamp ## run the tests of a change, except those of whole services (10 minutes)
	$(BIN)/python -m pytest -m "not slow and not gpu and not real and not clients" $(SIDE_BY_SIDE) --dist worksteal \
		$(patsubst %,--ignore=%,$(SERVICES))

test-services: $(VENV)/test.stamp ## start, kill and follow whole services (15 minutes)
	$(BIN)/python -m pytest -m "not gpu and not real and not clients" $(SIDE_BY_SIDE) --dist loadfile $(SERVICES)

test-all: $(VENV)/test.stamp ## run the whole matrix
	$(BIN)/python -m pytest -m "not gpu and not real and not clients" $(SIDE_BY_SIDE) --dist worksteal

test-real: real-bases ## train, serve and compare on the real bases (30 minutes)
	$(BIN)/python -m pytest -m real tests/real

test-clients: $(VENV)/test.stamp ## run the programs of others unmodified, and write their results into docs/clients.md (20 minutes)
	$(BIN)/python -m pytest -m clients tests/clients; status=$$?; \
		$(BIN)/python -m tests.clients.page && exit $$status

test-gpu: ## run the tests that need a CUDA device, with the Python of this machine
	$(PYTHON) -m pytest -m gpu -rs tests/gpu

check: $(VENV)/test.stamp ## lint, format, types, import contracts, migrations
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m migrations.check

format: $(VENV)/test.stamp ## rewrite the code in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench-training: real-bases ## training beside TRL and PEFT, as ratios; then the same through the service
	$(BIN)/python -m bench.training
	$(BIN)/python -m bench.service_training
	$(BIN)/python -m bench.service_training --only lora --lengths 384-1024
	$(BIN)/python -m bench.service_training --only lora --base core/models/tiny
	$(BIN)/python -m bench.service_training --only lora --base build/real-bases/smollm2
	$(BIN)/python -m bench.cold_start

bench-serving: $(VENV)/test.stamp ## many adapters in one batch beside PEFT and llama.cpp, as ratios
	GLIBC_TUNABLES=$$($(BIN)/python -c 'from cli.settings import ENGINE_TUNABLES as t; print(t)') \
		$(BIN)/python -m bench.serving

bench-streams: $(VENV)/test.stamp ## what the API costs a token, 500 streams, one stream under attack
	$(BIN)/python -m bench.streams

bench-batches: $(VENV)/test.stamp ## a batch of 10,000 requests beside direct ones, a live stream beside a batch
	$(BIN)/python -m bench.batches

bench-embeddings: real-bases ## embeddings a second beside plain transformers, as ratios
	$(BIN)/python -m bench.embeddings

bench-auto: $(VENV)/test.stamp build/auto/sources.stamp ## the learning rate of auto beside grids of rates (hours); needs `make real-bases`
	$(BIN)/python -m bench.auto --save

bench-sweeps: $(VENV)/test.stamp ## the winner and the cost of a sweep beside the full grid, ten seeds (half an hour)
	$(BIN)/python -m bench.sweeps --save

bench-distillation: real-bases ## a student of a teacher beside one of the same labelled rows alone, three seeds (minutes)
	$(BIN)/python -m bench.distillation --save

bench-quality: real-bases build/auto/sources.stamp build/auto/bfcl.stamp ## every strategy beside TRL and PEFT: accuracy, seconds, memory, three seeds (hours)
	$(BIN)/python -m bench.quality --save

# the tool calls of a leaderboard, from its wheel
build/auto/bfcl.stamp: | build/auto/sources.stamp
	build/auto/venv/bin/pip download --quiet --disable-pip-version-check --no-deps --dest build/auto bfcl-eval==2026.3.23
	$(PYTHON) -m zipfile -e build/auto/bfcl_eval-*.whl build/auto/bfcl
	@touch $@

# small datasets of real text, from the packages that carry them
build/auto/sources.stamp: bench/reasoning_rows.py
	mkdir -p build/auto
	$(PYTHON) -m venv build/auto/venv
	build/auto/venv/bin/pip install --quiet --disable-pip-version-check reasoning-gym==0.1.25
	build/auto/venv/bin/python bench/reasoning_rows.py build/auto/reasoning_gym.jsonl
	build/auto/venv/bin/pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: \
		--dest build/auto vaderSentiment==3.3.2
	tar -xzf build/auto/vaderSentiment-3.3.2.tar.gz -C build/auto
	tar -xzOf build/auto/vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz \
		hutto_ICWSM_2014/tweets_GroundTruth.txt > build/auto/tweets_GroundTruth.txt
	@touch $@

llama-server: $(LLAMA)/bin/llama-server ## build llama.cpp's server as a peer of bench-serving (10 minutes; cmake, C++)

$(LLAMA_SOURCES)/CMakeLists.txt: | $(VENV)/bin/python
	$(BIN)/python -m pip download --quiet --no-deps --no-binary llama-cpp-python --dest build \
		$(subst _,-,$(subst -,==,$(LLAMA_PACKAGE)))
	tar -xzf build/$(LLAMA_PACKAGE).tar.gz -C build

$(LLAMA)/bin/llama-server: | $(LLAMA_SOURCES)/CMakeLists.txt
	cmake -S $(LLAMA_SOURCES) -B $(LLAMA) -DCMAKE_BUILD_TYPE=Release \
		-DGGML_NATIVE=ON -DBUILD_SHARED_LIBS=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_USE_PREBUILT_UI=OFF
	cmake --build $(LLAMA) --target llama-server --parallel 2

gguf: $(VENV)/test.stamp | $(LLAMA_SOURCES)/CMakeLists.txt ## install llama.cpp, which writes and runs GGUF files (10 minutes; C++)
	$(PIP) build/$(LLAMA_PACKAGE).tar.gz
	$(PIP) -e '.[gguf]'
	@echo 'TUNESMITH_LLAMA_CPP=$(abspath $(LLAMA_SOURCES))'

bench-planning: real-bases ## the planner's predictions beside twelve real runs: peak memory and time (10 minutes)
	$(BIN)/python -m bench.planning --save

bench-gpu: ## training at real size on a CUDA device, with the Python of this machine
	$(PYTHON) -m bench.gpu

bench-service: $(VENV)/test.stamp ## start-up times and memory of the service
	$(BIN)/python -m bench.service

dist: $(VENV)/service.stamp ## build the source archive and the wheel into dist/
	$(PIP) build==1.6.1
	$(BIN)/python -m build --outdir dist .

constraints: ## pin what the development environment holds
	@{ sed -n '1,2p' constraints.txt; $(BIN)/pip freeze --exclude-editable | sed 's/+cpu$$//'; } > constraints.new
	@mv constraints.new constraints.txt

clean: ## remove the environment and every cache
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
