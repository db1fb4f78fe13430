/*
 * Start of both vCPUs, the exception vectors, and the loops that must be exactly these instructions.
 *
 * The vectors save nothing that their callers do not expect to lose: what is measured is the exception.
 */
        .section .text.start, "ax"
        .globl  start
start:
        ldr     x1, =stack0
        mov     sp, x1
        bl      setup_mmu
        bl      main
halt:   wfi
        b       halt

        .globl  start_secondary
start_secondary:
        ldr     x1, =stack1
        mov     sp, x1
        bl      setup_mmu
        bl      secondary
        b       halt

        .text
        .balign 2048
        .globl  vectors
vectors:
        .rept   4                       /* current EL with SP_EL0 */
        b       unexpected
        .balign 128
        .endr

        /* current EL, synchronous: the SVC loop */
        eret
        .balign 128
        /* IRQ: note the time first, then acknowledge */
        b       irq
        .balign 128
        b       unexpected
        .balign 128
        b       unexpected
        .balign 128

        /* EL0, synchronous: SVC 0 goes back, SVC 1 ends the loop */
        mrs     x9, esr_el1
        tbnz    w9, #0, leave_el0
        eret
        .balign 128
        b       unexpected
        .balign 128
        b       unexpected
        .balign 128
        b       unexpected
        .balign 128

        .rept   4
        b       unexpected
        .balign 128
        .endr

irq:
        mrs     x16, cntvct_el0
        ldr     x17, =irq_time
        str     x16, [x17]
        msr     cntv_ctl_el0, xzr
        ldr     x17, =0x08010000        /* GICC: IAR, EOIR */
        ldr     w16, [x17, #0xc]
        str     w16, [x17, #0x10]
        eret

leave_el0:
        mrs     x9, spsr_el1
        mov     x9, #0x3c5              /* EL1h, all masked */
        msr     spsr_el1, x9
        msr     elr_el1, x19
        eret

unexpected:
        mrs     x0, esr_el1
        mrs     x1, elr_el1
        mrs     x2, far_el1
        b       die

/* void loop_svc(unsigned long n): from EL1 */
        .globl  loop_svc
loop_svc:
        svc     #0
        subs    x0, x0, #1
        b.ne    loop_svc
        ret

/* void loop_svc_el0(unsigned long n, unsigned long code): from EL0, whose code is at `code' */
        .globl  loop_svc_el0
loop_svc_el0:
        stp     x19, x30, [sp, #-16]!
        adr     x19, 1f
        mov     x9, #0x3c0              /* EL0, all masked */
        msr     spsr_el1, x9
        msr     elr_el1, x1
        eret
1:      ldp     x19, x30, [sp], #16
        ret

        .section .el0, "ax"
        .globl  el0_loop
el0_loop:
        svc     #0
        subs    x0, x0, #1
        b.ne    el0_loop
        svc     #1

        .text
/* void loop_mips(unsigned long n, void *line): ten instructions a round, as compilers mix them */
        .globl  loop_mips
        .balign 64
loop_mips:
        mov     x2, #0
        mov     x3, #1
1:      ldr     x4, [x1]
        add     x2, x2, x4
        eor     x3, x3, x2, lsl #7
        and     x5, x3, #0xffff
        lsr     x6, x2, #3
        cmp     x5, x6
        csel    x4, x5, x6, lo
        str     x4, [x1, #8]
        subs    x0, x0, #1
        b.ne    1b
        ret

        .bss
        .balign 16
        .skip   16384
stack0: .skip   16384
stack1:
