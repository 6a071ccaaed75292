# Gatepost: `make run` starts a gateway to try, `make test` passes all tests. Both set up what they need first.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
DEMO := var/gatepost.toml
# Of tests, at a time: most of them wait for a gateway. Files stay together and in their order, in which the long ones do not come last.
WORKERS ?= 2

.PHONY: run test bench bench-quick crash attest fuzz lint lock clean help

help:
	@echo "make run          a gateway to try, in the foreground on 127.0.0.1:2525"
	@echo "make test         all tests; as root on Debian it installs the real mail servers they talk to"
	@echo "make bench        side by side with the installed mail servers (long); make bench-quick is rougher"
	@echo "make crash        kills, full disks, power cuts; proves that nothing acknowledged is lost (long)"
	@echo "make attest       the proofs of the hardening; writes docs/attestation.md"
	@echo "make fuzz         coverage-guided fuzzing of every parser, a minute each; FUZZ=\"--seconds 600 session\" for more of one"
	@echo "make wheel        wheel and source archive into dist/"
	@echo "make deb          Debian package into dist/; make test-deb installs it in a Debian of its own (root, minutes)"
	@echo "make sbom         bill of materials into dist/; make audit asks advisory services about every dependency"
	@echo "make lint         ruff over all, mypy over src"
	@echo "make ci           test, lint and audit; a known weakness in a dependency fails it"
	@echo "make lock         pin the dependencies anew, with hashes"
	@echo "make clean        remove what the others made"

run: $(VENV)/.runtime $(DEMO)
	@printf '%s\n' "" \
	  "Send a first message from another terminal:" \
	  "  printf 'From: me@example.net\r\nTo: you@example.test\r\nSubject: hello\r\n\r\nIt works.\r\n' | \\" \
	  "    curl -sS smtp://127.0.0.1:2525 --mail-from me@example.net --mail-rcpt you@example.test -T -" \
	  "and find it in var/maildir/new/. Ctrl-C ends the gateway." ""
	@exec $(BIN)/gatepost run --config $(DEMO)

$(DEMO): | $(VENV)/.runtime
	@mkdir -p var && chmod go-w var
	@$(BIN)/gatepost init --yes --output $(DEMO) --hostname gate.example.test --domain example.test \
	  --next-hop maildir:$(CURDIR)/var/maildir --network 127.0.0.0/8 --listen 127.0.0.1:2525 --spool $(CURDIR)/var/spool > var/dns-records.txt
	@printf '\n[queue]\nallow_volatile = true  # only because this one is for trying: it may lie on tmpfs or overlay\n' >> $(DEMO)

test: $(VENV)/.test
	$(BIN)/python tests/install_peers.py
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS) tests

bench: $(VENV)/.test
	$(BIN)/python tests/install_peers.py
	$(BIN)/python bench/relay.py

bench-quick: $(VENV)/.test
	$(BIN)/python tests/install_peers.py
	$(BIN)/python bench/relay.py --quick

crash: $(VENV)/.test
	$(BIN)/python tests/install_peers.py
	$(BIN)/python -m bench.crash

fuzz: $(VENV)/.test
	$(BIN)/python tests/fuzz $(FUZZ)

attest: $(VENV)/.test
	$(BIN)/python -m bench.attest

# Packages: the same source gives the same bytes. See packaging/README.md and docs/release.md.
.PHONY: wheel deb sbom audit test-deb ci

wheel: $(VENV)/.runtime
	@$(BIN)/python packaging/build_dist.py

deb: $(VENV)/.runtime
	@$(BIN)/python packaging/build_deb.py

sbom: $(VENV)/.runtime
	@$(BIN)/python packaging/build_sbom.py

# Fails, with exit status 3 of its own, where no advisory service can be asked.
audit: $(VENV)/bin/python
	@$(BIN)/python packaging/audit.py

# What a change has to pass. Where no advisory service can be asked the audit says so, loudly, and does not stand in the way of the change:
# it stands in the way of a release (docs/release.md).
ci: test lint
	@$(BIN)/python packaging/audit.py; status=$$?; [ $$status = 0 ] || [ $$status = 3 ]

test-deb: $(VENV)/.test
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! command -v debootstrap >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends debootstrap iproute2; fi
	GATEPOST_TEST_DEB=1 $(BIN)/python -m pytest -q -rP tests/packaging

lint: $(VENV)/.test
	$(BIN)/pip install -q ruff
	$(BIN)/ruff check src tests bench
	$(BIN)/ruff format --check src tests bench
	$(BIN)/mypy

lock: $(VENV)/.test
	$(BIN)/pip install -q pip-tools
	$(BIN)/pip-compile -q --generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --strip-extras \
	  --allow-unsafe --no-header -o requirements/runtime.txt pyproject.toml requirements/build.in
	$(BIN)/pip-compile -q --generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --strip-extras \
	  --allow-unsafe --no-header --extra test -o requirements/test.txt pyproject.toml requirements/build.in

$(VENV)/bin/python:
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv && $(PYTHON) -m venv $(VENV); \
	  else echo "Python 3.11 with its venv module is needed: apt install python3-venv"; exit 1; fi; }

# Dependencies are pinned with hashes; the project itself is linked, not copied.
$(VENV)/.runtime: requirements/runtime.txt pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/runtime.txt
	$(BIN)/pip install -q --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

$(VENV)/.test: requirements/test.txt $(VENV)/.runtime
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/test.txt
	@touch $@

clean:
	rm -rf $(VENV) var build dist .pytest_cache .hypothesis
