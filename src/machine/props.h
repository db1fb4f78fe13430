/*
 * The `key=value,key=value' arguments of QEMU's option grammar.
 *
 * `_' equals `-' in names; `,,' is a comma in a value; a bare word is the implied first key's value when it stands
 * first and the option has one, else a true boolean (`nofoo' is foo=off).  Every property must be asked for by someone:
 * props_finish() reports the first that nobody knew, with the nearest name that was asked for.
 */
#ifndef ARMLET_MACHINE_PROPS_H
#define ARMLET_MACHINE_PROPS_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#define OPTIONS_ERROR (options_error_quark())
GQuark options_error_quark(void);
enum options_error { OPTIONS_ERROR_BAD };
/* Sets *err to what is wrong with what the user wrote; false, for the caller to return. */
bool options_wrong(GError **err, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

struct props;

/* implied: the key of a bare first word, or NULL.  Never fails: errors come from the getters. */
struct props *props_new(const char *text, const char *implied);
void props_free(struct props *p);
/* Adds `other's properties behind p's own, so that the later ones win: repeated -machine. */
void props_merge(struct props *p, const char *text, const char *implied);

/* Adds key=value in front of p's own, so that it counts only when p has no such property: -global. */
void props_default(struct props *p, const char *key, const char *value);

/* The last value of key (p keeps it), or NULL when absent. */
const char *props_get(struct props *p, const char *key);
/* The next value of a key that may be given several times; *at begins as 0.  NULL: no more. */
const char *props_next(struct props *p, const char *key, unsigned *at);
/* on, off, yes, no, true, false, y, n. */
bool props_bool(struct props *p, const char *key, bool fallback, bool *value, GError **err);
bool props_number(struct props *p, const char *key, uint64_t fallback, uint64_t *value, GError **err);
/* The properties in order, for people to look at. */
void props_each(const struct props *p, void (*fn)(void *arg, const char *key, const char *value), void *arg);
/* Marks names as known without a use for them here: properties that have no effect on this machine. */
void props_ignore(struct props *p, const char *const *keys);
/* false: a property that nobody asked for; what names the option: "-device virtio-blk-device". */
bool props_finish(struct props *p, const char *what, GError **err);

/* A size with an optional suffix K, M, G, T (or B); a bare number is in `unit' bytes. */
bool parse_size(const char *text, uint64_t unit, uint64_t *bytes);
bool parse_bool(const char *text, bool *value);
/* The nearest of names (NULL-terminated) to word, or NULL when none is near. */
const char *suggest(const char *word, const char *const *names);

#endif
