/*
 * The tar archives inside Debian's packages, in memory.
 */
#ifndef ARMLET_LAB_DEBIAN_TAR_H
#define ARMLET_LAB_DEBIAN_TAR_H

#include <stdbool.h>
#include <stdint.h>

#include <glib.h>

struct tar_entry {
    char type;        /* '0' file, '1' hard link, '2' symbolic link, '3' '4' devices, '5' folder, '6' FIFO */
    const char *path; /* without "./" in front and "/" behind; "" is the top */
    const char *link; /* the target of a link; of a hard link like `path' */
    uint32_t mode, uid, gid;
    int64_t mtime;
    const uint8_t *data; /* within the archive */
    uint64_t size;
};

/* Calls `take' for each entry until it returns false.  Malformed archives are an error. */
bool tar_read(const void *archive, size_t size,
              bool (*take)(void *opaque, const struct tar_entry *e, GError **err), void *opaque,
              GError **err);

#endif
