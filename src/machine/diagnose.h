/*
 * What the user would otherwise have to find out alone: why nothing appears on the console, and that the kernel has
 * panicked.
 *
 * A tap stands between the UART and its character device and notes what passes.  After 10 s of silence the vCPUs are
 * looked at some times, and one line on stderr says in words what they do.  Main thread; the tap's output side runs on
 * vCPU threads.
 */
#ifndef ARMLET_MACHINE_DIAGNOSE_H
#define ARMLET_MACHINE_DIAGNOSE_H

#include <glib.h>
#include <stdbool.h>

#include "base/chardev.h"
#include "cpu/cpu.h"
#include "kernel/kernel.h"
#include "machine/boot.h"
#include "machine/config.h"

struct diagnose;

/* console may be NULL: then the guest's output is noted and goes nowhere.  It stays the caller's and outlives this. */
struct diagnose *diagnose_new(const struct config *config, struct chardev *console,
                              void (*panicked)(void *opaque), void *opaque);
/* The device for the UART. */
struct chardev *diagnose_console(struct diagnose *d);
/* The guest starts, or starts anew.  kernel, which outlives the next diagnose_stop(), gives names to addresses. */
void diagnose_start(struct diagnose *d, struct cluster *cluster, struct kernel *kernel);
/* Has the kernel panicked since the start?  Says so on stderr when that has not been said yet. */
bool diagnose_panicked(struct diagnose *d);
/* Before the cluster is freed; the tap lives on. */
void diagnose_stop(struct diagnose *d);
void diagnose_free(struct diagnose *d);

/* Can this CPU run the kernel that lies in RAM: its page size?  false: err says what it lacks. */
bool diagnose_check_kernel(struct mem *mem, const struct boot_image *image, const struct config *config,
                           const struct cpu *cpu, GError **err);

#endif
