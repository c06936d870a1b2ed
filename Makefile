# make demo    set up an environment, race two submissions, print a leaderboard and write report.html
# make test    set up an environment and pass the tests
#
# On a machine with NVIDIA GPUs: make demo CONSTRAINTS=constraints/gpu.txt
# A copy of this environment without the rest: make .venv/ready
# Tests run in two processes of up to 8 GB: make test WORKERS=1 on a small machine, more on a large one

comma := ,
PYTHON ?= python3
CONSTRAINTS ?= constraints/cpu.txt
WORKERS ?= 2
BIN := .venv/bin
PACKAGES := data_loading engine kernels scoring submissions workloads
SUBMISSIONS := nadamw nesterov
EXTRAS := torch,jax,full,report$(if $(findstring gpu,$(CONSTRAINTS)),$(comma)jax-cuda)
WORKLOADS := imagenet_resnet_pocket,finewebedu_lm_pocket

.PHONY: demo test check types slow bench clean

demo: .venv/ready
	rm -rf demo
	$(BIN)/timetrial data prepare $(subst $(comma), ,$(WORKLOADS))
	for submission in $(SUBMISSIONS); do for framework in torch jax; do \
	  $(BIN)/timetrial run $$submission --workload $(WORKLOADS) --framework $$framework --out demo || exit; \
	done; done
	$(BIN)/timetrial score demo --html report.html

test: .venv/ready-to-develop check
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

check: .venv/ready-to-develop types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/ready-to-develop
	mkdir -p .links && ln -sfn .. .links/timetrial
	$(BIN)/mypy $(PACKAGES:%=-p timetrial.%)

slow: .venv/ready-to-develop
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m slow

bench: .venv/ready-to-develop
	$(BIN)/python -m pytest benchmarks --benchmark-only

clean:
	rm -rf .venv .links demo report.html

.venv/ready: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c $(CONSTRAINTS) -e '.[$(EXTRAS)]'
	touch $@

.venv/ready-to-develop: .venv/ready
	$(BIN)/pip install --quiet -c $(CONSTRAINTS) -e '.[$(EXTRAS),dev]'
	touch $@
