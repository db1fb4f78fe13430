# A thin face over Meson.  Each target first installs the Debian packages it needs (tools/packages), saying so.
#
#   make [build]          the program: build/armlet
#   make run              a shell in an unmodified Debian arm64 kernel; ARGS= goes to `armlet boot'
#   make check            all tests; ARGS="NAME..." runs some suites of tests/suites.toml
#   make check-long       the suites that take too long for that: sanitizer builds, a million litmus rounds, many boots
#   make gold             tests/gold: what the translator makes of some pieces of guest code, written anew
#   make bench            speed, beside QEMU's in the same run
#   make lint             what a tool can find fault with
#   make install          to PREFIX (/usr/local), DESTDIR honoured; manual pages and completion too
#   make deb              a Debian package of it: BUILD/armlet_VERSION_ARCH.deb
BUILD ?= build
WERROR ?= false
JOBS ?= $(shell nproc)
PREFIX ?= /usr/local
ARGS ?=
MESON = /usr/bin/meson

# ninja of $(1), without a word when there is nothing to do.
compile = ninja -C $(BUILD) -n $(1) 2>/dev/null | grep -q 'no work to do' || ninja -C $(BUILD) -j$(JOBS) --quiet $(1)

build: deps-build $(BUILD)/build.ninja
	@$(call compile,armlet)

run: deps-run build
	@$(BUILD)/armlet boot $(ARGS)

check: deps-check $(BUILD)/build.ninja $(BUILD)/with-tests
	@$(call compile,)
	@tools/check $(BUILD) $(ARGS)

check-long: deps-check $(BUILD)/build.ninja $(BUILD)/with-tests
	@$(call compile,)
	@tools/check --long $(BUILD) $(ARGS)

gold: deps-check $(BUILD)/build.ninja $(BUILD)/with-tests
	@$(call compile,tests/oracle/gold_test)
	@$(BUILD)/tests/oracle/gold_test --write tests/gold/*.txt

bench: deps-bench build
	@$(call compile,tests/lab_paths)
	@tools/bench $(BUILD) $(ARGS)

lint: deps-build deps-lint $(BUILD)/build.ninja
	@$(call compile,)
	@tools/layers --self-test src
	@tools/headers $(BUILD)
	@tools/lint $(BUILD)

install: build
	@$(call compile,)
	@$(MESON) install -C $(BUILD) --no-rebuild

deb: deps-build deps-deb
	@tools/deb $(BUILD)

clean:
	rm -rf $(BUILD)

deps-%:
	@tools/deps $*

# Meson's own output only when it fails.  Tests need cmocka, which `make run' does not ask for.
quietly = mkdir -p $(BUILD); { $(1); } >$(BUILD)/meson.log 2>&1 || { cat $(BUILD)/meson.log; exit 1; }

$(BUILD)/build.ninja:
	@$(call quietly,$(MESON) setup $(BUILD) --prefix=$(PREFIX) -Dtests=false -Dwerror=$(WERROR))

$(BUILD)/with-tests: $(BUILD)/build.ninja
	@$(call quietly,$(MESON) configure $(BUILD) -Dtests=true && $(MESON) setup --reconfigure $(BUILD))
	@touch $@

.NOTPARALLEL:
.PHONY: build run check check-long gold bench lint install deb clean
