# Each target works as the first command in a fresh clone: it needs Python 3.11 or newer with
# venv and pip, and make. Every other tool comes from the package index, into $(VENV).

PYTHON ?= python3
# Another Python has environments of its own, by its version: make test-unit PYTHON=python3.13
ifneq ($(PYTHON),python3)
SUFFIX := $(shell $(PYTHON) -c 'import sys; print("-python%d.%d" % sys.version_info[:2])')
$(if $(SUFFIX),,$(error PYTHON=$(PYTHON) does not run))
endif
VENV ?= .venv$(SUFFIX)
LOWEST_VENV ?= .venv-lowest$(SUFFIX)
BENCH_VENV ?= .venv-bench$(SUFFIX)
NEWEST_VENV ?= .venv-newest$(SUFFIX)
RESOLVE_VENV := .venv-resolve
# More than cores: most tests wait for a client or a server most of the time.
WORKERS ?= 6
TEST_ARGS ?=
BENCH_ARGS ?=
DEMO_ARGS ?=
MATRIX_ARGS ?=
SUITES ?=
AGAIN_ARGS ?=
SOAK_ARGS ?=
FUZZ_ARGS ?=
MUTANTS_ARGS ?=
AFTER_TEST ?=
WHOLE ?=

BIN := $(VENV)/bin
PIP_FLAGS := -qq --disable-pip-version-check
# loadfile: a file's tests share costly fixtures; those of a large one are several parts
# (tests/harness/scheduling.py). Not loadgroup: pytest-xdist 3.8 ignores its
# groups under pytest 9.2 without a word (pytest-dev/pytest-xdist#1386).
# The order is that of tests/conftest.py: the longest first. xdist's would put them last.
TEST_FLAGS := -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# The workers of a run would each compile all tests, and valgrind compiles fifty times slower.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
# pip calls in one environment must not run side by side.
.NOTPARALLEL:
.PHONY: help venv demo demo-stop test test-unit test-rest test-collect test-all test-again test-lowest lowest-venv coverage coverage-unit lint verify-types format \
  docs bench bench-lingering bench-stopping matrix matrix-full soak fuzz mutants suites build constraints clean bench-servers newest

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# $(1) environment, $(2) constraints file, $(3) what to install.
# Upgrading pip comes first: the one in a new environment may not know `--group`.
# pip compiles on one core, which is a third of the time that it takes. Some packages have files for
# another Python, which do not compile.
define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "cleanclose needs Python 3.11 or newer: make PYTHON=python3.12 TARGET" >&2; exit 1; }
	@test -x $(1)/bin/python || { echo "making $(1)" && $(PYTHON) -m venv $(1); }
	@echo "installing into $(1): $(3)"
	@$(1)/bin/python -m pip install $(PIP_FLAGS) -c constraints.txt --upgrade pip
	@$(1)/bin/python -m pip install $(PIP_FLAGS) --no-compile -c $(2) \
	  --build-constraint constraints.txt -e $(3)
	@$(1)/bin/python -m compileall -qq -j 0 $(1)/lib || true
	@touch $@
endef

# Each has what those before it have: pip is asked once, also where several targets run side by side.
$(VENV)/.stamp-demo: pyproject.toml constraints.txt
	$(call install,$(VENV),constraints.txt,'.[demo]')

$(VENV)/.stamp-test: pyproject.toml constraints.txt
	$(call install,$(VENV),constraints.txt,'.[all$(comma)demo]' --group test --group stacks)
	@touch $(VENV)/.stamp-demo

$(VENV)/.stamp-dev: pyproject.toml constraints.txt
	$(call install,$(VENV),constraints.txt,'.[all$(comma)demo]' --group dev)
	@touch $(VENV)/.stamp-demo $(VENV)/.stamp-test

$(LOWEST_VENV)/.stamp-test: pyproject.toml constraints.txt constraints-lowest.txt
	$(call install,$(LOWEST_VENV),constraints-lowest.txt,'.[all$(comma)demo]' --group test)

$(BENCH_VENV)/.stamp-bench: benchmarks/requirements.txt
	$(call install,$(BENCH_VENV),benchmarks/requirements.txt,'.[asgi$(comma)wsgi$(comma)tornado$(comma)demo]' -r benchmarks/requirements.txt)

comma := ,

venv: $(VENV)/.stamp-dev ## Make .venv with everything that development needs

demo: $(VENV)/.stamp-demo ## Run the example apps bare and wrapped and print the difference (DEMO_ARGS=--quick)
	$(BIN)/python -m example_apps.demo $(DEMO_ARGS)

# httpx, the client of the service's upstream, is one of the tests'.
demo-stop: $(VENV)/.stamp-test ## Print what a service burns for clients that have left, bare and with stop_work
	$(BIN)/python -m example_apps.llm_demo $(DEMO_ARGS)

test-unit: $(VENV)/.stamp-test ## Run the tests that need no server (PYTHON=python3.13)
	$(BIN)/python -m pytest $(TEST_FLAGS) $(or $(TEST_ARGS),tests/unit)

# One try of each scenario: a promise that holds now and then has the other runs to fail in.
# WHOLE=1 is `make test` and `make test-rest` in one run: it collects once, and a server that both
# ask is started once.
test: $(VENV)/.stamp-test ## Run what a change needs: every server and promise (TEST_ARGS="-k expect"; WHOLE=1)
	CLEANCLOSE_TRIES=$${CLEANCLOSE_TRIES:-1} \
	  $(BIN)/python -m pytest $(TEST_FLAGS) $(if $(WHOLE),,-m "not full") $(TEST_ARGS)

# Each value of a parameter is in `make test`, each combination is here (tests/harness/selection.py).
# One try here as well: the same scenario on the next server is another one.
test-rest: $(VENV)/.stamp-test ## Run what `make test` has left
	CLEANCLOSE_TRIES=$${CLEANCLOSE_TRIES:-1} \
	  $(BIN)/python -m pytest $(TEST_FLAGS) -m full $(TEST_ARGS)

test-collect: $(VENV)/.stamp-test ## Read all tests, and leave their bytecode to the runs that follow
	$(BIN)/python -m pytest -qq --collect-only -n 0 -p no:cacheprovider > /dev/null

# One try of each scenario with the lowest versions: they either work or they do not.
test-all: ## Run every test, lowest versions, matrix (AFTER_TEST=1: without `make test`)
	$(MAKE) $(if $(AFTER_TEST),test-rest,test WHOLE=1)
	CLEANCLOSE_TRIES=1 CLEANCLOSE_EXAMPLES=400 $(MAKE) test-lowest
	$(MAKE) matrix

test-again: $(VENV)/.stamp-test ## Run `make test` many times, half of them under load (AGAIN_ARGS="--runs 20")
	CLEANCLOSE_TRIES=$${CLEANCLOSE_TRIES:-1} \
	  $(BIN)/python -m tests.again $(AGAIN_ARGS) -- $(TEST_FLAGS) -m "not full" $(TEST_ARGS)

lowest-venv: $(LOWEST_VENV)/.stamp-test

# What a bare server of that time lost, and what its successors changed (deprecation warnings),
# says nothing about this project. The stacks have no lower bounds: nobody installs them with us.
# What an old version lacks it lacks in each combination, so that the choice of `make test` shows it.
test-lowest: $(LOWEST_VENV)/.stamp-test ## Run the tests with the lowest allowed versions
	$(LOWEST_VENV)/bin/python -m pytest $(TEST_FLAGS) \
	  -m "not distribution and not negative_control and not stacks and not full" \
	  -W "ignore::DeprecationWarning" -W "ignore::PendingDeprecationWarning" $(TEST_ARGS)

# No stamp: the newest version is another one next week. No constraints, and no upper bounds of our
# groups' either: what they keep away from the tests is what this is to find.
newest: ## Try the newest servers and frameworks, pre-releases too: which private attributes are gone?
	@test -x $(NEWEST_VENV)/bin/python || $(PYTHON) -m venv $(NEWEST_VENV)
	@$(NEWEST_VENV)/bin/python -m pip install $(PIP_FLAGS) --upgrade pip
	@sed -E 's/"(django|mkdocs)[<>=,.0-9]*"/"\1"/' pyproject.toml > $(NEWEST_VENV)/pyproject.toml
	@$(NEWEST_VENV)/bin/python -m pip install $(PIP_FLAGS) --pre --upgrade \
	  --upgrade-strategy eager --group $(NEWEST_VENV)/pyproject.toml:test \
	  --group $(NEWEST_VENV)/pyproject.toml:stacks -e '.[all,demo]'
	$(NEWEST_VENV)/bin/python -m tests.newest $(TEST_ARGS)

coverage: $(VENV)/.stamp-test ## Run all tests and print which lines none of them reached
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest $(TEST_FLAGS) $(TEST_ARGS)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report $(if $(TEST_ARGS),--fail-under=0)

# The floor is for these alone: what only a server's test reaches is found only when that one runs.
coverage-unit: $(VENV)/.stamp-test ## Run the tests that need no server; fail if they reach too few lines
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest $(TEST_FLAGS) tests/unit
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report --format=total

# Each of the two type checkers uses one core.
lint: $(VENV)/.stamp-dev verify-types ## Run ruff, mypy and pyright
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy & mypy=$$!; \
	  $(BIN)/pyright --pythonpath $(BIN)/python; pyright=$$?; \
	  wait $$mypy && exit $$pyright

verify-types: $(VENV)/.stamp-dev ## Let pyright say which public names have no complete type
	$(BIN)/python -m tests.type_completeness

format: $(VENV)/.stamp-dev ## Let ruff format the code and repair what it can
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench: $(VENV)/.stamp-test ## Measure the middleware's cost (BENCH_ARGS=--quick)
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

bench-lingering: $(VENV)/.stamp-test ## Measure what refused uploads cost each server (BENCH_ARGS="--part stop")
	$(BIN)/python -m benchmarks.lingering $(BENCH_ARGS)

bench-stopping: $(VENV)/.stamp-test ## Measure how soon work ends whose client has left (BENCH_ARGS="--only uvicorn")
	$(BIN)/python -m benchmarks.stopping $(BENCH_ARGS)

bench-servers: $(BENCH_VENV)/.stamp-bench ## Requests per second of real servers, over bare (BENCH_ARGS="--only uvicorn")
	$(BENCH_VENV)/bin/python -m benchmarks.servers $(BENCH_ARGS)

matrix: $(VENV)/.stamp-test ## Servers x clients x framings, bare and wrapped (MATRIX_ARGS=--docs)
	$(BIN)/python -m tests.matrix $(MATRIX_ARGS)

matrix-full: $(VENV)/.stamp-test ## The same with every server and upload: half an hour or more
	$(BIN)/python -m tests.matrix --full $(MATRIX_ARGS)

soak: $(VENV)/.stamp-test ## All kinds of clients and trouble on every server (SOAK_ARGS="--seconds 60 --seed 1")
	$(BIN)/python -m tests.soak $(SOAK_ARGS)

fuzz: $(VENV)/.stamp-test ## Anything in any order: tables, shims, the wire (FUZZ_ARGS="--steps 1000000")
	$(BIN)/python -m tests.fuzz $(FUZZ_ARGS)

mutants: $(VENV)/.stamp-test ## Change the core line by line: which changes does no unit test notice?
	$(BIN)/python -m tests.mutants $(MUTANTS_ARGS)

suites: ## Frameworks' own test suites, bare and wrapped (SUITES="flask django"): two hours for all
	$(PYTHON) -m tests.suites $(SUITES)

docs: $(VENV)/.stamp-dev ## Build the site into site/; a warning, for example a dead link, fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

build: $(VENV)/.stamp-dev ## Build the sdist and the wheel into dist/, and render the description
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*

# What a build asks for is in no list of pyproject.toml that pip could be given.
constraints: ## Resolve all dependencies anew and rewrite constraints.txt
	rm -rf $(RESOLVE_VENV)
	$(PYTHON) -m venv $(RESOLVE_VENV)
	$(RESOLVE_VENV)/bin/python -m pip install $(PIP_FLAGS) --upgrade pip
	$(RESOLVE_VENV)/bin/python -m pip install $(PIP_FLAGS) \
	  hatch-fancy-pypi-readme hatchling editables -e '.[all,demo]' --group dev
	$(RESOLVE_VENV)/bin/python -m pip freeze --all --exclude-editable --exclude setuptools \
	  | sed -E 's/^([^=]+)==/\L\1==/; s/_/-/g' | LC_ALL=C sort > constraints.txt
	rm -rf $(RESOLVE_VENV)

clean: ## Remove what the other targets made, environments included
	rm -rf .venv .venv-* build dist site htmlcov .coverage .coverage.* \
	  .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
