/*
 * The kernel's log as it comes out of a console: what in it means that the kernel is in trouble.
 *
 * Pure: bytes in, events out.  Threading: the caller's.
 */
#ifndef ARMLET_LAB_KLOG_H
#define ARMLET_LAB_KLOG_H

#include <stddef.h>
#include <stdint.h>

#include <glib.h>

enum klog_event {
    KLOG_NONE,
    KLOG_PANIC,       /* "Kernel panic - not syncing" */
    KLOG_OOPS,        /* "Internal error", "kernel BUG at": a kernel thread or a task died */
    KLOG_SOFT_LOCKUP, /* the watchdog: a CPU does not schedule */
    KLOG_RCU_STALL,   /* a CPU does not pass a quiescent state */
    KLOG_HUNG_TASK,   /* a task is blocked for minutes */
    KLOG_OOM_KILL,    /* a process was killed for want of memory */
    KLOG_AGENT,       /* not the kernel: our own agent says why it cannot go on */
};

/* What `event' is called in messages: "panic", "oops", ... */
const char *klog_event_name(enum klog_event event);

struct klog;

/*
 * `seen' is called for each event with the line's text without time stamp, and again with KLOG_NONE where the
 * report of a panic or an oops ends.
 */
struct klog *klog_new(void (*seen)(void *opaque, enum klog_event event, const char *text), void *opaque);
void klog_free(struct klog *k);

/* Any bytes; lines may come in pieces, and of long ones the first 1,000 bytes count. */
void klog_feed(struct klog *k, const void *data, size_t len);

/* An unfinished line counts as one. */
void klog_end(struct klog *k);

/*
 * The report of the first event: its line, up to 8 lines before and up to 120 after it, each ending in a
 * newline; "" when there was none.  Owned by k.
 */
const char *klog_report(const struct klog *k);

/* The last lines, at most 20, whatever they are.  g_free() it. */
char *klog_tail(const struct klog *k);

#endif
