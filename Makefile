# make app, make test: everything from a fresh clone. `make help` lists the rest.

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
NVIDIA_DRIVER ?= /proc/driver/nvidia
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
WORKERS ?= 2
ARGS ?=

BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
# Written after a complete installation; the first holds its TORCH_INDEX.
STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev

# Sets the shell's index. Without an NVIDIA GPU, the gigabytes of CUDA that pip takes on Linux are of no use.
define CHOOSE_TORCH
if [ -z "$$index" ] && [ "$$(uname -s)" = Linux ] && [ ! -e $(NVIDIA_DRIVER) ] && ! command -v nvidia-smi >/dev/null; then \
    if timeout 3 $(PYTHON) -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1])' \
        '$(TORCH_CPU_INDEX)/torch/' 2>/dev/null; then \
      index='$(TORCH_CPU_INDEX)'; echo "No NVIDIA GPU was found: torch comes from $$index, without CUDA."; \
    else \
      echo "No NVIDIA GPU was found, but $(TORCH_CPU_INDEX) does not answer: unless pip is set up"; \
      echo "otherwise, it takes the torch with CUDA, several gigabytes. TORCH_INDEX=URL names another place."; \
    fi; \
  fi
endef

.PHONY: help app test lint install extra

help:
	@echo "make app      start the app in the browser        ARGS='--server.port 8600' for its options"
	@echo "make test     run the tests (all but the slow)    ARGS='-k canvas' for pytest's options"
	@echo "make lint     check style, formatting, the direction of imports and types"
	@echo "make install  only make $(VENV) and install requirements.txt; the others do it when it is due, and make test"
	@echo "              and make lint also install requirements-dev.txt"
	@echo "make extra    also install requirements-extra.txt: TensorBoard, ONNX, the Hub, HEIC, h5ad, ArviZ, the notebook"
	@echo
	@echo "PYTHON=python3.12     the Python to build $(VENV) with, 3.11 or later"
	@echo "WORKERS=2             processes that share the tests; 0 runs them in one"
	@echo "VENV=/tmp/venv        another place for the virtual environment"
	@echo "TORCH_INDEX=URL       where a new $(VENV) takes its build of torch from; by default, on Linux without an NVIDIA"
	@echo "                      GPU, $(TORCH_CPU_INDEX) if it answers within 3 s"

app: $(STAMP)
	$(BIN)/streamlit run app.py $(ARGS)

test: $(DEV_STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

lint: $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/pyright --pythonpath $(BIN)/python

install: $(STAMP)

extra: $(STAMP)
	$(BIN)/python -m pip install -r requirements-extra.txt

$(STAMP): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or later is needed, and $(PYTHON) is: $$($(PYTHON) --version 2>&1)" >&2; \
	  echo "Name another one, for example: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@set -e; index='$(TORCH_INDEX)'; $(CHOOSE_TORCH); set -x; \
	  $(BIN)/python -m pip install $${index:+--extra-index-url "$$index"} -r requirements.txt; \
	  set +x; echo "$$index" > $@

$(DEV_STAMP): $(STAMP) requirements-dev.txt
	$(BIN)/python -m pip install -r requirements-dev.txt
	@touch $@

# python -m venv refuses a path that holds the separator of paths.
ifneq ($(OS),Windows_NT)
ifneq ($(findstring :,$(CURDIR)),)
ifeq ($(filter /%,$(VENV)),)
$(error no virtual environment can be made below $(CURDIR), whose name contains ':'; say where: VENV=/somewhere/venv)
endif
endif
endif

# An installed torch of another build would satisfy pip, so TORCH_INDEX would be ignored in silence.
ifneq ($(TORCH_INDEX),)
ifneq ($(wildcard $(STAMP)),)
ifneq ($(TORCH_INDEX),$(shell cat $(STAMP)))
$(error $(VENV) was installed with TORCH_INDEX='$(shell cat $(STAMP))'; delete it first: rm -r $(VENV))
endif
endif
endif
