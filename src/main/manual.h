/*
 * Manual pages and completion from the tables, on stdout.
 */
#ifndef ARMLET_MAIN_MANUAL_H
#define ARMLET_MAIN_MANUAL_H

#include <stdbool.h>

/* The page armlet(1), or with a command's name armlet-NAME(1); false: there is no such command. */
bool manual_page(const char *name);
void manual_bash(void);
void manual_zsh(void);

#endif
