/*
 * A Debian root that is being filled on the host: files with the owners and modes that their packages give
 * them, and dpkg's database about them.
 */
#ifndef ARMLET_LAB_DEBIAN_TREE_H
#define ARMLET_LAB_DEBIAN_TREE_H

#include <stdbool.h>
#include <stddef.h>

#include <glib.h>

struct debian_tree;

/* real: owners and modes are set on the host itself, which needs privileges; else as an export of
 * NFS_IDS_MAPPED has them. */
struct debian_tree *debian_tree_new(const char *top, bool real);
void debian_tree_free(struct debian_tree *t);

/* A file of the guest's root, replaced if it is there; folders are made. */
bool debian_tree_put(struct debian_tree *t, const char *path, unsigned mode, const void *data, size_t size,
                     GError **err);
bool debian_tree_put_text(struct debian_tree *t, const char *path, unsigned mode, const char *text,
                          GError **err);

/* Where a path of the guest's is on the host, the links of folders followed within the root, which are made
 * if need be. */
char *debian_tree_path(struct debian_tree *t, const char *path, GError **err);

/* Unpacks a package, and notes it for the database. */
bool debian_tree_unpack(struct debian_tree *t, const char *deb, GError **err);

/* Writes the database: all that was unpacked is there, and is to be configured. */
bool debian_tree_finish(struct debian_tree *t, GError **err);

#endif
