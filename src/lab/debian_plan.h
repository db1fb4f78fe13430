/*
 * Which packages a Debian root is made of, and their files in the cache.
 */
#ifndef ARMLET_LAB_DEBIAN_PLAN_H
#define ARMLET_LAB_DEBIAN_PLAN_H

#include <stdbool.h>

#include <glib.h>

struct debian_package {
    char *name, *version, *file; /* of the .deb, without its folder */
    bool included;               /* there only because of `include' */
};

struct debian_plan {
    char *top;           /* the private apt's folder */
    char *sources;       /* for the guest's apt */
    GPtrArray *packages; /* struct debian_package *, in the order that apt would unpack them */
    GPtrArray *wanted;   /* char *: what apt was asked for */
};

/* With the cache's lock.  `include' may be NULL. */
struct debian_plan *debian_plan_new(const char *suite, const char *mirror, const char *keyring,
                                    char *const *include, GError **err);
void debian_plan_free(struct debian_plan *p);

/* Fetches what is missing; with the cache's lock. */
bool debian_plan_fetch(struct debian_plan *p, GError **err);

/* Where a package's file is then; g_free() it. */
char *debian_plan_file(const struct debian_plan *p, const struct debian_package *package);

/* As text: a line a package. */
char *debian_plan_text(const struct debian_plan *p);

/* An address as the guest reaches it: the host's own becomes 10.0.2.2; g_free() it. */
char *debian_guest_uri(const char *uri);

#endif
