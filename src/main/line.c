/*
 * See line.h.
 */
#include "main/line.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lab/rootfs.h"

void line_add(GPtrArray *line, const char *option, const char *value)
{
    g_ptr_array_add(line, g_strdup(option));
    if (value)
        g_ptr_array_add(line, g_strdup(value));
}

/* A path as a property's value: its commas doubled. */
static char *double_commas(const char *path)
{
    g_auto(GStrv) parts = g_strsplit(path, ",", -1);

    return g_strjoinv(",,", parts);
}

void line_add_share(GPtrArray *line, const char *directory, bool read_only)
{
    g_autofree char *path = double_commas(directory);
    g_autofree char *fsdev = g_strdup_printf("local,id=armlet.share,security_model=none,readonly=%s,path=%s",
                                             read_only ? "on" : "off", path);

    line_add(line, "-fsdev", fsdev);
    line_add(line, "-device", "virtio-9p-device,fsdev=armlet.share,mount_tag=share");
}

const char *line_export_name(const char *directory)
{
    bool plain = strspn(directory, G_CSET_A_2_Z G_CSET_a_2_z G_CSET_DIGITS "-_./+") == strlen(directory);

    return plain ? directory : "/export";
}

void line_add_export(GPtrArray *line, const char *directory)
{
    g_autofree char *path = double_commas(directory);
    bool same = line_export_name(directory) == directory;
    g_autofree char *value = g_strdup_printf("path=%s%s", path, same ? "" : ",mount=/export");

    line_add(line, "-nfs", value);
}

void line_add_disk(GPtrArray *line, const char *image)
{
    g_autofree char *path = double_commas(image);
    g_autofree char *value = g_strdup_printf("file=%s,if=virtio,format=raw", path);

    line_add(line, "-drive", value);
}

enum { SMALLEST_IMAGE = 64 << 10 }; /* bytes: what no file system fits in is a mistaken name */

char *line_find_root(const struct command *c, const char *name)
{
    g_autofree char *image = g_strconcat(name, ".ext4", NULL);
    char *path = g_canonicalize_filename(name, NULL);
    struct stat st;

    if (!strchr(name, '/') && access(path, F_OK)) {
        g_autofree char *made = rootfs_data_path(name), *made_image = rootfs_data_path(image);
        const char *found = !access(made, F_OK) ? made : !access(made_image, F_OK) ? made_image : NULL;
        if (found) {
            g_free(path);
            path = g_strdup(found);
        }
    }
    if (access(path, g_file_test(path, G_FILE_TEST_IS_DIR) ? R_OK | X_OK : R_OK))
        cli_fail(c, "--root %s: %s", name, g_strerror(errno));
    if (!stat(path, &st) && S_ISREG(st.st_mode) && st.st_size < SMALLEST_IMAGE)
        cli_fail(c, "--root %s: neither a directory nor a disk image (%" G_GINT64_FORMAT " bytes)", name,
                 (gint64)st.st_size);
    return path;
}
