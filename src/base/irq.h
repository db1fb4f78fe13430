/*
 * An interrupt wire: three fields, so that who drives it and who receives it know nothing of each other.
 * A zeroed irq_line is a wire that leads nowhere; setting it is harmless.
 */
#ifndef ARMLET_BASE_IRQ_H
#define ARMLET_BASE_IRQ_H

#include <stdbool.h>

struct irq_line {
    void (*set)(void *opaque, unsigned n, bool level); /* may be called from any thread */
    void *opaque;                                      /* the receiver */
    unsigned n;                                        /* the receiver's number of this input */
};

static inline void irq_set(const struct irq_line *line, bool level)
{
    if (line->set)
        line->set(line->opaque, line->n, level);
}

#endif
