/*
 * See gdb_regs.h.  The description follows gdb's "AArch64 Features" (org.gnu.gdb.aarch64.core and .fpu); the system
 * registers form a feature and a group of their own, so that `info registers' stays short and `info registers system'
 * shows them.
 */
#include "debug/gdb_regs.h"

#include <glib.h>
#include <string.h>

#include "cpu/cpu.h"

enum { REG_SP = 31, REG_PC = 32, REG_CPSR = 33, REG_V0 = 34, REG_FPSR = 66, REG_FPCR = 67, REG_SYS = GDB_G_REGS };

struct gdb_regs {
    GPtrArray *sys; /* const struct sysreg * */
    char *xml;
};

/* --- the description --- */

static void add_core(GString *s)
{
    g_string_append(s, "<feature name=\"org.gnu.gdb.aarch64.core\">\n");
    for (unsigned i = 0; i < 31; i++)
        g_string_append_printf(s, "<reg name=\"x%u\" bitsize=\"64\"/>\n", i);
    g_string_append(s, "<reg name=\"sp\" bitsize=\"64\" type=\"data_ptr\"/>\n"
                       "<reg name=\"pc\" bitsize=\"64\" type=\"code_ptr\"/>\n"
                       "<reg name=\"cpsr\" bitsize=\"32\"/>\n</feature>\n");
}

static void add_fpu(GString *s)
{
    static const struct { char lane; unsigned bits; const char *real; } lanes[] = {
        { 'd', 64, "ieee_double" }, { 's', 32, "ieee_single" }, { 'h', 16, "ieee_half" }, { 'b', 8, NULL },
        { 'q', 128, NULL } };

    g_string_append(s, "<feature name=\"org.gnu.gdb.aarch64.fpu\">\n");
    for (unsigned i = 0; i < G_N_ELEMENTS(lanes); i++) {
        unsigned n = 128 / lanes[i].bits;
        char c = lanes[i].lane;
        if (lanes[i].real)
            g_string_append_printf(s, "<vector id=\"v%c_f\" type=\"%s\" count=\"%u\"/>\n", c, lanes[i].real, n);
        g_string_append_printf(s, "<vector id=\"v%c_u\" type=\"uint%u\" count=\"%u\"/>\n"
                               "<vector id=\"v%c_s\" type=\"int%u\" count=\"%u\"/>\n<union id=\"vn%c\">\n", c,
                               lanes[i].bits, n, c, lanes[i].bits, n, c);
        if (lanes[i].real)
            g_string_append_printf(s, "<field name=\"f\" type=\"v%c_f\"/>\n", c);
        g_string_append_printf(s, "<field name=\"u\" type=\"v%c_u\"/>\n<field name=\"s\" type=\"v%c_s\"/>\n</union>\n",
                               c, c);
    }
    g_string_append(s, "<union id=\"aarch64v\">\n");
    for (unsigned i = 0; i < G_N_ELEMENTS(lanes); i++)
        g_string_append_printf(s, "<field name=\"%c\" type=\"vn%c\"/>\n", lanes[i].lane, lanes[i].lane);
    g_string_append(s, "</union>\n");
    for (unsigned i = 0; i < 32; i++)
        g_string_append_printf(s, "<reg name=\"v%u\" bitsize=\"128\" type=\"aarch64v\"/>\n", i);
    g_string_append(s, "<reg name=\"fpsr\" bitsize=\"32\"/>\n<reg name=\"fpcr\" bitsize=\"32\"/>\n</feature>\n");
}

static void add_system(GString *s, const GPtrArray *sys)
{
    g_string_append(s, "<feature name=\"org.armlet.aarch64.system\">\n");
    for (guint i = 0; i < sys->len; i++)
        g_string_append_printf(s, "<reg name=\"%s\" bitsize=\"64\" type=\"uint64\" group=\"system\" "
                               "save-restore=\"no\"/>\n", ((const struct sysreg *)sys->pdata[i])->name);
    g_string_append(s, "</feature>\n");
}

struct gdb_regs *gdb_regs_new(struct cpu *cpu)
{
    struct gdb_regs *r = g_new0(struct gdb_regs, 1);
    size_t n;
    const struct sysreg *table = sysreg_table(&n);
    GString *s = g_string_new("<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n"
                              "<target version=\"1.0\">\n<architecture>aarch64</architecture>\n");

    r->sys = g_ptr_array_new();
    for (size_t i = 0; i < n; i++) {
        uint64_t value;
        if (sysreg_peek(cpu, &table[i], &value))
            g_ptr_array_add(r->sys, (void *)&table[i]);
    }
    add_core(s);
    add_fpu(s);
    add_system(s, r->sys);
    g_string_append(s, "</target>\n");
    r->xml = g_string_free(s, FALSE);
    return r;
}

void gdb_regs_free(struct gdb_regs *r)
{
    g_ptr_array_free(r->sys, TRUE);
    g_free(r->xml);
    g_free(r);
}

const char *gdb_regs_xml(const struct gdb_regs *r)
{
    return r->xml;
}

/* --- values --- */

size_t gdb_reg_size(const struct gdb_regs *r, unsigned n)
{
    if (n >= REG_SYS)
        return n - REG_SYS < r->sys->len ? 8 : 0;
    if (n >= REG_V0 && n < REG_FPSR)
        return 16;
    return n == REG_CPSR || n >= REG_FPSR ? 4 : 8;
}

bool gdb_reg_read(const struct gdb_regs *r, struct cpu *cpu, unsigned n, uint8_t *buf)
{
    uint64_t value = 0;

    if (n >= REG_SYS) {
        if (n - REG_SYS >= r->sys->len || !sysreg_peek(cpu, r->sys->pdata[n - REG_SYS], &value))
            return false;
    } else if (n >= REG_V0 && n < REG_FPSR) {
        memcpy(buf, cpu->v[n - REG_V0].d, 16);
        return true;
    } else if (n == REG_FPSR || n == REG_FPCR) {
        if (!sysreg_peek(cpu, sysreg_find_name(n == REG_FPSR ? "FPSR" : "FPCR"), &value))
            return false;
    } else {
        value = n == REG_PC ? cpu->pc : n == REG_CPSR ? cpu_pstate(cpu) : cpu->x[n];
    }
    memcpy(buf, &value, gdb_reg_size(r, n));
    return true;
}

bool gdb_reg_write(const struct gdb_regs *r, struct cpu *cpu, unsigned n, const uint8_t *buf)
{
    uint64_t value = 0;

    if (n >= REG_V0 && n < REG_FPSR) {
        memcpy(cpu->v[n - REG_V0].d, buf, 16);
        return true;
    }
    memcpy(&value, buf, MIN(gdb_reg_size(r, n), sizeof value));
    if (n >= REG_SYS)
        return n - REG_SYS < r->sys->len && sysreg_poke(cpu, r->sys->pdata[n - REG_SYS], value);
    if (n == REG_FPSR || n == REG_FPCR)
        return sysreg_poke(cpu, sysreg_find_name(n == REG_FPSR ? "FPSR" : "FPCR"), value);
    if (n == REG_PC)
        cpu->pc = cpu->next_pc = value;
    else if (n == REG_CPSR)
        cpu_set_pstate(cpu, value);
    else
        cpu->x[n] = value;
    return true;
}
