# make benchmark   the environment if needed, then the default benchmark end to end
# make test        the environment if needed, then the tests
# make docs        the documentation as a site, in site/
# make detectron2 DETECTRON2=…   the optional trunks' library: a folder, an archive or an address (docs/detectron2.md)

PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
DOCS := $(VENV)/docs
ACTIVATE := . $(VENV)/bin/activate

.PHONY: env benchmark test campaign lint docs detectron2 lock clean

env: $(READY)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; choose one with: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --no-deps --requirement requirements.lock
	$(VENV)/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

benchmark: $(READY)
	$(ACTIVATE) && snakemake --cores all

test: $(READY)
	$(ACTIVATE) && python -m pytest -n 2 --dist loadfile

# Kills at random moments, full disks, hostile files, on the real commands: about an hour, outside the tests.
campaign: $(READY)
	$(ACTIVATE) && python -m pytest -n 0 -m campaign tests/campaign

lint: $(READY)
	$(ACTIVATE) && ruff check . && ruff format --check . && mypy && lint-imports --no-logo && \
		snakefmt --check Snakefile && python .ci/lint_snakefile.py && python .ci/lint_page.py

# The lock has what it needs. Its plain Python files are copied: nothing is compiled, nothing of it is run.
export DETECTRON2 DETECTRON2_SHA256
detectron2: $(READY)
	@$(ACTIVATE) && flexseg install-detectron2 --sha256 "$$DETECTRON2_SHA256" -- "$$DETECTRON2"

# An environment of its own: the site is built from the sources as text, without torch.
docs: $(DOCS)/.ready
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict

$(DOCS)/.ready: requirements-docs.lock
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --no-deps --requirement requirements-docs.lock
	touch $@

# The newest versions that pyproject.toml allows, in a fresh environment, written down exactly.
lock:
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet torch==2.13.0 --editable '.[detectron2,dev,test,slurm]'
	sed -n '/^#/p' requirements.lock > requirements.new
	$(VENV)/bin/python -m pip freeze --all --exclude pip --exclude-editable | sed 's/^torch==.*/torch==2.13.0/' >> requirements.new
	mv requirements.new requirements.lock
	touch $(READY)
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --constraint requirements.lock mkdocs-material 'mkdocstrings[python]' \
		'pymdown-extensions<13' ruff  # 13 needs Python 3.11.5, and Debian 12 has 3.11.2
	sed -n '/^#/p' requirements-docs.lock > requirements.new
	$(DOCS)/bin/python -m pip freeze >> requirements.new
	mv requirements.new requirements-docs.lock
	touch $(DOCS)/.ready

clean:
	rm -rf $(VENV) .snakemake site
