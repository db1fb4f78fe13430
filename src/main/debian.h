/*
 * armlet rootfs make debian.
 */
#ifndef ARMLET_MAIN_DEBIAN_H
#define ARMLET_MAIN_DEBIAN_H

#include <glib.h>
#include <stdbool.h>

#include "lab/rootfs.h"

/* As on the command line; NULL: not given. */
struct debian_wishes {
    const char *suite, *mirror, *keyring;
    GPtrArray *include; /* char *, each with commas between names */
    bool show;
    const char *series; /* of the kernel that the second stage runs in */
};

/* Makes it, or ends the program with a line that says why not; returns the exit status. */
int make_debian(const struct lab_root *root, const struct debian_wishes *w);

#endif
