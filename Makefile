# The project's verbs. `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help setup run airflow serve test lint constraints gpu-wheels gpu-check clean

export PATH := $(CURDIR)/.venv/bin:$(PATH)
# No telemetry.
export DO_NOT_TRACK := 1
export DVC_NO_ANALYTICS := 1
export HF_HUB_DISABLE_TELEMETRY := 1

# A PYTHON that is given is taken or refused. Otherwise: the environment's own, then the first that fits
# (it is run to find out, since a shim of that name may exist and fail).
PYTHONS := $(if $(PYTHON),$(PYTHON),.venv/bin/python python3 python3.11 python3.12 python3.13)
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))

define environment
@for python in $(PYTHONS); do \
	if "$$python" -c '$(FITS)' 2>/dev/null; then exec "$$python" setup_environment.py $(1); fi; \
done; \
echo "error: $(PYTHONS): none is Python 3.11, 3.12 or 3.13: install one, or name it: PYTHON=/path/to/python make setup" >&2; \
exit 1
endef

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## make the environment in .venv, or complete it
	$(call environment)

run: ## from a fresh clone to a promoted recommender and its report; SOURCE=ifdb on interactive fiction
	$(call environment)
	@evergreen cycle $(if $(SOURCE),-S collect.source=$(SOURCE))

airflow: ## Airflow with the DAGs on this machine, http://127.0.0.1:8080 (AIRFLOW_PORT); Ctrl-C stops it
	$(call environment,airflow)
	@exec .venv/bin/python start_airflow.py

serve: ## the champion's lists over HTTP on this machine, http://127.0.0.1:8000 (PORT); Ctrl-C stops it
	$(call environment,serve)
	@exec evergreen serve --port $(or $(PORT),8000)

test: ## run the default tests
	$(call environment,dev)
	@env -u PYTHONDONTWRITEBYTECODE pytest -n logical --dist worksteal # hundreds of tests start Python

lint: ## check style, types and spelling
	$(call environment,dev)
	ruff check
	ruff format --check
	mypy
	codespell

constraints: ## pin every version anew, those already pinned stay; all anew: UPGRADE=--upgrade
	$(call environment,dev)
	uv pip compile $(UPGRADE) --quiet --universal --python-version 3.11 --all-extras --no-annotate \
		--no-emit-index-url --custom-compile-command "make constraints" \
		--output-file constraints.txt pyproject.toml

# What training needs beside PyTorch and NumPy, on a machine without a package index (docs/gpu.md).
GPU_WHEELS := annotated-types anyio click h11 httpcore2 httpx2 huggingface-hub idna iniconfig lightning-utilities \
	packaging pluggy pydantic pydantic-core pygments pytest pytest-timeout pytorch-lightning pyyaml regex \
	safetensors scipy shellingham tokenizers torchmetrics tqdm transformers truststore typer \
	typing-extensions typing-inspection
GPU_PLATFORMS := manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014

gpu-wheels: ## collect in .whl/ what a bare machine needs for gpu-check: PyTorch 2.11, NumPy 2, Python 3.12
	@rm -rf .whl && mkdir .whl
	@for name in $(GPU_WHEELS); do \
		grep -i "^$$name==" constraints.txt | grep -v "< '3.12'" | sed 's/ *;.*//' || exit 1; \
	done >.whl/versions.txt
	python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
		$(GPU_PLATFORMS:%=--platform %_x86_64) --dest .whl --requirement .whl/versions.txt
	@du -sh .whl

gpu-check: ## train and measure on this machine's CUDA device, with any python3 that has what is needed
	@python3 -m pytest -m gpu tests/test_gpu.py

clean: ## remove the environment and the tools' caches; data, models and the registry stay
	rm -rf .venv .mypy_cache .ruff_cache .hypothesis build *.egg-info
	find pipeline tests -name __pycache__ -type d -prune -exec rm -rf {} +
