/*
 * The table of fids.  A fid that is clunked while a request uses it goes when that has ended.
 *
 * Threading: any.
 */
#include "virtio/9p_fid.h"

#include <errno.h>
#include <unistd.h>

enum { MAX_FIDS = 1 << 20 };

static gpointer key_of(uint32_t number)
{
    return GSIZE_TO_POINTER((gsize)number);
}

void p9_fids_init(struct p9_fids *f, struct p9_fs *fs)
{
    f->fs = fs;
    g_mutex_init(&f->lock);
    f->table = g_hash_table_new(NULL, NULL);
}

void p9_fids_clear(struct p9_fids *f)
{
    GHashTable *old;
    GHashTableIter i;
    gpointer fid;

    g_mutex_lock(&f->lock);
    old = f->table;
    f->table = g_hash_table_new(NULL, NULL);
    g_mutex_unlock(&f->lock);
    g_hash_table_iter_init(&i, old);
    while (g_hash_table_iter_next(&i, NULL, &fid))
        p9_fid_unref(fid);
    g_hash_table_destroy(old);
}

void p9_fids_destroy(struct p9_fids *f)
{
    p9_fids_clear(f);
    g_hash_table_destroy(f->table);
    g_mutex_clear(&f->lock);
}

unsigned p9_fids_count(struct p9_fids *f)
{
    unsigned n;

    g_mutex_lock(&f->lock);
    n = g_hash_table_size(f->table);
    g_mutex_unlock(&f->lock);
    return n;
}

struct p9_fid *p9_fid_new(struct p9_fs *fs, struct p9_node *node, uint32_t uid)
{
    struct p9_fid *fid = g_new0(struct p9_fid, 1);

    fid->refs = 1;
    fid->fs = fs;
    fid->uid = uid;
    fid->node = node;
    fid->fd = -1;
    g_mutex_init(&fid->lock);
    return fid;
}

void p9_fid_unref(struct p9_fid *fid)
{
    if (!g_atomic_int_dec_and_test(&fid->refs))
        return;
    if (fid->fd >= 0) {
        close(fid->fd);
        p9_fs_put_file(fid->fs);
    }
    p9_node_unref(fid->node);
    g_mutex_clear(&fid->lock);
    g_free(fid->value);
    g_free(fid->name);
    g_free(fid);
}

int p9_fids_add(struct p9_fids *f, uint32_t number, struct p9_fid *fid)
{
    int r = 0;

    g_mutex_lock(&f->lock);
    if (g_hash_table_contains(f->table, key_of(number)))
        r = -EINVAL;
    else if (g_hash_table_size(f->table) >= MAX_FIDS)
        r = -ENFILE;
    else
        g_hash_table_insert(f->table, key_of(number), fid);
    g_mutex_unlock(&f->lock);
    if (r < 0)
        p9_fid_unref(fid);
    return r;
}

struct p9_fid *p9_fids_find(struct p9_fids *f, uint32_t number)
{
    struct p9_fid *fid;

    g_mutex_lock(&f->lock);
    fid = g_hash_table_lookup(f->table, key_of(number));
    if (fid)
        g_atomic_int_inc(&fid->refs);
    g_mutex_unlock(&f->lock);
    return fid;
}

struct p9_fid *p9_fids_take(struct p9_fids *f, uint32_t number)
{
    gpointer fid = NULL;

    g_mutex_lock(&f->lock);
    g_hash_table_steal_extended(f->table, key_of(number), NULL, &fid);
    g_mutex_unlock(&f->lock);
    return fid;
}

int p9_use(struct p9_fids *f, uint32_t number, struct p9_use *use)
{
    struct p9_fid *fid = p9_fids_find(f, number);

    if (!fid)
        return -EBADF;
    use->fid = fid;
    g_mutex_lock(&fid->lock);
    use->node = p9_node_ref(fid->node);
    use->fd = fid->fd;
    g_mutex_unlock(&fid->lock);
    return 0;
}

void p9_use_end(struct p9_use *use)
{
    p9_node_unref(use->node);
    p9_fid_unref(use->fid);
}

int p9_fid_opened(struct p9_fid *fid, struct p9_node *node, int fd, bool writable)
{
    struct p9_node *old = node;
    int r = 0;

    g_mutex_lock(&fid->lock);
    if (fid->fd >= 0 || fid->kind != P9_FID_NODE) {
        r = -EBUSY;
    } else {
        fid->fd = fd;
        fid->writable = writable;
        if (node) {
            old = fid->node;
            fid->node = node;
        }
    }
    g_mutex_unlock(&fid->lock);
    if (old)
        p9_node_unref(old);
    return r;
}
