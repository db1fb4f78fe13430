/*
 * The CPU models: what MIDR_EL1, the cache and the ID registers say.
 *
 * Values are those of the cores' reference manuals, less what is not implemented here: AArch32 at any EL, EL2, EL3,
 * big-endian data (ID_AA64MMFR0_EL1.BigEnd is 0), trace, and debug and PMU later than Armv8.0.  Fields that stand for
 * features come from isa/features.def.  The AArch32 ID registers read as zero, as where EL0 is AArch64 only.
 *
 * Constant tables: any thread.
 */
#include "cpu/model.h"

#include <string.h>

#include "base/compiler.h"
#include "cpu/cpu.h"

static const struct cpu_model models[] = {
    { "cortex-a53", "Arm Cortex-A53 r0p4", A64_CORTEX_A53, 0x410fd034, 0x100, 3, 0x84448004, 0x0a200023,
      { 0x700fe01a, 0x201fe00a, 0x707fe07a }, 2, false, true },
    { "cortex-a57", "Arm Cortex-A57 r1p0", A64_CORTEX_A57, 0x411fd070, 0, 1, 0x8444c004, 0x0a200023,
      { 0x701fe00a, 0x201fe012, 0x70ffe07a }, 4, false, true },
    { "cortex-a72", "Arm Cortex-A72 r0p3", A64_CORTEX_A72, 0x410fd083, 0, 2, 0x8444c004, 0x0a200023,
      { 0x701fe00a, 0x201fe012, 0x707fe07a }, 4, false, true },
    { "cortex-a76", "Arm Cortex-A76 r4p1", A64_CORTEX_A76, 0x414fd0b1, 0, 0xb, 0x8444c004, 0x0a200023,
      { 0x701fe01a, 0x201fe01a, 0x707fe03a }, 2, true, false },
    { "neoverse-n1", "Arm Neoverse N1 r4p1", A64_NEOVERSE_N1, 0x414fd0c1, 0, 0xc, 0x8444c004, 0x0a200023,
      { 0x701fe01a, 0x201fe01a, 0x70ffe03a }, 5, true, false },
    /* Implementer 0 is "reserved for software use"; CTR_EL0.IDC: no DC CVAU is needed before IC IVAU. */
    { "max", "everything that is implemented", A64_MAX, 0x000f0410, 0, 0, 0x9444c004, 0x0a200023,
      { 0x701fe01a, 0x201fe01a, 0x70ffe03a }, 5, true, false },
};

static const char *const names[ARRAY_LEN(models) + 1] = {
    "cortex-a53", "cortex-a57", "cortex-a72", "cortex-a76", "neoverse-n1", "max", NULL
};

const struct cpu_model *cpu_model_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(models); i++)
        if (!strcmp(models[i].name, name))
            return &models[i];
    return NULL;
}

const char *cpu_model_name(const struct cpu_model *model)
{
    return model->name;
}

const char *const *cpu_model_names(void)
{
    return names;
}

unsigned cpu_model_pa_bits(const struct cpu_model *model)
{
    static const uint8_t bits[] = { 32, 36, 40, 42, 44, 48 };

    return bits[model->parange];
}

static unsigned id_index(unsigned crm, unsigned op2)
{
    return crm * 8 + op2;
}

void cpu_model_apply(struct cpu *cpu)
{
    const struct cpu_model *m = cpu->model;
    uint64_t *id = cpu->sys.id;

    a64_model_features(m->column, cpu->features);
    id[id_index(4, 0)] = a64_id_bits(ID_AA64PFR0_EL1, cpu->features) | 0x11; /* EL1, EL0: AArch64 only */
    id[id_index(4, 1)] = a64_id_bits(ID_AA64PFR1_EL1, cpu->features);
    /* CTX_CMPs, WRPs, BRPs are one less than the number; PMUv3; Armv8 debug. */
    id[id_index(5, 0)] = (uint64_t)(DEBUG_CONTEXT_BPS - 1) << 28 | (DEBUG_WATCHPOINTS - 1) << 20 |
                         (DEBUG_BREAKPOINTS - 1) << 12 | 1 << 8 | 6;
    id[id_index(6, 0)] = a64_id_bits(ID_AA64ISAR0_EL1, cpu->features);
    id[id_index(6, 1)] = a64_id_bits(ID_AA64ISAR1_EL1, cpu->features);
    /* 16-bit ASIDs; 4 and 64 KiB granules are field value 0. */
    id[id_index(7, 0)] = (uint64_t)m->gran16 << 20 | 2 << 4 | m->parange;
    id[id_index(7, 1)] = a64_id_bits(ID_AA64MMFR1_EL1, cpu->features);
    id[id_index(7, 2)] = a64_id_bits(ID_AA64MMFR2_EL1, cpu->features);
}
