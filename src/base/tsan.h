/*
 * For -Db_sanitize=thread only, included before everything else (meson.build): GLib takes its locks by futex itself, which
 * the sanitizer does not see.  Here it is told, so that what GMutex and GRWLock protect is not reported as a race.
 */
#ifndef ARMLET_BASE_TSAN_H
#define ARMLET_BASE_TSAN_H

#include <glib.h>

void __tsan_acquire(void *address);
void __tsan_release(void *address);
void AnnotateBenignRaceSized(const char *file, int line, const volatile void *address, unsigned long size,
                             const char *why);

/* Threads that meet there do what the guest told them to: a request whose buffer is another's too. */
static inline void tsan_guest_memory(void *host, size_t size)
{
    AnnotateBenignRaceSized(__FILE__, __LINE__, host, size, "the guest's memory");
}

static inline void tsan_mutex_lock(GMutex *m)
{
    g_mutex_lock(m);
    __tsan_acquire(m);
}

static inline gboolean tsan_mutex_trylock(GMutex *m)
{
    gboolean got = g_mutex_trylock(m);
    if (got)
        __tsan_acquire(m);
    return got;
}

static inline void tsan_mutex_unlock(GMutex *m)
{
    __tsan_release(m);
    g_mutex_unlock(m);
}

static inline void tsan_cond_wait(GCond *c, GMutex *m)
{
    __tsan_release(m);
    g_cond_wait(c, m);
    __tsan_acquire(m);
}

static inline gboolean tsan_cond_wait_until(GCond *c, GMutex *m, gint64 until)
{
    __tsan_release(m);
    gboolean signalled = g_cond_wait_until(c, m, until);
    __tsan_acquire(m);
    return signalled;
}

static inline void tsan_reader_lock(GRWLock *l)
{
    g_rw_lock_reader_lock(l);
    __tsan_acquire(l);
}

static inline void tsan_writer_lock(GRWLock *l)
{
    g_rw_lock_writer_lock(l);
    __tsan_acquire(l);
}

static inline void tsan_reader_unlock(GRWLock *l)
{
    __tsan_release(l);
    g_rw_lock_reader_unlock(l);
}

static inline void tsan_writer_unlock(GRWLock *l)
{
    __tsan_release(l);
    g_rw_lock_writer_unlock(l);
}

/* A pool's queue too: what is pushed was written before it is worked on, and that before the pool has ended. */
struct tsan_pool {
    GFunc func;
    gpointer data;
};

static inline void tsan_pool_call(gpointer item, gpointer opaque)
{
    struct tsan_pool *p = opaque;

    __tsan_acquire(item);
    p->func(item, p->data);
    __tsan_release((void *)g_thread_pool_free); /* an address that is the same everywhere */
}

static inline GThreadPool *tsan_pool_new(GFunc func, gpointer data, gint max, gboolean exclusive, GError **error)
{
    struct tsan_pool *p = g_new(struct tsan_pool, 1); /* stays: the last call may end after g_thread_pool_free() */

    *p = (struct tsan_pool){func, data};
    return g_thread_pool_new(tsan_pool_call, p, max, exclusive, error);
}

static inline gboolean tsan_pool_push(GThreadPool *pool, gpointer item, GError **error)
{
    __tsan_release(item);
    return g_thread_pool_push(pool, item, error);
}

static inline void tsan_pool_free(GThreadPool *pool, gboolean at_once, gboolean wait)
{
    g_thread_pool_free(pool, at_once, wait);
    __tsan_acquire((void *)g_thread_pool_free);
}

static inline void tsan_async_push(GAsyncQueue *queue, gpointer item)
{
    __tsan_release(item);
    g_async_queue_push(queue, item);
}

static inline gpointer tsan_async_pop(GAsyncQueue *queue)
{
    gpointer item = g_async_queue_pop(queue);

    __tsan_acquire(item);
    return item;
}

static inline gpointer tsan_async_try_pop(GAsyncQueue *queue)
{
    gpointer item = g_async_queue_try_pop(queue);

    if (item)
        __tsan_acquire(item);
    return item;
}

#define g_async_queue_push tsan_async_push
#define g_async_queue_pop tsan_async_pop
#define g_async_queue_try_pop tsan_async_try_pop
#define g_thread_pool_new tsan_pool_new
#define g_thread_pool_push tsan_pool_push
#define g_thread_pool_free tsan_pool_free
#define g_mutex_lock tsan_mutex_lock
#define g_mutex_trylock tsan_mutex_trylock
#define g_mutex_unlock tsan_mutex_unlock
#define g_cond_wait tsan_cond_wait
#define g_cond_wait_until tsan_cond_wait_until
#define g_rw_lock_reader_lock tsan_reader_lock
#define g_rw_lock_writer_lock tsan_writer_lock
#define g_rw_lock_reader_unlock tsan_reader_unlock
#define g_rw_lock_writer_unlock tsan_writer_unlock

#endif
