/*
 * The arm64 side of the instruction oracle: reads batches on stdin, runs each word on each of its states, and
 * writes the hash of the state after (or the state).  Static program; runs under qemu-aarch64 or on hardware.
 *
 * A word runs with all registers set, SP too, so that no signal may arrive: a word that faults ends the
 * program, which the host side sees.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "oracle.h"

_Static_assert(__builtin_offsetof(struct oracle_state, nzcv) == 256 &&
                   __builtin_offsetof(struct oracle_state, v) == 288,
               "the assembly below knows them");

void enter(struct oracle_state *st, uint64_t slot);
void way_out(void);
void way_out_taken(void);
void way_out_end(void);

__asm__(".text\n"
        ".globl enter, way_out, way_out_taken, way_out_end\n"
        ".macro vectors op\n"
        "    \\op q0, q1, [x2, #0]\n    \\op q2, q3, [x2, #32]\n    \\op q4, q5, [x2, #64]\n"
        "    \\op q6, q7, [x2, #96]\n    \\op q8, q9, [x2, #128]\n    \\op q10, q11, [x2, #160]\n"
        "    \\op q12, q13, [x2, #192]\n    \\op q14, q15, [x2, #224]\n    \\op q16, q17, [x2, #256]\n"
        "    \\op q18, q19, [x2, #288]\n    \\op q20, q21, [x2, #320]\n    \\op q22, q23, [x2, #352]\n"
        "    \\op q24, q25, [x2, #384]\n    \\op q26, q27, [x2, #416]\n    \\op q28, q29, [x2, #448]\n"
        "    \\op q30, q31, [x2, #480]\n"
        ".endm\n"
        ".macro callee op\n"
        "    \\op x19, x20, [sp, #16]\n    \\op x21, x22, [sp, #32]\n    \\op x23, x24, [sp, #48]\n"
        "    \\op x25, x26, [sp, #64]\n    \\op x27, x28, [sp, #80]\n    \\op d8, d9, [sp, #96]\n"
        "    \\op d10, d11, [sp, #112]\n    \\op d12, d13, [sp, #128]\n    \\op d14, d15, [sp, #144]\n"
        ".endm\n"
        "enter:\n"
        "    stp x29, x30, [sp, #-160]!\n"
        "    callee stp\n"
        "    mov x28, x0\n"
        "    mov x3, sp\n"
        "    str x3, [x28, #4096]\n"
        "    str x1, [x28, #4104]\n"
        "    add x2, x28, #288\n"
        "    vectors ldp\n"
        "    ldr x2, [x28, #256]\n    msr nzcv, x2\n"
        "    ldr x2, [x28, #264]\n    msr fpsr, x2\n"
        "    ldr x2, [x28, #272]\n    msr fpcr, x2\n"
        "    ldr x2, [x28, #248]\n    mov sp, x2\n"
        "    ldp x0, x1, [x28]\n      ldp x2, x3, [x28, #16]\n  ldp x4, x5, [x28, #32]\n   ldp x6, x7, [x28, "
        "#48]\n"
        "    ldp x8, x9, [x28, #64]\n ldp x10, x11, [x28, #80]\n ldp x12, x13, [x28, #96]\n ldp x14, x15, "
        "[x28, #112]\n"
        "    ldp x16, x17, [x28, #128]\n ldp x18, x19, [x28, #144]\n ldp x20, x21, [x28, #160]\n"
        "    ldp x22, x23, [x28, #176]\n ldp x24, x25, [x28, #192]\n ldp x26, x27, [x28, #208]\n"
        "    ldp x29, x30, [x28, #232]\n"
        "    ldr x28, [x28, #4104]\n"
        "    br x28\n"
        "way_out:\n"
        "    str x0, [x28]\n    movz x0, #0\n    b 1f\n"
        "way_out_taken:\n"
        "    str x0, [x28]\n    movz x0, #1\n"
        "1:  str x0, [x28, #280]\n"
        "    str x1, [x28, #8]\n      stp x2, x3, [x28, #16]\n  stp x4, x5, [x28, #32]\n   stp x6, x7, [x28, "
        "#48]\n"
        "    stp x8, x9, [x28, #64]\n stp x10, x11, [x28, #80]\n stp x12, x13, [x28, #96]\n stp x14, x15, "
        "[x28, #112]\n"
        "    stp x16, x17, [x28, #128]\n stp x18, x19, [x28, #144]\n stp x20, x21, [x28, #160]\n"
        "    stp x22, x23, [x28, #176]\n stp x24, x25, [x28, #192]\n stp x26, x27, [x28, #208]\n"
        "    stp x29, x30, [x28, #232]\n"
        "    mov x2, sp\n         str x2, [x28, #248]\n"
        "    mrs x2, nzcv\n       str x2, [x28, #256]\n"
        "    mrs x2, fpsr\n       str x2, [x28, #264]\n"
        "    mrs x2, fpcr\n       str x2, [x28, #272]\n"
        "    add x2, x28, #288\n"
        "    vectors stp\n"
        "    msr fpcr, xzr\n"
        "    ldr x2, [x28, #4096]\n    mov sp, x2\n"
        "    callee ldp\n"
        "    ldp x29, x30, [sp], #160\n"
        "    ret\n"
        "way_out_end:\n"
        "    nop\n");

static void *map_at(uint64_t at, size_t size, int prot)
{
    void *p = mmap((void *)at, size, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

    if (p != (void *)at) {
        perror("mmap");
        exit(2);
    }
    return p;
}

static uint32_t branch_to(uint64_t from, uint64_t to)
{
    return 0x14000000 | ((uint32_t)((to - from) >> 2) & 0x3ffffff);
}

static void lay_out(const struct oracle_record *rec, uint32_t n)
{
    uint64_t out = ORACLE_CODE + 4096, out_taken = out + ((uint64_t)way_out_taken - (uint64_t)way_out);
    uint8_t *code = map_at(ORACLE_CODE, 8192 + (size_t)ORACLE_BATCH * ORACLE_SLOT_BYTES,
                           PROT_READ | PROT_WRITE | PROT_EXEC);

    oracle_literals((uint64_t *)code);
    memcpy(code + 4096, (const void *)way_out, (uint64_t)way_out_end - (uint64_t)way_out);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t at = ORACLE_SLOTS + (uint64_t)i * ORACLE_SLOT_BYTES;
        uint32_t slot[8] = {
            0x580000dc /* ldr x28, .+24 */, rec[i].prefix, rec[i].word,          branch_to(at + 12, out),
            branch_to(at + 16, out_taken),  ORACLE_NOP,    (uint32_t)ORACLE_CTX, 0};
        memcpy((void *)at, slot, sizeof slot);
    }
    __builtin___clear_cache((char *)code, (char *)code + 8192 + (size_t)n * ORACLE_SLOT_BYTES);
}

static void run_case(const struct oracle_record *rec, uint32_t index, uint32_t rep, uint32_t detail)
{
    struct oracle_state *st = (struct oracle_state *)ORACLE_CTX;
    uint64_t hash;

    oracle_make(rec, rep, st);
    memcpy((void *)ORACLE_MEM, st->mem, ORACLE_MEM_BYTES);
    enter(st, ORACLE_SLOTS + (uint64_t)index * ORACLE_SLOT_BYTES);
    memcpy(st->mem, (void *)ORACLE_MEM, ORACLE_MEM_BYTES);
    hash = oracle_hash(st);
    fwrite(detail ? (void *)st : &hash, detail ? sizeof *st : sizeof hash, 1, stdout);
}

int main(void)
{
    static struct oracle_record rec[ORACLE_BATCH];
    struct oracle_batch batch;

    map_at(ORACLE_CTX, 8192, PROT_READ | PROT_WRITE);
    map_at(ORACLE_MEM - 4096, 3 * 4096, PROT_READ | PROT_WRITE);
    while (fread(&batch, sizeof batch, 1, stdin) == 1) {
        if (batch.n > ORACLE_BATCH || fread(rec, sizeof *rec, batch.n, stdin) != batch.n)
            return 2;
        lay_out(rec, batch.n);
        for (uint32_t i = 0; i < batch.n; i++)
            for (uint32_t rep = 0; rep < batch.reps; rep++)
                run_case(&rec[i], i, batch.first_rep + rep, batch.detail);
        fflush(stdout);
    }
    return 0;
}
