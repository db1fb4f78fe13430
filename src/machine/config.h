/*
 * What the user asked for: the command line, parsed and checked as far as that needs no machine.
 *
 * Strings are owned by the config.  Lists hold struct props in the order of the command line: clients name ids before
 * they define them, so nothing is created before everything is parsed.
 */
#ifndef ARMLET_MACHINE_CONFIG_H
#define ARMLET_MACHINE_CONFIG_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "cpu/cpu.h"
#include "machine/props.h"

struct device_config { /* -device and what is short for it */
    char *driver;
    struct props *props;
};

struct global_config { /* -global DRIVER.PROPERTY=VALUE */
    char *driver, *property, *value;
};

enum panic_action { PANIC_NONE, PANIC_PAUSE, PANIC_SHUTDOWN, PANIC_EXIT_FAILURE };

struct config {
    const struct cpu_model *cpu;
    unsigned smp;
    uint64_t ram; /* bytes */
    char *kernel, *initrd, *append, *dtb, *dumpdtb;
    char *name;
    const struct cpu_engine *engine;
    uint64_t lockstep, lockstep_trace; /* -accel lockstep=N,lockstep-trace=N: instructions; 0: run freely */
    char *lockstep_log;  /* lockstep-log=FILE; NULL: standard error */
    bool stats;          /* -accel tcg,stats=on: the translator's counters on stderr at the end */
    bool nographic, nodefaults, snapshot, paused, no_reboot, no_shutdown, no_display;
    bool dtb_seeds;      /* -machine dtb-randomness= */
    bool highmem;        /* -machine highmem=: PCIe above RAM, not only below */
    bool legacy_virtio;  /* virtio-mmio.force-legacy */
    enum panic_action on_panic; /* -action panic= */
    char *kernel_symbols; /* vmlinux or System.map, or NULL */
    GPtrArray *module_symbols; /* char *: folders with modules' files */
    bool panic_report;
    char *gdb;           /* -gdb's argument, or NULL */
    int escape;          /* -echr: the console's escape character; 0: none */
    GPtrArray *serial;   /* char *: -serial's arguments */
    GPtrArray *monitor;  /* char *: -monitor's */
    GPtrArray *qmp;      /* char *: -qmp's */
    GPtrArray *chardevs; /* struct props, with "backend" as the implied key */
    GPtrArray *given;    /* struct chardev *, their makers': back ends of the program's own, found by id like the rest */
    bool console_watched; /* somebody else explains silence and panics to the user */
    GPtrArray *mons;     /* struct props: -mon */
    GPtrArray *devices;  /* struct device_config */
    GPtrArray *drives;   /* struct props */
    GPtrArray *objects;  /* struct props, "qom-type" implied */
    GPtrArray *globals;  /* struct global_config */
    GPtrArray *fsdevs;   /* struct props, "fsdriver" implied: -fsdev, and what is one in -virtfs */
    GPtrArray *netdevs;  /* struct props, "type" implied: -netdev */
    GPtrArray *nics;     /* likewise: -nic */
    GPtrArray *nets;     /* likewise: -net */
    GPtrArray *nfs;      /* struct props, "path" implied: -nfs */
    int64_t rtc_base;    /* seconds since 1970, or -1: the host's clock */
    bool rtc_local;      /* base=localtime */
};

/*
 * Parses argv (without the program's name) as QEMU's command line.  Returns NULL with err set for a mistake, and NULL
 * without err when an option such as -help has been answered on stdout and the program shall end with status 0.
 */
struct config *config_parse(int argc, char *const *argv, GError **err);
void config_free(struct config *config);

/* The option table as text: -help, the man page and completion are made from it. */
void options_help(void);

#endif
