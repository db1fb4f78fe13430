/*
 * dpkg's database of a root whose packages were unpacked by us: what dpkg would have written after unpacking
 * them.
 */
#ifndef ARMLET_LAB_DEBIAN_DPKG_H
#define ARMLET_LAB_DEBIAN_DPKG_H

#include <stdbool.h>
#include <stddef.h>

#include <glib.h>

#include "lab/debian_tar.h"
#include "lab/debian_tree.h"

struct debian_dpkg *debian_dpkg_new(void);
void debian_dpkg_free(struct debian_dpkg *d);

/* A package begins, whose control files are in this tar archive (which must stay until the end) ... */
bool debian_dpkg_begin(struct debian_dpkg *d, const void *control, size_t size, GError **err);
/* ... this is of it ... */
void debian_dpkg_note(struct debian_dpkg *d, const struct tar_entry *e);
/* ... and its files are in the tree. */
bool debian_dpkg_end(struct debian_dpkg *d, struct debian_tree *t, GError **err);

bool debian_dpkg_write(struct debian_dpkg *d, struct debian_tree *t, GError **err);

#endif
