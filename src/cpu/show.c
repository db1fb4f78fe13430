/* See show.h. */
#include "cpu/show.h"

#include <inttypes.h>

#include "cpu/sysregs.h"

void show_general(const struct cpu *cpu, GString *out)
{
    uint32_t p = (uint32_t)cpu_pstate(cpu);

    g_string_append_printf(out, "CPU#%u\n PC=%016" PRIx64 " X00=%016" PRIx64 " X01=%016" PRIx64 "\n", cpu->index, cpu->pc,
                           cpu->x[0], cpu->x[1]);
    for (unsigned i = 2; i < 31; i++)
        g_string_append_printf(out, "X%02u=%016" PRIx64 "%s", i, cpu->x[i], i % 3 == 1 ? "\n" : " ");
    g_string_append_printf(out, " SP=%016" PRIx64 "\nPSTATE=%08x %c%c%c%c EL%u%c\n", cpu->x[31], p, p >> 31 & 1 ? 'N' : '-',
                           p >> 30 & 1 ? 'Z' : '-', p >> 29 & 1 ? 'C' : '-', p >> 28 & 1 ? 'V' : '-', cpu->el,
                           cpu->spsel ? 'h' : 't');
}

void show_vectors(struct cpu *cpu, GString *out)
{
    uint64_t fpcr = 0, fpsr = 0;

    sysreg_peek(cpu, sysreg_find_name("FPCR"), &fpcr);
    sysreg_peek(cpu, sysreg_find_name("FPSR"), &fpsr);
    g_string_append_printf(out, "FPCR=%08x FPSR=%08x\n", (unsigned)fpcr, (unsigned)fpsr);
    for (unsigned i = 0; i < 32; i++)
        g_string_append_printf(out, "Q%02u=%016" PRIx64 ":%016" PRIx64 "%s", i, cpu->v[i].d[1], cpu->v[i].d[0],
                               i & 1 ? "\n" : " ");
}

void show_block(struct cpu *cpu)
{
    if (!trace_in_filter(cpu->pc))
        return;
    trace(EXEC, "cpu %u: block at EL%u pc %#" PRIx64 "%s", cpu->index, cpu->el, cpu->pc,
          cpu->el ? trace_name(cpu->pc) : "");
    if (trace_on(CPU)) {
        g_autoptr(GString) text = g_string_new(NULL);
        show_general(cpu, text);
        if (trace_on(FPU))
            show_vectors(cpu, text);
        trace(CPU, "%s", text->str);
    }
}
