/* Calls, returns and indirect jumps: recursion, function pointers, a bytecode interpreter in two styles. */
#include "row.h"

static __attribute__((noinline, noclone, optimize("no-optimize-sibling-calls"))) uint64_t fib(unsigned long n)
{
    ROW_OPAQUE(n);
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

/* About 1.6 ^ 27 calls each. */
static uint64_t run_fib(unsigned long n)
{
    uint64_t check = 0;

    while (n--)
        check = row_mix(check, fib(27));
    return check;
}

/* Objects of four classes, called through a pointer in an order that no history predicts. */

struct shape {
    uint64_t (*area)(const struct shape *s);
    uint64_t a, b;
};

static uint64_t area_square(const struct shape *s) { return s->a * s->a; }
static uint64_t area_oblong(const struct shape *s) { return s->a * s->b; }
static uint64_t area_triangle(const struct shape *s) { return s->a * s->b / 2; }
static uint64_t area_line(const struct shape *s) { return s->a ^ s->b; }

static struct shape shapes[1024];

static void setup_shapes(void)
{
    static uint64_t (*const kinds[])(const struct shape *) = {
        area_square, area_oblong, area_triangle, area_line,
    };
    uint64_t s = 4711;

    for (unsigned i = 0; i < 1024; i++) {
        shapes[i].area = kinds[row_random(&s) >> 20 & 3];
        shapes[i].a = row_random(&s) & 0xffff;
        shapes[i].b = row_random(&s) & 0xffff;
    }
}

static uint64_t run_virtual(unsigned long n)
{
    uint64_t sum = 0;

    for (unsigned long i = 0; i < n; i++) {
        const struct shape *s = &shapes[i & 1023];

        sum += s->area(s);
    }
    return sum;
}

/* A stack machine */

enum { PUSH, GET, SET, ADD, MUL, AND, XOR, LESS, JZ, JMP, HALT };

/*
 * i = 0; s = 1; while (i < n) { s = (s * 31 + i) & 0xffffff; if (s & 1) s ^= i; i += 1; }
 * Locals: 0 n, 1 i, 2 s.  The comments are where the line begins.
 */
static const int32_t program[] = {
    PUSH, 0, SET, 1, PUSH, 1, SET, 2,
    GET, 1, GET, 0, LESS, JZ, 49, /* 8 */
    GET, 2, PUSH, 31, MUL, GET, 1, ADD, PUSH, 0xffffff, AND, SET, 2, /* 15 */
    GET, 2, PUSH, 1, AND, JZ, 42, /* 28 */
    GET, 2, GET, 1, XOR, SET, 2, /* 35 */
    GET, 1, PUSH, 1, ADD, JMP, 50, /* 42 */
    HALT, /* 49 */
    SET, 1, JMP, 8, /* 50 */
};

static __attribute__((noinline)) int64_t vm_switch(const int32_t *code, int64_t n)
{
    int64_t stack[16], local[4] = {n}, *sp = stack;
    const int32_t *pc = code;

    for (;;) {
        switch (*pc++) {
        case PUSH: *sp++ = *pc++; break;
        case GET: *sp++ = local[*pc++]; break;
        case SET: local[*pc++] = *--sp; break;
        case ADD: sp--; sp[-1] += sp[0]; break;
        case MUL: sp--; sp[-1] *= sp[0]; break;
        case AND: sp--; sp[-1] &= sp[0]; break;
        case XOR: sp--; sp[-1] ^= sp[0]; break;
        case LESS: sp--; sp[-1] = sp[-1] < sp[0]; break;
        case JZ: pc = *--sp ? pc + 1 : code + *pc; break;
        case JMP: pc = code + *pc; break;
        default: return local[2];
        }
    }
}

static __attribute__((noinline)) int64_t vm_goto(const int32_t *code, int64_t n)
{
    static const void *const label[] = {
        &&push, &&get, &&set, &&add, &&mul, &&and, &&xor, &&less, &&jz, &&jmp, &&halt,
    };
    int64_t stack[16], local[4] = {n}, *sp = stack;
    const int32_t *pc = code;

#define NEXT goto *label[*pc++]
    NEXT;
push: *sp++ = *pc++; NEXT;
get: *sp++ = local[*pc++]; NEXT;
set: local[*pc++] = *--sp; NEXT;
add: sp--; sp[-1] += sp[0]; NEXT;
mul: sp--; sp[-1] *= sp[0]; NEXT;
and: sp--; sp[-1] &= sp[0]; NEXT;
xor: sp--; sp[-1] ^= sp[0]; NEXT;
less: sp--; sp[-1] = sp[-1] < sp[0]; NEXT;
jz: pc = *--sp ? pc + 1 : code + *pc; NEXT;
jmp: pc = code + *pc; NEXT;
halt: return local[2];
#undef NEXT
}

static uint64_t run_vm_switch(unsigned long n)
{
    return (uint64_t)vm_switch(program, (int64_t)n);
}

static uint64_t run_vm_goto(unsigned long n)
{
    return (uint64_t)vm_goto(program, (int64_t)n);
}

const struct row rows_call[] = {
    {"fib", 60, run_fib, NULL},
    {"virtual", 20000000, run_virtual, setup_shapes},
    {"vm-switch", 2000000, run_vm_switch, NULL},
    {"vm-goto", 2000000, run_vm_goto, NULL},
    {0},
};
