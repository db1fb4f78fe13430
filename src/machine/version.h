/*
 * The version, in our own words and in the form that QEMU's clients parse.
 */
#ifndef ARMLET_MACHINE_VERSION_H
#define ARMLET_MACHINE_VERSION_H

/* What clients take us for when we are called qemu-system-aarch64. */
#define QEMU_SPELLING_VERSION "10.0.0"

/* One line on stdout, by the name that the program was called by. */
void version_print(void);

#endif
