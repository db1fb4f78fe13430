/*
 * Test results as they come, for `armlet run --ktap'.
 */
#ifndef ARMLET_MAIN_RESULTS_H
#define ARMLET_MAIN_RESULTS_H

#include <stdbool.h>
#include <stddef.h>

struct results;

struct results *results_new(void);
/* A piece of the output; prints a line for each test that has ended.  `opaque' is the struct results. */
void results_feed(void *opaque, const void *data, size_t len);
/* Prints the table and the sum, and writes JUnit XML to `junit' (NULL: not); true: all passed.  Frees r. */
bool results_end(struct results *r, const char *junit);

#endif
