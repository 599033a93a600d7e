PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# An extra of pyproject.toml each; its size is said before it is fetched.
INSTALLED := $(VENV)/.installed-dev
DOCS_INSTALLED := $(VENV)/.installed-docs
SIZE_dev := TensorFlow, PyTorch and JAX; a few minutes, several GB
SIZE_docs := MkDocs; a minute
# What pip warns of, such as indexes that lack a package. It is shown where the installation fails.
COMPLAINTS := $(VENV)/pip-warnings.txt
# A module's tests stay together, as they share what takes long. Threads of torch and TensorFlow
# would wait for each other.
TESTS := -m pytest -n 2 --dist loadfile --no-loadscope-reorder
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python $(TESTS)
# What `make coverage` tries.
LIBRARY ?= torchvision
# The newest Keras before its release, beside everything else of VENV.
NEXT := .venv-next

.PHONY: help install demo train-demo notebooks test test-all test-next smoke lint format parity models-table coverage bench docs clean

help:
	@echo "make demo          convert both networks, compare them with torchvision, write a report; a minute"
	@echo "make train-demo    train LeNet-5 on embedded digits, under a minute"
	@echo "make notebooks     execute the notebooks of examples/notebooks, eight minutes; NAME=6_training_parity for one"
	@echo "make test          the tests, ten minutes on two idle cores"
	@echo "make test-all      the slow tests and the wheel in fresh environments too, hours"
	@echo "make test-next     the tests against the next Keras, from its nightly build"
	@echo "make lint          ruff, mypy and the import contracts"
	@echo "make format        let ruff format the code"
	@echo "make parity        measure the README's parity table again"
	@echo "make models-table  write the table of models in docs/index.md again"
	@echo "make coverage      convert all of torchvision's networks, or LIBRARY=timm, hours; docs/coverage.md"
	@echo "make bench         measure all speeds, an hour or two; QUICK=--quick for a few rounds"
	@echo "make docs          the documentation's site, into site/; its own installation is small"

install: $(INSTALLED)

$(VENV)/.installed-%: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.12 ...")'
	@echo "Installing into $(VENV) ($(SIZE_$*)) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --disable-pip-version-check --editable '.[$*]' 2> $(COMPLAINTS) || { cat $(COMPLAINTS) >&2; exit 1; }
	@touch $@

demo: $(INSTALLED)
	@$(BIN)/python examples/demo.py

train-demo: $(INSTALLED)
	@$(BIN)/python examples/train_demo.py

# NAME is a notebook, or several; CIFAR10, CIFAR100 and PHOTOS are folders that they use in the place of
# embedded data.
notebooks: $(INSTALLED)
	@$(BIN)/python examples/notebooks/run.py $(NAME)

test: $(INSTALLED)
	$(PYTEST)

test-all: $(INSTALLED) smoke
	$(PYTEST) -m ''

# The wheel in fresh environments that have one framework each.
smoke: $(INSTALLED)
	$(BIN)/python tests/smoke.py

test-next: $(INSTALLED)
	$(PYTHON) -m venv $(NEXT)
	$(NEXT)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade --no-deps keras-nightly
	$(BIN)/python -c 'import os, sysconfig; print(sysconfig.get_path("purelib"), os.getcwd(), sep="\n")' > "$$($(NEXT)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/shared.pth"
	OMP_NUM_THREADS=1 $(NEXT)/bin/python -c 'import keras; print("Keras", keras.__version__)'
	OMP_NUM_THREADS=1 $(NEXT)/bin/python $(TESTS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# IMAGES is a folder of photos, STATISTICS a JSON file of per-tensor statistics; both optional.
parity: $(INSTALLED)
	$(BIN)/python benchmarks/parity_table.py $(if $(IMAGES),--images $(IMAGES)) $(if $(STATISTICS),--statistics $(STATISTICS))

models-table: $(INSTALLED)
	$(BIN)/python benchmarks/models_table.py

# LIBRARY is torchvision or timm. JSON keeps what was found, so that an interrupted run goes on.
coverage: $(INSTALLED)
	$(BIN)/python benchmarks/coverage_table.py --library $(LIBRARY) --json $(or $(JSON),coverage-$(LIBRARY).json)

# QUICK=--quick; CIFAR and IMAGES are folders as for input_pipeline.py, which makes up its own data.
bench: $(INSTALLED)
	$(BIN)/python benchmarks/models.py $(QUICK)
	$(BIN)/python benchmarks/input_pipeline.py $(QUICK) $(if $(CIFAR),--cifar $(CIFAR)) $(if $(IMAGES),--images $(IMAGES))
	$(if $(shell command -v strace),$(BIN)/python benchmarks/file_operations.py $(if $(IMAGES),--images $(IMAGES)))
	$(BIN)/python benchmarks/whole_run.py $(QUICK) $(if $(IMAGES),--images $(IMAGES))
	$(BIN)/python benchmarks/lrn.py $(if $(QUICK),--rounds 1)
	$(BIN)/python benchmarks/max_pool.py $(if $(QUICK),--rounds 1)
	$(BIN)/python benchmarks/grouped_conv.py $(if $(QUICK),--rounds 1)
	$(BIN)/python benchmarks/convert.py $(QUICK)
	$(BIN)/python benchmarks/import_time.py $(QUICK)
	$(BIN)/python benchmarks/waiting.py $(QUICK) --make
	$(BIN)/python benchmarks/predictor.py $(QUICK)
	$(BIN)/python benchmarks/single_image.py $(QUICK)
	$(if $(IMAGES),$(BIN)/python benchmarks/prediction_job.py --images $(IMAGES) $(QUICK))

# Fails where a link leads nowhere. Needs none of the frameworks.
docs: $(DOCS_INSTALLED)
	$(BIN)/mkdocs build --strict --config-file docs/site/mkdocs.yml

clean:
	rm -rf $(VENV) $(NEXT) site demo runs examples/notebooks/runs examples/notebooks/*.ipynb build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
