/*
 * From an optimised IR block to x86-64 (docs/jit.md, "Registers" and "Flags").
 *
 * One forward pass.  A value is where it is cheapest: a constant, the home of a guest register that still holds it, one of
 * five temporaries, or a spill word.  emit.c has values, flags and exits; emit_mem.c memory; emit_vec.c vectors.
 */
#ifndef ARMLET_JIT_EMIT_H
#define ARMLET_JIT_EMIT_H

#include "jit/opt.h"
#include "jit/state.h"

enum loc_kind {
    L_NONE,
    L_CONST, /* ir.imm */
    L_PC,    /* HOT_PAGE + the block's page offset + ir.imm */
    L_GX,    /* home of guest register `n' */
    L_TMP,   /* temporary `n' (index) */
    L_SPILL, /* spill word `n' */
    L_LATER, /* a condition or compare: emitted where it is used */
    L_GW,    /* home of vector register n; perhaps in an xmm register too */
    L_WSLOT, /* vector slot n; the same */
    L_XMM,   /* xmm register n only */
};

struct loc {
    uint8_t kind, n;
};

/* A vector to be stored to the home of register `reg': from xmm register x, or from memory. */
struct owing {
    uint8_t reg, x; /* OWING_MEMORY: m */
    bool turn;      /* not in the loop's first turn, where the home has it */
    struct hmem m;
};
enum { OWING_MEMORY = 0xff };

struct cold { /* code that is put behind the block */
    uint8_t kind;         /* enum cold_kind */
    uint8_t t0, t1;       /* COLD_MEM: its scratch registers */
    uint8_t bytes;        /* of the whole access */
    uint8_t data[2];      /* host registers of values or results, or vector locations' registers */
    uint16_t insn;        /* index of the instruction in the block */
    int16_t off;          /* its offset from the first */
    uint16_t lazy;        /* set_f of flags that are not in HOT_FLAGS here, 0: they are there */
    uint8_t host;         /* COLD_SIDE: EFLAGS hold them: enum in_host */
    bool turn;            /* in a loop's first turn they are there all the same (HOT_TURN) */
    bool counted;         /* icount has the whole block here (emit.count_at) */
    uint16_t id;          /* IR operation */
    uint8_t site;         /* COLD_MEM: the loop's site that it is, + 1 */
    uint16_t owing, nowing; /* vectors to be stored: emit.owing[] */
    struct hmem ea;       /* the guest address: base and displacement */
    struct hmem w[2];     /* vector operands or results; scalar operands in memory */
    uint64_t imm[2];      /* constant operands: data is DATA_CONST; in memory: DATA_MEM */
    uint8_t x[3];         /* COLD_VECTOR: xmm registers of operands; those of a wide store */
    uint8_t xd;           /* COLD_VECTOR: xmm register of the result, or general one with XD_GENERAL */
    bool keep;            /* xmm registers hold values: the call must save them */
    uint8_t *from, *also; /* places: jumps here */
    uint8_t *retry, *hit, *back; /* go on: before the check; after it; after the access */
};

/* A system operation was emitted here, not run in C: the block's end need not ask the run loop. */
/*
 * Behind a call of jit_c_op(): op | k << 16 | x << 24; page offset | what icount lacks of the instructions before this one,
 * with its sign, << 12; imm.  Of an access imm has 16 bits, and above them is how far before the description code looks into the
 * TLB, 0: it is not to look again.
 */
enum { JIT_DESC_BYTES = 12 };
/*
 * Behind a call of jit_c_access(): a load or store that the data TLB does not let pass.  Places of the values to store or to
 * load: a host register, PLACE_XMM + one, or what the enum says, of which a constant or an offset from RBP stands behind.
 */
struct jit_access {
    uint16_t op;
    uint8_t k, x;
    uint32_t where; /* as jit_c_op() has it */
    int32_t disp;   /* the address: host register `base' plus so much */
    int32_t back;   /* where to go on, from the struct's end */
    uint16_t again; /* how far before that code looks into the TLB; 0: it is not to look again */
    uint8_t base, place[2];
} __attribute__((packed));
enum { PLACE_XMM = 0x10, PLACE_ZERO = 0x20, PLACE_CONST, PLACE_MEM, PLACE_NONE };
/* Behind a call of jit_c_group(): the bytes of a group that the data TLB does not have in one page. */
struct jit_group {
    uint32_t where; /* of its first access */
    int32_t disp;   /* the lowest byte: host register `base' plus so much */
    int32_t again;  /* where its check is, from the struct's end */
    uint16_t span;
    uint16_t behind; /* page offset of the instruction behind, for which code stands behind this; or NOTHING_BEHIND */
    uint8_t base;
    uint8_t insns;   /* that it reaches over; GROUP_STORES: the page must be writable */
} __attribute__((packed));
enum { GROUP_STORES = 0x80, NOTHING_BEHIND = 0xffff };
enum after { AFTER_C, AFTER_ON, AFTER_POLL, AFTER_ISB };
enum { DATA_CONST = 0xfe, DATA_MEM = 0xfd, XD_GENERAL = 0x40 };
enum { BLOCK_INSNS = 64 };
enum { MAX_COLD = 1024, MAX_LINKS = 32 };
enum { COPY_SPILL = 64 };
enum { MAX_OWED = 2048 };
enum in_host { NOT_IN_HOST, IN_HOST, IN_HOST_INVERTED };

/* The allocator's state; see struct emit. */
struct snapshot {
    struct loc loc[GROUP_IR_MAX];
    uint16_t uses[GROUP_IR_MAX];
    bool done[GROUP_IR_MAX];
    uint8_t copy[GROUP_IR_MAX], xof[GROUP_IR_MAX], zext[GROUP_IR_MAX];
    uint16_t tmp[TEMPS], spill[SPILLS], wslot[W_SLOTS], xreg[XMMS], gx_live[32], gw_live[32];
    uint16_t mem_f, lazy, owed[32];
    bool turn, counted;
    unsigned insn;
    int32_t off;
};

struct emit {
    struct x86 x;
    struct ir_block *block;
    uint16_t *uses;
    unsigned page_off;   /* of the block's first instruction */
    unsigned insn;       /* index of the current one */
    int32_t off;         /* its offset from the first */
    unsigned at;         /* index of the current operation */
    struct loc loc[IR_MAX + MAX_GROUPS];
    uint16_t hint[IR_MAX]; /* guest register + 1 that the value is set to soon */
    bool done[IR_MAX];     /* emitted together with an earlier operation */
    uint16_t tmp[TEMPS];   /* value in each, 0: free */
    uint8_t locked;        /* bit per temporary: must not be moved now */
    uint16_t spill[SPILLS];
    uint8_t copy[IR_MAX + MAX_GROUPS];  /* of a value in a temporary: memory that has it too, home n + 1 or COPY_SPILL + s; 0: none */
    uint16_t wslot[W_SLOTS];
    uint16_t xreg[XMMS];   /* value in each xmm register, 0: none */
    uint8_t xof[IR_MAX + MAX_GROUPS];   /* xmm register that holds a value + 1 */
    uint8_t need[IR_MAX];  /* bytes of a vector value that its uses look at */
    uint8_t zext[IR_MAX];  /* the value is zero above this many bytes; 0: not known */
    uint16_t xlocked;      /* bit per xmm register */
    uint16_t gx_live[32], gw_live[32]; /* values that live in the home and will be used */
    uint16_t host_f;       /* flags value that EFLAGS holds, 0: none */
    bool host_inv;         /* its carry is inverted there */
    uint16_t lazy;         /* set_f of the flags now in force when HOT_FLAGS does not have them (opt.h), 0: it has */
    bool turn;             /* they are those of the loop's turn before, if there was one */
    uint16_t mem_f;        /* flags value that HOT_FLAGS holds, 0: not one with a name here */
    uint16_t logic_of;     /* value whose N and Z (logical operation) EFLAGS hold */
    bool logic_sf;
    uint16_t owed[32];     /* value of each vector register whose home does not have it (opt_owed()), 0: it has */
    bool owed_turn;        /* some that are owed at the loop's start are whole only after its first turn (HOT_LATER) */
    unsigned nowing;
    struct owing owing[MAX_OWED]; /* for cold code, which stores them */
    unsigned count_at;     /* IR insn before which icount is advanced by the whole block */
    bool counted;          /* that has been */
    bool failed;           /* out of spills: the block must be shorter */
    unsigned ncold;
    struct cold cold[MAX_COLD];
    unsigned nlinks;
    struct jit_link links[MAX_LINKS];
    uint8_t leave;         /* enum after: what the end of the block is to do after a system operation */
    unsigned mode;
    bool smp;            /* there is more than one vCPU */
    const struct jit_stubs *stubs;
    struct loop loop;
    uint8_t *loop_start;   /* where its end jumps to */
    uint8_t loop_xmm[LOOP_W], loop_zext[LOOP_W]; /* where a turn finds loop.w[] */
    bool bounded;          /* a loop ends after HOT_TURNS back edges */
    unsigned recent;       /* loops with sites so far: which struct recent this one has */
    unsigned direct;       /* direct jumps to other pages so far, of all blocks */
    unsigned ngroups;
    struct group group[MAX_GROUPS];
    uint8_t member[IR_MAX];
    bool no_groups;      /* in the cold code of a group that is often torn */
    struct snapshot *snap; /* MAX_GROUPS of them: where everything was at the check of such a group */
    const uint8_t *insn_code[BLOCK_INSNS]; /* where each instruction's code begins */
    int32_t insn_off[BLOCK_INSNS];         /* and its offset from the first */
    const uint8_t *cold_code;
};

/*
 * Emits block at x->p for a first instruction at page offset `page_off'.  false: no room, or too complicated; emit less.
 * On success *cross and *inside are entries (writable view), e->links the places to be patched.
 */
bool emit_block(struct emit *e, struct ir_block *block, uint16_t *uses, unsigned page_off, uint8_t **cross,
                uint8_t **inside);

/* --- between the parts --- */

/* Host register that holds value id now, locked; loads or moves it there. */
unsigned emit_reg(struct emit *e, unsigned id);
/* The same for a constant-free address: base register and displacement of value id (add of a constant is folded). */
struct hmem emit_address(struct emit *e, unsigned id);
/* A free temporary, locked; spills one if it must.  Returns the host register. */
unsigned emit_temp(struct emit *e);
/* Frees a temporary that emit_temp() gave, when no value was bound to it. */
void emit_release(struct emit *e, unsigned host);
/* Where to put the result of the current operation: its home if that is safe, else a temporary. */
unsigned emit_dest(struct emit *e, unsigned id);
/* Guest register + 1 whose home the value may be computed in already, 0: none. */
unsigned emit_hint(const struct emit *e, unsigned id);
/* The result is in host register r now. */
void emit_bind(struct emit *e, unsigned id, unsigned r);
/* An operand has been used once; at zero its place is free. */
void emit_use(struct emit *e, unsigned id);
void emit_use_all(struct emit *e, const struct ir *ir);
/* EFLAGS are about to change. */
void emit_clobber_flags(struct emit *e);
/* Values that live in homes move to temporaries or slots: a helper may change the homes. */
void emit_evict_homes(struct emit *e);
/* Is the value in memory (a home or a spill word), so that an instruction can take it from there? */
bool emit_in_memory(const struct emit *e, unsigned id, struct hmem *m);
/* Moves a value out of its temporary, which must not be locked. */
void emit_to_memory(struct emit *e, unsigned id);
bool emit_is_temp(unsigned host);
struct cold *emit_cold(struct emit *e, unsigned kind, uint8_t *from);
/*
 * The call to C for operation `ir' of instruction `insn' at offset `off', its operands being in HOT_A; results will be in HOT_R.
 * keep: xmm registers stay; else they are lost.
 */
void emit_c_op(struct emit *e, const struct ir *ir, unsigned insn, int off, bool keep);
/* Of an instruction at offset `off', of which `insn' come before it: its page offset, and what icount lacks << 12. */
uint32_t emit_where(const struct emit *e, unsigned insn, int off);
/* What icount lacks where so many of the block's instructions have been done. */
int32_t emit_uncounted(const struct emit *e, unsigned insns);
/* The whole operation that way: operands fetched, result bound. */
void emit_generic(struct emit *e, const struct ir *ir);
void emit_const(struct emit *e, unsigned host, uint64_t v);

enum cold_kind { COLD_MEM, COLD_OP, COLD_STATE, COLD_LINK, COLD_VECTOR, COLD_SIDE, COLD_POLL, COLD_STACK, COLD_GROUP, COLD_RECENT };

/* Notes where everything is at the check of a group, for its cold code. */
void emit_snapshot(struct emit *e, unsigned group);

/* That very temporary, locked; what was in it moves. */
unsigned emit_take(struct emit *e, unsigned host);

void emit_memory(struct emit *e, const struct ir *ir);   /* emit_mem.c */
void emit_host_load(struct emit *e, unsigned size, unsigned d, struct hmem m); /* 1 << size bytes, zero-extended */
void emit_exclusive(struct emit *e, const struct ir *ir); /* IR_load_ex, IR_store_ex */
bool emit_atomic(struct emit *e, const struct ir *ir); /* IR_atomic_*; false: not one of its own */
void emit_zva(struct emit *e, const struct ir *ir);
/* DC by address, which has nothing to do where there is memory. */
void emit_dc(struct emit *e, const struct ir *ir);
/*
 * Jump through the jump cache to the va in RAX, or to leave_at (writable view).  place: and put what was found there into
 * the struct jump at RCX.
 */
void emit_dispatch_code(struct x86 *x, const uint8_t *leave_at, bool place);
bool emit_system(struct emit *e, const struct ir *ir);   /* emit_sys.c; false: not one of its own */
void emit_exception(struct emit *e, const struct ir *ir);
void emit_dsb(struct emit *e);
void emit_load_exclusive(struct emit *e, unsigned bytes, unsigned host, unsigned t);
void emit_store_exclusive(struct emit *e, unsigned size, unsigned host, unsigned data);
/* The same of 16 bytes at a host address: to two registers; from RCX:RBX, which compares with the monitor; EAX is the status. */
void emit_load_exclusive_pair(struct emit *e, unsigned host, unsigned d0, unsigned d1);
void emit_store_exclusive_pair(struct emit *e, unsigned host);
/* A jump that is taken when C must do the store. */
uint8_t *emit_versions_begun(struct emit *e);
uint8_t *emit_store_paired(struct emit *e, unsigned size, unsigned host, unsigned data);
/* Does nothing between the exclusive load of the same place and the exclusive store access memory? */
bool emit_is_paired(const struct emit *e, unsigned store);
void emit_memory_cold(struct emit *e, struct cold *c);
/* At a loop's start: are the pages of its sites still valid?  And its cold part. */
void emit_sites_in(struct emit *e);
void emit_sites_cold(struct emit *e, const struct cold *c);
void emit_group_cold(struct emit *e, const struct cold *c);
void emit_vector(struct emit *e, const struct ir *ir);   /* emit_vec.c */
void emit_vector_cold(struct emit *e, struct cold *c);
/* Before the first operation: e->need. */
void emit_find_needs(struct emit *e, const struct ir_block *block);
bool emit_is_vector(unsigned op);
/* Native code for the operation, or false and nothing is done. */
bool emit_simd(struct emit *e, const struct ir *ir);     /* emit_simd.c: integers, permutations, cryptography */
bool emit_fp(struct emit *e, const struct ir *ir);       /* emit_fp.c */
bool emit_fcmp(struct emit *e, const struct ir *ir);
/* After EFLAGS hold flags value `id', just made, with the carry of a subtraction if inv: store them. */
void emit_flags_made(struct emit *e, unsigned id, bool inv);
/* Cold code, before C may look: flags that are not in HOT_FLAGS go there. */
void emit_cold_flags(struct emit *e, const struct cold *c);
/* The same for the flags that wait for select_ready_flags(). */
void emit_flags_ready(struct emit *e);
bool emit_for_f_select(const struct emit *e, unsigned id);

/* --- vectors in xmm registers (emit_vec.c); xmm0 to xmm3 are scratch of one operation --- */
/* The xmm register that holds the value, locked; loads it. */
unsigned emit_xmm(struct emit *e, unsigned id);
/* A fresh one, locked: never that of an operand. */
unsigned emit_xmm_dest(struct emit *e);
/* Value id is in register r, zero above `zext' bytes (0: not known). */
void emit_xmm_bind(struct emit *e, unsigned id, unsigned r, unsigned zext);
void emit_xmm_free(struct emit *e, unsigned r);
bool emit_xmm_live(const struct emit *e);
/* Before a call that loses them: what is only in registers goes to memory. */
void emit_xmm_flush(struct emit *e);
/* The loop's vectors go to registers; at its end, to the same registers. */
void emit_loop_vectors_in(struct emit *e);
/* Cold code `c' will have to store what is owed now; emits that. */
void emit_note_owed(struct emit *e, struct cold *c);
void emit_pay_owed(struct emit *e, const struct cold *c);
/* Nothing is owed any more. */
void emit_forget_owed(struct emit *e);
void emit_loop_vectors_back(struct emit *e);
/* Register r = the constant. */
void emit_xmm_const(struct emit *e, unsigned r, uint64_t lo, uint64_t hi);
/* r keeps `bytes' low bytes (4, 8 or 16) and becomes zero above. */
void emit_xmm_clip(struct emit *e, unsigned r, unsigned bytes);

/* Code that all blocks share, made once by run.c; executable addresses. */
struct jit_stubs {
    const uint8_t *enter;     /* void (struct cpu *, const uint8_t *code) */
    const uint8_t *leave;     /* to the run loop; cpu->pc is set */
    const uint8_t *leave_at;  /* the same; RAX is the pc */
    const uint8_t *leave_next; /* the same, at cpu->next_pc */
    const uint8_t *dispatch;  /* to the va in RAX, by the jump cache */
    const uint8_t *direct;    /* the same, which is not what RCX (a struct jump) says, and is to be */
    const uint8_t *isb;       /* dispatch, unless code went stale */
    const uint8_t *link;      /* called; behind the call: offset of the place to patch, page offset to go on at */
    /*
     * To another context by code alone (stubs.c).  SVC from EL0, EL1t, EL1h (RAX: the return address, RCX: ESR) and ERET from
     * EL1t, EL1h; to the address in RDX, with nothing done, if that is not possible now.
     */
    const uint8_t *exception[3], *eret[2];
    /* Called: MSR TTBR0, TTBR1 of RAX, which stays, MSR PAN, #0 and #1; ZF set: it was done.  RCX, RDX, RSI are destroyed. */
    const uint8_t *ttbr[2], *pan[2];
    const uint8_t *counter;   /* RAX = jit_c_counter(, RSI); other temporaries are lost, and xmm registers */
    const uint8_t *call;      /* jit_c_op(): everything but xmm is restored, or the run loop is entered */
    const uint8_t *call_keep; /* the same with xmm registers */
    const uint8_t *access, *access_keep; /* the same two of jit_c_access(), which says itself where to go on */
    const uint8_t *group, *group_keep;   /* and of jit_c_group() */
};

#endif
