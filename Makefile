# A thin face over Meson.  Each target first installs the Debian packages it needs (tools/packages), saying so.
BUILD ?= build
WERROR ?= false
JOBS ?= $(shell nproc)
ARGS ?=

all: build

deps-%:
	@tools/deps $*

$(BUILD)/build.ninja:
	@/usr/bin/meson setup $(BUILD) -Dtests=false -Dwerror=$(WERROR) >$(BUILD).log 2>&1 || \
	    { cat $(BUILD).log; rm -f $(BUILD).log; exit 1; }
	@rm -f $(BUILD).log

build: deps-build $(BUILD)/build.ninja
	@ninja -C $(BUILD) -j$(JOBS) --quiet

run: deps-run build
	@$(BUILD)/armlet boot $(ARGS)

check: deps-check $(BUILD)/build.ninja
	@/usr/bin/meson configure $(BUILD) -Dtests=true -Dwerror=$(WERROR)
	@ninja -C $(BUILD) -j$(JOBS) --quiet
	@tools/check $(BUILD) $(ARGS)

bench: deps-bench build
	@tools/bench $(BUILD) $(ARGS)

lint: deps-lint $(BUILD)/build.ninja
	@ninja -C $(BUILD) -j$(JOBS) --quiet
	@tools/layers --self-test src
	@tools/headers $(BUILD)
	@tools/lint $(BUILD)

install: build
	@/usr/bin/meson install -C $(BUILD) --no-rebuild

clean:
	rm -rf $(BUILD)

.PHONY: all build run check bench lint install clean
