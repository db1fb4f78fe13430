/*
 * The monitor on a character device: commands as text with a line editor, or QMP (JSON).  Main thread.
 */
#ifndef ARMLET_DEBUG_MONITOR_H
#define ARMLET_DEBUG_MONITOR_H

#include "base/chardev.h"
#include "debug/control.h"

struct monitor;
struct qmp;

/* chr and control stay the caller's and outlive the result. */
struct monitor *monitor_new(struct control *control, struct chardev *chr);
void monitor_free(struct monitor *m);

/* pretty: indented answers (-mon pretty=on). */
struct qmp *qmp_new(struct control *control, struct chardev *chr, bool pretty);
void qmp_free(struct qmp *q);

#endif
