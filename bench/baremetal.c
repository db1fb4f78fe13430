/*
 * What the machine's own operations cost, without a kernel: exceptions, address spaces, TLB maintenance,
 * table walks, device registers, interrupts.  Runs on the virt board (GICv2, PL011, PSCI by HVC) with one
 * vCPU or two, prints "bm NAME VALUE UNIT" lines on the PL011 and switches the machine off.
 *
 * The interrupt handler uses x16 and x17: this file is built with both reserved.
 *
 * Memory: L1 maps devices and the first GiB of RAM by blocks, equal in both address spaces and global; the
 * window at 2 GiB is pages of 4 KiB, not global, onto other memory in each space.
 */
#include <stdbool.h>
#include <stdint.h>

#define UART 0x09000000ul
#define GICD 0x08000000ul
#define GICC 0x08010000ul

enum {
    PAGE = 4096,
    WINDOW_PAGES = 8192, /* 32 MiB in 16 tables */
    SPACE_PAGES = 16,    /* what a switch of address spaces touches */
    TIMER_PPI = 27,
    ROUNDS = 3,
};
static const uintptr_t window = 0x80000000, el0_va = 0x80000000 + WINDOW_PAGES * (uintptr_t)PAGE;

#define ATTR_DEVICE 0ul
#define ATTR_NORMAL (1ul << 2)
#define AF          (1ul << 10)
#define ISH         (3ul << 8)
#define NG          (1ul << 11)
#define AP_RO_EL0   (3ul << 6)
#define PXN         (1ul << 53)
#define UXN_PXN     (3ul << 53)

struct space {
    uint64_t l1[512], l2[512], l3[WINDOW_PAGES / 512 + 1][512];
};

static struct space spaces[2] __attribute__((aligned(PAGE)));
static uint8_t memory[2][WINDOW_PAGES * PAGE] __attribute__((aligned(PAGE)));
static uint64_t ttbr[2];

extern char vectors[], el0_loop[], start_secondary[];
volatile uint64_t irq_time;

void loop_svc(unsigned long n);
void loop_svc_el0(unsigned long n, unsigned long code);
void loop_mips(unsigned long n, void *line);
void setup_mmu(void);
void main(void);
void secondary(void);
void die(uint64_t esr, uint64_t elr, uint64_t far);

#define READ(reg) \
    ({ \
        uint64_t value_; \
        __asm__ volatile("mrs %0, " #reg : "=r"(value_) : : "memory"); \
        value_; \
    })
#define WRITE(reg, value) __asm__ volatile("msr " #reg ", %0" : : "r"((uint64_t)(value)) : "memory")
#define ISB() __asm__ volatile("isb" : : : "memory")
#define DSB() __asm__ volatile("dsb ish" : : : "memory")
#define WFI() __asm__ volatile("wfi" : : : "memory")

static uint32_t io_read(uintptr_t at) { return *(volatile uint32_t *)at; }
static void io_write(uintptr_t at, uint32_t v) { *(volatile uint32_t *)at = v; }

/* printing */

static void put(char c)
{
    while (io_read(UART + 0x18) & 0x20)
        ;
    io_write(UART, (uint8_t)c);
}

static void put_text(const char *s)
{
    while (*s)
        put(*s++);
}

static void put_number(uint64_t n, unsigned base)
{
    char digits[24];
    unsigned i = 0;

    do
        digits[i++] = "0123456789abcdef"[n % base];
    while (n /= base);
    while (i)
        put(digits[--i]);
}

static void report(const char *name, uint64_t tenths, const char *unit)
{
    put_text("bm ");
    put_text(name);
    put(' ');
    put_number(tenths / 10, 10);
    put('.');
    put_number(tenths % 10, 10);
    put(' ');
    put_text(unit);
    put_text("\r\n");
}

static uint64_t psci(uint64_t function, uint64_t a, uint64_t b, uint64_t c)
{
    register uint64_t x0 __asm__("x0") = function, x1 __asm__("x1") = a;
    register uint64_t x2 __asm__("x2") = b, x3 __asm__("x3") = c;

    __asm__ volatile("hvc #0" : "+r"(x0), "+r"(x1), "+r"(x2), "+r"(x3) : : "memory");
    return x0;
}

static void power_off(void)
{
    psci(0x84000008, 0, 0, 0);
}

void die(uint64_t esr, uint64_t elr, uint64_t far)
{
    const uint64_t values[] = {esr, elr, far};

    put_text("bm-fail unexpected exception");
    for (unsigned i = 0; i < 3; i++) {
        put(' ');
        put_number(values[i], 16);
    }
    put_text("\r\n");
    power_off();
}

/* address spaces */

static void make_space(struct space *s, uint8_t *to)
{
    uint64_t page = ATTR_NORMAL | AF | ISH | NG | UXN_PXN | 3;

    s->l1[0] = ATTR_DEVICE | AF | UXN_PXN | 1;
    s->l1[1] = 0x40000000 | ATTR_NORMAL | AF | ISH | 1;
    s->l1[2] = (uintptr_t)s->l2 | 3;
    for (unsigned t = 0; t <= WINDOW_PAGES / 512; t++)
        s->l2[t] = (uintptr_t)s->l3[t] | 3;
    for (unsigned i = 0; i < WINDOW_PAGES; i++)
        s->l3[i / 512][i % 512] = (uintptr_t)(to + (uint64_t)i * PAGE) | page;
    page = ATTR_NORMAL | AF | ISH | NG | AP_RO_EL0 | PXN | 3;
    s->l3[WINDOW_PAGES / 512][0] = (uintptr_t)el0_loop | page;
}

void setup_mmu(void)
{
    if (!ttbr[0]) {
        for (unsigned i = 0; i < 2; i++)
            make_space(&spaces[i], memory[i]);
        ttbr[1] = (uintptr_t)&spaces[1] | 2ul << 48;
        ttbr[0] = (uintptr_t)&spaces[0] | 1ul << 48;
    }
    WRITE(vbar_el1, (uintptr_t)vectors);
    WRITE(mair_el1, 0xff00);
    /* T0SZ 25, write-back, inner shareable, 4 KiB; no TTBR1; 40 address bits; ASIDs of 8 bits */
    WRITE(tcr_el1, 25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 2ul << 32);
    WRITE(ttbr0_el1, ttbr[0]);
    WRITE(cpacr_el1, 3 << 20);
    ISB();
    __asm__ volatile("tlbi vmalle1; dsb ish; isb" : : : "memory");
    WRITE(sctlr_el1, READ(sctlr_el1) | 1 | 1 << 2 | 1 << 12);
    ISB();
}

/* measuring */

/* Counter ticks in tenths of a nanosecond; without overflow for frequencies up to 1.8 GHz. */
static uint64_t tenths(uint64_t ticks)
{
    uint64_t hz = READ(cntfrq_el0);

    return ticks / hz * 10000000000ul + ticks % hz * 10000000000ul / hz;
}

/* Reports the least of some rounds, a turn. */
static void measure(const char *name, void (*work)(unsigned long), unsigned long n, unsigned long turns)
{
    uint64_t best = ~0ul;

    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t t = READ(cntvct_el0);

        work(n);
        t = READ(cntvct_el0) - t;
        if (t < best)
            best = t;
    }
    report(name, tenths(best) / turns, "ns");
}

static void work_svc_el0(unsigned long n) { loop_svc_el0(n, el0_va); }

static void touch_pages(unsigned pages)
{
    for (unsigned i = 0; i < pages; i++)
        (void)*(volatile uint64_t *)(window + (uintptr_t)i * (PAGE + 64));
}

static void work_switch(unsigned long n)
{
    while (n--) {
        WRITE(ttbr0_el1, ttbr[n & 1]);
        ISB();
    }
    WRITE(ttbr0_el1, ttbr[0]);
    ISB();
}

static void work_switch_touch(unsigned long n)
{
    while (n--) {
        WRITE(ttbr0_el1, ttbr[n & 1]);
        ISB();
        touch_pages(SPACE_PAGES);
    }
    WRITE(ttbr0_el1, ttbr[0]);
    ISB();
}

static void work_touch(unsigned long n)
{
    while (n--)
        touch_pages(SPACE_PAGES);
}

static void work_tlbi(unsigned long n)
{
    while (n--) {
        uintptr_t va = window + (n & 15) * PAGE;

        __asm__ volatile("tlbi vae1is, %0; dsb ish; isb" : : "r"(va >> 12 | 1ul << 48) : "memory");
        (void)*(volatile uint64_t *)va;
    }
}

static void work_tlbi_all(unsigned long n)
{
    while (n--) {
        __asm__ volatile("tlbi vmalle1is; dsb ish; isb" : : : "memory");
        touch_pages(SPACE_PAGES);
    }
}

/* More pages than any TLB holds, a new one with each access. */
static void work_walk(unsigned long n)
{
    for (unsigned long i = 0; i < n; i++)
        (void)*(volatile uint64_t *)(window + i * 4099 % WINDOW_PAGES * PAGE + i % 64 * 64);
}

static void work_count(unsigned long n)
{
    while (n--)
        (void)READ(cntvct_el0);
}

static void work_io(unsigned long n)
{
    while (n--)
        (void)io_read(UART + 0x18);
}

static void work_daif(unsigned long n)
{
    while (n--)
        __asm__ volatile("msr daifset, #2; mrs x9, daif; msr daif, x9" : : : "x9", "memory");
}

static void work_code(unsigned long n)
{
    static uint32_t code[16] __attribute__((aligned(64)));
    uintptr_t at = (uintptr_t)code;

    while (n--) {
        code[0] = 0xd2800000 | (n & 0xffff) << 5; /* mov x0, #n */
        code[1] = 0xd65f03c0;                     /* ret */
        __asm__ volatile("dc cvau, %0; dsb ish; ic ivau, %0; dsb ish; isb" : : "r"(at) : "memory");
        if (((uint64_t (*)(void))at)() != (n & 0xffff)) {
            put_text("bm-fail stale code\r\n");
            return;
        }
    }
}

/* Millions of instructions a second, in tenths. */
static void measure_mips(void)
{
    static uint64_t line[2];
    const unsigned long n = 20000000;
    uint64_t t = READ(cntvct_el0);

    loop_mips(n, line);
    t = READ(cntvct_el0) - t;
    report("mips", n * 10 * 100000 / tenths(t), "M/s");
}

/* interrupts */

static void setup_gic(void)
{
    io_write(GICD, 1);
    io_write(GICD + 0x100, 1u << TIMER_PPI | 1);
    io_write(GICC + 4, 0xf0);
    io_write(GICC, 1);
}

/* Into the ordered values[0..n). */
static void insert(uint64_t *values, unsigned n, uint64_t v)
{
    for (; n && values[n - 1] > v; n--)
        values[n] = values[n - 1];
    values[n] = v;
}

/* How late a timer of 1 ms is, the median: seen after WFI, or by the handler out of a busy loop. */
static void measure_timer(const char *name, bool busy)
{
    enum { TIMES = 200 };
    uint64_t late[TIMES];

    for (unsigned i = 0; i < TIMES; i++) {
        uint64_t due = READ(cntvct_el0) + READ(cntfrq_el0) / 1000;

        irq_time = 0;
        WRITE(cntv_cval_el0, due);
        WRITE(cntv_ctl_el0, 1);
        ISB();
        if (busy) {
            __asm__ volatile("msr daifclr, #2" : : : "memory");
            while (!irq_time)
                ;
            __asm__ volatile("msr daifset, #2" : : : "memory");
            insert(late, i, irq_time - due);
        } else {
            while (READ(cntvct_el0) < due)
                WFI();
            insert(late, i, READ(cntvct_el0) - due);
            __asm__ volatile("msr daifclr, #2; isb; msr daifset, #2" : : : "memory");
        }
    }
    report(name, tenths(late[TIMES / 2]), "ns");
}

/* two vCPUs */

static volatile uint64_t ball, online;

static void send(unsigned cpu)
{
    DSB();
    io_write(GICD + 0xf00, 1u << (16 + cpu));
}

/* Take the pending SGI, asleep until there is one. */
static void receive(void)
{
    for (;;) {
        uint32_t iar = io_read(GICC + 0xc);

        if ((iar & 0x3ff) < 16) {
            io_write(GICC + 0x10, iar);
            return;
        }
        WFI();
    }
}

enum { SPINS = 100000, IPIS = 5000 };

void secondary(void)
{
    setup_gic();
    online = 1;
    for (uint64_t i = 0; i < SPINS; i++) {
        while (ball != 2 * i + 1)
            ;
        ball = 2 * i + 2;
    }
    for (;;) {
        receive();
        send(0);
    }
}

static void work_spin(void)
{
    for (uint64_t i = 0; i < SPINS; i++) {
        ball = 2 * i + 1;
        while (ball != 2 * i + 2)
            ;
    }
}

static void work_ipi(void)
{
    for (unsigned i = 0; i < IPIS; i++) {
        send(1);
        receive();
    }
}

static void measure_once(const char *name, void (*work)(void), unsigned long turns)
{
    uint64_t t = READ(cntvct_el0);

    work();
    t = READ(cntvct_el0) - t;
    report(name, tenths(t) / turns, "ns");
}

static void measure_pair(void)
{
    if (psci(0xc4000003, 1, (uintptr_t)start_secondary, 0))
        return; /* one vCPU */
    while (!online)
        ;
    measure_once("ball-one-way", work_spin, 2 * SPINS);
    measure_once("ipi-one-way", work_ipi, 2 * IPIS);
}

void main(void)
{
    io_write(UART + 0x30, 0x301);
    setup_gic();
    measure_mips();
    measure("svc-eret-el1", loop_svc, 300000, 300000);
    measure("svc-eret-el0", work_svc_el0, 300000, 300000);
    measure("ttbr-switch", work_switch, 100000, 100000);
    measure("touch-16", work_touch, 100000, 100000);
    measure("ttbr-switch-touch-16", work_switch_touch, 50000, 50000);
    measure("tlbi-va-reload", work_tlbi, 200000, 200000);
    measure("tlbi-all-touch-16", work_tlbi_all, 20000, 20000);
    measure("walk", work_walk, 1000000, 1000000);
    measure("cntvct", work_count, 1000000, 1000000);
    measure("mmio-read", work_io, 300000, 300000);
    measure("daif", work_daif, 1000000, 1000000);
    measure("code-change", work_code, 20000, 20000);
    measure_timer("timer-late-wfi", false);
    measure_timer("timer-late-busy", true);
    measure_pair();
    put_text("bm-end\r\n");
    power_off();
    for (;;)
        WFI();
}
