/*
 * PSCI 1.1 and the SMC Calling Convention 1.1 over HVC (Arm DEN0022, DEN0028).
 *
 * There is no EL2: the machine itself answers HVC #0 from EL1, as firmware would.  Powerdown states of CPU_SUSPEND are
 * entered as standby, which 5.4.1 allows: the call returns SUCCESS at a wake-up event.  Left out, NOT_SUPPORTED: MIGRATE,
 * CPU_FREEZE, CPU_DEFAULT_SUSPEND, SYSTEM_SUSPEND, statistics, MEM_PROTECT, OS-initiated mode, and every function of
 * other services (SMCCC_ARCH_WORKAROUND_n, TRNG, ...).
 *
 * On the calling vCPU's thread; what happens to others is cpu/cluster.c's.
 */
#include "cpu/cpu.h"

#include <inttypes.h>

#include "base/bits.h"
#include "base/compiler.h"
#include "base/trace.h"
#include "cpu/cluster.h"

/* Function numbers; bit 30 says that the arguments are 64 bits wide. */
enum {
    FN64 = 0x40000000,
    SMCCC_VERSION = 0x80000000, SMCCC_ARCH_FEATURES = 0x80000001,
    PSCI_VERSION = 0x84000000, PSCI_CPU_SUSPEND = 0x84000001, PSCI_CPU_OFF = 0x84000002, PSCI_CPU_ON = 0x84000003,
    PSCI_AFFINITY_INFO = 0x84000004, PSCI_MIGRATE_INFO_TYPE = 0x84000006, PSCI_SYSTEM_OFF = 0x84000008,
    PSCI_SYSTEM_RESET = 0x84000009, PSCI_FEATURES = 0x8400000a, PSCI_SYSTEM_RESET2 = 0x84000012,
};

enum { PSCI_NOT_SUPPORTED = -1, PSCI_INVALID_ADDRESS = -9 };
enum { VERSION_1_1 = 0x10001, NO_TRUSTED_OS = 2 };

struct call {
    struct cpu *cpu;
    uint32_t function;
    uint64_t arg[3];
};

static int64_t version(const struct call *c)
{
    (void)c;
    return VERSION_1_1;
}

/* Original format of power_state: StateID 15:0, StateType 16, PowerLevel 25:24, the rest zero. */
static int64_t cpu_suspend(const struct call *c)
{
    if (c->arg[0] & ~UINT64_C(0x0301ffff))
        return PSCI_INVALID_PARAMETERS;
    cluster_wfi(c->cpu);
    return PSCI_SUCCESS;
}

static int64_t cpu_off(const struct call *c)
{
    cluster_cpu_off(c->cpu);
    return PSCI_SUCCESS; /* never seen: x0 is the context of the next CPU_ON */
}

static int64_t cpu_on(const struct call *c)
{
    bool writable;

    if ((c->arg[1] & 3) || !mem_page_hva(c->cpu->mem, c->arg[1], &writable))
        return PSCI_INVALID_ADDRESS;
    return cluster_cpu_on(c->cpu->cluster, c->arg[0], c->arg[1], c->arg[2]);
}

static int64_t affinity_info(const struct call *c)
{
    if (c->arg[1] > 3)
        return PSCI_INVALID_PARAMETERS;
    return cluster_affinity_info(c->cpu->cluster, c->arg[0], (unsigned)c->arg[1]);
}

static int64_t migrate_info_type(const struct call *c)
{
    (void)c;
    return NO_TRUSTED_OS;
}

static int64_t system_off(const struct call *c)
{
    struct cluster *cl = c->cpu->cluster;

    if (cl->ops && cl->ops->system_off)
        cl->ops->system_off(cl->ops_opaque);
    cluster_park(c->cpu);
    return PSCI_SUCCESS;
}

static int64_t system_reset(const struct call *c)
{
    struct cluster *cl = c->cpu->cluster;

    if (cl->ops && cl->ops->system_reset)
        cl->ops->system_reset(cl->ops_opaque);
    cluster_park(c->cpu);
    return PSCI_SUCCESS;
}

/* 5.12: type 0 is SYSTEM_WARM_RESET; bit 31 marks vendors' types. */
static int64_t system_reset2(const struct call *c)
{
    return (uint32_t)c->arg[0] ? PSCI_INVALID_PARAMETERS : system_reset(c);
}

static int64_t psci_features(const struct call *c);

static int64_t arch_features(const struct call *c)
{
    uint32_t asked = (uint32_t)c->arg[0];

    return asked == SMCCC_VERSION || asked == SMCCC_ARCH_FEATURES ? PSCI_SUCCESS : PSCI_NOT_SUPPORTED;
}

static const struct function {
    uint32_t id;
    bool wide; /* exists with 64-bit arguments too */
    int64_t (*call)(const struct call *c);
} functions[] = {
    { SMCCC_VERSION, false, version },
    { SMCCC_ARCH_FEATURES, false, arch_features },
    { PSCI_VERSION, false, version },
    { PSCI_CPU_SUSPEND, true, cpu_suspend },
    { PSCI_CPU_OFF, false, cpu_off },
    { PSCI_CPU_ON, true, cpu_on },
    { PSCI_AFFINITY_INFO, true, affinity_info },
    { PSCI_MIGRATE_INFO_TYPE, false, migrate_info_type },
    { PSCI_SYSTEM_OFF, false, system_off },
    { PSCI_SYSTEM_RESET, false, system_reset },
    { PSCI_FEATURES, false, psci_features },
    { PSCI_SYSTEM_RESET2, true, system_reset2 },
};

static const struct function *find(uint32_t id)
{
    for (size_t i = 0; i < ARRAY_LEN(functions); i++) {
        const struct function *f = &functions[i];

        if (f->id == id || (f->wide && (f->id | FN64) == id))
            return f;
    }
    return NULL;
}

/* 5.11: flags, of which CPU_SUSPEND alone has any: original format, no OS-initiated mode. */
static int64_t psci_features(const struct call *c)
{
    uint32_t asked = (uint32_t)c->arg[0];

    return find(asked) && asked != SMCCC_ARCH_FEATURES ? PSCI_SUCCESS : PSCI_NOT_SUPPORTED;
}

static int64_t psci_call(struct cpu *cpu)
{
    struct call c = { cpu, (uint32_t)cpu->x[0], { cpu->x[1], cpu->x[2], cpu->x[3] } };
    const struct function *f = find(c.function);

    if (!f) {
        trace(UNIMP, "cpu %u: firmware function %#" PRIx32 " is not supported", cpu->index, c.function);
        return PSCI_NOT_SUPPORTED;
    }
    if (!(c.function & FN64))
        for (size_t i = 0; i < ARRAY_LEN(c.arg); i++)
            c.arg[i] = (uint32_t)c.arg[i];
    return f->call(&c);
}

void cpu_hvc(struct cpu *cpu, unsigned imm)
{
    uint32_t function = (uint32_t)cpu->x[0];

    if (cpu->el == 0 || imm != 0) {
        cpu_undefined(cpu);
        return;
    }
    cpu->x[0] = (uint64_t)psci_call(cpu);
    trace(PCALL, "cpu %u: firmware call %#" PRIx32 " (%#" PRIx64 ", %#" PRIx64 ", %#" PRIx64 ") = %" PRId64, cpu->index,
          function, cpu->x[1], cpu->x[2], cpu->x[3], (int64_t)cpu->x[0]);
}
