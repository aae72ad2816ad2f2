# make app, make test: everything from a fresh clone. `make help` lists the rest.

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
ARGS ?=

BIN := $(VENV)/bin
# Written after a complete installation; holds its TORCH_INDEX.
STAMP := $(VENV)/.installed

.PHONY: help app test lint install extra

help:
	@echo "make app      start the app in the browser        ARGS='--server.port 8600' for its options"
	@echo "make test     run the tests (all but the slow)    ARGS='-k canvas' for pytest's options"
	@echo "make lint     check style, formatting and the direction of imports"
	@echo "make install  only make $(VENV) and install requirements.txt; the others do it when it is due"
	@echo "make extra    also install requirements-extra.txt: TensorBoard, ONNX, the notebook"
	@echo
	@echo "PYTHON=python3.12     the Python to build $(VENV) with, 3.11 or later"
	@echo "VENV=/tmp/venv        another place for the virtual environment"
	@echo "TORCH_INDEX=URL       the build of torch for a new $(VENV), for example without CUDA:"
	@echo "                      https://download.pytorch.org/whl/cpu"

app: $(STAMP)
	$(BIN)/streamlit run app.py $(ARGS)

test: $(STAMP)
	$(BIN)/python -m pytest $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

install: $(STAMP)

extra: $(STAMP)
	$(BIN)/python -m pip install -r requirements-extra.txt

$(STAMP): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or later is needed, and $(PYTHON) is: $$($(PYTHON) --version 2>&1)" >&2; \
	  echo "Name another one, for example: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(TORCH_INDEX:%=--extra-index-url %) -r requirements.txt
	@echo '$(TORCH_INDEX)' > $@

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
