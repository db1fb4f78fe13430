/*
 * EL1 without an operating system: jumps to where no code can be, ten thousand faults inside of a fault handler, code that
 * is written and run, alone and beside other code.  Prints a line for each on the PL011, and powers off.  x19: where to go
 * on after an exception; x20: ESR of the last; x21: counts exceptions.
 */
        .section .text.start, "ax"
        .global start
start:
        ldr     x0, =stack_top
        mov     sp, x0
        ldr     x0, =vectors
        msr     vbar_el1, x0
        isb

        .macro  try name, address
        adr     x0, 90f
        bl      print
        adr     x19, 91f
        ldr     x1, =\address
        blr     x1
        mov     x20, #0
91:     mov     x0, x20
        bl      hex
        mrs     x0, far_el1
        bl      hex
        bl      newline
        b       92f
90:     .asciz  "\name"
        .balign 4
92:
        .endm

        try     "uart", 0x09000000
        try     "gic", 0x08000000
        try     "hole", 0x0f000000
        try     "beyond", 0x3fffffffffc
        try     "misaligned", 0x40080002
        try     "above", 0xffff000000000000
        try     "flash", 0x00000000

        /* Every access of the handler's faults again, until it has had enough. */
        adr     x0, nested_name
        bl      print
        ldr     x0, =nested_vectors
        msr     vbar_el1, x0
        isb
        mov     x21, #0
        adr     x19, nested_done
        mov     x1, #0x0f000000
        ldr     x0, [x1]
nested_done:
        ldr     x0, =vectors
        msr     vbar_el1, x0
        isb
        mov     x0, x21
        bl      hex
        bl      newline

        /* mov w0, #i; ret, written and called 10000 times, with and without a flush of what was there. */
        adr     x0, rewritten_name
        bl      print
        mov     x22, #0
        mov     x23, #0
1:      ldr     x1, =scratch
        mov     w0, #0x52800000
        orr     w0, w0, w22, lsl #5
        ldr     w2, =0xd65f03c0
        stp     w0, w2, [x1]
        dc      cvau, x1
        dsb     ish
        ic      ivau, x1
        dsb     ish
        isb
        blr     x1
        cmp     w0, w22
        cinc    x23, x23, eq
        add     x22, x22, #1
        mov     x2, #10000
        cmp     x22, x2
        b.lo    1b
        mov     x0, x23
        bl      hex
        bl      newline

        /*
         * Code that shares a page, at 0 (mov w0, #i; b g), at 0x400 (g: add w0, w0, #j; ret) and at 0x440 (mov w0, #k; ret):
         * some of it is written anew in each turn, and invalidated, but the third is called before that; data beside it
         * are written without; every 64th turn everything is invalidated.
         */
        adr     x0, pieces_name
        bl      print
        mov     x22, #0
        mov     x23, #0
        ldr     x26, =0x9e3779b97f4a7c15
        ldr     x27, =pieces
        mov     w24, #0
        mov     w25, #0
        mov     w28, #0
        mov     w0, #0x52800000
        ldr     w1, =0x140000ff
        stp     w0, w1, [x27]
        mov     w0, #0x11000000
        ldr     w1, =0xd65f03c0
        add     x3, x27, #0x400
        stp     w0, w1, [x3]
        mov     w0, #0x52800000
        stp     w0, w1, [x3, #0x40]
        ic      iallu
        dsb     ish
        isb
1:      eor     x26, x26, x26, lsl #13
        eor     x26, x26, x26, lsr #7
        eor     x26, x26, x26, lsl #17
        str     x26, [x27, #0x800]
        tbz     x26, #20, 2f
        ubfx    w24, w26, #0, #12
        mov     w0, #0x52800000
        orr     w0, w0, w24, lsl #5
        str     w0, [x27]
2:      tbz     x26, #21, 3f
        ubfx    w25, w26, #4, #12
        mov     w0, #0x11000000
        orr     w0, w0, w25, lsl #10
        str     w0, [x27, #0x400]
3:      add     x0, x27, #0x440
        blr     x0
        cmp     w0, w28
        cinc    x23, x23, eq
        tbz     x26, #22, 4f
        ubfx    w28, w26, #8, #12
        mov     w0, #0x52800000
        orr     w0, w0, w28, lsl #5
        str     w0, [x27, #0x440]
4:      tst     x26, #0x700000
        b.eq    5f
        mov     x0, x27
        dc      cvau, x0
        ic      ivau, x0
        add     x0, x27, #0x400
        dc      cvau, x0
        ic      ivau, x0
        add     x0, x27, #0x440
        dc      cvau, x0
        ic      ivau, x0
5:      tst     x22, #63
        b.ne    6f
        ic      iallu
6:      dsb     ish
        isb
        blr     x27
        add     w1, w24, w25
        cmp     w0, w1
        cinc    x23, x23, eq
        add     x22, x22, #1
        mov     x2, #10000
        cmp     x22, x2
        b.lo    1b
        mov     x0, x23
        bl      hex
        bl      newline

        ldr     x0, =0x84000008 /* PSCI SYSTEM_OFF */
        hvc     #0
        b       .

        /* x0: text, then a space */
print:  mov     x2, #0x09000000
1:      ldrb    w1, [x0], #1
        cbz     w1, 2f
        str     w1, [x2]
        b       1b
2:      mov     w1, #' '
        str     w1, [x2]
        ret

        /* x0 in hexadecimal, then a space */
hex:    mov     x2, #0x09000000
        mov     x3, #60
1:      lsr     x1, x0, x3
        and     x1, x1, #15
        cmp     x1, #10
        add     x4, x1, #'0'
        add     x5, x1, #'a' - 10
        csel    x1, x4, x5, lo
        str     w1, [x2]
        subs    x3, x3, #4
        b.ge    1b
        mov     w1, #' '
        str     w1, [x2]
        ret

newline:
        mov     x2, #0x09000000
        mov     w1, #'\n'
        str     w1, [x2]
        ret

nested_name:    .asciz "nested"
rewritten_name: .asciz "rewritten"
pieces_name:    .asciz "pieces"

        .balign 2048
vectors:
        .rept   16
        .balign 128
        mrs     x20, esr_el1
        msr     elr_el1, x19
        eret
        .endr
        .balign 2048
nested_vectors:
        .rept   16
        .balign 128
        add     x21, x21, #1
        mov     x0, #10000
        cmp     x21, x0
        b.eq    1f
        mov     x1, #0x0f000000
        ldr     x0, [x1]
1:      br      x19
        .endr
        .ltorg

        .bss
        .balign 4096
scratch:
        .space  4096
pieces: .space  4096
        .space  4096
stack_top:
