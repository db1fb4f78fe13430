/*
 * See lineedit.h.  Emacs keys (C-a C-e C-b C-f C-d C-h C-k C-u C-w C-p C-n C-l C-c), arrows, Home, End, Delete and Tab, as ECMA-48
 * terminals send and understand them.  The line is taken to fit the terminal's width.
 */
#include "debug/lineedit.h"

#include <stdbool.h>
#include <string.h>

enum { TEXT_MAX = 4000, HISTORY = 200 };
enum escape { NONE, ESC, CSI };

struct lineedit {
    char *prompt;
    const struct lineedit_ops *ops;
    void *opaque;
    GString *line;
    size_t cursor;
    GPtrArray *history;
    guint at;       /* in history; its length: the new line */
    char *set_aside; /* the new line, while older ones are looked at */
    enum escape escape;
    unsigned parameter;
    uint8_t previous;
};

static void show(struct lineedit *e, const char *text)
{
    e->ops->show(e->opaque, text, strlen(text));
}

static void redraw(struct lineedit *e)
{
    GString *s = g_string_new("\r");

    g_string_append_printf(s, "%s%s\x1b[K", e->prompt, e->line->str);
    if (e->cursor < e->line->len)
        g_string_append_printf(s, "\x1b[%uD", (unsigned)(e->line->len - e->cursor));
    e->ops->show(e->opaque, s->str, s->len);
    g_string_free(s, TRUE);
}

static void set_line(struct lineedit *e, const char *text)
{
    g_string_assign(e->line, text);
    e->cursor = e->line->len;
    redraw(e);
}

static void erase(struct lineedit *e, size_t from, size_t to)
{
    g_string_erase(e->line, (gssize)from, (gssize)(to - from));
    e->cursor = from;
    redraw(e);
}

static void insert(struct lineedit *e, const char *text, size_t len)
{
    if (e->line->len + len > TEXT_MAX)
        return;
    g_string_insert_len(e->line, (gssize)e->cursor, text, (gssize)len);
    e->cursor += len;
    if (e->cursor == e->line->len)
        e->ops->show(e->opaque, text, len);
    else
        redraw(e);
}

static void recall(struct lineedit *e, int step)
{
    if (step < 0 ? e->at == 0 : e->at == e->history->len)
        return;
    if (e->at == e->history->len) {
        g_free(e->set_aside);
        e->set_aside = g_strdup(e->line->str);
    }
    e->at += (guint)step;
    set_line(e, e->at == e->history->len ? e->set_aside : g_ptr_array_index(e->history, e->at));
}

static void remember(struct lineedit *e)
{
    guint n = e->history->len;

    if (e->line->len && (!n || strcmp(g_ptr_array_index(e->history, n - 1), e->line->str)))
        g_ptr_array_add(e->history, g_strdup(e->line->str));
    if (e->history->len > HISTORY)
        g_ptr_array_remove_index(e->history, 0);
    e->at = e->history->len;
}

static void enter(struct lineedit *e)
{
    g_autofree char *line = g_strdup(e->line->str);

    show(e, "\r\n");
    remember(e);
    lineedit_reset(e);
    e->ops->line(e->opaque, line);
}

/* --- completion ------------------------------------------------------------------------------------------- */

static size_t common_prefix(const GPtrArray *words)
{
    const char *first = words->pdata[0];
    size_t n = strlen(first);

    for (guint i = 1; i < words->len; i++) {
        const char *w = words->pdata[i];
        size_t k = 0;
        while (k < n && w[k] == first[k])
            k++;
        n = k;
    }
    return n;
}

static void list_words(struct lineedit *e, const GPtrArray *words)
{
    show(e, "\r\n");
    for (guint i = 0; i < words->len; i++) {
        g_autofree char *cell = g_strdup_printf("%-19s%s", (char *)words->pdata[i],
                                                i % 4 == 3 || i + 1 == words->len ? "\r\n" : " ");
        show(e, cell);
    }
    redraw(e);
}

static void complete(struct lineedit *e)
{
    g_autoptr(GPtrArray) words = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *before = g_strndup(e->line->str, e->cursor);
    const char *space = strrchr(before, ' ');
    size_t typed = strlen(space ? space + 1 : before);

    e->ops->complete(e->opaque, before, words);
    if (!words->len)
        return;
    size_t n = common_prefix(words);
    if (n > typed)
        insert(e, (const char *)words->pdata[0] + typed, n - typed);
    if (words->len == 1)
        insert(e, " ", 1);
    else if (n <= typed)
        list_words(e, words);
}

/* --- keys --------------------------------------------------------------------------------------------------- */

static size_t word_start(const struct lineedit *e)
{
    size_t i = e->cursor;

    while (i && e->line->str[i - 1] == ' ')
        i--;
    while (i && e->line->str[i - 1] != ' ')
        i--;
    return i;
}

static void move(struct lineedit *e, size_t to)
{
    e->cursor = to;
    redraw(e);
}

static void backspace(struct lineedit *e)
{
    if (e->cursor)
        erase(e, e->cursor - 1, e->cursor);
}

static void delete(struct lineedit *e)
{
    if (e->cursor < e->line->len)
        erase(e, e->cursor, e->cursor + 1);
}

static void left_or_right(struct lineedit *e, bool right)
{
    if (right ? e->cursor < e->line->len : e->cursor > 0)
        move(e, right ? e->cursor + 1 : e->cursor - 1);
}

static void control_key(struct lineedit *e, uint8_t c)
{
    switch (c) {
    case 1: move(e, 0); break;
    case 2: left_or_right(e, false); break;
    case 3: show(e, "^C\r\n"); lineedit_reset(e); redraw(e); break;
    case 4: delete(e); break;
    case 5: move(e, e->line->len); break;
    case 6: left_or_right(e, true); break;
    case 8: case 127: backspace(e); break;
    case '\t': complete(e); break;
    case 11: g_string_truncate(e->line, e->cursor); redraw(e); break;
    case 12: show(e, "\x1b[H\x1b[2J"); redraw(e); break;
    case 14: recall(e, 1); break;
    case 16: recall(e, -1); break;
    case 21: erase(e, 0, e->cursor); break;
    case 23: erase(e, word_start(e), e->cursor); break;
    case 27: e->escape = ESC; break;
    default: break;
    }
}

static void csi_key(struct lineedit *e, uint8_t c)
{
    if (c >= '0' && c <= '9') {
        e->parameter = MIN(e->parameter * 10 + (c - '0'), 99);
        return;
    }
    if (c < 0x40) /* ; and intermediate bytes */
        return;
    e->escape = NONE;
    switch (c == '~' ? (e->parameter == 1 || e->parameter == 7 ? 'H' : e->parameter == 3 ? 'd' : 'F') : c) {
    case 'A': recall(e, -1); break;
    case 'B': recall(e, 1); break;
    case 'C': left_or_right(e, true); break;
    case 'D': left_or_right(e, false); break;
    case 'H': move(e, 0); break;
    case 'F': move(e, e->line->len); break;
    case 'd': delete(e); break;
    default: break;
    }
}

static void key(struct lineedit *e, uint8_t c)
{
    uint8_t previous = e->previous;

    e->previous = c;
    if (e->escape == ESC) {
        e->escape = c == '[' || c == 'O' ? CSI : NONE;
        e->parameter = 0;
    } else if (e->escape == CSI) {
        csi_key(e, c);
    } else if (c == '\r' || (c == '\n' && previous != '\r')) {
        enter(e);
    } else if (c < 32 || c == 127) {
        control_key(e, c);
    } else {
        insert(e, (const char *)&c, 1);
    }
}

void lineedit_input(struct lineedit *e, const uint8_t *buf, size_t len)
{
    for (size_t i = 0; i < len; i++)
        key(e, buf[i]);
}

/* Plain: scripts wait for the prompt at the end of what they read. */
void lineedit_prompt(struct lineedit *e)
{
    show(e, e->prompt);
    show(e, e->line->str);
    e->cursor = e->line->len;
}

void lineedit_reset(struct lineedit *e)
{
    g_string_truncate(e->line, 0);
    e->cursor = 0;
    e->at = e->history->len;
    e->escape = NONE;
}

struct lineedit *lineedit_new(const char *prompt, const struct lineedit_ops *ops, void *opaque)
{
    struct lineedit *e = g_new0(struct lineedit, 1);

    e->prompt = g_strdup(prompt);
    e->ops = ops;
    e->opaque = opaque;
    e->line = g_string_new(NULL);
    e->history = g_ptr_array_new_with_free_func(g_free);
    return e;
}

void lineedit_free(struct lineedit *e)
{
    g_free(e->prompt);
    g_free(e->set_aside);
    g_string_free(e->line, TRUE);
    g_ptr_array_free(e->history, TRUE);
    g_free(e);
}
