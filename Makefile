# Every verb of the project. A fresh machine needs Python >= 3.11 (Linux, x86-64), make and internet; for the
# container a Docker engine too.

PYTHON ?= python3
BUILD := .build
RUNTIME := $(BUILD)/runtime/bin/python
LEAN := $(BUILD)/lean/bin/python
FULL := $(BUILD)/full/bin/python
BUNDLE ?= infer/reference
BASE_IMAGE ?= $(shell sed -n 's/^ARG BASE_IMAGE=//p' Dockerfile)
# The time of everything in the image: the last commit's.
SOURCE_DATE_EPOCH ?= $(or $(shell git log -1 --format=%ct 2>/dev/null),0)
CUDA ?= 0
RAY ?= 0
RAY_IMAGE := lympho-infer:$(if $(filter 1,$(CUDA)),cuda-)ray
IMAGE ?= $(if $(filter 1,$(RAY)),$(RAY_IMAGE),lympho-infer$(if $(filter 1,$(CUDA)),:cuda))
TRAIN_OPTIONS ?= --recipe small
EXPORT_OPTIONS = $(if $(ABOUT),--about "$(ABOUT)") $(if $(REDUCED),--reduced "$(REDUCED)") $(if $(ACCEPT_WEAK),--accept-weak)
UV := $(BUILD)/uv/bin/uv

FUZZ ?= 20000
PROCESSES ?= auto
BENCH_OPTIONS ?=
GPU_OPTIONS ?=
RAY_OPTIONS ?=
IMAGE_OPTIONS ?=
PIN_OPTIONS ?=

.PHONY: help demo test test-fast test-slow test-browser test-container test-ray check format train reproduce reproduce-report export image bench bench-train bench-ray \
	gpu-check fuzz soak audit lock soup pin-base clean

help:  ## list the verbs
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

demo: $(BUILD)/runtime/ready  ## score six drawn patients with the bundle that ships
	$(RUNTIME) -m tests.demo $(BUILD)/demo

test: $(BUILD)/lean/ready $(BUILD)/full/ready  ## [PROCESSES=auto]: all tests but the container's: the runtime's without torch, then the rest
	$(LEAN) -m pytest -n $(PROCESSES) --dist worksteal tests/infer
	$(FULL) -m pytest -n $(PROCESSES) --dist loadfile tests --ignore tests/infer --ignore tests/cluster -m "not slow"

test-slow: $(BUILD)/lean/ready $(BUILD)/full/ready  ## what `make test` leaves out: experiments, benchmarks, benchmark, [FUZZ=20000] fuzz examples
	$(FULL) -m pytest -n $(PROCESSES) --dist loadfile tests --ignore tests/infer --ignore tests/cluster -m slow
	LYMPHO_FUZZ=$(FUZZ) $(LEAN) -m pytest -n $(PROCESSES) --dist worksteal tests/infer -m fuzz
	$(FULL) -m tests.bench $(BUILD)/bench $(BENCH_OPTIONS)

test-fast: $(BUILD)/lean/ready  ## the runtime's tests alone
	$(LEAN) -m pytest -n $(PROCESSES) --dist worksteal tests/infer -x

test-browser: $(BUILD)/full/ready  ## the evidence pages in Chromium, headless (needs Debian's chromium and chromium-driver)
	LYMPHO_BROWSER=1 $(FULL) -m pytest tests/report

test-container: image $(BUILD)/lean/ready  ## build the images with and without Ray, and test them as a hospital runs them (needs a Docker engine)
	$(MAKE) image RAY=1 IMAGE=$(RAY_IMAGE)
	LYMPHO_IMAGE=$(IMAGE) LYMPHO_RAY_IMAGE=$(RAY_IMAGE) $(LEAN) -m pytest tests/container

test-ray: $(BUILD)/ray/ready  ## --ray on a real cluster of three nodes on this machine (two minutes)
	$(BUILD)/ray/bin/python -m pytest tests/cluster

check: $(BUILD)/full/ready  ## format, lint, types, import contracts
	$(FULL) -m ruff format --check .
	$(FULL) -m ruff check .
	$(FULL) -m mypy
	$(dir $(FULL))lint-imports

format: $(BUILD)/full/ready  ## put the code into its format
	$(FULL) -m ruff format .
	$(FULL) -m ruff check --fix .

train: $(BUILD)/full/ready  ## DATA= RUN= [TRAIN_OPTIONS=]: train everything on a labelled cohort
	@test -n "$(DATA)" && test -n "$(RUN)" || { echo "usage: make train DATA=patients RUN=folder" >&2; exit 2; }
	$(FULL) -m train all "$(DATA)" "$(RUN)" $(TRAIN_OPTIONS)

# On two cores `evaluate --protocol nested --part`, two calls side by side, halves the time beforehand (train/README.md).
reproduce: $(BUILD)/full/ready  ## DATA= RUN= [ABOUT=] [REDUCED=]: training, nested evaluation, RUN/bundle and card; resumes from what RUN holds
	@test -n "$(DATA)" && test -n "$(RUN)" || { echo "usage: make reproduce DATA=patients RUN=folder" >&2; exit 2; }
	$(FULL) -m train all "$(DATA)" "$(RUN)" $(TRAIN_OPTIONS)
	$(FULL) -m train evaluate "$(DATA)" "$(RUN)" $(TRAIN_OPTIONS) --protocol nested
	$(FULL) -m export "$(RUN)" "$(RUN)/bundle" --replace $(EXPORT_OPTIONS)

reproduce-report: $(BUILD)/full/ready  ## DATA= RUN=: the report's rows and figures; resumes from what RUN holds
	@test -n "$(DATA)" && test -n "$(RUN)" || { echo "usage: make reproduce-report DATA=patients RUN=folder" >&2; exit 2; }
	$(FULL) -m train scan "$(DATA)" "$(RUN)" $(TRAIN_OPTIONS)
	$(FULL) -m train naive-bayes "$(DATA)" "$(RUN)" $(TRAIN_OPTIONS) --protocol report --compare
	$(FULL) -m train evaluate "$(DATA)" "$(RUN)" $(TRAIN_OPTIONS) --protocol report
	$(FULL) -m train all "$(DATA)" "$(RUN)" $(TRAIN_OPTIONS)
	$(FULL) -m train figures "$(DATA)" "$(RUN)"

export: $(BUILD)/full/ready  ## RUN= BUNDLE= [ABOUT=] [REDUCED=] [ACCEPT_WEAK=1]: pack a finished training into a bundle
	@test -n "$(RUN)" && test "$(BUNDLE)" != infer/reference || { echo "usage: make export RUN=folder BUNDLE=folder" >&2; exit 2; }
	$(FULL) -m export "$(RUN)" "$(BUNDLE)" $(EXPORT_OPTIONS)

image:  ## [BUNDLE=] [CUDA=1] [RAY=1] [IMAGE=] [BASE_IMAGE=]: build the container, tagged lympho-infer, with CUDA=1 lympho-infer:cuda, with RAY=1 lympho-infer:ray
	rm -rf $(BUILD)/image && mkdir -p $(BUILD)/image/export
	cp -r Dockerfile .dockerignore infer $(BUILD)/image/
	cp -r export/__init__.py export/supply $(BUILD)/image/export/
	rm -rf $(BUILD)/image/infer/reference && cp -rL "$(BUNDLE)" $(BUILD)/image/infer/reference
	chmod -R a+rX $(BUILD)/image
	docker build --network host --build-arg BASE_IMAGE=$(BASE_IMAGE) --build-arg CUDA=$(CUDA) --build-arg RAY=$(RAY) \
		--build-arg SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) $(IMAGE_OPTIONS) -t $(IMAGE) $(BUILD)/image

bench: $(BUILD)/full/ready  ## pictures a second: files to CSV, the plain way in PyTorch, networks and decoding alone
	$(FULL) -m tests.bench $(BUILD)/bench $(BENCH_OPTIONS)

bench-train: $(BUILD)/full/ready  ## pictures a second in training: ours against the report's way
	$(FULL) -m tests.bench_train $(BUILD)/bench-train

bench-ray: $(BUILD)/ray/ready  ## [RAY_OPTIONS=]: two actors against one process, and what a patient costs the driver
	$(BUILD)/ray/bin/python -m tests.bench_ray $(BUILD)/bench-ray $(RAY_OPTIONS)

gpu-check: $(BUILD)/cuda/ready  ## [GPU_OPTIONS=]: a GPU against the CPU: results, resuming, full memory, speed (ten minutes)
	$(BUILD)/cuda/bin/python -m tests.gpu_check $(BUILD)/gpu-check $(GPU_OPTIONS)

fuzz: $(BUILD)/lean/ready  ## [FUZZ=20000]: the fuzz tests, so many new examples each
	LYMPHO_FUZZ=$(FUZZ) $(LEAN) -m pytest tests/infer -m fuzz -v

soak: $(BUILD)/runtime/ready  ## 20,000 patients: memory, time a patient; 50 kills: what is kept (an hour)
	$(RUNTIME) -m tests.soak $(BUILD)/soak

# Strict: a package that cannot be looked up is an error, not one without vulnerabilities.
audit:  ## known vulnerabilities of the packages that ship (needs the internet)
	test -x $(BUILD)/audit/bin/pip-audit || { $(PYTHON) -m venv $(BUILD)/audit && $(BUILD)/audit/bin/pip install -q pip-audit; }
	for lock in infer/requirements.txt infer/requirements-cuda.txt infer/requirements-ray.txt infer/requirements-cuda-ray.txt; do \
		$(BUILD)/audit/bin/pip-audit --strict --disable-pip --require-hashes -r $$lock || exit 1; done

# The largest first; the others under it as a constraint: a package has one version, and the same hashes, in all.
COMPILE := $(UV) pip compile -q --universal --generate-hashes --no-annotate --no-header --python-version 3.11 pyproject.toml
lock: $(UV)  ## resolve the dependencies anew into the requirements files, with hashes
	$(COMPILE) --extra cuda --extra train --extra test --extra browser --extra formats --extra dev -o tests/requirements.txt
	$(COMPILE) -c tests/requirements.txt --extra test -o tests/requirements-runtime.txt
	$(COMPILE) -c tests/requirements.txt --extra cuda -o infer/requirements-cuda.txt
	$(COMPILE) -c tests/requirements.txt -o infer/requirements.txt
	$(COMPILE) -c tests/requirements.txt --extra ray -o infer/requirements-ray.txt
	$(COMPILE) -c tests/requirements.txt --extra cuda --extra ray -o infer/requirements-cuda-ray.txt
	$(COMPILE) -c tests/requirements.txt --extra ray --extra test -o tests/requirements-ray.txt

soup: $(BUILD)/runtime/ready  ## write export/SOUP.md from the locks and export/supply/soup.toml
	$(RUNTIME) -m export.supply.soup

pin-base: $(BUILD)/runtime/ready  ## [PIN_OPTIONS=--check]: write the digest that the base image's tag has into the Dockerfile (asks its registry)
	$(RUNTIME) -m export.supply.base $(PIN_OPTIONS)

clean:  ## remove everything that was built, the environments included
	rm -rf $(BUILD)

# An environment each: what ships, the same with CUDA's libraries, the same with pytest, that with Ray, and everything. Made anew when
# its lock changes.
$(BUILD)/runtime/ready: infer/requirements.txt
$(BUILD)/cuda/ready: infer/requirements-cuda.txt
$(BUILD)/lean/ready: tests/requirements-runtime.txt
$(BUILD)/ray/ready: tests/requirements-ray.txt
$(BUILD)/full/ready: tests/requirements.txt

$(BUILD)/%/ready:
	rm -rf $(@D)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lympho needs Python >= 3.11: make PYTHON=...")'
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	touch $@

$(UV):
	$(PYTHON) -m venv $(BUILD)/uv
	$(BUILD)/uv/bin/pip install --quiet uv
