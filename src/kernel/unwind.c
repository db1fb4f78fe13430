/*
 * Backtraces by frame records (AAPCS64 6.4.6: x29 points to the caller's x29 and the return address), which arm64
 * kernels always have.  A record may lead from the interrupt's stack to the task's, so that addresses need not rise
 * everywhere; the number of such steps is bounded, and of frames.
 */
#include <string.h>

#include "kernel/guts.h"

enum { JUMPS_MAX = 8, META_PT_REGS = 2, PROLOGUE = 8 };

/* With pointer authentication the top bits are a signature. */
static uint64_t strip(uint64_t va)
{
    return va >> 55 & 1 ? va | UINT64_C(0xffff) << 48 : va;
}

/* Since 6.13 an exception's record is {0, 0, what}, within the registers that were saved. */
static bool through_exception(struct kernel *k, uint64_t *pc, uint64_t *fp)
{
    struct btf_field frame = kernel_field(k, "pt_regs", "stackframe"), regs = kernel_field(k, "pt_regs", "regs"),
                     at = kernel_field(k, "pt_regs", "pc");
    uint64_t meta, base = *fp - frame.off;

    if (!frame.size || !regs.size || !kernel_read(k, *fp + 16, &meta, 8) || meta != META_PT_REGS)
        return false;
    *pc = kernel_get(k, base, at);
    return kernel_read(k, base + regs.off + 8 * 29, fp, 8);
}

unsigned kernel_unwind(struct kernel *k, uint64_t pc, uint64_t fp, struct kernel_frame *frames)
{
    unsigned n = 0, jumps = 0;

    frames[n++] = (struct kernel_frame){ strip(pc), fp };
    while (n < KERNEL_FRAMES_MAX && fp >> 63 && !(fp & 7)) {
        uint64_t record[2], before = fp;
        if (!kernel_read(k, fp, record, sizeof record))
            break;
        if (!record[0] && !record[1]) {
            if (!through_exception(k, &record[1], &fp))
                break;
            record[0] = fp;
        }
        fp = record[0];
        if (!(strip(record[1]) >> 63) && !(fp >> 63)) /* a wild jump has its caller's record still */
            break;
        if (fp && fp <= before && ++jumps > JUMPS_MAX)
            break;
        frames[n++] = (struct kernel_frame){ strip(record[1]), before };
        if (!fp)
            break;
    }
    return n;
}

bool kernel_task_context(struct kernel *k, const struct kernel_task *task, struct kernel_context *context)
{
    static const char *const callee[] = { "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28" };
    struct btf_field at = kernel_field(k, "task_struct", "thread.cpu_context");

    if (!at.size)
        return false;
    for (unsigned i = 0; i < G_N_ELEMENTS(callee); i++)
        context->x19_to_x28[i] = kernel_get(k, task->va + at.off, kernel_field(k, "cpu_context", callee[i]));
    context->fp = kernel_get(k, task->va + at.off, kernel_field(k, "cpu_context", "fp"));
    context->sp = kernel_get(k, task->va + at.off, kernel_field(k, "cpu_context", "sp"));
    context->pc = kernel_get(k, task->va + at.off, kernel_field(k, "cpu_context", "pc"));
    return context->pc;
}

unsigned kernel_cpu_unwind(struct kernel *k, const struct cpu *cpu, struct kernel_frame *frames)
{
    struct kernel_symbol sym;
    unsigned n = kernel_unwind(k, cpu->pc, cpu->el ? cpu->x[29] : 0, frames);

    /* Before a function has made its record its caller is in x30 alone. */
    if (cpu->el && n < KERNEL_FRAMES_MAX && kernel_find_address(k, cpu->pc, &sym) && cpu->pc - sym.va < PROLOGUE) {
        memmove(frames + 2, frames + 1, (n - 1) * sizeof *frames);
        frames[1] = (struct kernel_frame){ strip(cpu->x[30]), cpu->x[29] };
        n++;
    }
    return n;
}

unsigned kernel_task_unwind(struct kernel *k, const struct kernel_task *task, struct kernel_frame *frames)
{
    struct kernel_task current;
    struct kernel_context c;

    for (unsigned i = 0; i < k->cluster->n; i++)
        if (kernel_current_task(k, k->cluster->cpu[i], &current) && current.va == task->va)
            return kernel_cpu_unwind(k, k->cluster->cpu[i], frames);
    return kernel_task_context(k, task, &c) ? kernel_unwind(k, c.pc, c.fp, frames) : 0;
}

void kernel_print_frames(struct kernel *k, const struct kernel_frame *frames, unsigned n, GString *out)
{
    for (unsigned i = 0; i < n; i++) {
        g_autofree char *at = i ? kernel_describe_return(k, frames[i].pc) : kernel_describe_address(k, frames[i].pc);
        g_string_append_printf(out, "#%-2u 0x%016" G_GINT64_MODIFIER "x %s\n", i, (guint64)frames[i].pc,
                               at ? at : frames[i].pc >> 63 ? "??" : "(user space)");
    }
}
