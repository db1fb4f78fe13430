/*
 * The cache folder: paths, the lock, folders that appear whole or not at all, and programs run for us.
 */
#ifndef ARMLET_LAB_CACHE_H
#define ARMLET_LAB_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include <glib.h>

/* A path in the cache made of `first' and further parts, ending in NULL; nothing is created.  g_free() it. */
char *cache_path(const char *first, ...) G_GNUC_NULL_TERMINATED;

/* Take the lock that every writer of the cache holds; waits, and says so.  Returns a descriptor or -1. */
int cache_lock(GError **err);
void cache_unlock(int fd);

/*
 * Something of the cache: find() gives it (to be freed; NULL: it is not there), make() puts it there.
 * cache_get() gives what is there, or else makes it, with the lock.  With `anew' it is made in any case.
 */
struct cache_item {
    char *(*find)(const void *what);
    bool (*make)(const void *what, GError **err);
    const void *what; /* argument of both */
    bool anew;
    const char *lost; /* the error when make() succeeds and find() finds nothing */
};
char *cache_get(const struct cache_item *item, GError **err);

/*
 * The path of the newest thing of the cache's `folder' whose name begins with `prefix', by its version; NULL:
 * none.
 */
char *cache_newest(const char *folder, const char *prefix);

/* A new empty folder of the cache to build in, lock held; cache_publish() moves it to `path' in one step. */
char *cache_new_folder(GError **err);
bool cache_publish(const char *folder, const char *path, GError **err);

/* Delete a tree; missing is fine.  Best effort: what is left is deleted by a later cache_new_folder(). */
void cache_remove(const char *path);

/* mkdir -p. */
bool cache_make_folder(const char *path, GError **err);

/* Replace the file `path' by these bytes, in one step. */
bool cache_write_file(const char *path, const void *data, size_t size, GError **err);

/* Fails with LAB_ERROR_SPACE if the cache's file system has less than `bytes' free. */
bool cache_check_space(uint64_t bytes, GError **err);

/*
 * Run a program and wait.  `output' (may be NULL) gets what it wrote to stdout; stderr goes there too with
 * `merge', and into the error's message otherwise.  `percent' (may be NULL) is called for apt's status lines,
 * which are read from descriptor 3.  The program dies with us.
 */
struct cache_run {
    const char *const *argv;
    bool merge;
    bool group; /* so do the programs that it starts */
    GByteArray *output;
    void (*percent)(void *opaque, double percent);
    void *opaque;
};
bool cache_run(const struct cache_run *run, GError **err);

#endif
