/*
 * A Debian arm64 root made by an ordinary user.  First stage, here: packages chosen and fetched by a private
 * apt and unpacked on the host.  Second stage, in a guest that has the tree as its root: the packages are
 * configured by their own scripts.
 *
 *     lab_debian_begin()  ->  run LAB_DEBIAN_SECOND_STAGE in a guest with work.tree as its root  ->
 * lab_debian_end()
 *
 * Until then everything is in PATH.making; a run that was interrupted is continued by the next one with the
 * same wishes.
 */
#ifndef ARMLET_LAB_DEBIAN_H
#define ARMLET_LAB_DEBIAN_H

#include <stdbool.h>

#include <glib.h>

#include "lab/rootfs.h"

struct lab_debian {
    const struct lab_root *root;          /* where, what is put on top; a directory or an image */
    const char *suite, *mirror, *keyring; /* NULL: bookworm, the host's or Debian's, Debian's */
    char *const *include;                 /* more packages; ends in NULL; or NULL */
    bool real;                            /* owners are set on the host itself, as a real export has them */
};

struct debian_work {
    char *folder, *tree, *log;
    unsigned packages; /* to be configured */
    unsigned included; /* to be installed by the guest's apt after that */
    char *image;       /* the guest's first disk; NULL: none */
    unsigned done;     /* that lab_debian_progress() has seen */
    bool continued;    /* what an earlier run has unpacked is used */
    int lock;
};

/* A line of shell for the guest; what it prints is for lab_debian_progress(). */
#define LAB_DEBIAN_SECOND_STAGE "eval \"$(cat /.armlet/second-stage)\""

bool lab_debian_begin(const struct lab_debian *what, struct debian_work *w, GError **err);
/* How far a line of the second stage's output says that it is: 0 to 100; negative when it says nothing of
 * that. */
double lab_debian_progress(struct debian_work *w, const char *line);
/* After the second stage: puts the root where it belongs. */
bool lab_debian_end(const struct lab_debian *what, struct debian_work *w, GError **err);
void lab_debian_clear(struct debian_work *w);

/* What its packages are to be, a line each, without fetching them; g_free() it. */
char *lab_debian_plan(const struct lab_debian *what, GError **err);

#endif
