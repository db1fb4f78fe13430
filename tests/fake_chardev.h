/*
 * A back end for tests: remembers what is written, takes no more than it is told to.
 */
#ifndef ARMLET_TESTS_FAKE_CHARDEV_H
#define ARMLET_TESTS_FAKE_CHARDEV_H

#include <string.h>

#include <glib.h>

#include "base/chardev.h"

struct fake_chardev {
    struct chardev chr;
    GByteArray *written;
    size_t room; /* how much is taken until it is refilled */
    unsigned accepts;
    bool breaking;
};

static ssize_t fake_write(struct chardev *chr, const uint8_t *buf, size_t len)
{
    struct fake_chardev *f = (struct fake_chardev *)chr;
    size_t n = len < f->room ? len : f->room;

    g_byte_array_append(f->written, buf, (guint)n);
    f->room -= n;
    return (ssize_t)n;
}

static void fake_accept_input(struct chardev *chr)
{
    ((struct fake_chardev *)chr)->accepts++;
}

static void fake_set_break(struct chardev *chr, bool on)
{
    ((struct fake_chardev *)chr)->breaking = on;
}

static void fake_free(struct chardev *chr)
{
    g_byte_array_free(((struct fake_chardev *)chr)->written, TRUE);
    g_free(chr);
}

static const struct chardev_ops fake_ops = {
    .kind = "fake", .write = fake_write, .accept_input = fake_accept_input, .set_break = fake_set_break,
    .free = fake_free};

static inline struct fake_chardev *fake_chardev_new(void)
{
    struct fake_chardev *f = g_new0(struct fake_chardev, 1);

    f->chr.ops = &fake_ops;
    f->chr.open = true;
    f->written = g_byte_array_new();
    f->room = SIZE_MAX;
    return f;
}

/* What has been written since the last call is exactly s. */
static inline bool fake_wrote(struct fake_chardev *f, const char *s)
{
    size_t len = strlen(s);
    bool same = f->written->len == len && (!len || !memcmp(f->written->data, s, len));

    g_byte_array_set_size(f->written, 0);
    return same;
}

/* As much of s as the front end takes; returns how much that was. */
static inline size_t fake_type(struct fake_chardev *f, const char *s)
{
    size_t n = chardev_can_receive(&f->chr);

    if (n > strlen(s))
        n = strlen(s);
    chardev_receive(&f->chr, (const uint8_t *)s, n);
    return n;
}

#endif
