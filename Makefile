# On a bare machine `make demo` or `make test` does everything, set-up included.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# Made anew when what is to be installed has changed.
STAMP := .venv/.installed

.PHONY: demo test processors slow benchmarks reference book book-serve book-test \
	format clean .venv

demo: $(STAMP)  ## the main job on the built-in example; results in demo/
	$(BIN)/cryoinfer demo --out demo --overwrite

test: $(STAMP)  ## all checks that a change must pass
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/pytest -n auto --maxprocesses 8 --dist loadfile -m "not slow and not gpu and not book"

processors: $(STAMP)  ## the numerical tests as other processors would run them
	.ci/processors

slow: $(STAMP)  ## the tests that take longer, and those for a GPU where there is one
	$(BIN)/pytest -m "slow and not gpu and not book"
	$(BIN)/pytest -m gpu

benchmarks: $(STAMP)  ## which measurements there are, and how to run them
	@echo "One script a measurement; each says in its first lines what it needs:"
	@for script in $$(grep -l argument_parser benchmarks/*.py); do \
		test $$script = benchmarks/measure.py || echo "  $(BIN)/python $$script --help"; done

reference: $(STAMP)  ## the public names of the library, as pages in dist/reference
	$(BIN)/pdoc --docformat numpy -o dist/reference cryoinfer

book: $(STAMP)  ## the mathematics of cryo-EM, as pages in dist/book
	PYTHONPATH=book $(BIN)/python -m course.site dist/book

book-serve: $(STAMP)  ## its chapters live, with Python behind the sliders
	PYTHONPATH=book $(BIN)/marimo run book/chapters

book-test: $(STAMP)  ## every chapter runs, and its known numbers hold
	$(BIN)/pytest -n auto --maxprocesses 8 --dist loadgroup -m book tests/book
	$(BIN)/pytest -n auto --maxprocesses 8 book/chapters/*.py

format: $(STAMP)  ## rewrite the code the way that `make test` wants it
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:  ## caches and compiled kernels; the environment stays
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis dist
	find src tests benchmarks book -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

.venv: $(STAMP)  ## the environment alone

# torch comes first and by itself: it is the one large download, and it is kept
# when a later step fails.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install torch -c constraints.txt
	$(BIN)/python -m pip install -e ".[dev,book]" -c constraints.txt
# The kernels are compiled here, once for all, and compared with plain versions.
	$(BIN)/cryoinfer selfcheck
	touch $@
