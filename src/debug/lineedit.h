/*
 * A line of input on a terminal: editing, history, completion.  No descriptors of its own: bytes come in, bytes to show
 * go out through a callback.  One thread.
 */
#ifndef ARMLET_DEBUG_LINEEDIT_H
#define ARMLET_DEBUG_LINEEDIT_H

#include <glib.h>
#include <stddef.h>
#include <stdint.h>

struct lineedit;

struct lineedit_ops {
    void (*show)(void *opaque, const char *text, size_t len);
    /* A line is complete (Enter).  The editor shows no new prompt by itself. */
    void (*line)(void *opaque, const char *text);
    /* Adds to out (char *, owned by it) the words that may stand where `text' ends. */
    void (*complete)(void *opaque, const char *text, GPtrArray *out);
};

struct lineedit *lineedit_new(const char *prompt, const struct lineedit_ops *ops, void *opaque);
void lineedit_free(struct lineedit *e);
/* Shows the prompt and what has been typed so far. */
void lineedit_prompt(struct lineedit *e);
void lineedit_input(struct lineedit *e, const uint8_t *buf, size_t len);
/* Forgets the line that is being typed. */
void lineedit_reset(struct lineedit *e);

#endif
