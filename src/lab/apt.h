/*
 * A private apt: Debian arm64 packages fetched and checked by the host's apt-get, in folders of our own, without
 * privileges and without touching the host's packages.
 */
#ifndef ARMLET_LAB_APT_H
#define ARMLET_LAB_APT_H

#include <stdbool.h>
#include <stdint.h>

#include <glib.h>

struct apt_package {
    char *name;
    char *version;
    uint64_t size;      /* of the .deb, bytes */
    uint64_t installed; /* unpacked, bytes */
    GPtrArray *depends; /* names of the packages and alternatives it depends on: char *, owned */
    GPtrArray *exact;   /* for each of these, the one version that will do, or "" */
};
void apt_package_clear(struct apt_package *p);

struct progress;

/* Debian's archive keys. */
#define APT_KEYRING "/usr/share/keyrings/debian-archive-keyring.gpg"

/* The mirrors that the host has for the suite, or else Debian's; g_free() them. */
void apt_host_mirrors(const char *suite, char **debian, char **security);

/* All that follow need the cache's lock. */

/* A private state in the folder `top', with this sources.list and nothing installed. */
bool apt_configure(const char *top, const char *sources, GError **err);

/* Its package lists, fetched if they are old, or in any case with `refresh'. */
bool apt_update(const char *top, bool refresh, GError **err);

/*
 * Run apt-get or apt-cache on it; `args' ends in NULL.  `output' and `progress' (of a download: with
 * -o APT::Status-Fd=3) may be NULL.
 */
bool apt_run(const char *top, const char *program, const char *const *args, GByteArray *output,
             struct progress *progress, GError **err);

/* Make the private configuration; fetch the package lists if they are old, or in any case with `refresh'. */
bool apt_prepare(bool refresh, GError **err);

/* The newest version of package `name' whose version begins with `prefix' ("" for any). */
bool apt_find(const char *name, const char *prefix, struct apt_package *out, GError **err);

/* Fetch a package and unpack it into the folder `into'.  An interrupted download goes on where it stopped. */
bool apt_unpack(const struct apt_package *p, const char *into, GError **err);

/* The sources list made of the host's: Debian's mirrors in `texts' (NULL-ended contents of its lists).  For tests. */
char *apt_make_sources(char **texts);

#endif
