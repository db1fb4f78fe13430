/*
 * Monitor commands `info SUBJECT' about vCPUs, memory and the run state; what only the machine knows it answers itself
 * (rows without a function).
 */
#include "debug/hmp.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/report.h"
#include "base/trace.h"
#include "cpu/cluster.h"
#include "cpu/mmu.h"
#include "cpu/show.h"
#include "kernel/kernel.h"

static void info_status(struct hmp *h, const char *args)
{
    enum run_state state = control_state(h->control);

    (void)args;
    if (state == RUN_RUNNING)
        hmp_print(h, "VM status: running\n");
    else if (state == RUN_PAUSED)
        hmp_print(h, "VM status: paused\n");
    else
        hmp_print(h, "VM status: paused (%s)\n", control_state_name(state));
}

static void info_version(struct hmp *h, const char *args)
{
    const struct control_ops *ops = control_ops(h->control);

    (void)args;
    if (g_str_has_prefix(report_program(), "qemu-system-"))
        hmp_print(h, "%s (armlet %s)\n", ops->qemu_version, ops->version);
    else
        hmp_print(h, "armlet %s\n", ops->version);
}

static void info_trace_events(struct hmp *h, const char *args)
{
    g_autofree char *text = trace_states();

    (void)args;
    hmp_print(h, "%s", text);
}

static void info_kernel(struct hmp *h, const char *args)
{
    (void)args;
    kernel_print_where(control_kernel(h->control), h->out);
}

static void info_name(struct hmp *h, const char *args)
{
    const char *name = control_ops(h->control)->name;

    (void)args;
    if (name)
        hmp_print(h, "%s\n", name);
}

static void info_cpus(struct hmp *h, const char *args)
{
    const struct cluster *cl = control_cluster(h->control);

    (void)args;
    for (unsigned i = 0; i < cl->n; i++) {
        long tid = cpu_host_thread(cl->cpu[i]);
        g_autofree char *name = kernel_describe_address(control_kernel(h->control), cl->cpu[i]->pc);
        hmp_print(h, "%c CPU #%u: thread_id=%ld pc=0x%016" PRIx64 "%s%s%s EL%u %" PRIu64 " instructions\n",
                  i == h->cpu ? '*' : ' ', i, tid, cl->cpu[i]->pc, name ? " <" : "", name ? name : "", name ? ">" : "",
                  cl->cpu[i]->el, cl->cpu[i]->icount);
    }
}

/* --- registers ---------------------------------------------------------------------------------------------- */

static void print_system(struct hmp *h, struct cpu *cpu)
{
    size_t n, column = 0;
    const struct sysreg *table = sysreg_table(&n);

    for (size_t i = 0; i < n; i++) {
        uint64_t value;
        if (sysreg_peek(cpu, &table[i], &value))
            hmp_print(h, "%s%-18s %016" PRIx64, column++ % 3 ? "  " : column > 1 ? "\n" : "", table[i].name, value);
    }
    hmp_print(h, "\n");
}

/* -a: all vCPUs, with their vector and system registers. */
static void info_registers(struct hmp *h, const char *args)
{
    const struct cluster *cl = control_cluster(h->control);
    bool all = g_str_has_prefix(args, "-a");
    uint64_t only = h->cpu;

    if (!all && *args && (!hmp_expression(h, &args, &only) || only >= cl->n)) {
        hmp_print(h, "CPU#%" PRIu64 " not available\n", only);
        return;
    }
    for (unsigned i = 0; i < cl->n; i++) {
        if (!all && i != only)
            continue;
        g_autoptr(GString) text = g_string_new("\n");
        show_general(cl->cpu[i], text);
        show_vectors(cl->cpu[i], text);
        hmp_print(h, "%s", text->str);
        if (all)
            print_system(h, cl->cpu[i]);
    }
}

/* --- memory --------------------------------------------------------------------------------------------------- */

static void print_block(void *arg, const char *name, uint64_t base, uint64_t size, bool is_memory)
{
    hmp_print(arg, "  %016" PRIx64 "-%016" PRIx64 " (prio 0, %s): %s\n", base, base + size - 1,
              is_memory ? "ram" : "i/o", name);
}

static void info_mtree(struct hmp *h, const char *args)
{
    if (g_str_has_prefix(args, "-f"))
        hmp_print(h, "FlatView #0\n AS \"memory\", root: system\n");
    else
        hmp_print(h, "address-space: memory\n  0000000000000000-ffffffffffffffff (prio 0, i/o): system\n");
    mem_each(control_mem(h->control), print_block, h);
}

struct run { /* of pages that are mapped alike */
    uint64_t va, size, pa;
    uint8_t perms, attr;
};

static void print_run(struct hmp *h, const struct run *r)
{
    static const char letters[] = "rwxRWX";
    char perms[7] = "------";

    if (!r->size)
        return;
    for (unsigned i = 0; i < 6; i++)
        if (r->perms >> i & 1)
            perms[i] = letters[i];
    hmp_print(h, "%016" PRIx64 "-%016" PRIx64 " -> %012" PRIx64 " %s attr %02x\n", r->va, r->va + r->size - 1, r->pa,
              perms, r->attr);
}

/* The granule's log2 for the half of the address space (TCR_EL1.TG0, TG1: D24.2.153). */
static unsigned granule_shift(struct cpu *cpu, bool high)
{
    unsigned tg = (unsigned)(high ? cpu->sys.tcr_el1 >> 30 & 3 : cpu->sys.tcr_el1 >> 14 & 3);

    return high ? (tg == 1 ? 14 : tg == 3 ? 16 : 12) : (tg == 1 ? 16 : tg == 2 ? 14 : 12);
}

enum { MAX_RUNS = 10000, MAX_WALKS = 4000000 };

static void print_half(struct hmp *h, struct cpu *cpu, bool high, unsigned *runs)
{
    unsigned size_field = (unsigned)(high ? cpu->sys.tcr_el1 >> 16 & 63 : cpu->sys.tcr_el1 & 63);
    unsigned bits = 64 - MAX(size_field, 12), g = granule_shift(cpu, high);
    uint64_t base = high ? -(UINT64_C(1) << bits) : 0, step;
    struct run run = { 0 };

    for (uint64_t off = 0, n = 0; off < UINT64_C(1) << bits && *runs < MAX_RUNS && n < MAX_WALKS; off += step, n++) {
        struct mmu_result m;
        bool ok = mmu_walk(cpu, base + off, WALK_QUIET, VIEW_EL1, &m);
        unsigned level = ok ? m.level : m.fsc & 3;
        step = UINT64_C(1) << (ok && m.shift >= 12 ? m.shift : g + (3 - MIN(level, 3)) * (g - 3));
        if (ok && run.size && run.pa + run.size == m.pa && run.va + run.size == base + off && run.perms == m.perms &&
            run.attr == m.attr) {
            run.size += step;
            continue;
        }
        print_run(h, &run);
        *runs += run.size != 0;
        run = ok ? (struct run){ base + off, step, m.pa, m.perms, m.attr } : (struct run){ 0 };
    }
    print_run(h, &run);
}

/* What the translation tables of the current vCPU map, both halves: r w x of EL0, R W X of EL1. */
static void info_tlb(struct hmp *h, const char *args)
{
    struct cpu *cpu = hmp_cpu(h);
    unsigned runs = 0;

    (void)args;
    if (!(cpu->sys.sctlr_el1 & SCTLR_M)) {
        hmp_print(h, "the MMU is off\n");
        return;
    }
    print_half(h, cpu, false, &runs);
    print_half(h, cpu, true, &runs);
    if (runs >= MAX_RUNS)
        hmp_print(h, "(more than %d ranges)\n", MAX_RUNS);
}

const struct hmp_command hmp_info_commands[] = {
    { "status", "", "is it running, and why not", info_status, false },
    { "version", "", "of this program", info_version, false },
    { "name", "", "as given with -name", info_name, false },
    { "cpus", "", "the vCPUs", info_cpus, true },
    { "kernel", "", "where the guest's kernel is", info_kernel, true },
    { "registers", "[-a|index]", "registers of a vCPU; -a: of all, with the system registers", info_registers, true },
    { "mtree", "[-f]", "the physical memory map", info_mtree, false },
    { "tlb", "", "what the translation tables map", info_tlb, true },
    { "qtree", "", "the devices", NULL, false },
    { "roms", "", "what was loaded where", NULL, false },
    { "network", "", "network cards and back ends", NULL, false },
    { "usernet", "", "connections of the user network", NULL, false },
    { "pci", "", "the PCI bus", NULL, false },
    { "trace-events", "", "what can be traced, and what is", info_trace_events, false },
    { "jit", "", "the translator's counters", NULL, false },
    { "chardev", "", "character devices", NULL, false },
    { "block", "", "disks", NULL, false },
    { "irq", "", "interrupts", NULL, false },
    { "balloon", "", "how much memory the balloon leaves the guest", NULL, false },
    { 0 }
};
