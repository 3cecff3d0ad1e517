# minitron.  `make` builds the engine and makes sure that Python has what training needs.
# Works with GNU make 3.81 and later, gcc and clang, with and without OpenMP.

PYTHON ?= $(shell for p in python python3; do $$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo $$p && break; done)
WARNINGS = -Wall -Wextra -Wconversion -Wshadow -Wpedantic -Wno-unknown-pragmas
# Not -Ofast, not -ffast-math: a library built so makes the whole Python process flush small numbers to zero.
# -ffp-contract=off: run.c writes out its fused multiply-adds; a compiler that fused others would change bits.
CFLAGS = -std=c11 -O3 -ffp-contract=off $(WARNINGS)
LIBRARY = build/libminitron.$(if $(filter Darwin,$(shell uname -s)),dylib,so)
# What this compiler can do, found out by compiling and linking: NATIVE and OPENMP.
PROBED = build/flags-$(notdir $(firstword $(CC))).mk

# One line in place of those that make and the compiler would print.
WRITABLE = $(if $(shell test -w . || test -e run && echo yes),,$(error \
  $(CURDIR) cannot be written: copy minitron to a folder of yours))

all: engine python              ## build the engine, install missing packages, print the next command

engine:                         ## run and its library; without a C compiler, say so and continue
	@$(WRITABLE)if command -v $(firstword $(CC)) >/dev/null; then $(MAKE) --no-print-directory run lib; \
	else echo "no C compiler ($(CC)): training works, ./run does not.  On Debian or Ubuntu: sudo apt install gcc"; fi

python:                         ## install numpy, cffi and tqdm where they are missing
	@test -n "$(PYTHON)" || { echo "no Python 3.10 or newer found: install one, or make PYTHON=/path/to/python3"; exit 1; }
	@"$(PYTHON)" -m minitron.base.environment ensure

lib: $(LIBRARY)                 ## the engine as a library

run: run.c $(PROBED)            ## the engine as a program
	$(CC) $(CFLAGS) $(NATIVE) $(OPENMP) run.c -o $@ -lm

$(LIBRARY): run.c $(PROBED)
	$(CC) $(CFLAGS) $(NATIVE) $(OPENMP) -DMINITRON_LIB -shared -fPIC run.c -o $@ -lm

test: engine .venv-test/ready   ## all tests, in an environment of their own
	.venv-test/bin/python -m pytest -q -n auto --dist loadfile

lint: .venv-test/ready          ## ruff, and the compilers' warnings as errors
	@mkdir -p build
	.venv-test/bin/python -m ruff check .
	@awk 'length > 100 { print FILENAME ":" FNR ": longer than 100 columns"; found = 1 } END { exit found }' \
	  run.c $(wildcard bench/*.c tests/*/*.c tests/*/*.h)
	@for cc in gcc clang; do if command -v $$cc >/dev/null; then \
	  for part in "" -DMINITRON_LIB; do echo $$cc $$part; $$cc $(CFLAGS) -Werror $$part -c run.c -o build/lint.o || exit 1; done; fi; done

.venv-test/ready: pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python 3.10 or newer found: install one, or make PYTHON=/path/to/python3"; exit 1; }
	rm -rf .venv-test
	"$(PYTHON)" -m minitron.base.environment create .venv-test numpy cffi tqdm pytest pytest-xdist autograd ruff scipy matplotlib \
	  distributed playwright tomli "setuptools>=70.1"
	@touch $@

# Findings and the grown corpus stay in build/fuzz/; `make fuzz SECONDS=600` continues from them.
SECONDS = 60
FUZZ = clang -std=c11 -O1 -g $(WARNINGS) -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all
fuzz:                           ## attack the loader, the tokenizer and the API with libFuzzer, SECONDS=60 each; needs clang
	@mkdir -p build/fuzz
	@echo 'int LLVMFuzzerTestOneInput(const char *p, long n) { return !p + !n; }' > build/fuzz/probe.c
	@$(FUZZ) build/fuzz/probe.c -o build/fuzz/probe 2>/dev/null || \
	  { echo "make fuzz needs clang with libFuzzer.  On Debian or Ubuntu: sudo apt install clang"; exit 1; }
	@for t in loader encode generate; do \
	  mkdir -p build/fuzz/corpus-$$t; \
	  $(FUZZ) tests/fuzz/$$t.c -o build/fuzz/$$t -lm && \
	  ASAN_OPTIONS=quarantine_size_mb=8 build/fuzz/$$t -max_total_time=$(SECONDS) -max_len=4096 -timeout=20 -print_final_stats=1 \
	    -artifact_prefix=build/fuzz/$$t- build/fuzz/corpus-$$t tests/fuzz/corpus/$$t || exit 1; done

coverage:                       ## lines and branches of run.c that the tests reach, and those that they do not; needs gcc
	@command -v gcov >/dev/null || { echo "make coverage needs gcc and gcov.  On Debian or Ubuntu: sudo apt install gcc"; exit 1; }
	"$(PYTHON)" tests/engine/coverage.py $(NATIVE)

bench: engine                   ## speed: the engine's; training against PyTorch and JAX where installed, op by op; the sweep; half an hour
	"$(PYTHON)" bench/engine.py
	"$(PYTHON)" bench/engine_tricks.py
	"$(PYTHON)" bench/train.py
	"$(PYTHON)" bench/where.py
	"$(PYTHON)" bench/tricks.py
	"$(PYTHON)" bench/sweep.py
	"$(PYTHON)" bench/verdict.py

gallery: engine                 ## run the experiments of docs/gallery.md that results/gallery/ lacks: hours
	for spec in results/gallery/*.toml; do "$(PYTHON)" -m minitron sweep $$spec --out $${spec%.toml}.jsonl || exit 1; done

sweeps: engine                  ## run the sweeps of results/ that their ledgers lack: an hour or two
	for spec in results/*.toml; do "$(PYTHON)" -m minitron sweep $$spec --out $${spec%.toml}.jsonl || exit 1; done

kills: engine .venv-test/ready  ## kill sweeps a hundred times, with their workers and dask's, and runs two hundred times: nothing may be lost; some minutes
	.venv-test/bin/python tests/sweep/kills.py
	.venv-test/bin/python tests/training/killed_runs.py

clean:                          ## remove what was built; models, ledgers and environments stay
	rm -rf build run

help:                           ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1: /p' Makefile

# A flag counts as there if a program with it compiles, links and runs.  Apple's clang needs -Xpreprocessor and has no
# -lomp of its own; some clangs know -fopenmp and lack the library.
$(PROBED): Makefile
	@mkdir -p build
	@printf '#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n' > build/openmp.c
	@printf 'int main(void) { return 0; }\n' > build/plain.c
	@native=; for f in -march=native -mcpu=native; do \
	  if $(CC) $$f build/plain.c -o build/probe 2>/dev/null && build/probe; then native=$$f; break; fi; done; \
	openmp=; for f in "-fopenmp" "-Xpreprocessor -fopenmp -lomp"; do \
	  if $(CC) $$f build/openmp.c -o build/probe 2>/dev/null && build/probe; then openmp=$$f; break; fi; done; \
	printf 'NATIVE = %s\nOPENMP = %s\n' "$$native" "$$openmp" > $@
	@rm -f build/probe build/openmp.c build/plain.c

# The flags are needed, and probed, only where something is compiled; `make clean` must not probe.
ifneq ($(filter run lib test coverage $(LIBRARY),$(MAKECMDGOALS)),)
$(WRITABLE)
include $(PROBED)
endif

.PHONY: all engine python lib test lint fuzz coverage bench gallery sweeps kills clean help
