/*
 * What the two sides of the instruction oracle share: the host program, which runs our engines, and the arm64
 * program, which runs the same cases under qemu-aarch64 (or on a real CPU).
 *
 * A case is a record and a repetition.  Both sides make the machine state from them by the same generator,
 * run the word at the same address on memory at the same address, and compare one hash of everything after;
 * only when hashes differ is the state itself passed on.  Register x28 holds the context and is not used by
 * the words under test.
 */
#ifndef ARMLET_TESTS_ORACLE_H
#define ARMLET_TESTS_ORACLE_H

#include <stdint.h>
#include <string.h>

#define ORACLE_CTX UINT64_C(0x50000000)  /* struct oracle_state */
#define ORACLE_MEM UINT64_C(0x50010000)  /* what loads and stores hit */
#define ORACLE_CODE UINT64_C(0x60000000) /* a page of literals, a page with the way out, then the slots */
#define ORACLE_SLOTS (ORACLE_CODE + 8192)
enum {
    ORACLE_MEM_BYTES = 512,
    ORACLE_SLOT_BYTES = 32,
    ORACLE_WORD_OFFSET = 8, /* of the word in its slot; the prefix is before it */
    ORACLE_TAKEN_OFFSET = 8, /* a taken branch goes here, from the word */
    ORACLE_BATCH = 4096,
    ORACLE_NONE = 255,
    ORACLE_NOP = (int)0xd503201f,
};

struct oracle_record {
    uint32_t word, prefix;
    uint64_t seed;
    uint64_t value[2]; /* of the registers reg[] */
    uint64_t target;   /* the address that memory is reached at */
    uint32_t fpcr;
    uint8_t reg[2];    /* 31 is SP, ORACLE_NONE none */
    uint8_t
        copy_reg; /* registers from here on get what memory has at target: compare-and-swap that succeeds */
    uint8_t copy_n, copy_bytes, pad[3];
};

struct oracle_state { /* the arm64 side's assembly knows the offsets */
    uint64_t x[32];   /* 31: SP */
    uint64_t nzcv, fpsr, fpcr;
    uint64_t taken;   /* the word branched */
    uint64_t v[32][2];
    uint64_t mem[ORACLE_MEM_BYTES / 8];
};

struct oracle_batch {
    uint32_t n, reps;
    uint32_t first_rep; /* repetitions first_rep ... first_rep + reps - 1 */
    uint32_t detail;    /* answer with struct oracle_state instead of hashes */
};

static inline uint64_t oracle_next(uint64_t *s) /* splitmix64 */
{
    uint64_t z = *s += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* Numbers at the edges of all widths, and the special ones of all floating-point formats. */
static inline uint64_t oracle_edge(uint64_t r)
{
    static const uint64_t edges[] = {
        0,
        1,
        ~UINT64_C(0),
        UINT64_C(1) << 63,
        ~UINT64_C(0) >> 1,
        0x7fffffff,
        0x80000000,
        0xffffffff,
        0x8000,
        0x7fff,
        0x80,
        0x7f,
        UINT64_C(0xffffffff80000000),
        UINT64_C(0x100000000),
        31,
        63,
        64,
        32,
        /* double: 1, -2, inf, -inf, quiet, signalling, denormals, least normal, greatest, 2^31, 2^63,
           0.5, 1.5 */
        UINT64_C(0x3ff0000000000000),
        UINT64_C(0xc000000000000000),
        UINT64_C(0x7ff0000000000000),
        UINT64_C(0xfff0000000000000),
        UINT64_C(0x7ff8000000000001),
        UINT64_C(0xfff4000000000123),
        UINT64_C(0x000fffffffffffff),
        UINT64_C(0x8000000000000001),
        UINT64_C(0x0010000000000000),
        UINT64_C(0x7fefffffffffffff),
        UINT64_C(0x41e0000000000000),
        UINT64_C(0xc3e0000000000000),
        UINT64_C(0x3fe0000000000000),
        UINT64_C(0x3ff8000000000000),
        UINT64_C(0x36a0000000000001),
        UINT64_C(0x380fffffffffffff),
        UINT64_C(0x47efffffffffffff),
        /* pairs of singles */
        UINT64_C(0x3f800000c0000000),
        UINT64_C(0x7f800000ff800000),
        UINT64_C(0x7fc000017fa00001),
        UINT64_C(0x007fffff80000001),
        UINT64_C(0x008000007f7fffff),
        UINT64_C(0x4f000000df000000),
        UINT64_C(0x3f0000003fc00000),
        UINT64_C(0x33800000477fe000),
        UINT64_C(0x3870000038000001),
        /* halves */
        UINT64_C(0x3c00c0007c00fc00),
        UINT64_C(0x7e017d0103ff8001),
        UINT64_C(0x04007bff38003e00),
        UINT64_C(0x807f017e807f017e),
        UINT64_C(0x8080808080808080),
        UINT64_C(0x7fff7fff80008000),
    };

    return edges[r % (sizeof edges / sizeof *edges)];
}

static inline uint64_t oracle_value(uint64_t *s)
{
    uint64_t r = oracle_next(s);

    switch (r & 7) {
    case 0:
    case 1: return oracle_edge(r >> 3);
    case 2: return oracle_edge(r >> 3) ^ (UINT64_C(1) << (r >> 58));
    case 3: return r >> 3 >> (r >> 58);
    case 4: return (uint64_t)((int64_t)r >> (r >> 3 & 63));
    case 5: return (r & UINT64_C(0x807fffff807fffff)) + UINT64_C(0x3f8000003f800000);
    case 6: return (r & UINT64_C(0x800fffffffffffff)) + UINT64_C(0x3ff0000000000000) + ((r >> 52 & 7) << 52);
    default: return r;
    }
}

static inline void oracle_make(const struct oracle_record *rec, uint32_t rep, struct oracle_state *st)
{
    uint64_t s = rec->seed + rep * UINT64_C(0xd1342543de82ef95);
    const uint8_t *at = (const uint8_t *)st->mem + (rec->target - ORACLE_MEM);

    for (int i = 0; i < 32; i++)
        st->x[i] = oracle_value(&s);
    st->x[28] = ORACLE_CTX;
    for (int i = 0; i < 64; i++)
        st->v[i / 2][i % 2] = oracle_value(&s);
    for (int i = 0; i < ORACLE_MEM_BYTES / 8; i++)
        st->mem[i] = oracle_value(&s);
    st->nzcv = oracle_next(&s) & 0xf0000000;
    st->fpsr = 0;
    st->fpcr = rec->fpcr;
    st->taken = 0;
    for (int i = 0; i < 2; i++)
        if (rec->reg[i] != ORACLE_NONE)
            st->x[rec->reg[i]] = rec->value[i];
    for (int i = 0; i < rec->copy_n; i++)
        memcpy(&st->x[rec->copy_reg + i], at + i * rec->copy_bytes, rec->copy_bytes);
}

static inline uint64_t oracle_hash(const struct oracle_state *st)
{
    const uint64_t *p = (const uint64_t *)st;
    uint64_t h = 0, g = 0;

    for (unsigned i = 0; i < sizeof *st / 8; i++) {
        h = (h ^ p[i]) * UINT64_C(0x9e3779b97f4a7c15);
        g += h >> 29;
        h ^= h >> 32;
    }
    return h ^ g;
}

/* The literals at ORACLE_CODE. */
static inline void oracle_literals(uint64_t *page)
{
    uint64_t s = 99;

    for (int i = 0; i < 512; i++)
        page[i] = oracle_value(&s);
}

#endif
