/*
 * Words of QEMU's command line that more than one command makes.
 */
#ifndef ARMLET_MAIN_LINE_H
#define ARMLET_MAIN_LINE_H

#include <glib.h>
#include <stdbool.h>

#include "main/commands.h"

/* Adds copies; value may be NULL. */
void line_add(GPtrArray *line, const char *option, const char *value);

/* A directory of the host by 9p, with the tag "share". */
void line_add_share(GPtrArray *line, const char *directory, bool read_only);

/*
 * A directory of the host by NFS, and the name under which 10.0.2.2 has it: its own, if that can stand in a
 * kernel's command line.
 */
void line_add_export(GPtrArray *line, const char *directory);
const char *line_export_name(const char *directory);

/* A raw image as the first disk, /dev/vda. */
void line_add_disk(GPtrArray *line, const char *image);

/*
 * --root's value: a path, or the name of a root that armlet rootfs made.  Ends the program if there is none.
 * g_free() it.
 */
char *line_find_root(const struct command *c, const char *name);

#endif
