/*
 * The engine around the emitter: code memory, blocks, address spaces, the run loop, and what generated code calls.
 *
 * Everything here belongs to one vCPU and is touched by its thread only: each vCPU has its own code.  (Sharing it is a
 * measured choice for later: private code needs no locks, no cross-modifying of code, and can be dropped at any time
 * that its own thread is in the run loop.)
 *
 * Code memory is mapped twice, writable and executable, never both at one address.
 *
 * Rules
 *  1. A block is found by physical address and mode, and is good while its page's code generation is what it was.
 *  2. Code reaches a block of its own page by a patched jump, and any other by the jump cache or the return stack, whose
 *     tags are va ^ key.  A key stands for (fetch space, mode); dropping keys makes every tag stale at once.
 *  3. Keys are dropped when marked code went stale, and when a TLBI reaches a page that was executed from.
 *  4. In the run loop struct cpu is complete; in code HOT_FLAGS stands for cpu->nzcv, host registers for the pinned
 *     guest registers, and icount is ahead by what is left of the block.
 */
#include "jit/jit.h"

#include <cpuid.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/report.h"
#include "base/trace.h"
#include "cpu/cluster.h"
#include "cpu/debug.h"
#include "cpu/interp.h"
#include "cpu/prim.h"
#include "cpu/tlb.h"
#include "jit/emit.h"
#include "jit/opt.h"

enum {
    SPACES = 16,         /* data TLBs kept */
    KEYS = 256,          /* (fetch space, mode) pairs known at a time */
    KEY_LAST = 0x7ffe,
    KEYS_IN_HAND = 256,  /* that code may use up before it is in the run loop again: every mode change ends a block */
    BLOCK_HASH = 1 << 16,
    RETURN_STACK = 1 << 16,
#ifdef ARMLET_HARSH
    MAX_INSNS = 1,
#else
    MAX_INSNS = 64,
#endif
    CODE_SLACK = 1 << 16, /* room that a block must have */
    STUB_ROOM = 4096,
    BLOOM = 4096,
};
#ifdef ARMLET_HARSH
static uint64_t cache_size = 256 << 10;
#else
static uint64_t cache_size = UINT64_C(32) << 20;
#endif

struct jit_host jit_host;

struct space {
    uint64_t tag; /* the TLB's data tag + 1, 0: unused */
    struct jtlb_entry *table;
    uint32_t used[1 << JTLB_BITS]; /* entries that are filled, when `overfull' is false */
    unsigned nused;
    uint64_t last; /* use, for eviction */
};

struct key {
    uint64_t fetch_tag;
    uint16_t number; /* 0: unused */
    uint8_t mode;
};

struct jit_stats {
    uint64_t blocks, insns, code_bytes, translate_ns, flushes, lookups, slow_mem, links, interp;
    uint64_t c_ops[IR_N_OPCODES]; /* operations run in C */
};

struct jit_cpu {
    struct cpu *cpu;
    uint8_t *rw, *rx; /* the two views of code memory */
    uint64_t size;
    uint8_t *free;    /* in rw */
    uint8_t *first;   /* behind the stubs */
    struct jit_stubs stubs;
    struct jit_block **hash;
    GPtrArray *order;  /* blocks by address of their code */
    GPtrArray *chunks; /* of blocks, g_free()d at a flush */
    struct jit_block *chunk;
    unsigned chunk_used;
    struct space *spaces;
    unsigned nspaces;
    uint64_t space_clock;
    uint64_t data_tag, unpriv_tag, fetch_tag; /* as HOT_TABLE, HOT_UTLB, HOT_KEY were made for */
    uint8_t mode;
    unsigned drops;
    uint32_t changes;
    struct key keys[KEYS];
    unsigned next_key, key_victim;
    uint64_t bloom[BLOOM / 64]; /* pages that the jump cache or the return stack may lead to */
    struct jump *jumps;
    uint8_t *return_stack;
    struct emit emit;
    struct ir_block block;
    uint16_t uses[IR_MAX];
    struct jit_stats stats;
};

void jit_set_cache_size(uint64_t bytes)
{
    if (bytes)
        cache_size = MAX(bytes, (uint64_t)CODE_SLACK * 4) & ~UINT64_C(4095);
}

/* --- code memory --------------------------------------------------------------------------------------- */

/* Shared anonymous pages, mapped once more by mremap() of nothing: no file, so that no limit on file sizes applies. */
static void map_code(struct jit_cpu *j)
{
    j->size = cache_size;
    j->rw = mmap(NULL, j->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    j->rx = j->rw == MAP_FAILED ? MAP_FAILED : mremap(j->rw, 0, j->size, MREMAP_MAYMOVE);
    if (j->rx == MAP_FAILED || mprotect(j->rx, j->size, PROT_READ | PROT_EXEC))
        BUG("code memory: %s", g_strerror(errno));
}

static void save_pins(struct x86 *x)
{
    for (unsigned i = 0; i < PINS; i++)
        x86_store(x, true, jit_cpu_mem(offsetof(struct cpu, x) + 8 * (size_t)jit_pins[i].guest), jit_pins[i].host);
}

static void load_pins(struct x86 *x)
{
    for (unsigned i = 0; i < PINS; i++)
        x86_load(x, true, jit_pins[i].host, jit_cpu_mem(offsetof(struct cpu, x) + 8 * (size_t)jit_pins[i].guest));
    x86_load(x, true, REG_TLB, HOT(HOT_TABLE));
}

static const uint8_t saved_regs[] = { RBX, RBP, R12, R13, R14, R15 };

/* Flags that C's own arithmetic raises are not the guest's: MXCSR is the code's again after every call. */
static void save_mxcsr(struct x86 *x) { x86_rm(x, 0, false, 0x0fae, 3, HOT(HOT_MXCSR), false); }
static void load_mxcsr(struct x86 *x) { x86_rm(x, 0, false, 0x0fae, 2, HOT(HOT_MXCSR), false); }

static void stub_return(struct x86 *x)
{
    x86_load(x, true, RSP, HOT(HOT_CSP));
    x86_alu_ri(x, true, ALU_ADD, RSP, 8);
    for (unsigned i = sizeof saved_regs; i--;)
        x86_pop(x, saved_regs[i]);
    x86_ret(x);
}

static const uint8_t *stub_here(const struct x86 *x)
{
    return x->p + x->exec;
}

/* void enter(struct cpu *rdi, const uint8_t *code rsi): RAX is cpu->pc in the code. */
static void make_enter(struct x86 *x)
{
    for (unsigned i = 0; i < sizeof saved_regs; i++)
        x86_push(x, saved_regs[i]);
    x86_alu_ri(x, true, ALU_SUB, RSP, 8);
    x86_lea(x, true, REG_CPU, MEM(RDI, CPU_BIAS));
    x86_store(x, true, HOT(HOT_CSP), RSP);
    x86_load(x, true, RSP, HOT(HOT_RSP));
    load_pins(x);
    load_mxcsr(x);
    x86_load(x, true, RAX, CPU_MEM(pc));
    x86_jmp_reg(x, RSI);
}

static void make_leaves(struct x86 *x, struct jit_stubs *s)
{
    s->leave_next = stub_here(x);
    x86_load(x, true, RAX, CPU_MEM(next_pc));
    s->leave_at = stub_here(x);
    x86_store(x, true, CPU_MEM(pc), RAX);
    s->leave = stub_here(x);
    save_mxcsr(x);
    save_pins(x);
    x86_store(x, true, HOT(HOT_RSP), RSP);
    stub_return(x);
    s->link = stub_here(x);
    x86_pop(x, RCX);
    x86_store(x, true, HOT(HOT_LINK), RCX);
    x86_load(x, false, RAX, MEM(RCX, 4));
    x86_alu_rm(x, true, ALU_ADD, RAX, HOT(HOT_PAGE));
    x86_jmp_to(x, s->leave_at - x->exec);
    s->dispatch = stub_here(x);
    emit_dispatch_code(x, s->leave_at - x->exec);
}

static uint64_t jit_c_op(struct cpu *cpu);

/* Called from code by CALL: all registers as before afterwards (xmm only with `keep'), unless the operation leaves. */
static const uint8_t *make_call(struct x86 *x, bool keep)
{
    const uint8_t *start = stub_here(x);
    for (unsigned i = XMM_FIRST; keep && i < XMMS; i++)
        x86_movdqu_store(x, HOT(HOT_X + 2 * (i - XMM_FIRST)), i);
    save_mxcsr(x);
    for (unsigned i = 0; i < TEMPS; i++)
        x86_store(x, true, HOT(HOT_T0 + i), jit_temps[i]);
    save_pins(x);
    x86_store(x, true, HOT(HOT_RSP), RSP);
    x86_load(x, true, RSP, HOT(HOT_CSP));
    x86_lea(x, true, RDI, MEM(REG_CPU, -CPU_BIAS));
    x86_mov_ri(x, RAX, (uint64_t)(uintptr_t)jit_c_op);
    x86_call_reg(x, RAX);
    x86_test_rr(x, false, RAX, RAX);
    uint8_t *leave = x86_jcc(x, CC_NE);
    x86_load(x, true, RSP, HOT(HOT_RSP));
    load_pins(x);
    load_mxcsr(x);
    for (unsigned i = XMM_FIRST; keep && i < XMMS; i++)
        x86_movdqu_load(x, i, HOT(HOT_X + 2 * (i - XMM_FIRST)));
    for (unsigned i = 0; i < TEMPS; i++)
        x86_load(x, true, jit_temps[i], HOT(HOT_T0 + i));
    x86_ret(x);
    x86_here(x, leave);
    x86_alu_mi(x, true, ALU_ADD, HOT(HOT_RSP), 8); /* the return address into the block */
    stub_return(x);
    return start;
}

static void make_stubs(struct jit_cpu *j)
{
    struct x86 x = { .p = j->rw, .start = j->rw, .end = j->rw + STUB_ROOM, .exec = j->rx - j->rw };
    j->stubs.enter = stub_here(&x);
    make_enter(&x);
    make_leaves(&x, &j->stubs);
    j->stubs.call = make_call(&x, false);
    j->stubs.call_keep = make_call(&x, true);
    BUG_ON(x.full);
    j->first = j->free = j->rw + STUB_ROOM;
}

/* --- address spaces -------------------------------------------------------------------------------------- */

static void space_clear(struct space *s)
{
    for (unsigned i = 0; i < s->nused; i++) {
        struct jtlb_entry *t = &s->table[s->used[i]];
        t->rtag = t->wtag = JTLB_NONE;
    }
    s->nused = 0;
}

static void space_make(struct space *s)
{
    size_t size = sizeof *s->table << JTLB_BITS;
    s->table = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (s->table == MAP_FAILED)
        BUG("data TLB: %s", g_strerror(errno));
    /*
     * Zero tags match nothing but page 0 of the guest, so its entry is made to differ; and that of the last page, from
     * which a wide access reaches page 0.
     */
    unsigned last = (1u << JTLB_BITS) - 1;
    s->table[0].rtag = s->table[0].wtag = s->table[last].rtag = s->table[last].wtag = JTLB_NONE;
    s->nused = 0;
}

static struct space *space_find(struct jit_cpu *j, uint64_t tag)
{
    struct space *s = NULL;

    for (unsigned i = 0; i < j->nspaces; i++)
        if (j->spaces[i].tag == tag + 1)
            s = &j->spaces[i];
    if (!s) {
        if (j->nspaces < SPACES) {
            s = &j->spaces[j->nspaces++];
            space_make(s);
        } else {
            s = &j->spaces[0];
            for (unsigned i = 1; i < SPACES; i++)
                if (j->spaces[i].last < s->last)
                    s = &j->spaces[i];
            space_clear(s);
        }
        s->tag = tag + 1;
    }
    s->last = ++j->space_clock;
    return s;
}

static struct space *space_of_table(struct jit_cpu *j, const struct jtlb_entry *table)
{
    for (unsigned i = 0; i < j->nspaces; i++)
        if (j->spaces[i].table == table)
            return &j->spaces[i];
    BUG("no space has this table");
}

static void drop_spaces(struct jit_cpu *j)
{
    for (unsigned i = 0; i < j->nspaces; i++)
        space_clear(&j->spaces[i]);
}

static unsigned jtlb_index(uint64_t va)
{
    return (unsigned)(va >> MEM_PAGE_SHIFT) & ((1u << JTLB_BITS) - 1);
}

/* After a successful access: what cpu/tlb.c keeps of the page may be kept here too. */
static void fill(struct jit_cpu *j, uint64_t va, unsigned mop)
{
    struct cpu *cpu = j->cpu;
    const struct tlb *tlb = cpu->tlb;
    const struct tlb_entry *f = &tlb->fast[tlb_index(va, TLB_FAST_BITS)];
    uint64_t page = va & TLB_PAGE_MASK, tag = page | (mop & MO_UNPRIV ? tlb->unpriv_tag : tlb->data_tag);
    struct jtlb_entry *table = (struct jtlb_entry *)(uintptr_t)cpu->hot[mop & MO_UNPRIV ? HOT_UTLB : HOT_TABLE];
    unsigned i = jtlb_index(va);
    struct jtlb_entry *t = &table[i];

    if (f->device || tlb->strict || (f->rtag != tag && f->wtag != tag))
        return;
    if (t->rtag == JTLB_NONE || !(t->rtag | t->wtag)) {
        struct space *s = space_of_table(j, table);
        if (s->nused == G_N_ELEMENTS(s->used))
            space_clear(s);
        s->used[s->nused++] = i;
    }
    t->rtag = f->rtag == tag ? page : JTLB_NONE;
    t->wtag = f->wtag == tag ? page : JTLB_NONE;
    t->addend = f->addend;
}

/* --- keys ---------------------------------------------------------------------------------------------------- */

static void drop_jumps(struct jit_cpu *j)
{
    memset(j->jumps, 0, sizeof(struct jump) << JUMP_BITS);
    memset(j->return_stack, 0, RETURN_STACK);
    j->cpu->hot[HOT_RSP] = j->cpu->hot[HOT_RS_TOP];
    j->next_key = 1;
}

/* Every tag in the jump cache and on the return stack becomes stale. */
static void drop_keys(struct jit_cpu *j)
{
    memset(j->keys, 0, sizeof j->keys);
    memset(j->bloom, 0, sizeof j->bloom);
    j->fetch_tag = UINT64_MAX;
}

static unsigned key_number(struct jit_cpu *j, uint64_t fetch_tag, unsigned mode)
{
    unsigned h = (unsigned)(fetch_tag * 5 + mode) % KEYS;

    for (unsigned i = 0; i < 4; i++) {
        struct key *k = &j->keys[(h + i) % KEYS];
        if (k->number && k->fetch_tag == fetch_tag && k->mode == mode)
            return k->number;
        if (!k->number) {
            h += i;
            break;
        }
    }
    BUG_ON(j->next_key > KEY_LAST); /* run_block() keeps some in hand */
    j->keys[h % KEYS] = (struct key){ fetch_tag, (uint16_t)j->next_key, (uint8_t)mode };
    return j->next_key++;
}

static unsigned bloom_bit(uint64_t va)
{
    return (unsigned)((va >> 12 ^ va >> 24 ^ va >> 36) % BLOOM);
}

static void note_executed(struct jit_cpu *j, uint64_t va)
{
    unsigned b = bloom_bit(va);
    j->bloom[b / 64] |= UINT64_C(1) << b % 64;
}

static bool maybe_executed(const struct jit_cpu *j, uint64_t va)
{
    unsigned b = bloom_bit(va);
    return j->bloom[b / 64] >> b % 64 & 1;
}

/* --- keeping up with the rest of the vCPU ----------------------------------------------------------------------- */

/* The TLB has dropped something (cpu/tlb.h). */
static void on_tlbi(void *opaque, struct cpu *cpu, const struct tlb_op *op, unsigned reach)
{
    struct jit_cpu *j = opaque;
    (void)cpu;

    if (op->kind == TLBI_ALL || reach > 16) {
        drop_spaces(j);
        drop_keys(j);
        return;
    }
    if (op->kind == TLBI_ASID) /* its space has a new number */
        return;
    uint64_t size = UINT64_C(1) << reach, first = op->va & -size;
    for (uint64_t va = first; va - first < size; va += MEM_PAGE_SIZE) {
        for (unsigned s = 0; s < j->nspaces; s++) {
            struct jtlb_entry *t = &j->spaces[s].table[jtlb_index(va)];
            /* bits 63 to 56 are a tag where the top byte is ignored */
            if (!((t->rtag ^ va) << 8 >> 20) || !((t->wtag ^ va) << 8 >> 20))
                t->rtag = t->wtag = JTLB_NONE;
        }
        if (maybe_executed(j, va))
            drop_keys(j);
    }
}

/* The flags that generated code has raised in MXCSR go to FPSR, in the order IE . ZE OE UE PE. */
static void fold_flags(struct cpu *cpu)
{
    uint64_t m = cpu->hot[HOT_MXCSR];

    if (m & MXCSR_FLAGS) {
        cpu->fp.fpsr |= (uint32_t)((m & 1) | (m >> 1 & 0x1e));
        cpu->hot[HOT_MXCSR] = MXCSR_START;
    }
}

static unsigned mode_of(const struct cpu *cpu)
{
    bool sp = cpu->sys.sctlr_el1 & (cpu->el ? SCTLR_SA : SCTLR_SA0);
    bool dze = cpu->el || cpu->sys.sctlr_el1 & SCTLR_DZE;
    return (cpu->el ? JM_EL : 0u) | (cpu->fp_enabled ? JM_FP : 0u) | (sp ? JM_SP : 0u) |
           (cpu->el && cpu->spsel ? JM_SPH : 0u) | (dze ? JM_DZE : 0u) | (cpu->fp.fpcr ? 0u : JM_FPCR);
}

static uint64_t leave_mask(const struct cpu *cpu)
{
    unsigned mask = ~(unsigned)PEND_EVENT;
    if (cpu->daif & DAIF_I)
        mask &= ~(unsigned)PEND_IRQ;
    if (cpu->daif & DAIF_F)
        mask &= ~(unsigned)PEND_FIQ;
    if (cpu->daif & DAIF_A)
        mask &= ~(unsigned)PEND_SERROR;
    return mask;
}

/* The hot words follow EL, address space, interrupt masks and code changes. */
static void sync_mode(struct jit_cpu *j)
{
    struct cpu *cpu = j->cpu;
    const struct tlb *tlb = cpu->tlb;
    unsigned mode = mode_of(cpu);
    uint32_t changes = mem_code_changes(cpu->mem);

    if (unlikely(tlb->drops != j->drops)) {
        j->drops = tlb->drops;
        drop_spaces(j);
        drop_keys(j);
        j->data_tag = j->unpriv_tag = UINT64_MAX;
    }
    if (unlikely(changes != j->changes)) {
        j->changes = changes;
        drop_keys(j);
    }
    if (tlb->data_tag != j->data_tag) {
        cpu->hot[HOT_TABLE] = (uintptr_t)space_find(j, tlb->data_tag)->table;
        j->data_tag = tlb->data_tag;
    }
    if (tlb->unpriv_tag != j->unpriv_tag) {
        cpu->hot[HOT_UTLB] = (uintptr_t)space_find(j, tlb->unpriv_tag)->table;
        j->unpriv_tag = tlb->unpriv_tag;
    }
    if (tlb->fetch_tag != j->fetch_tag || mode != j->mode) {
        unsigned number = key_number(j, tlb->fetch_tag, mode);
        cpu->hot[HOT_KEY] = (uint64_t)number << 48;
        j->fetch_tag = tlb->fetch_tag;
        j->mode = (uint8_t)mode;
    }
    cpu->hot[HOT_MASK] = leave_mask(cpu);
}

/* --- what code calls ------------------------------------------------------------------------------------------------ */

static bool is_plain_access(unsigned op)
{
    return op >= IR_load && op <= IR_atomic_casp && op != IR_clear_ex;
}

/* Runs the operation that is described behind the call.  Non-zero: guest code is left, cpu->pc is where it goes on. */
static uint64_t jit_c_op(struct cpu *cpu)
{
    struct jit_cpu *j = cpu->engine;
    uint64_t after;
    uint32_t desc[JIT_DESC_BYTES / 4]; /* op, where, imm */

    memcpy(&after, (const void *)(uintptr_t)cpu->hot[HOT_RSP], sizeof after);
    memcpy(desc, (const uint8_t *)(uintptr_t)after + 2, sizeof desc);
    uint32_t op = desc[0], where = desc[1], rest = where >> 12;
    struct ir ir = { .op = (uint16_t)op, .k = (uint8_t)(op >> 16), .x = (uint8_t)(op >> 24) };
    unsigned effects = ir_info[ir.op].effects;

    if (effects & IE_END)
        ir.imm = desc[2];
    else
        ir.imm16 = (uint16_t)desc[2];
    cpu->pc = cpu->hot[HOT_PAGE] + (where & (MEM_PAGE_SIZE - 1));
    cpu->next_pc = cpu->pc + 4;
    cpu->leave = 0;
    cpu->nzcv = jit_nzcv(cpu->hot[HOT_FLAGS]);
    cpu->icount -= rest;
    fold_flags(cpu);
    j->stats.c_ops[ir.op]++;
    const union vreg *in = (const union vreg *)&cpu->hot[HOT_A];
    bool ok = ir_eval_op(cpu, &ir, in, (union vreg *)&cpu->hot[HOT_R]);
    if (unlikely(!ok || cpu->leave & (LEAVE_FAULT | LEAVE_EXC))) {
        cpu->icount += !(cpu->leave & LEAVE_FAULT);
        cpu->pc = cpu->next_pc;
        cpu->hot[HOT_FLAGS] = jit_hot_flags(cpu->nzcv);
        return 1;
    }
    cpu->icount += rest;
    if (is_plain_access(ir.op)) {
        j->stats.slow_mem++;
        fill(j, in[0].d[0], ir_mop(&ir));
    } else if (effects & IE_STATE || ir.op == IR_barrier) { /* DSB applies what other vCPUs have queued */
        cpu->hot[HOT_FLAGS] = jit_hot_flags(cpu->nzcv);
        sync_mode(j);
        if (ir.op == IR_h_sysreg_write && in[0].d[0] == SYSREG_KEY(1, 3, 7, 4, 1)) /* DC ZVA */
            fill(j, in[2].d[0], 0);
    }
    return 0;
}

/* --- blocks ----------------------------------------------------------------------------------------------------------- */

static unsigned block_hash(uint64_t pa, unsigned mode)
{
    return (unsigned)(((pa >> 2) * 64 + mode) * UINT64_C(0x9e3779b97f4a7c15) >> 48) % BLOCK_HASH;
}

static void flush_code(struct jit_cpu *j)
{
    j->stats.flushes++;
    memset(j->hash, 0, sizeof *j->hash * BLOCK_HASH);
    g_ptr_array_set_size(j->order, 0);
    g_ptr_array_set_size(j->chunks, 0);
    j->chunk = NULL;
    j->free = j->first;
    drop_keys(j);
    drop_jumps(j);
    j->cpu->hot[HOT_LINK] = 0;
}

static struct jit_block *new_block(struct jit_cpu *j)
{
    enum { CHUNK = 512 };
    if (!j->chunk || j->chunk_used == CHUNK) {
        j->chunk = g_new0(struct jit_block, CHUNK);
        g_ptr_array_add(j->chunks, j->chunk);
        j->chunk_used = 0;
    }
    return &j->chunk[j->chunk_used++];
}

static struct ir_mode lift_mode(const struct cpu *cpu, unsigned mode)
{
    struct ir_mode m = ir_mode_of(cpu);
    (void)mode;
    m.tbi = 0; /* targets with a tag miss the jump cache; the run loop takes the tag off */
    return m;
}

static void enter(struct jit_cpu *j, const uint8_t *code)
{
    struct cpu *cpu = j->cpu;

    cpu->hot[HOT_FLAGS] = jit_hot_flags(cpu->nzcv);
    ((void (*)(struct cpu *, const uint8_t *))(uintptr_t)j->stubs.enter)(cpu, code);
    cpu->nzcv = jit_nzcv(cpu->hot[HOT_FLAGS]);
    fold_flags(cpu);
}

/* Lifts at most `max' instructions at hva, not beyond the page. */
static void lift(struct jit_cpu *j, unsigned mode, const uint8_t *hva, unsigned page_off, unsigned max)
{
    struct ir_mode m = lift_mode(j->cpu, mode);
    ir_begin(&j->block, &m);
    for (unsigned i = 0; i < max && !j->block.ended && page_off + 4 * i < MEM_PAGE_SIZE; i++) {
        uint32_t word;
        memcpy(&word, hva + page_off + 4 * i, 4);
        if (!ir_lift(&j->block, word))
            break;
    }
    ir_end(&j->block);
}

static void dump_in(const struct jit_cpu *j, const uint8_t *hva, unsigned page_off)
{
    for (unsigned i = 0; i < j->block.insns; i++) {
        uint32_t word;
        char text[A64_TEXT_SIZE];
        memcpy(&word, hva + page_off + 4 * i, 4);
        a64_disasm(word, text, sizeof text);
        trace(IN_ASM, "%#" PRIx64 ": %08x  %s", j->cpu->pc + 4 * i, word, text);
    }
}

/* NULL: no host code for even one instruction at this place. */
static struct jit_block *translate(struct jit_cpu *j, const uint8_t *hva, uint64_t pa_page, uint64_t pa, unsigned max)
{
    unsigned mode = j->mode, page_off = (unsigned)(pa & (MEM_PAGE_SIZE - 1));
    uint8_t *cross, *inside;

    mem_code_mark(j->cpu->mem, pa_page);
    uint32_t generation = mem_code_generation(j->cpu->mem, pa_page);
    if (j->free + CODE_SLACK > j->rw + j->size)
        flush_code(j);
    for (; max; max /= 2) {
        lift(j, mode, hva, page_off, max);
        opt_forward(&j->block);
        opt_dead(&j->block, j->uses);
        j->emit.x = (struct x86){ .p = j->free, .start = j->free, .end = j->rw + j->size, .exec = j->rx - j->rw };
        j->emit.mode = mode;
        j->emit.stubs = &j->stubs;
        if (emit_block(&j->emit, &j->block, j->uses, page_off, &cross, &inside))
            break;
    }
    if (!max)
        return NULL;
    if (trace_on(IN_ASM))
        dump_in(j, hva, page_off);
    struct jit_block *b = new_block(j);
    unsigned h = block_hash(pa, mode);
    *b = (struct jit_block){ .next = j->hash[h], .pa = pa, .mode = (uint8_t)mode, .insns = (uint16_t)j->block.insns,
                             .generation = generation, .cross = cross + j->emit.x.exec,
                             .inside = inside + j->emit.x.exec };
    j->hash[h] = b;
    g_ptr_array_add(j->order, b);
    j->stats.blocks++;
    j->stats.insns += b->insns;
    j->stats.code_bytes += (uint64_t)(j->emit.x.p - j->free);
    j->free = j->emit.x.p;
    return b;
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static struct jit_block *find_block(struct jit_cpu *j, const uint8_t *hva, uint64_t pa_page, uint64_t pa)
{
    uint32_t generation = mem_code_generation(j->cpu->mem, pa_page);

    j->stats.lookups++;
    for (struct jit_block **p = &j->hash[block_hash(pa, j->mode)]; *p; p = &(*p)->next) {
        struct jit_block *b = *p;
        if (b->pa != pa || b->mode != j->mode)
            continue;
        if (b->generation == generation)
            return b;
        *p = b->next; /* stale: forgotten, its code stays until the next flush */
        break;
    }
    uint64_t start = now_ns();
    struct jit_block *b = translate(j, hva, pa_page, pa, MAX_INSNS);
    j->stats.translate_ns += now_ns() - start;
    return b;
}

/* The block whose code holds the executable address. */
static const struct jit_block *block_at(const struct jit_cpu *j, const uint8_t *code)
{
    unsigned low = 0, high = j->order->len;
    while (low + 1 < high) {
        unsigned mid = (low + high) / 2;
        const struct jit_block *b = g_ptr_array_index(j->order, mid);
        if (b->cross <= code)
            low = mid;
        else
            high = mid;
    }
    return g_ptr_array_index(j->order, low);
}

/* A jump of the page that pc lies in has asked to be led to the block at pc; unless pc's page is another by now. */
static void patch_link(struct jit_cpu *j, uint64_t link, const struct jit_block *b)
{
    const uint8_t *desc = (const uint8_t *)(uintptr_t)link;
    int32_t off;

    memcpy(&off, desc, sizeof off);
    const struct jit_block *from = block_at(j, desc);
    if ((from->pa ^ b->pa) / MEM_PAGE_SIZE || from->mode != b->mode || from->generation != b->generation)
        return;
    x86_patch(j->rw + (desc + off - j->rx), b->inside - (j->rx - j->rw));
    j->stats.links++;
}

/* --- the run loop --------------------------------------------------------------------------------------------------------- */

enum { PEND_LEAVE = PEND_TIMER | PEND_TLB | PEND_PAUSE | PEND_STOP | PEND_DEBUG };

static void run_block(struct jit_cpu *j)
{
    struct cpu *cpu = j->cpu;
    const uint8_t *hva;
    uint64_t pa_page, link;

    cpu->pc = prim_branch_addr(cpu, cpu->pc);
    cpu->leave = 0;
    if (unlikely(!access_fetch(cpu, cpu->pc, &hva, &pa_page))) {
        cpu->pc = cpu->next_pc;
        cpu->hot[HOT_LINK] = 0;
        return;
    }
    if (unlikely(j->next_key > KEY_LAST - KEYS_IN_HAND)) {
        drop_keys(j);
        drop_jumps(j);
    }
    sync_mode(j);
    uint64_t flushes = j->stats.flushes;
    struct jit_block *b = find_block(j, hva, pa_page, pa_page | (cpu->pc & (MEM_PAGE_SIZE - 1)));
    link = cpu->hot[HOT_LINK];
    cpu->hot[HOT_LINK] = 0;
    if (unlikely(!b)) {
        j->stats.interp++;
        interp_step(cpu);
        return;
    }
    if (j->stats.flushes != flushes)
        sync_mode(j); /* the key is gone too */
    else if (link)
        patch_link(j, link, b);
    struct jump *jump = &j->jumps[cpu->pc >> 2 & ((1u << JUMP_BITS) - 1)];
    jump->tag = cpu->pc ^ cpu->hot[HOT_KEY];
    jump->code = b->cross;
    note_executed(j, cpu->pc);
    enter(j, b->cross);
}

unsigned jit_exec_words(struct cpu *cpu, const uint32_t *words, unsigned n)
{
    struct jit_cpu *j = cpu->engine;
    unsigned page_off = (unsigned)(cpu->pc & (MEM_PAGE_SIZE - 1));
    uint8_t page[MEM_PAGE_SIZE + 64 * 4] = { 0 };

    sync_mode(j);
    memcpy(page + page_off, words, MIN(n * 4, (unsigned)sizeof page - page_off));
    struct jit_block *b = translate(j, page, cpu->pc - page_off, cpu->pc, n);
    uint8_t *start = j->rw + (b->cross - j->rx);
    j->hash[block_hash(b->pa, b->mode)] = b->next;
    g_ptr_array_set_size(j->order, (int)j->order->len - 1);
    cpu->leave = 0;
    enter(j, b->cross);
    cpu->hot[HOT_LINK] = 0;
    /* Nothing may lead to this code again. */
    memset((void *)(uintptr_t)cpu->hot[HOT_RSP], 0, cpu->hot[HOT_RS_TOP] - cpu->hot[HOT_RSP]);
    cpu->hot[HOT_RSP] = cpu->hot[HOT_RS_TOP];
    j->free = start;
    return b->insns;
}

static void jit_run(struct cpu *cpu)
{
    struct jit_cpu *j = cpu->engine;

    cpu->hot[HOT_LINK] = 0;
    for (;;) {
        unsigned pending = atomic_load_explicit(&cpu->pending, memory_order_relaxed);
        if (unlikely(pending & leave_mask(cpu))) {
            cpu->hot[HOT_LINK] = 0;
            if (pending & PEND_LEAVE)
                return;
            cpu_take_interrupt(cpu);
        }
        if (unlikely(cpu->debug_slow || cpu->il)) {
            cpu->hot[HOT_LINK] = 0;
            interp_run_checked(cpu);
            if (debug_stopped(cpu))
                return;
        } else {
            run_block(j);
        }
    }
}

/* --- counters --- */

static void describe_ops(const struct jit_cpu *j, GString *out)
{
    uint64_t left = UINT64_MAX; /* at most the twelve that are run most often, in falling order */

    for (unsigned row = 0; row < 12; row++) {
        uint64_t best = 0;
        for (unsigned op = 0; op < IR_N_OPCODES; op++)
            if (j->stats.c_ops[op] < left)
                best = MAX(best, j->stats.c_ops[op]);
        if (!best)
            return;
        for (unsigned op = 0; op < IR_N_OPCODES; op++)
            if (j->stats.c_ops[op] == best)
                g_string_append_printf(out, "  in C: %-14s %" PRIu64 "\n", ir_info[op].name, best);
        left = best;
    }
}

void jit_describe(const struct cpu *cpu, GString *out)
{
    const struct jit_cpu *j = cpu->engine;
    const struct jit_stats *s = &j->stats;

    g_string_append_printf(out,
        "vCPU %u: %" PRIu64 " instructions run; %" PRIu64 " blocks of %.1f instructions translated in %.1f ms "
        "(%.0f ns an instruction), %.1f bytes of code a guest byte\n"
        "  %" PRIu64 " run loop lookups, %" PRIu64 " links, %" PRIu64 " code cache flushes, %" PRIu64
        " TLB refills, %" PRIu64 " instructions interpreted, %u address spaces\n",
        cpu->index, cpu->icount, s->blocks, s->blocks ? (double)s->insns / (double)s->blocks : 0,
        (double)s->translate_ns / 1e6, s->insns ? (double)s->translate_ns / (double)s->insns : 0,
        s->insns ? (double)s->code_bytes / (double)s->insns / 4 : 0, s->lookups, s->links, s->flushes, s->slow_mem,
        s->interp, j->nspaces);
    describe_ops(j, out);
}

/* --- life --------------------------------------------------------------------------------------------------------------------- */

/* CPUID leaf 7, EBX bit 29, which not every compiler has a name for. */
static bool host_has_sha(void)
{
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && b >> 29 & 1;
}

static void probe_host(void)
{
    __builtin_cpu_init();
    jit_host = (struct jit_host){
        .bmi1 = __builtin_cpu_supports("bmi"), .bmi2 = __builtin_cpu_supports("bmi2"),
        .lzcnt = __builtin_cpu_supports("lzcnt"), .avx = __builtin_cpu_supports("avx"),
        .avx2 = __builtin_cpu_supports("avx2"), .fma = __builtin_cpu_supports("fma"),
        .aes = __builtin_cpu_supports("aes"), .pclmul = __builtin_cpu_supports("pclmul"),
        .sha = host_has_sha(), .avx512vl = __builtin_cpu_supports("avx512vl"), .sse42 = __builtin_cpu_supports("sse4.2"),
    };
}

static void jit_init(struct cpu *cpu)
{
    struct jit_cpu *j = g_new0(struct jit_cpu, 1);

    probe_host();
#ifdef ARMLET_HARSH /* the least host that there may be; the plain build is tested with all that this one has */
    jit_host = (struct jit_host){ .sse42 = true };
#endif
    j->cpu = cpu;
    cpu->engine = j;
    map_code(j);
    make_stubs(j);
    j->hash = g_new0(struct jit_block *, BLOCK_HASH);
    j->order = g_ptr_array_new();
    j->chunks = g_ptr_array_new_with_free_func(g_free);
    j->spaces = g_new0(struct space, SPACES);
    j->jumps = g_new0(struct jump, 1 << JUMP_BITS);
    j->return_stack = g_malloc0(RETURN_STACK);
    jit_hot_constants(cpu->hot);
    cpu->hot[HOT_MXCSR] = MXCSR_START;
    cpu->hot[HOT_JUMPS] = (uintptr_t)j->jumps;
    cpu->hot[HOT_RS_TOP] = ((uintptr_t)j->return_stack + RETURN_STACK - 256) & ~(uintptr_t)15;
    cpu->hot[HOT_RS_LIMIT] = (uintptr_t)j->return_stack + 1024;
    cpu->hot[HOT_RSP] = cpu->hot[HOT_RS_TOP];
    j->data_tag = j->unpriv_tag = j->fetch_tag = UINT64_MAX;
    j->next_key = 1;
    tlb_set_listener(cpu, on_tlbi, j);
}

static void jit_fini(struct cpu *cpu)
{
    struct jit_cpu *j = cpu->engine;

    tlb_set_listener(cpu, NULL, NULL);
    munmap(j->rw, j->size);
    munmap(j->rx, j->size);
    for (unsigned i = 0; i < j->nspaces; i++)
        munmap(j->spaces[i].table, sizeof *j->spaces[i].table << JTLB_BITS);
    g_ptr_array_free(j->order, TRUE);
    g_ptr_array_free(j->chunks, TRUE);
    g_free(j->hash);
    g_free(j->spaces);
    g_free(j->jumps);
    g_free(j->return_stack);
    g_free(j);
    cpu->engine = NULL;
    interp_free(cpu);
}

static void jit_flush(struct cpu *cpu)
{
    struct jit_cpu *j = cpu->engine;
    drop_spaces(j);
    drop_keys(j);
}

const struct cpu_engine jit_engine = {
    .name = "tcg",
    .init = jit_init,
    .fini = jit_fini,
    .run = jit_run,
    .flush = jit_flush,
};
