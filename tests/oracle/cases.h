/*
 * Host side of the instruction tests: a machine with one vCPU at EL0 on mapped memory, and random cases for
 * it.
 */
#ifndef ARMLET_TESTS_ORACLE_CASES_H
#define ARMLET_TESTS_ORACLE_CASES_H

#include <stdbool.h>

#include "cpu/cpu.h"
#include "oracle.h"

struct oracle_machine {
    struct mem *mem;
    struct cluster *cluster;
    struct cpu *cpu;
    uint8_t *data; /* host address of ORACLE_MEM */
    uint8_t *code; /* of ORACLE_CODE */
};

/* cortex and so on: a name of -cpu.  Of several vCPUs the first is m->cpu, and no other runs. */
void oracle_machine_new(struct oracle_machine *m, const char *model, unsigned vcpus);
void oracle_machine_free(struct oracle_machine *m);

/* st into the vCPU and memory, pc at `pc', EL0. */
void oracle_set(struct oracle_machine *m, const struct oracle_state *st, uint64_t pc);
/* The reverse; `taken' is whether pc is neither pc_before + 4 nor an exception's. */
void oracle_get(struct oracle_machine *m, struct oracle_state *st, uint64_t pc_before);

/* The reason why the line is not tried against an outside machine, or NULL. */
const char *oracle_denied(unsigned op);

/*
 * A random case of line op for the slot number `slot'.  False when none was found (denied words, addresses
 * that cannot be reached).  Runs the interpreter on m to find the address that a load or store would use.
 */
bool oracle_pick(struct oracle_machine *m, unsigned op, unsigned slot, uint64_t *seed,
                 struct oracle_record *rec);

/* As the arm64 side does it: prefix and word on state rep of rec.  False: an exception was taken. */
bool oracle_interpret(struct oracle_machine *m, const struct oracle_record *rec, unsigned slot, uint32_t rep,
                      struct oracle_state *after);

/* Prints what differs; names the two sides. */
void oracle_print_difference(const struct oracle_state *before, const struct oracle_state *a,
                             const char *a_name, const struct oracle_state *b, const char *b_name);

#endif
