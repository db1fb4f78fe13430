/*
 * Files that the user names to get something in them.
 */
#ifndef ARMLET_BASE_OUTFILE_H
#define ARMLET_BASE_OUTFILE_H

#include <stdbool.h>
#include <stddef.h>

#include <glib.h>

/*
 * Writes size bytes to path, which is made if it does not exist and emptied if it does.  Never by a new file put in its
 * place: the name may be a pipe's, a device's or a link's (/dev/stdout).  False: *err (G_FILE_ERROR) says what and why.
 */
bool outfile_write(const char *path, const void *data, size_t size, GError **err);

#endif
