/*
 * Where will the kernel run?  Before it has moved itself (KASLR) nothing in memory tells, yet a debugger that connects
 * at reset wants its symbols to be right from then on.  So a scout goes ahead: a child process with a copy of the
 * machine's memory runs the reference interpreter from the present state until the kernel is in its place, and tells.
 * The seed lies in the device tree, so that the machine itself will come to the same place.
 */
#ifndef ARMLET_DEBUG_SCOUT_H
#define ARMLET_DEBUG_SCOUT_H

#include <stdbool.h>
#include <stdint.h>

struct cluster;
struct kernel;
struct scout;

/* The cluster is paused.  NULL: there is no kernel that has still to move, or the host refuses a process. */
struct scout *scout_send(struct cluster *cluster, struct kernel *kernel);
/* Waits for it, for some seconds at most; false: it has not come to anything.  Main thread. */
bool scout_result(struct scout *s, uint64_t *text_va);
void scout_free(struct scout *s);

#endif
