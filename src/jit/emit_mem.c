/*
 * Loads and stores (docs/jit.md, "Memory").
 *
 * An access looks its page up in the direct-mapped TLB at R15: one XOR and one TEST find another page and a misaligned
 * address at once.  Misaligned but within the page goes on from cold code; everything else calls C, which fills the TLB.
 *
 * Rules
 *  1. Nothing is written to a guest register before the access has succeeded.
 *  2. Temporaries survive the call to C: cold code gets its result into the place that the fast path uses.
 */
#include "jit/emit_parts.h"

#include "base/report.h"
#include "jit/check.h"
#include "jit/x86_sse.h"

static bool is_pair(unsigned op)
{
    return op == IR_load_pair || op == IR_store_pair || op == IR_load_pair_w || op == IR_store_pair_w;
}

static bool is_wide(unsigned op)
{
    return op == IR_load_w || op == IR_store_w || op == IR_load_pair_w || op == IR_store_pair_w;
}

static struct hmem plus(struct hmem m, int32_t off)
{
    m.disp += off;
    return m;
}

void emit_host_load(struct emit *e, unsigned size, unsigned d, struct hmem m)
{
    switch (size) {
    case 0: x86_rm(&e->x, 0, false, 0x0fb6, d, m, false); break;
    case 1: x86_rm(&e->x, 0, false, 0x0fb7, d, m, false); break;
    default: x86_load(&e->x, size == 3, d, m); break;
    }
}

static void host_store(struct emit *e, unsigned size, struct hmem m, unsigned s)
{
    switch (size) {
    case 0: x86_rm(&e->x, 0, false, 0x88, s, m, true); break;
    case 1: x86_rm(&e->x, 0x66, false, 0x89, s, m, false); break;
    default: x86_store(&e->x, size == 3, m, s); break;
    }
}

/* xmm register d from 1 to 16 bytes; t: a scratch register for the small ones. */
static void host_load_w(struct emit *e, unsigned size, unsigned d, struct hmem m, unsigned t)
{
    switch (size) {
    case 0: case 1:
        emit_host_load(e, size, t, m);
        xop2w(&e->x, X66(0x6e), false, d, t);
        break;
    case 2: xop2m(&e->x, XOP(PP_F3, MAP_0F, 0x10), d, m); break;
    case 3: xop2m(&e->x, XOP(PP_F2, MAP_0F, 0x10), d, m); break;
    default: x86_movdqu_load(&e->x, d, m); break;
    }
}

static void host_store_w(struct emit *e, unsigned size, struct hmem m, unsigned s, unsigned t)
{
    switch (size) {
    case 0: case 1:
        xop2w(&e->x, X66(0x7e), false, s, t);
        host_store(e, size, m, t);
        break;
    case 2: xop2m(&e->x, XOP(PP_F3, MAP_0F, 0x11), s, m); break;
    case 3: xop2m(&e->x, XOP(PP_F2, MAP_0F, 0x11), s, m); break;
    default: x86_movdqu_store(&e->x, m, s); break;
    }
}

static void address_to(struct emit *e, unsigned t, struct hmem ea)
{
    if (ea.disp)
        x86_lea(&e->x, true, t, ea);
    else
        x86_mov_rr(&e->x, true, t, ea.base);
}

/* t1 = address t0, shifted so that the offset of its page's entry remains under JTLB_MASK.  Without BMI2 flags change. */
static void index_to(struct emit *e, unsigned t1, unsigned t0)
{
    if (jit_host.bmi2) {
        x86_rorx(&e->x, true, t1, t0, MEM_PAGE_SHIFT - JTLB_SHIFT);
    } else {
        x86_mov_rr(&e->x, true, t1, t0);
        x86_shift_ri(&e->x, true, SH_SHR, t1, MEM_PAGE_SHIFT - JTLB_SHIFT);
    }
}

/* As lookup(), for the first access of a group. */
static void lookup_group(struct emit *e, unsigned number, struct hmem ea, unsigned t0, unsigned t1)
{
    const struct group *g = &e->group[number];

    emit_clobber_flags(e);
    uint8_t *again = e->x.p;
    x86_lea(&e->x, true, t0, plus(ea, g->lo));
    index_to(e, t1, t0);
    x86_alu_ri(&e->x, true, ALU_ADD, t0, (int32_t)g->span - 1);
    x86_alu_ri(&e->x, false, ALU_AND, t1, JTLB_MASK);
    x86_alu_rm(&e->x, true, ALU_XOR, t0, MEMX(REG_TLB, t1, 0, 0));
    x86_test_ri(&e->x, true, t0, (int32_t)jtlb_compare(g->store));
    struct cold *c = emit_cold(e, COLD_GROUP, x86_jcc(&e->x, CC_NE));
    c->bytes = (uint8_t)number;
    c->ea = plus(ea, g->lo);
    c->hit = again;
    c->keep = emit_xmm_live(e);
    if (g->torn)
        emit_snapshot(e, number);
    x86_load(&e->x, true, t1, MEMX(REG_TLB, t1, 0, offsetof(struct jtlb_entry, addend)));
}

/*
 * Two temporaries; on return `t1' is the addend of ea's page.  The cold part is begun.
 *
 * Vectors are often misaligned (string functions) and pairs nearly always (but not on the stack), so there the tag is compared
 * with the page of the last byte, and alignment does not matter: a page boundary in between goes to C.
 */
static struct cold *lookup(struct emit *e, unsigned mop, unsigned bytes, bool store, bool wide, struct hmem ea,
                           unsigned t0, unsigned t1)
{
    unsigned table = REG_TLB;

    emit_clobber_flags(e);
    uint8_t *retry = e->x.p;
    address_to(e, t0, ea);
    index_to(e, t1, t0);
    if (wide)
        x86_alu_ri(&e->x, true, ALU_ADD, t0, (int32_t)bytes - 1);
    x86_alu_ri(&e->x, false, ALU_AND, t1, JTLB_MASK);
    if (mop & MO_UNPRIV) /* another table; its address is added to the offset */
        x86_alu_rm(&e->x, true, ALU_ADD, t1, HOT(HOT_UTLB));
    struct hmem entry = mop & MO_UNPRIV ? MEM(t1, 0) : MEMX(table, t1, 0, 0);
    x86_alu_rm(&e->x, true, ALU_XOR, t0, entry);
    x86_test_ri(&e->x, true, t0, (int32_t)(jtlb_compare(store) | (wide ? 0 : bytes - 1)));
    struct cold *c = emit_cold(e, COLD_MEM, jit_check_mmu ? x86_jmp(&e->x) : x86_jcc(&e->x, CC_NE));
    c->retry = retry;
    c->hit = e->x.p;
    x86_load(&e->x, true, t1, plus(entry, offsetof(struct jtlb_entry, addend)));
    c->ea = ea;
    c->t0 = (uint8_t)t0;
    c->t1 = (uint8_t)t1;
    c->bytes = wide ? 1 : (uint8_t)bytes;
    c->keep = emit_xmm_live(e);
    return c;
}

/* --- loops: the page of the last turn ------------------------------------------------------------------------ */

static struct hmem recent_mem(const struct emit *e, size_t offset)
{
    return jit_cpu_mem(offsetof(struct cpu, recent) + e->recent % RECENTS * sizeof(struct recent) + offset);
}

_Static_assert((int)LOOP_SITES == (int)RECENT_SITES, "a place for each");

static struct hmem site_tag(const struct emit *e, unsigned site)
{
    return recent_mem(e, offsetof(struct recent, site[site].tag));
}

static struct hmem site_addend(const struct emit *e, unsigned site)
{
    return recent_mem(e, offsetof(struct recent, site[site].addend));
}

/* The site that the operation is, + 1; 0: none. */
static unsigned site_of(const struct emit *e, unsigned id)
{
    for (unsigned i = 0; i < LOOP_SITES && !e->no_groups && !jit_check_mmu; i++)
        if (e->loop.site[i] == id)
            return i + 1;
    return 0;
}

/* All of them: other loops may share the struct. */
static void forget_sites(struct emit *e)
{
    for (unsigned i = 0; i < RECENT_SITES; i++)
        x86_store_imm(&e->x, true, site_tag(e, i), JTLB_NOWHERE);
}

void emit_sites_in(struct emit *e)
{
    if (!e->loop.sites || jit_check_mmu)
        return;
    e->recent++;
    x86_load(&e->x, true, RCX, MEM(REG_TLB, -8)); /* jtlb_id() */
    x86_alu_rm(&e->x, true, ALU_CMP, RCX, recent_mem(e, offsetof(struct recent, id)));
    struct cold *c = emit_cold(e, COLD_RECENT, x86_jcc(&e->x, CC_NE));
    c->back = e->x.p;
}

void emit_sites_cold(struct emit *e, const struct cold *c)
{
    x86_store(&e->x, true, recent_mem(e, offsetof(struct recent, id)), RCX);
    forget_sites(e);
    x86_jmp_to(&e->x, c->back);
}

/* As lookup(), for an access that is mostly in the page of the turn before: its address is not waited for. */
static struct cold *lookup_recent(struct emit *e, unsigned site, unsigned bytes, struct hmem ea, unsigned t0, unsigned t1)
{
    emit_clobber_flags(e);
    uint8_t *retry = e->x.p;
    address_to(e, t0, ea);
    x86_alu_ri(&e->x, true, ALU_AND, t0, (int32_t)(0xfffff000u | (bytes - 1)));
    x86_alu_rm(&e->x, true, ALU_CMP, t0, site_tag(e, site - 1));
    struct cold *c = emit_cold(e, COLD_MEM, x86_jcc(&e->x, CC_NE));
    x86_load(&e->x, true, t1, site_addend(e, site - 1));
    c->retry = retry;
    c->hit = e->x.p;
    c->ea = ea;
    c->t0 = (uint8_t)t0;
    c->t1 = (uint8_t)t1;
    c->bytes = (uint8_t)bytes;
    c->site = (uint8_t)site;
    c->keep = emit_xmm_live(e);
    return c;
}

/* Another page: it is looked up, and noted. */
static void lookup_site(struct emit *e, const struct cold *c, bool store)
{
    address_to(e, c->t0, c->ea);
    index_to(e, c->t1, c->t0);
    x86_alu_ri(&e->x, false, ALU_AND, c->t1, JTLB_MASK);
    x86_alu_rm(&e->x, true, ALU_XOR, c->t0, MEMX(REG_TLB, c->t1, 0, 0));
    x86_test_ri(&e->x, true, c->t0, (int32_t)(jtlb_compare(store) | (c->bytes - 1u)));
    uint8_t *miss = x86_jcc(&e->x, CC_NE);
    x86_load(&e->x, true, c->t1, MEMX(REG_TLB, c->t1, 0, offsetof(struct jtlb_entry, addend)));
    x86_store(&e->x, true, site_addend(e, c->site - 1u), c->t1);
    x86_lea(&e->x, true, c->t0, c->ea);
    x86_alu_ri(&e->x, true, ALU_AND, c->t0, -MEM_PAGE_SIZE);
    x86_store(&e->x, true, site_tag(e, c->site - 1u), c->t0);
    x86_jmp_to(&e->x, c->hit);
    x86_here(&e->x, miss);
}

/* The home that a result may be computed in, or else. */
static unsigned dest_or(struct emit *e, unsigned id, unsigned temp)
{
    unsigned n = emit_hint(e, id);
    return n && jit_pin_of[n - 1] != NO_REG && !e->gx_live[n - 1] ? jit_pin_of[n - 1] : temp;
}

/*
 * From the check to c->back no value may move: cold code does not run what stands between.  So the temporaries for
 * results are t0 and, for a second one, t2, which was taken before.
 */
static void scalar_load(struct emit *e, const struct ir *ir, struct cold *c, struct hmem host, unsigned t0, unsigned t2)
{
    unsigned id = e->at, size = ir->k & MO_SIZE, second = id + 1, d = NO_REG;

    emit_use(e, ir->a);
    if (e->uses[id] > (t2 != NO_REG ? 1u : 0u)) {
        d = t2 == NO_REG ? dest_or(e, id, t0) : t0; /* not the base, which the second element still needs */
        emit_host_load(e, size, d, host);
    } else if (t2 == NO_REG) {
        emit_host_load(e, size, t0, host); /* the access itself may matter */
    }
    if (t2 != NO_REG) {
        t2 = dest_or(e, second, t2);
        emit_host_load(e, size, t2, plus(host, 1 << size));
        e->done[second] = true;
        emit_use(e, id);
    }
    c->back = e->x.p;
    c->data[0] = (uint8_t)d;
    c->data[1] = (uint8_t)t2;
    if (d != NO_REG)
        emit_bind(e, id, d);
    if (t2 != NO_REG)
        emit_bind(e, second, t2);
}

/* Where a value to be stored is at the check: cold code must find it there too.  `room': a temporary may be used. */
static void place_data(struct emit *e, struct cold *c, unsigned i, unsigned v, bool room)
{
    if (!room)
        emit_to_memory(e, v);
    if (e->block->ir[v].op == IR_const) {
        c->data[i] = DATA_CONST;
        c->imm[i] = e->block->ir[v].imm;
    } else if (emit_in_memory(e, v, &c->w[i])) {
        c->data[i] = DATA_MEM;
    } else {
        c->data[i] = (uint8_t)emit_reg(e, v);
    }
}

/* The register that has value i, or t with it. */
static unsigned data_reg(struct emit *e, const struct cold *c, unsigned i, unsigned t)
{
    if (c->data[i] == DATA_CONST)
        emit_const(e, t, c->imm[i]);
    else if (c->data[i] == DATA_MEM)
        x86_load(&e->x, true, t, c->w[i]);
    else
        return c->data[i];
    return t;
}

static void scalar_store(struct emit *e, const struct ir *ir, struct cold *c, struct hmem host, unsigned t0)
{
    unsigned size = ir->k & MO_SIZE, n = is_pair(ir->op) ? 2 : 1;

    for (unsigned i = 0; i < n; i++)
        host_store(e, size, plus(host, (int32_t)(i << size)), data_reg(e, c, i, t0));
    c->back = e->x.p;
    emit_use_all(e, ir);
}

enum { NO_XMM = 0xff };

static void wide_load(struct emit *e, const struct ir *ir, struct cold *c, struct hmem host, unsigned t0)
{
    unsigned id = e->at, size = ir->k & MO_SIZE, second = id + 1, bytes = 1u << size;

    emit_use(e, ir->a);
    if (c->x[0] != NO_XMM)
        host_load_w(e, size, c->x[0], host, t0);
    if (c->x[1] != NO_XMM)
        host_load_w(e, size, c->x[1], plus(host, (int32_t)bytes), t0);
    c->back = e->x.p;
    if (c->x[1] != NO_XMM) {
        e->done[second] = true;
        emit_use(e, id);
        emit_xmm_bind(e, second, c->x[1], bytes);
    }
    if (c->x[0] != NO_XMM && e->uses[id])
        emit_xmm_bind(e, id, c->x[0], bytes);
}

static void wide_store(struct emit *e, const struct ir *ir, struct cold *c, struct hmem host, unsigned t0)
{
    unsigned size = ir->k & MO_SIZE, n = is_pair(ir->op) ? 2 : 1;

    for (unsigned i = 0; i < n; i++)
        host_store_w(e, size, plus(host, (int32_t)(i << size)), c->x[i], t0);
    c->back = e->x.p;
    emit_use_all(e, ir);
}

/* The registers of a wide access, before its check. */
static void wide_registers(struct emit *e, const struct ir *ir, struct cold *c)
{
    unsigned second = e->at + 1;

    if (ir_is_store(ir->op)) {
        for (unsigned i = 1; i < ir_operands(ir->op); i++)
            c->x[i - 1] = (uint8_t)emit_xmm(e, ir_operand(ir, i));
        return;
    }
    c->x[0] = (uint8_t)emit_xmm_dest(e);
    c->x[1] = NO_XMM;
    if (ir->op == IR_load_pair_w && second < e->block->n && e->uses[second] && e->block->ir[second].op == IR_second_w)
        c->x[1] = (uint8_t)emit_xmm_dest(e);
}

void emit_memory(struct emit *e, const struct ir *ir)
{
    unsigned mop = ir->k, bytes = (1u << (mop & MO_SIZE)) << is_pair(ir->op);

    struct hmem ea = emit_address(e, ir->a);
    bool any_place = bytes > 4 && (is_wide(ir->op) || (bytes > 8 && !(mop & MO_ALIGN) && ea.base != jit_pin_of[31]));
    struct cold data = { 0 };
    if (is_wide(ir->op))
        wide_registers(e, ir, &data);
    bool one = false; /* a temporary is taken by data: beside the base and two for the lookup there is one more */
    for (unsigned i = 1; i < ir_operands(ir->op) && !is_wide(ir->op); i++) {
        place_data(e, &data, i - 1, ir_operand(ir, i), !one || !emit_is_temp(ea.base));
        one |= emit_is_temp(data.data[i - 1]);
    }
    unsigned number = e->no_groups || jit_check_mmu ? 0 : e->member[e->at], second = e->at + 1;
    const struct group *g = number ? &e->group[number - 1] : NULL;
    bool follows = g && g->first != e->at;
    unsigned t1 = follows ? emit_reg(e, g->addend) : emit_temp(e), t0 = emit_temp(e), t2 = NO_REG;
    if (ir->op == IR_load_pair && second < e->block->n && e->uses[second] && e->block->ir[second].op == IR_second)
        t2 = emit_temp(e);
    struct cold none = { 0 }, *c = &none; /* what is known to be in the page has no cold code */
    unsigned site = g ? 0 : site_of(e, e->at);
    if (site)
        c = lookup_recent(e, site, bytes, ea, t0, t1);
    else if (!g)
        c = lookup(e, mop, bytes, ir_is_store(ir->op), any_place, ea, t0, t1);
    else if (!follows)
        lookup_group(e, number - 1, ea, t0, t1);
    memcpy(c->data, data.data, sizeof c->data);
    memcpy(c->w, data.w, sizeof c->w);
    memcpy(c->x, data.x, sizeof c->x);
    memcpy(c->imm, data.imm, sizeof c->imm);
    struct hmem host = MEMX(ea.base, t1, 0, ea.disp);

    if (ir->op == IR_store || ir->op == IR_store_pair) {
        scalar_store(e, ir, c, host, t0);
    } else if (ir_is_store(ir->op)) {
        wide_store(e, ir, c, host, t0);
    } else if (is_wide(ir->op)) {
        wide_load(e, ir, c, host, t0);
    } else {
        scalar_load(e, ir, c, host, t0, t2);
    }
    if (follows)
        emit_use(e, g->addend);
    else if (g)
        emit_bind(e, g->addend, t1);
    if (mop & MO_REL) {
        emit_clobber_flags(e);
        x86_u8(&e->x, 0xf0);
        x86_alu_mi(&e->x, false, ALU_OR, MEM(RSP, 0), 0);
    }
}

/* --- exclusives, DC ZVA --- */

static void load_exclusive(struct emit *e, const struct ir *ir)
{
    unsigned bytes = 1u << (ir->k & MO_SIZE);
    struct hmem ea = emit_address(e, ir->a);
    unsigned t0 = emit_temp(e), t1 = emit_temp(e);
    struct cold *c = lookup(e, ir->k, bytes, false, false, ea, t0, t1);

    x86_lea(&e->x, true, t1, MEMX(ea.base, t1, 0, ea.disp));
    emit_load_exclusive(e, bytes, t1, t0);
    c->back = e->x.p;
    c->data[0] = (uint8_t)t0;
    emit_use_all(e, ir);
    emit_bind(e, e->at, t0);
}

static void store_exclusive(struct emit *e, const struct ir *ir)
{
    unsigned size = ir->k & MO_SIZE;

    emit_take(e, RAX);
    struct hmem ea = emit_address(e, ir->a);
    unsigned data = emit_reg(e, ir->b), t1 = emit_temp(e);
    struct cold *c = lookup(e, ir->k, 1u << size, true, false, ea, RAX, t1);
    x86_lea(&e->x, true, t1, MEMX(ea.base, t1, 0, ea.disp));
    if (e->smp)
        c->also = emit_store_paired(e, size, t1, data);
    else
        emit_store_exclusive(e, size, t1, data);
    c->back = e->x.p;
    c->imm[0] = data;
    c->data[0] = RAX;
    emit_use_all(e, ir);
    emit_bind(e, e->at, RAX);
}

/* All temporaries, and the address in RSI. */
static struct hmem take_all(struct emit *e, unsigned address)
{
    static const uint8_t order[] = { RSI, RAX, RCX, RDX };

    for (unsigned i = 0; i < sizeof order; i++) {
        emit_take(e, order[i]);
        if (!i)
            emit_value_to(e, address, RSI);
    }
    return MEM(RSI, 0);
}

/* RAX and RDX are the results of a pair of values. */
static void bind_pair(struct emit *e)
{
    unsigned id = e->at, second = id + 1;

    if (second < e->block->n && e->uses[second] && e->block->ir[second].op == IR_second) {
        e->done[second] = true;
        emit_use(e, id);
        emit_bind(e, second, RDX);
    }
    if (e->uses[id])
        emit_bind(e, id, RAX);
}

/* LDXP of 16 bytes, to RAX and RDX. */
static void load_exclusive_pair(struct emit *e, const struct ir *ir)
{
    struct hmem ea = take_all(e, ir->a);
    struct cold *c = lookup(e, ir->k, 16, false, false, ea, RAX, RCX);

    x86_lea(&e->x, true, RCX, MEMX(RSI, RCX, 0, 0));
    emit_load_exclusive_pair(e, RCX, RAX, RDX);
    c->back = e->x.p;
    c->data[0] = RAX;
    c->data[1] = RDX;
    emit_use_all(e, ir);
    bind_pair(e);
}

/* STXP of 16 bytes that belongs to the LDXP before. */
static void store_exclusive_pair(struct emit *e, const struct ir *ir)
{
    struct cold data = { 0 };

    for (unsigned i = 0; i < 2; i++)
        place_data(e, &data, i, ir_operand(ir, 1 + i), false);
    struct hmem ea = take_all(e, ir->a);
    struct cold *c = lookup(e, ir->k, 16, true, false, ea, RAX, RCX);
    memcpy(c->data, data.data, sizeof c->data);
    memcpy(c->w, data.w, sizeof c->w);
    memcpy(c->imm, data.imm, sizeof c->imm);
    c->also = e->smp ? emit_versions_begun(e) : NULL;
    x86_lea(&e->x, true, RSI, MEMX(RSI, RCX, 0, 0));
    x86_store(&e->x, true, HOT(HOT_A), RBX);
    x86_mov_rr(&e->x, true, RCX, data_reg(e, c, 1, RCX));
    x86_mov_rr(&e->x, true, RBX, data_reg(e, c, 0, RBX));
    emit_store_exclusive_pair(e, RSI);
    x86_load(&e->x, true, RBX, HOT(HOT_A));
    c->back = e->x.p;
    emit_use_all(e, ir);
    if (e->uses[e->at])
        emit_bind(e, e->at, RAX);
}

void emit_exclusive(struct emit *e, const struct ir *ir)
{
    bool pair = ir->op == IR_load_ex_pair || ir->op == IR_store_ex_pair;

    if (pair && ((ir->k & MO_SIZE) != MO_64 || (ir->op == IR_store_ex_pair && !emit_is_paired(e, e->at))))
        emit_generic(e, ir);
    else if (ir->op == IR_load_ex_pair)
        load_exclusive_pair(e, ir);
    else if (ir->op == IR_store_ex_pair)
        store_exclusive_pair(e, ir);
    else if (ir->op == IR_load_ex)
        load_exclusive(e, ir);
    else if (e->smp && !emit_is_paired(e, e->at))
        emit_generic(e, ir);
    else
        store_exclusive(e, ir);
}

static void zero_extend(struct emit *e, unsigned size, unsigned r)
{
    if (size < MO_32)
        x86_ext_rr(&e->x, false, size ? 0x0fb7 : 0x0fb6, r, r);
    else if (size == MO_32)
        x86_mov_rr(&e->x, false, r, r);
}

/* LDADD by XADD, SWP by XCHG. */
static void atomic_rmw(struct emit *e, const struct ir *ir)
{
    unsigned size = ir->k & MO_SIZE;
    struct hmem ea = emit_address(e, ir->a);
    unsigned data = emit_reg(e, ir->b), t0 = emit_temp(e), t1 = emit_temp(e);
    struct cold *c = lookup(e, ir->k, 1u << size, true, false, ea, t0, t1);

    x86_lea(&e->x, true, t1, MEMX(ea.base, t1, 0, ea.disp));
    x86_mov_rr(&e->x, true, t0, data);
    x86_u8(&e->x, 0xf0);
    x86_rm(&e->x, size == MO_16 ? 0x66 : 0, size == MO_64,
           (ir->x == RMW_ADD ? 0x0fc0u : 0x86u) + (size != MO_8), t0, MEM(t1, 0), size == MO_8);
    zero_extend(e, size, t0);
    c->back = e->x.p;
    c->bytes = 1; /* misaligned: a fault, or C */
    c->imm[0] = data;
    c->data[0] = (uint8_t)t0;
    emit_use_all(e, ir);
    emit_bind(e, e->at, t0);
}

/* d = the new value, of the old one in RAX and the operand in `data', which stays. */
static void rmw_value(struct emit *e, unsigned op, unsigned size, unsigned d, unsigned data)
{
    static const enum hcc other[] = { [RMW_SMAX] = CC_L, [RMW_SMIN] = CC_G, [RMW_UMAX] = CC_B, [RMW_UMIN] = CC_A };

    switch (op) {
    case RMW_CLR:
        x86_mov_rr(&e->x, true, d, data);
        x86_grp3(&e->x, true, 2, d); /* not */
        x86_alu_rr(&e->x, true, ALU_AND, d, RAX);
        break;
    case RMW_EOR: case RMW_SET:
        x86_mov_rr(&e->x, true, d, RAX);
        x86_alu_rr(&e->x, true, op == RMW_EOR ? ALU_XOR : ALU_OR, d, data);
        break;
    default:
        x86_mov_rr(&e->x, true, d, RAX);
        x86_rr(&e->x, size == MO_16 ? 0x66 : 0, size == MO_64, 0x3a + (size != MO_8), RAX, data, size == MO_8); /* cmp */
        x86_cmov(&e->x, true, other[op], d, data);
        break;
    }
}

/* LDCLR, LDEOR, LDSET, LDSMAX ...: a loop of CMPXCHG. */
static void atomic_loop(struct emit *e, const struct ir *ir)
{
    unsigned size = ir->k & MO_SIZE, prefix = size == MO_16 ? 0x66 : 0;

    emit_take(e, RAX);
    struct hmem ea = emit_address(e, ir->a);
    unsigned data = emit_reg(e, ir->b), t1 = emit_temp(e), t2 = emit_temp(e);
    struct cold *c = lookup(e, ir->k, 1u << size, true, false, ea, RAX, t1);

    x86_lea(&e->x, true, t1, MEMX(ea.base, t1, 0, ea.disp));
    emit_host_load(e, size, RAX, MEM(t1, 0));
    uint8_t *again = e->x.p;
    rmw_value(e, ir->x, size, t2, data);
    x86_u8(&e->x, 0xf0);
    x86_rm(&e->x, prefix, size == MO_64, 0x0fb0 + (size != MO_8), t2, MEM(t1, 0), size == MO_8);
    uint8_t *lost = x86_jcc(&e->x, CC_NE);
    if (!e->x.full)
        x86_patch(lost, again);
    c->back = e->x.p;
    c->bytes = 1; /* misaligned: a fault, or C */
    c->imm[0] = data;
    c->data[0] = RAX;
    emit_use_all(e, ir);
    emit_release(e, t2);
    emit_bind(e, e->at, RAX);
}

/* STCLR, STEOR, STSET: nobody wants the old value. */
static void atomic_logic(struct emit *e, const struct ir *ir)
{
    unsigned size = ir->k & MO_SIZE;
    enum halu op = ir->x == RMW_CLR ? ALU_AND : ir->x == RMW_EOR ? ALU_XOR : ALU_OR;
    struct hmem ea = emit_address(e, ir->a);
    unsigned data = emit_reg(e, ir->b), t0 = emit_temp(e), t1 = emit_temp(e);
    struct cold *c = lookup(e, ir->k, 1u << size, true, false, ea, t0, t1);

    x86_mov_rr(&e->x, true, t0, data);
    if (ir->x == RMW_CLR)
        x86_grp3(&e->x, true, 2, t0); /* not */
    x86_u8(&e->x, 0xf0);
    x86_rm(&e->x, size == MO_16 ? 0x66 : 0, size == MO_64, (unsigned)op << 3 | (size != MO_8), t0,
           MEMX(ea.base, t1, 0, ea.disp), size == MO_8);
    c->back = e->x.p;
    c->bytes = 1;
    c->imm[0] = data;
    c->data[0] = NO_REG;
    emit_use_all(e, ir);
    emit_release(e, t0);
    emit_release(e, t1);
}

/* Operands: address, expected, desired. */
static void atomic_cas(struct emit *e, const struct ir *ir)
{
    unsigned size = ir->k & MO_SIZE;
    struct cold data = { 0 };

    emit_take(e, RAX);
    struct hmem ea = emit_address(e, ir->a);
    unsigned desired = emit_reg(e, ir->c);
    bool locked = e->loc[ir->b].kind == L_TMP && e->locked & 1u << e->loc[ir->b].n; /* it is an address or desired, too */
    place_data(e, &data, 1, ir->b, locked);
    unsigned t1 = emit_temp(e);
    struct cold *c = lookup(e, ir->k, 1u << size, true, false, ea, RAX, t1);
    c->data[1] = data.data[1];
    c->imm[1] = data.imm[1];
    c->w[1] = data.w[1];
    x86_lea(&e->x, true, t1, MEMX(ea.base, t1, 0, ea.disp));
    unsigned expected = data_reg(e, c, 1, RAX);
    if (expected != RAX)
        x86_mov_rr(&e->x, true, RAX, expected);
    x86_u8(&e->x, 0xf0);
    x86_rm(&e->x, size == MO_16 ? 0x66 : 0, size == MO_64, size == MO_8 ? 0x0fb0 : 0x0fb1, desired, MEM(t1, 0),
           size == MO_8);
    zero_extend(e, size, RAX);
    c->back = e->x.p;
    c->bytes = 1;
    c->imm[0] = desired;
    c->data[0] = RAX;
    emit_use_all(e, ir);
    emit_bind(e, e->at, RAX);
}

/* CASP of 16 bytes.  The operands go where C would find them: there are more than registers. */
static void atomic_casp(struct emit *e, const struct ir *ir)
{
    for (unsigned i = 1; i < 5; i++) {
        x86_store(&e->x, true, HOT(HOT_A + 2 * i), emit_reg(e, ir_operand(ir, i)));
        e->locked = 0;
    }
    struct hmem ea = take_all(e, ir->a);
    struct cold *c = lookup(e, ir->k, 16, true, false, ea, RAX, RCX);

    x86_lea(&e->x, true, RSI, MEMX(RSI, RCX, 0, 0));
    x86_store(&e->x, true, HOT(HOT_A), RBX);
    x86_load(&e->x, true, RAX, HOT(HOT_A + 2));
    x86_load(&e->x, true, RDX, HOT(HOT_A + 4));
    x86_load(&e->x, true, RBX, HOT(HOT_A + 6));
    x86_load(&e->x, true, RCX, HOT(HOT_A + 8));
    x86_u8(&e->x, 0xf0);
    x86_rm(&e->x, 0, true, 0x0fc7, 1, MEM(RSI, 0), false); /* cmpxchg16b */
    x86_load(&e->x, true, RBX, HOT(HOT_A));
    c->back = e->x.p;
    c->bytes = 1;
    c->data[0] = RAX;
    c->data[1] = RDX;
    emit_use_all(e, ir);
    bind_pair(e);
}

bool emit_atomic(struct emit *e, const struct ir *ir)
{
    if (ir->op == IR_atomic_rmw && (ir->x == RMW_ADD || ir->x == RMW_SWP))
        atomic_rmw(e, ir);
    else if (ir->op == IR_atomic_rmw && !e->uses[e->at] && ir->x <= RMW_SET)
        atomic_logic(e, ir);
    else if (ir->op == IR_atomic_rmw)
        atomic_loop(e, ir);
    else if (ir->op == IR_atomic_cas)
        atomic_cas(e, ir);
    else if (ir->op == IR_atomic_casp && (ir->k & MO_SIZE) == MO_64)
        atomic_casp(e, ir);
    else
        return false;
    return true;
}

/* DC ZVA: operand c is the address of a byte in a block of 64. */
void emit_zva(struct emit *e, const struct ir *ir)
{
    unsigned r = emit_reg(e, ir->c), t0 = emit_temp(e), t1 = emit_temp(e), t2 = emit_temp(e);

    emit_clobber_flags(e);
    x86_mov_rr(&e->x, true, t2, r);
    x86_alu_ri(&e->x, true, ALU_AND, t2, -64);
    struct cold *c = lookup(e, MO_8, 64, true, false, MEM(t2, 0), t0, t1);
    c->kind = COLD_STATE;
    c->data[0] = (uint8_t)r;
    x86_sse_rr(&e->x, 0, 0x0f57, 0, 0); /* xorps */
    for (int i = 0; i < 4; i++)
        x86_movdqu_store(&e->x, MEMX(t2, t1, 0, 16 * i), 0);
    c->back = e->x.p;
    emit_use_all(e, ir);
}

void emit_dc(struct emit *e, const struct ir *ir)
{
    unsigned r = emit_reg(e, ir->c), t0 = emit_temp(e), t1 = emit_temp(e);
    struct cold *c = lookup(e, MO_8, 1, false, false, MEM(r, 0), t0, t1);

    c->kind = COLD_STATE;
    c->data[0] = (uint8_t)r;
    c->back = e->x.p;
    emit_use_all(e, ir);
}

/* --- cold ------------------------------------------------------------------------------------------------- */

static bool has_two(unsigned op)
{
    return is_pair(op) || op == IR_load_ex_pair || op == IR_atomic_casp;
}

static void cold_results(struct emit *e, const struct ir *ir, const struct cold *c)
{
    for (unsigned i = 0; i < (has_two(ir->op) ? 2u : 1u); i++)
        if (c->data[i] != NO_REG)
            x86_load(&e->x, true, c->data[i], HOT(HOT_R + 2 * i));
}

/* t1 = the addend of the page of ea + off, 16 bytes there being aligned; the jump is taken when they are not, or on a miss. */
static uint8_t *half_lookup(struct emit *e, const struct cold *c, bool store, int32_t off)
{
    address_to(e, c->t0, plus(c->ea, off));
    index_to(e, c->t1, c->t0);
    x86_alu_ri(&e->x, false, ALU_AND, c->t1, JTLB_MASK);
    x86_alu_rm(&e->x, true, ALU_XOR, c->t0, MEMX(REG_TLB, c->t1, 0, 0));
    x86_test_ri(&e->x, true, c->t0, (int32_t)(jtlb_compare(store) | 15));
    uint8_t *miss = x86_jcc(&e->x, CC_NE);
    x86_load(&e->x, true, c->t1, MEMX(REG_TLB, c->t1, 0, offsetof(struct jtlb_entry, addend)));
    return miss;
}

static void half_access(struct emit *e, const struct cold *c, bool store, unsigned i)
{
    struct hmem host = MEMX(c->ea.base, c->t1, 0, c->ea.disp + 16 * (int32_t)i);

    if (store)
        x86_movdqu_store(&e->x, host, c->x[i]);
    else if (c->x[i] != NO_XMM)
        x86_movdqu_load(&e->x, c->x[i], host);
}

/*
 * A pair of Q registers, each of them aligned, across a page boundary: every page once in a MEMSET or MEMCPY.  Both pages
 * are looked up before either is written.
 */
static void split_pair(struct emit *e, const struct cold *c, bool store)
{
    uint8_t *miss0 = half_lookup(e, c, store, 0), *miss1 = half_lookup(e, c, store, 16);

    half_access(e, c, store, 1);
    uint8_t *never = half_lookup(e, c, store, 0);
    half_access(e, c, store, 0);
    x86_jmp_to(&e->x, c->back);
    x86_here(&e->x, miss0);
    x86_here(&e->x, miss1);
    x86_here(&e->x, never);
}

/* Where value i is, for struct jit_access; a constant or an offset is what stands behind that. */
static unsigned place_for_c(const struct cold *c, bool store, bool wide, unsigned i)
{
    if (wide)
        return c->x[i] == NO_XMM ? (unsigned)PLACE_NONE : (unsigned)PLACE_XMM + c->x[i];
    if (!store)
        return c->data[i] == NO_REG ? (unsigned)PLACE_NONE : c->data[i];
    switch (c->data[i]) {
    case DATA_CONST: return c->imm[i] ? PLACE_CONST : PLACE_ZERO;
    case DATA_MEM: return PLACE_MEM;
    default: return c->data[i];
    }
}

/* A plain load or store by C. */
static void access_in_c(struct emit *e, const struct ir *ir, const struct cold *c)
{
    bool store = ir_is_store(ir->op), wide = is_wide(ir->op);
    struct jit_access a = { .op = ir->op, .k = ir->k, .x = ir->x, .where = emit_where(e, c->insn, c->off), .disp = c->ea.disp,
                            .base = c->ea.base, .place = { PLACE_NONE, PLACE_NONE } };

    for (unsigned i = 0; i < (is_pair(ir->op) ? 2u : 1u); i++)
        a.place[i] = (uint8_t)place_for_c(c, store, wide, i);
    x86_call_to(&e->x, (c->keep || wide ? e->stubs->access_keep : e->stubs->access) - e->x.exec);
    uint8_t *end = e->x.p + sizeof a;
    a.back = (int32_t)(c->back - end);
    a.again = !c->retry || jit_check_mmu || end - c->retry > UINT16_MAX ? 0 : (uint16_t)(end - c->retry);
    if (c->site) { /* back by what stands behind all this */
        a.back = 0;
        for (unsigned i = 0; i < 2; i++)
            a.back += a.place[i] == PLACE_CONST ? 8 : a.place[i] == PLACE_MEM ? 4 : 0;
    }
    x86_bytes(&e->x, &a, sizeof a);
    for (unsigned i = 0; i < 2; i++) {
        if (a.place[i] == PLACE_CONST)
            x86_u64(&e->x, c->imm[i]);
        else if (a.place[i] == PLACE_MEM)
            x86_u32(&e->x, (uint32_t)c->w[i].disp);
    }
    if (c->site) {
        forget_sites(e);
        x86_jmp_to(&e->x, c->back);
    }
}

static unsigned insns_of(const struct ir_block *block, const struct group *g)
{
    unsigned n = 1;

    for (unsigned i = g->first; i < g->last; i++)
        n += block->ir[i].op == IR_insn;
    return n;
}

/* C fills the data TLB, and the check is made again; or it does the group's instructions, and the block behind them is next. */
void emit_group_cold(struct emit *e, const struct cold *c)
{
    const struct group *g = &e->group[c->bytes];
    struct jit_group a = { .where = emit_where(e, c->insn, c->off), .disp = c->ea.disp, .span = (uint16_t)g->span,
                           .base = c->ea.base, .insns = (uint8_t)(insns_of(e->block, g) | (g->store ? GROUP_STORES : 0)) };

    unsigned i = g->last;

    while (i < e->block->n && e->block->ir[i].op != IR_insn)
        i++;
    bool ends = i == e->block->n;
    a.behind = ends ? NOTHING_BEHIND : (uint16_t)(e->page_off + e->block->ir[i].imm);
    emit_cold_flags(e, c);
    emit_pay_owed(e, c);
    x86_call_to(&e->x, (c->keep ? e->stubs->group_keep : e->stubs->group) - e->x.exec);
    a.again = (int32_t)(c->hit - (e->x.p + sizeof a));
    x86_bytes(&e->x, &a, sizeof a);
    if (!ends)
        emit_goto(e, e->block->ir[i].imm);
}

/* On to the access if it is only misaligned: t0 is what the address and the page's tag differ in. */
static void allow_misaligned(struct emit *e, const struct cold *c, bool store)
{
    if (!store)
        x86_alu_ri(&e->x, true, ALU_AND, c->t0, (int32_t)~(uint32_t)JTLB_RO);
    x86_alu_ri(&e->x, true, ALU_CMP, c->t0, MEM_PAGE_SIZE - c->bytes);
    if (c->site) /* what the loop has is not this page's */
        x86_load(&e->x, true, c->t1, MEMX(REG_TLB, c->t1, 0, offsetof(struct jtlb_entry, addend)));
    x86_jcc_to(&e->x, CC_BE, c->hit);
}

void emit_memory_cold(struct emit *e, struct cold *c)
{
    const struct ir *ir = &e->block->ir[c->id];

    if (c->site)
        lookup_site(e, c, ir_is_store(ir->op));

    if (is_wide(ir->op) && is_pair(ir->op) && (ir->k & MO_SIZE) == MO_128 && !jit_check_mmu)
        split_pair(e, c, ir_is_store(ir->op));

    if (c->bytes > 1 && !(ir->k & MO_ALIGN) && !jit_check_mmu)
        allow_misaligned(e, c, ir_is_store(ir->op));
    if (c->also)
        x86_here(&e->x, c->also);
    emit_cold_flags(e, c);
    emit_pay_owed(e, c);
    if (ir_is_access(ir->op)) {
        access_in_c(e, ir, c);
        return;
    }
    x86_lea(&e->x, true, c->t0, c->ea);
    x86_store(&e->x, true, HOT(HOT_A), c->t0);
    for (unsigned i = 0; ir->op == IR_store_ex_pair && i < 2; i++)
        x86_store(&e->x, true, HOT(HOT_A + 2 * (i + 1)), data_reg(e, c, i, c->t0));
    if (ir->op == IR_atomic_cas) {
        x86_store(&e->x, true, HOT(HOT_A + 2), data_reg(e, c, 1, c->t0));
        x86_store(&e->x, true, HOT(HOT_A + 4), (unsigned)c->imm[0]);
    }
    if (ir->op == IR_store_ex || ir->op == IR_atomic_rmw)
        x86_store(&e->x, true, HOT(HOT_A + 2), (unsigned)c->imm[0]);
    emit_c_op(e, ir, c->insn, c->off, c->keep);
    uint8_t *end = e->x.p;
    if (c->retry && !c->also && !jit_check_mmu && end - c->retry <= UINT16_MAX) {
        uint16_t back = (uint16_t)(end - c->retry);
        memcpy(end - 2, &back, sizeof back);
    }
    if (ir->op == IR_store_ex_pair)
        x86_load(&e->x, true, RAX, HOT(HOT_R));
    else
        cold_results(e, ir, c);
    x86_jmp_to(&e->x, c->back);
}
