/*
 * Monitor commands about the guest's kernel (kernel/kernel.h).
 */
#include "debug/hmp.h"

#include <stdlib.h>
#include <string.h>

#include "kernel/kernel.h"

static struct kernel *kernel_of(struct hmp *h)
{
    return control_kernel(h->control);
}

static void run_ps(struct hmp *h, const char *args)
{
    kernel_print_tasks(kernel_of(h), g_str_has_prefix(args, "-t"), h->out);
}

static void run_dmesg(struct hmp *h, const char *args)
{
    (void)args;
    kernel_print_log(kernel_of(h), h->out);
}

static void run_modules(struct hmp *h, const char *args)
{
    if (g_str_has_prefix(args, "-s"))
        kernel_print_module_sections(kernel_of(h), h->out);
    else
        kernel_print_modules(kernel_of(h), h->out);
}

static void run_mounts(struct hmp *h, const char *args)
{
    (void)args;
    kernel_print_mounts(kernel_of(h), h->out);
}

/* Without a pid: where the monitor's vCPU is. */
static void run_bt(struct hmp *h, const char *args)
{
    struct kernel_frame frames[KERNEL_FRAMES_MAX];
    struct kernel_task task;
    uint64_t pid;

    if (*args) {
        if (hmp_expression(h, &args, &pid))
            kernel_print_backtrace(kernel_of(h), (int)MIN(pid, G_MAXINT), h->out);
        return;
    }
    if (kernel_current_task(kernel_of(h), hmp_cpu(h), &task))
        hmp_print(h, "CPU %u: %s, pid %d\n", h->cpu, task.comm, task.pid);
    unsigned n = kernel_cpu_unwind(kernel_of(h), hmp_cpu(h), frames);
    kernel_print_frames(kernel_of(h), frames, n, h->out);
}

static void run_sym(struct hmp *h, const char *args)
{
    g_autofree char *what = hmp_word(&args);
    uint64_t value;

    if (!what) {
        hmp_print(h, "sym: an address, a name or a $register is expected\n");
    } else if (*what == '$') {
        if (!hmp_register(hmp_cpu(h), what + 1, &value)) {
            hmp_print(h, "%s: unknown register\n", what);
            return;
        }
        g_autofree char *text = g_strdup_printf("0x%" G_GINT64_MODIFIER "x", (guint64)value);
        kernel_print_symbol(kernel_of(h), text, h->out);
    } else {
        kernel_print_symbol(kernel_of(h), what, h->out);
    }
}

static void run_symbol_file(struct hmp *h, const char *args)
{
    bool linked = g_str_has_prefix(args, "-l ");
    const char *rest = args + (linked ? 3 : 0);
    g_autofree char *path = hmp_word(&rest);
    GError *err = NULL;

    if (!path) {
        hmp_print(h, "symbol-file: the name of the file to write is missing\n");
    } else if (!kernel_write_symbols(kernel_of(h), path, linked, &err)) {
        hmp_print(h, "symbol-file %s: %s\n", path, err->message);
        g_error_free(err);
    }
}

const struct hmp_command hmp_kernel_commands[] = {
    { "ps", "[-t]", "the guest's processes; -t: all threads", run_ps, true },
    { "dmesg", "", "the kernel's log", run_dmesg, true },
    { "modules", "[-s]", "the kernel's modules; -s: gdb's add-symbol-file lines for them", run_modules, true },
    { "mounts", "", "what is mounted where", run_mounts, true },
    { "bt", "[pid]", "backtrace of a task, or of the current vCPU", run_bt, true },
    { "sym", "addr|name|$register", "the kernel's symbol at an address, or the address of one", run_sym, true },
    { "symbol-file", "[-l] file", "write the kernel's symbols as an ELF file for gdb's command of this name; -l: as linked", run_symbol_file,
      true },
    { 0 }
};
