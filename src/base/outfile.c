/*
 * Output files, written in place (outfile.h).
 */
#include "base/outfile.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static bool fail(const char *path, GError **err)
{
    int code = errno;

    g_set_error(err, G_FILE_ERROR, (gint)g_file_error_from_errno(code), "%s: %s", path, g_strerror(code));
    return false;
}

static bool write_all(int fd, const char *data, size_t size)
{
    while (size) {
        ssize_t n = write(fd, data, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        data += n;
        size -= (size_t)n;
    }
    return true;
}

bool outfile_write(const char *path, const void *data, size_t size, GError **err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

    if (fd < 0)
        return fail(path, err);
    bool ok = write_all(fd, data, size) || fail(path, err);
    if (close(fd) && ok)
        ok = fail(path, err);
    return ok;
}
