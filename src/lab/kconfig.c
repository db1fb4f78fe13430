/*
 * See kconfig.h.  Threading: the caller's.
 */
#include "lab/kconfig.h"

#include <string.h>

#include <gio/gio.h>

enum { MAX_CONFIG = 4 << 20 };

/* IKCONFIG: gzip between two marks.  Any bytes are safe to give. */
static char *config_in(GBytes *image)
{
    static const char begin[] = "IKCFG_ST", end[] = "IKCFG_ED";
    gsize size;
    const char *p = g_bytes_get_data(image, &size), *from = memmem(p, size, begin, 8), *to;

    if (!from || !(to = memmem(from, size - (gsize)(from - p), end, 8)))
        return NULL;
    from += 8;
    g_autoptr(GConverter) gzip = G_CONVERTER(g_zlib_decompressor_new(G_ZLIB_COMPRESSOR_FORMAT_GZIP));
    g_autoptr(GInputStream) raw = g_memory_input_stream_new_from_data(from, to - from, NULL);
    g_autoptr(GInputStream) in = g_converter_input_stream_new(raw, gzip);
    char *text = g_malloc(MAX_CONFIG + 1);
    gsize n;

    if (g_input_stream_read_all(in, text, MAX_CONFIG, &n, NULL, NULL) && n) {
        text[n] = '\0';
        return text;
    }
    g_free(text);
    return NULL;
}

static char *config_beside(const char *path)
{
    g_autofree char *folder = g_path_get_dirname(path), *name = g_path_get_basename(path);
    const char *dash = strchr(name, '-');
    g_autofree char *release = g_strconcat("config", dash ? dash : "", NULL);
    char *const tries[] = { g_build_filename(folder, release, NULL), g_build_filename(folder, "config", NULL),
                            g_build_filename(folder, ".config", NULL),
                            g_build_filename(folder, "..", "..", "..", ".config", NULL) };
    char *text = NULL;

    for (unsigned i = 0; i < G_N_ELEMENTS(tries); i++) {
        if (!text && !g_file_get_contents(tries[i], &text, NULL, NULL))
            text = NULL;
        if (text && !strstr(text, "CONFIG_"))
            g_clear_pointer(&text, g_free);
        g_free(tries[i]);
    }
    return text;
}

char *kconfig_find(const char *path, GBytes *image)
{
    char *text = image ? config_in(image) : NULL;

    return text ? text : config_beside(path);
}

bool kconfig_has(const char *config, const char *name, bool module_counts)
{
    g_autofree char *option = g_strdup_printf("CONFIG_%s=", name);
    size_t n = strlen(option);

    for (const char *p = config; (p = strstr(p, option)); p += n)
        if ((p == config || p[-1] == '\n') && (p[n] == 'y' || (module_counts && p[n] == 'm')))
            return true;
    return false;
}

char *kconfig_missing(const char *config, const char *const *names)
{
    GString *missing = g_string_new(NULL);

    for (; *names; names++)
        if (!kconfig_has(config, *names, false))
            g_string_append_printf(missing, "%sCONFIG_%s=y", missing->len ? " " : "", *names);
    bool none = !missing->len;
    return g_string_free(missing, none);
}
