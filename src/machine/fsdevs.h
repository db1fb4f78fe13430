/*
 * The directories of the host that a command line exports by 9P: -fsdev, and -virtfs, which brings its
 * device.
 *
 * Made before the devices and freed after them.  Main thread.
 */
#ifndef ARMLET_MACHINE_FSDEVS_H
#define ARMLET_MACHINE_FSDEVS_H

#include <glib.h>

#include "machine/config.h"
#include "virtio/9p_fs.h"

struct fsdevs;

/* Opens them all; NULL: err says which option is wrong. */
struct fsdevs *fsdevs_new(const struct config *config, GError **err);
void fsdevs_free(struct fsdevs *all);
/* The -fsdev of that id, which stays ours; NULL: err says that there is none. */
struct p9_fs *fsdevs_find(struct fsdevs *all, const char *id, GError **err);

/* -virtfs: splits it into what -fsdev and -device virtio-9p-pci would be. */
bool fsdevs_parse_virtfs(struct config *config, const char *arg, GError **err);

#endif
