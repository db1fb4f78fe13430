/*
 * Ways out of a block: branches, side exits, calls and returns, the jump cache.
 */
#include "jit/emit_parts.h"

/* --- exits ------------------------------------------------------------------------------------------------------------ */

/* Leaves for the run loop when cpu->pending says so; RAX is the pc to go on at.  ECX is destroyed. */
static void emit_poll(struct emit *e)
{
    x86_load(&e->x, false, RCX, CPU_MEM(pending));
    x86_rm(&e->x, 0, false, 0x85, RCX, HOT(HOT_MASK), false);
    uint8_t *leave = x86_jcc(&e->x, CC_NE);
    if (!e->x.full)
        x86_patch(leave, e->stubs->leave_at - e->x.exec);
}

void emit_dispatch_code(struct x86 *x, const uint8_t *leave_at, bool place)
{
    uint8_t *leave[2];

    if (place)
        x86_store(x, true, HOT(HOT_T0), RCX);
    x86_load(x, false, RCX, CPU_MEM(pending));
    x86_rm(x, 0, false, 0x85, RCX, HOT(HOT_MASK), false);
    leave[0] = x86_jcc(x, CC_NE);
    x86_load(x, true, RDX, HOT(HOT_JUMPS));
    x86_mov_rr(x, true, RSI, RAX);
    x86_alu_rm(x, true, ALU_XOR, RSI, HOT(HOT_KEY));
    x86_mov_rr(x, false, RCX, RSI);
    x86_alu_ri(x, false, ALU_AND, RCX, ((1 << JUMP_BITS) - 1) << 2); /* jump_slot() */
    x86_alu_rm(x, true, ALU_CMP, RSI, MEMX(RDX, RCX, 2, 0));
    leave[1] = x86_jcc(x, CC_NE);
    if (place) {
        x86_load(x, true, RDX, MEMX(RDX, RCX, 2, 8));
        x86_load(x, true, RCX, HOT(HOT_T0));
        x86_store(x, true, MEM(RCX, offsetof(struct jump, tag)), RSI);
        x86_store(x, true, MEM(RCX, offsetof(struct jump, code)), RDX);
        x86_jmp_reg(x, RDX);
    } else {
        x86_jmp_mem(x, MEMX(RDX, RCX, 2, 8));
    }
    for (unsigned i = 0; i < 2 && !x->full; i++)
        x86_patch(leave[i], leave_at);
}

/* To the va in RAX, by the jump cache.  Inline where the host's predictor profits from a place of its own. */
static void emit_dispatch(struct emit *e, bool inline_)
{
    if (inline_)
        emit_dispatch_code(&e->x, e->stubs->leave_at - e->x.exec, false);
    else
        x86_jmp_to(&e->x, e->stubs->dispatch - e->x.exec);
}

/*
 * To a fixed place in another page.  Each such jump has a place of its own that says where it leads, as a place in the jump
 * cache does; every vCPU has a table of them.  (Two jumps may share one: the tag tells.)
 */
static void emit_direct(struct emit *e, uint64_t off)
{
    int32_t at = (int32_t)(e->direct++ & ((1u << DIRECT_BITS) - 1)) * (int32_t)sizeof(struct jump);

    emit_load_pc(e, RAX, off);
    if ((int64_t)off <= e->off)
        emit_poll(e);
    x86_load(&e->x, true, RCX, HOT(HOT_DIRECT));
    x86_mov_rr(&e->x, true, RDX, RAX);
    x86_alu_rm(&e->x, true, ALU_XOR, RDX, HOT(HOT_KEY));
    x86_alu_rm(&e->x, true, ALU_CMP, RDX, MEM(RCX, at + (int32_t)offsetof(struct jump, tag)));
    uint8_t *other = x86_jcc(&e->x, CC_NE);
    x86_jmp_mem(&e->x, MEM(RCX, at + (int32_t)offsetof(struct jump, code)));
    x86_here(&e->x, other);
    x86_lea(&e->x, true, RCX, MEM(RCX, at));
    x86_jmp_to(&e->x, e->stubs->direct - e->x.exec);
}

/*
 * Before a jump or call, whose opcode has that many bytes, that is patched while other vCPUs may run it: its displacement
 * must lie in an aligned quadword.  Flags stay.
 */
enum { JMP_OPCODE = 1, JCC_OPCODE = 2 };
static void emit_align_link(struct emit *e, unsigned opcode)
{
    static const uint8_t nops[4][3] = { { 0 }, { 0x90 }, { 0x66, 0x90 }, { 0x0f, 0x1f, 0x00 } };
    unsigned over = (unsigned)(uintptr_t)(e->x.p + opcode) & 7, n = over > 4 ? 8 - over : 0;

    for (unsigned i = 0; i < n; i++)
        x86_u8(&e->x, nops[n][i]);
}

/* The place of a jump or call to page offset `to'; until it is patched it leads to the run loop. */
static void add_link(struct emit *e, uint8_t *from, unsigned to)
{
    if (e->nlinks == MAX_LINKS) {
        e->failed = true;
        return;
    }
    struct cold *c = emit_cold(e, COLD_LINK, from);
    c->id = (uint16_t)e->nlinks;
    e->links[e->nlinks++] = (struct jit_link){ from, (uint16_t)to, (uint8_t)e->mode };
}

static bool in_page(const struct emit *e, uint64_t off)
{
    int64_t to = (int64_t)e->page_off + (int64_t)off;
    return to >= 0 && to < MEM_PAGE_SIZE;
}

void emit_goto(struct emit *e, uint64_t off)
{
    unsigned to = (unsigned)(e->page_off + off);

    if (!in_page(e, off)) {
        emit_direct(e, off);
    } else if ((int64_t)off > e->off) {
        emit_align_link(e, JMP_OPCODE);
        add_link(e, x86_jmp(&e->x), to);
    } else { /* backwards: a loop must notice interrupts */
        x86_load(&e->x, false, RCX, CPU_MEM(pending));
        x86_rm(&e->x, 0, false, 0x85, RCX, HOT(HOT_MASK), false);
        emit_align_link(e, JCC_OPCODE);
        add_link(e, x86_jcc(&e->x, CC_E), to);
        emit_load_pc(e, RAX, off);
        x86_jmp_to(&e->x, e->stubs->leave_at - e->x.exec);
    }
}

/* The end of a loop, to its start. */
static void loop_back(struct emit *e, bool flags_dead)
{
    if (e->loop.flags && e->lazy == e->loop.flags) {
        x86_store_imm(&e->x, false, HOT(HOT_TURN), 1);
    } else {
        emit_flags_out(e, flags_dead);
        e->lazy = 0;
    }
    emit_loop_vectors_back(e);
    if (e->owed_turn)
        x86_store_imm(&e->x, false, HOT(HOT_LATER), 1);
    if (e->bounded) {
        x86_alu_mi(&e->x, false, ALU_SUB, HOT(HOT_TURNS), 1);
        emit_cold(e, COLD_POLL, x86_jcc(&e->x, CC_S))->host = NOT_IN_HOST;
    }
    if (e->block->polled) {
        x86_jmp_to(&e->x, e->loop_start);
        return;
    }
    x86_load(&e->x, false, RCX, CPU_MEM(pending));
    x86_rm(&e->x, 0, false, 0x85, RCX, HOT(HOT_MASK), false);
    uint8_t *again = x86_jcc(&e->x, CC_E);
    if (!e->x.full)
        x86_patch(again, e->loop_start);
    emit_cold(e, COLD_POLL, x86_jmp(&e->x))->host = NOT_IN_HOST;
}

/* A way out of the block at `from' (a jump's place) to offset off. */
static void add_side(struct emit *e, uint8_t *from, uint64_t off, bool flags_dead)
{
    struct cold *c = emit_cold(e, COLD_SIDE, from);

    c->imm[0] = off;
    if (flags_dead)
        c->lazy = 0;
}

void emit_side(struct emit *e, const struct ir *ir)
{
    unsigned cc = emit_condition(e, ir->a) ^ ir->x;

    emit_unlock_all(e);
    add_side(e, x86_jcc(&e->x, (enum hcc)cc), ir->imm, ir->k);
    emit_use(e, ir->a);
}

/* A trace goes on at a smaller address. */
void emit_trace_poll(struct emit *e, const struct ir *ir)
{
    unsigned t = emit_temp(e);

    emit_clobber_flags(e);
    x86_load(&e->x, false, t, CPU_MEM(pending));
    x86_rm(&e->x, 0, false, 0x85, t, HOT(HOT_MASK), false);
    emit_cold(e, COLD_POLL, x86_jcc(&e->x, CC_NE))->imm[0] = ir->imm;
}

/* Cold code of a side exit: flags, the instructions that are not run after all, and on. */
void emit_side_cold(struct emit *e, const struct cold *c)
{
    int32_t more = emit_uncounted(e, c->insn + 1u);

    e->insn = c->insn;
    e->off = c->off;
    if (c->lazy)
        emit_flags_to_memory(e, c->lazy, c->host, c->turn);
    emit_pay_owed(e, c);
    if (more)
        x86_alu_mi(&e->x, true, ALU_ADD, CPU_MEM(icount), more);
    if (c->kind == COLD_SIDE) {
        emit_goto(e, c->imm[0]);
    } else {
        emit_load_pc(e, RAX, c->imm[0]);
        x86_jmp_to(&e->x, e->stubs->leave_at - e->x.exec);
    }
}

/* Pushes the tag of the return address, which x30 has already, onto the return stack; r is destroyed. */
static void push_return(struct emit *e, unsigned r)
{
    x86_load(&e->x, true, r, home(30));
    x86_alu_rm(&e->x, true, ALU_XOR, r, HOT(HOT_KEY));
    x86_alu_rm(&e->x, true, ALU_CMP, RSP, HOT(HOT_RS_LIMIT));
    emit_cold(e, COLD_STACK, x86_jcc(&e->x, CC_B))->back = e->x.p;
    x86_push(&e->x, r);
}

/* Where a return comes back to: RAX is its address, and the tag is still on the stack. */
static void emit_return_point(struct emit *e, uint64_t off)
{
    x86_lea(&e->x, true, RCX, MEM(RAX, -(int32_t)(e->page_off + off)));
    x86_store(&e->x, true, HOT(HOT_PAGE), RCX);
    x86_lea(&e->x, true, RSP, MEM(RSP, 8));
    emit_align_link(e, JMP_OPCODE);
    add_link(e, x86_jmp(&e->x), (unsigned)(e->page_off + off));
}

void emit_exit(struct emit *e, const struct ir *ir)
{
    if (e->loop.is) {
        loop_back(e, ir->k & FLAGS_DEAD_NEXT);
        return;
    }
    emit_flags_out(e, ir->k & FLAGS_DEAD_NEXT);
    emit_goto(e, ir->imm);
}

void emit_branch_rel(struct emit *e, const struct ir *ir)
{
    uint64_t ret = (uint64_t)(int64_t)e->off + 4;
    int64_t to = (int64_t)e->page_off + (int64_t)ir->imm;

    if (e->loop.is) {
        loop_back(e, ir->k & FLAGS_DEAD_NEXT);
        return;
    }
    emit_flags_out(e, ir->k & FLAGS_DEAD_NEXT);
    if (ir->x != BR_CALL || e->page_off + ret >= MEM_PAGE_SIZE) {
        emit_goto(e, ir->imm);
        return;
    }
    bool inside = to >= 0 && to < MEM_PAGE_SIZE;
    if (inside && (int64_t)ir->imm <= (int64_t)ret) {
        x86_load(&e->x, false, RCX, CPU_MEM(pending));
        x86_rm(&e->x, 0, false, 0x85, RCX, HOT(HOT_MASK), false);
        emit_cold(e, COLD_POLL, x86_jcc(&e->x, CC_NE))->imm[0] = ir->imm;
    }
    push_return(e, RAX);
    if (inside)
        emit_align_link(e, JMP_OPCODE);
    uint8_t *call = x86_call(&e->x);
    if (inside)
        add_link(e, call, (unsigned)to);
    emit_return_point(e, ret);
    if (!inside) {
        x86_here(&e->x, call);
        emit_direct(e, ir->imm);
    }
}

void emit_branch(struct emit *e, const struct ir *ir)
{
    uint64_t ret = (uint64_t)(int64_t)e->off + 4;

    emit_unlock_all(e);
    emit_flags_out(e, false);
    emit_value_to(e, ir->a, RAX);
    emit_clobber_flags(e);
    if (ir->x == BR_RET) {
        x86_mov_rr(&e->x, true, RCX, RAX);
        x86_alu_rm(&e->x, true, ALU_XOR, RCX, HOT(HOT_KEY));
        x86_alu_rm(&e->x, true, ALU_CMP, RCX, MEM(RSP, 8));
        uint8_t *other = x86_jcc(&e->x, CC_NE);
        x86_ret(&e->x);
        x86_here(&e->x, other); /* another task's or a forgotten frame: start afresh */
        x86_load(&e->x, true, RSP, HOT(HOT_RS_TOP));
    } else if (ir->x == BR_CALL && e->page_off + ret < MEM_PAGE_SIZE) {
        push_return(e, RCX);
        uint8_t *call = x86_call(&e->x);
        emit_return_point(e, ret);
        x86_here(&e->x, call);
    }
    emit_dispatch(e, ir->x != BR_RET);
}

/* Backwards: mostly taken, and the other way is cold. */
void emit_branch_if(struct emit *e, const struct ir *ir)
{
    unsigned cc = emit_condition(e, ir->a);
    uint64_t next = (uint64_t)(int64_t)(int16_t)ir->b;
    bool next_dead = !e->lazy || ir->k & FLAGS_DEAD_NEXT, taken_dead = !e->lazy || ir->k & FLAGS_DEAD_TAKEN;

    emit_unlock_all(e);
    if (e->loop.is) {
        add_side(e, x86_jcc(&e->x, (enum hcc)(cc ^ 1)), next, next_dead);
        loop_back(e, taken_dead);
        return;
    }
    if ((int64_t)ir->imm <= e->off && in_page(e, ir->imm)) {
        add_side(e, x86_jcc(&e->x, (enum hcc)(cc ^ 1)), next, next_dead);
        emit_flags_out(e, taken_dead);
        emit_goto(e, ir->imm);
        return;
    }
    bool direct = taken_dead && in_page(e, ir->imm);
    if (direct)
        emit_align_link(e, JCC_OPCODE);
    uint8_t *taken = x86_jcc(&e->x, (enum hcc)cc);
    if (direct)
        add_link(e, taken, (unsigned)(e->page_off + ir->imm));
    else
        add_side(e, taken, ir->imm, taken_dead);
    emit_flags_out(e, next_dead);
    emit_goto(e, next);
}

void emit_leave(struct emit *e, const struct ir *ir, bool state_ran)
{
    if (e->leave == AFTER_ISB) {
        emit_load_pc(e, RAX, ir->imm);
        x86_jmp_to(&e->x, e->stubs->isb - e->x.exec);
        return;
    }
    if (e->leave != AFTER_C) {
        if (e->leave == AFTER_POLL) {
            emit_load_pc(e, RAX, ir->imm);
            emit_poll(e);
        }
        emit_goto(e, ir->imm);
        return;
    }
    if (state_ran) {
        x86_jmp_to(&e->x, e->stubs->leave_next - e->x.exec);
        return;
    }
    emit_load_pc(e, RAX, ir->imm);
    x86_jmp_to(&e->x, e->stubs->leave_at - e->x.exec);
}

void emit_sp_check(struct emit *e)
{
    emit_clobber_flags(e);
    x86_test_ri(&e->x, false, jit_pin_of[31], 15);
    emit_cold(e, COLD_OP, x86_jcc(&e->x, CC_NE));
}

void emit_barrier(struct emit *e, const struct ir *ir)
{
    switch (ir->k) {
    case BAR_DMB:
    case BAR_SB:
        emit_clobber_flags(e);
        x86_u8(&e->x, 0xf0); /* lock or dword [rsp], 0 */
        x86_alu_mi(&e->x, false, ALU_OR, MEM(RSP, 0), 0);
        break;
    case BAR_DSB: emit_dsb(e); break;
    case BAR_ISB: e->leave = AFTER_ISB; break; /* ends the block */
    default: break; /* x86 keeps the order */
    }
}
