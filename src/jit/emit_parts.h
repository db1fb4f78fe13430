/*
 * What emit.c, emit_alu.c, emit_flags.c, emit_flow.c and emit_sys.c know of each other; the others have emit.h.
 */
#ifndef ARMLET_JIT_EMIT_PARTS_H
#define ARMLET_JIT_EMIT_PARTS_H

#include "jit/emit.h"

static inline const struct ir *op_of(const struct emit *e, unsigned id)
{
    return &e->block->ir[id];
}

static inline struct hmem home(unsigned n)
{
    return jit_cpu_mem(offsetof(struct cpu, x) + 8 * (size_t)n);
}

static inline int temp_index(unsigned host)
{
    for (int i = 0; i < TEMPS; i++)
        if (jit_temps[i] == host)
            return i;
    return -1;
}

static inline void lock(struct emit *e, unsigned host)
{
    int t = temp_index(host);
    if (t >= 0)
        e->locked |= (uint8_t)(1u << t);
}

static inline bool is_const(const struct emit *e, unsigned id)
{
    return op_of(e, id)->op == IR_const;
}

static inline uint64_t const_of(const struct emit *e, unsigned id)
{
    return op_of(e, id)->imm;
}

static inline bool fits32(uint64_t v)
{
    return (int64_t)v == (int32_t)v;
}

/* --- values (emit.c) --- */
void emit_load_pc(struct emit *e, unsigned host, uint64_t off);
void emit_value_to(struct emit *e, unsigned id, unsigned r);
bool emit_is_add_const(const struct emit *e, unsigned id, int32_t *off);
void emit_unlock_all(struct emit *e);

/* --- the operations: the current one is `ir' (emit_alu.c) --- */
void emit_alu_operand(struct emit *e, bool sf, enum halu op, unsigned d, unsigned b);
void emit_alu(struct emit *e, const struct ir *ir, bool want_flags);
void emit_compare(struct emit *e, bool sf, unsigned a, unsigned b);
void emit_flags_addsub(struct emit *e, const struct ir *ir);
void emit_flags_logic(struct emit *e, const struct ir *ir);
void emit_carry(struct emit *e, const struct ir *ir);
void emit_unary(struct emit *e, const struct ir *ir);
void emit_ext(struct emit *e, const struct ir *ir);
void emit_shift(struct emit *e, const struct ir *ir);
void emit_binary(struct emit *e, const struct ir *ir);
void emit_mulh(struct emit *e, const struct ir *ir);
void emit_div(struct emit *e, const struct ir *ir);
void emit_extr(struct emit *e, const struct ir *ir);
void emit_crc(struct emit *e, const struct ir *ir);

/* --- flags and conditions (emit_flags.c) --- */
enum in_host emit_in_host(const struct emit *e, unsigned set);
void emit_flags_to_memory(struct emit *e, unsigned set, enum in_host where, bool turn);
void emit_flags_for_c(struct emit *e);
void emit_flags_out(struct emit *e, bool dead);
unsigned emit_flags_to_host(struct emit *e, unsigned id, unsigned cond);
bool emit_is_compare(unsigned op);
unsigned emit_compare_to_host(struct emit *e, const struct ir *ir);
unsigned emit_condition(struct emit *e, unsigned q);
void emit_later(struct emit *e, unsigned id, unsigned host);
void emit_select(struct emit *e, const struct ir *ir);
void emit_f_select(struct emit *e, const struct ir *ir);
void emit_flags_from_nzcv(struct emit *e, unsigned r, unsigned id, enum hot word);
void emit_f_of_v(struct emit *e, const struct ir *ir);
void emit_v_of_f(struct emit *e, const struct ir *ir);

/* --- exits (emit_flow.c) --- */
void emit_goto(struct emit *e, uint64_t off);
void emit_exit(struct emit *e, const struct ir *ir);
void emit_side(struct emit *e, const struct ir *ir);
void emit_trace_poll(struct emit *e, const struct ir *ir);
void emit_side_cold(struct emit *e, const struct cold *c);
void emit_branch_rel(struct emit *e, const struct ir *ir);
void emit_branch(struct emit *e, const struct ir *ir);
void emit_branch_if(struct emit *e, const struct ir *ir);
void emit_leave(struct emit *e, const struct ir *ir, bool state_ran);
void emit_sp_check(struct emit *e);
void emit_barrier(struct emit *e, const struct ir *ir);

#endif
