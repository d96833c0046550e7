# `make repro` reruns the benchmark and prints its leaderboard; `make test` runs the
# tests. Both make their own environment in .venv.
PYTHON ?= python3
TRACK ?= digits
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
export PATH := $(CURDIR)/$(BIN):$(PATH)
export OMP_NUM_THREADS := 1

.PHONY: repro quick site publish test test-slow test-ray lint check-results tiny benchmark soak clean

# `dvc repro` is the benchmark; a track of its own is the pipeline
# tracks/TRACK/dvc.yaml. Where points fail, their stage does too: the table shows them
# all the same, and the next run tries them again.
PIPELINE = $(if $(wildcard tracks/$(TRACK)/dvc.yaml),tracks/$(TRACK)/dvc.yaml,dvc.yaml)
repro: $(READY)
	dvc repro $(PIPELINE); ended=$$?; python -m shrinkmark show --track $(TRACK); exit $$ended

# A handful of methods on two models of digits, one seed each, in a folder of its own:
# what the tables look like, in minutes.
QUICK := dense finetune_only slim random_pruning magnitude wanda l1_channels rtn gptq svd block_drop taylor__rtn
quick: $(READY)
	python -m shrinkmark run digits --into artefacts/quick --model resnet --model vit --seeds 1 $(addprefix --method ,$(QUICK))
	python -m shrinkmark tables digits --results artefacts/quick/results --no-digest
	python -m shrinkmark show --track digits --results artefacts/quick/results

# The static site of all tracks that have results: open site/index.html.
site: $(READY)
	python -m shrinkmark site

# For a host that serves a branch and runs no workflow: the site as the only commit of
# the branch gh-pages of REMOTE, which is overwritten.
REMOTE ?= origin
publish: export GIT_INDEX_FILE := $(CURDIR)/.git/site-index
publish: site
	rm -f $(GIT_INDEX_FILE)
	git --git-dir=.git --work-tree=site add --all --force .
	git push --force $(REMOTE) $$(git commit-tree -m "The site" $$(git write-tree)):refs/heads/gh-pages
	rm -f $(GIT_INDEX_FILE)

test: $(READY)
	python -m pytest -n 2 --dist worksteal

# What `make test` leaves out to stay below its minutes; CI runs both.
test-slow: $(READY)
	python -m pytest -n 2 --dist worksteal -m slow

# Sweeps on Ray clusters of several processes on this machine that lose nodes and
# drivers, which neither `make test` nor CI has Ray for.
test-ray: $(READY)
	python -m pip install --quiet --constraint constraints.txt --editable ".[ray]"
	python -m pytest -m slow tests/harness/cluster/test_cluster_sweep.py

lint: $(READY)
	ruff check .
	ruff format --check .
	mypy

# Do the committed results belong to the committed code and params, and are the tables
# what they regenerate?
check-results: $(READY)
	python -m shrinkmark check results
	set -e; for lock in dvc.lock $$(ls tracks/*/dvc.lock 2> /dev/null); do \
	  for stage in $$(grep -o "^  leaderboard[a-z0-9_@]*" $$lock); do \
	    dvc repro --dry --allow-missing $${lock%lock}yaml:$$stage | grep -q "Data and pipelines are up to date" || \
	      { echo "error: $$lock is behind the code: run dvc repro $${lock%lock}yaml and commit"; exit 1; }; \
	  done; \
	done
	python -m shrinkmark tables
	python -m shrinkmark methods --page docs/methods.md
	git diff --exit-code -- results docs README.md || \
	  { echo "error: the tables, README, the digest or the table of methods are not what records and methods give: commit them"; exit 1; }

# The whole pipeline on two models, a handful of settings and one epoch, in a copy of this checkout.
tiny: $(READY)
	python -m benchmarks.tiny_pipeline

# Where the time of a track's pipeline goes; runs it in a fresh clone.
benchmark: $(READY)
	python benchmarks/pipeline_time.py $(TRACK)

# What takes hours rather than minutes: damaged files, a hundred kills of a small
# pipeline without and with DVC, faults of the disk and of DVC, the same results again
# under other circumstances, a large matrix, and all of digits on a Ray cluster that
# loses a node and its driver.
soak: $(READY)
	python -m tools.fuzz --seconds 3600
	python -m tools.kill_anywhere --kills 100
	python -m tools.kill_anywhere --kills 20 --dvc
	python -m tools.faults
	python -m tools.reproducible
	python -m tools.load
	$(MAKE) test-ray
	python -m tools.ray_kills

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev,runtimes]"
	touch $@

clean:
	rm -rf $(VENV) artefacts
