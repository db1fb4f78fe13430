/*
 * A cluster whose threads never start, with a clock that stands still until told: for tests that call into cpu/.
 */
#ifndef ARMLET_TESTS_CPU_FIXTURE_H
#define ARMLET_TESTS_CPU_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <glib.h>

#include "base/bits.h"
#include "base/compiler.h"
#include "cpu/cluster.h"
#include "cpu/cpu.h"
#include "cpu/interp.h"

enum { FIXTURE_RAM = 0x40000000, FIXTURE_RAM_SIZE = 1 << 20 };

struct fixture {
    struct mem *mem;
    struct cluster *cl;
    struct cpu *cpu; /* number 0, at EL1h with pc at the start of RAM and vectors at +0x8000 */
    uint64_t now_ns;
};

static inline uint64_t fixture_clock(void *opaque)
{
    return ((struct fixture *)opaque)->now_ns;
}

static inline void fixture_reset(struct fixture *f)
{
    cpu_reset(f->cpu, FIXTURE_RAM, 0);
    f->cpu->sys.vbar_el1 = FIXTURE_RAM + 0x8000;
}

static inline struct fixture *fixture_new(const char *model, unsigned n)
{
    struct fixture *f = g_new0(struct fixture, 1);

    f->mem = mem_new(FIXTURE_RAM, FIXTURE_RAM_SIZE);
    assert_non_null(f->mem);
    f->cl = cluster_new(n, f->mem, cpu_model_find(model), &interp_engine);
    f->cl->clock_ns = fixture_clock;
    f->cl->clock_opaque = f;
    f->cpu = f->cl->cpu[0];
    f->now_ns = 1000000;
    fixture_reset(f);
    return f;
}

static inline void fixture_free(struct fixture *f)
{
    cluster_free(f->cl);
    mem_free(f->mem);
    g_free(f);
}

/* Drop to EL0t as ERET does. */
static inline void fixture_el0(struct fixture *f)
{
    cpu_set_el_sp(f->cpu, 0, 0);
}

static inline void fixture_code(struct fixture *f, uint64_t pa, const uint32_t *words, size_t n)
{
    assert_true(mem_write(f->mem, pa, words, n * 4));
    mem_code_stale(f->mem, pa, n * 4);
}

/* --- registers by key --- */

static inline uint64_t get(struct cpu *cpu, uint32_t key)
{
    uint64_t value = 0xdeadbeef;

    assert_true(cpu_sysreg_read(cpu, key, 0, &value));
    return value;
}

static inline void put(struct cpu *cpu, uint32_t key, uint64_t value)
{
    assert_true(cpu_sysreg_write(cpu, key, 0, value));
}

static inline uint32_t key_of(const char *name)
{
    const struct sysreg *reg = sysreg_find_name(name);

    assert_non_null(reg);
    return reg->key;
}

static inline uint64_t get_name(struct cpu *cpu, const char *name)
{
    return get(cpu, key_of(name));
}

static inline void put_name(struct cpu *cpu, const char *name, uint64_t value)
{
    put(cpu, key_of(name), value);
}

static inline unsigned esr_ec(const struct cpu *cpu)
{
    return (unsigned)(cpu->sys.esr_el1 >> 26);
}

static inline uint32_t esr_iss(const struct cpu *cpu)
{
    return (uint32_t)cpu->sys.esr_el1 & 0x1ffffff;
}

/* A wire that counts. */
struct probe {
    bool level;
    unsigned edges;
};

static inline void probe_set(void *opaque, unsigned n, bool level)
{
    struct probe *p = opaque;

    (void)n;
    if (level != p->level)
        p->edges++;
    p->level = level;
}

static inline struct irq_line probe_line(struct probe *p)
{
    return (struct irq_line){ .set = probe_set, .opaque = p, .n = 0 };
}

#endif
