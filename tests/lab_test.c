/*
 * lab/: the cache, the private apt, cpio archives, applets, modules, and the real kernel and busybox, which are fetched
 * from Debian if the user's cache does not have them.
 */
#include <elf.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <glib.h>
#include <glib/gstdio.h>

#include "lab/applets.h"
#include "lab/apt.h"
#include "lab/cache.h"
#include "lab/cpio.h"
#include "lab/debian_plan.h"
#include "lab/debian_tar.h"
#include "lab/lab.h"
#include "lab/modules.h"

/* A cache of the test's own; what XDG_CACHE_HOME was comes back in leave_cache(). */
static char *user_cache, *test_cache;

static int enter_cache(void **state)
{
    user_cache = g_strdup(g_getenv("XDG_CACHE_HOME"));
    test_cache = g_dir_make_tmp("armlet-lab-XXXXXX", NULL);
    return !test_cache || !g_setenv("XDG_CACHE_HOME", test_cache, TRUE);
}

static int leave_cache(void **state)
{
    cache_remove(test_cache);
    g_clear_pointer(&test_cache, g_free);
    if (user_cache)
        g_setenv("XDG_CACHE_HOME", user_cache, TRUE);
    else
        g_unsetenv("XDG_CACHE_HOME");
    g_clear_pointer(&user_cache, g_free);
    return 0;
}

/* What failed is of this kind, in one line; frees the error. */
static void assert_lab_error(GError *err, enum lab_error code)
{
    assert_non_null(err);
    if (!g_error_matches(err, LAB_ERROR, (int)code))
        fail_msg("error %d, not %d: %s", err->code, (int)code, err->message);
    assert_true(*err->message && !strchr(err->message, '\n'));
    g_error_free(err);
}

static void test_cache_path(void **state)
{
    char *a = cache_path("kernel", "x", NULL), *b = g_strconcat(test_cache, "/armlet/kernel/x", NULL);

    assert_string_equal(a, b);
    g_free(a);
    g_free(b);
}

static void test_publish_is_whole_or_nothing(void **state)
{
    char *target = cache_path("things", "one", NULL), *folder, *file, *again, *text;
    int lock = cache_lock(NULL);

    assert_true(lock >= 0);
    folder = cache_new_folder(NULL);
    assert_non_null(folder);
    file = g_build_filename(folder, "sub", "f", NULL);
    assert_true(cache_write_file(file, "abc", 3, NULL));
    assert_int_not_equal(g_access(target, F_OK), 0);
    /* A killed process's leavings go when the next begins, read-only folders too. */
    text = g_build_filename(folder, "sub", NULL);
    g_chmod(text, 0500);
    again = cache_new_folder(NULL);
    assert_int_not_equal(g_access(folder, F_OK), 0);
    g_free(file);
    file = g_build_filename(again, "f", NULL);
    assert_true(cache_write_file(file, "abc", 3, NULL));
    assert_true(cache_publish(again, target, NULL));
    g_free(file);
    file = g_build_filename(target, "f", NULL);
    g_free(text);
    assert_true(g_file_get_contents(file, &text, NULL, NULL));
    assert_string_equal(text, "abc");
    cache_unlock(lock);
    g_free(text);
    g_free(file);
    g_free(folder);
    g_free(again);
    g_free(target);
}

static void test_unwritable_cache(void **state)
{
    GError *err = NULL;

    g_setenv("XDG_CACHE_HOME", "/proc", TRUE);
    assert_int_equal(cache_lock(&err), -1);
    g_setenv("XDG_CACHE_HOME", test_cache, TRUE);
    assert_lab_error(err, LAB_ERROR_IO);
}

static void test_space(void **state)
{
    int lock = cache_lock(NULL);
    GError *err = NULL;

    assert_true(cache_check_space(4096, NULL));
    assert_false(cache_check_space(UINT64_C(1) << 60, &err));
    assert_lab_error(err, LAB_ERROR_SPACE);
    cache_unlock(lock);
}

static void run_script(const char *script, enum lab_error code)
{
    const char *const argv[] = {"sh", "-c", script, NULL};
    GError *err = NULL;

    assert_false(cache_run(&(struct cache_run){.argv = argv}, &err));
    assert_lab_error(err, code);
}

static void test_run_errors(void **state)
{
    const char *const missing[] = {"armlet-no-such-program", NULL};
    GError *err = NULL;

    run_script("echo 'W: x' >&2; echo 'E: Write error - write (28: No space left on device)' >&2; exit 100",
               LAB_ERROR_SPACE);
    run_script("echo 'E: Failed to fetch http://x/y.deb  404  Not Found [IP: ::1 80]' >&2; exit 100",
               LAB_ERROR_NOT_FOUND);
    run_script("echo \"E: Could not resolve 'deb.debian.org'\" >&2; exit 100", LAB_ERROR_NETWORK);
    run_script("echo 'E: No packages found' >&2; exit 100", LAB_ERROR_NOT_FOUND);
    run_script("exit 3", LAB_ERROR_FAILED);
    run_script("kill -9 $$", LAB_ERROR_FAILED);
    assert_false(cache_run(&(struct cache_run){.argv = missing}, &err));
    assert_lab_error(err, LAB_ERROR_TOOL);
}

static void note_percent(void *opaque, double percent)
{
    *(double *)opaque += percent;
}

static void test_run_output_and_progress(void **state)
{
    const char *const argv[] = {"sh", "-c",
                                "echo out; echo err >&2; printf 'dlstatus:1:25.0:x\\npmst' >&3; sleep 0.1;"
                                "printf 'atus:y:1\\ndlstatus:1:50.5:x\\n' >&3",
                                NULL};
    GByteArray *output = g_byte_array_new();
    double sum = 0;

    assert_true(cache_run(
        &(struct cache_run){.argv = argv, .output = output, .percent = note_percent, .opaque = &sum}, NULL));
    assert_int_equal(output->len, 4);
    assert_memory_equal(output->data, "out\n", 4);
    assert_true(sum == 75.5);
    g_byte_array_unref(output);
}

/* The sources made of one text contain `expected'. */
static void check_sources(const char *text, const char *expected)
{
    char *texts[] = {(char *)text, NULL};
    char *sources = apt_make_sources(texts);

    if (!strstr(sources, expected))
        fail_msg("no \"%s\" in:\n%s", expected, sources);
    assert_non_null(strstr(sources, " bookworm-backports main\n"));
    assert_non_null(strstr(sources, "signed-by=/usr/share/keyrings/"));
    g_free(sources);
}

/* An archive and what came out of it. */
struct unpacked {
    const uint8_t *begin;
    size_t size;
    GString *names;
};

static bool note_entry(void *opaque, const struct tar_entry *e, GError **err)
{
    struct unpacked *u = opaque;

    assert_true(e->data >= u->begin && e->size <= (size_t)(u->begin + u->size - e->data));
    assert_true(*e->path != '/' && e->mode <= 07777);
    g_string_append_printf(u->names, "%c %04o %s %s %u;", e->type, e->mode, e->path, e->link, (unsigned)e->size);
    return true;
}

/* What tar_read() says of these bytes; NULL: that they are malformed. */
static char *unpack(const uint8_t *p, size_t n)
{
    g_autofree uint8_t *copy = g_memdup2(p, n); /* so that ASan sees its end */
    struct unpacked u = {copy, n, g_string_new(NULL)};
    GError *err = NULL;
    bool ok = tar_read(copy, n, note_entry, &u, &err);

    if (!ok)
        assert_lab_error(err, LAB_ERROR_FAILED);
    return g_string_free(u.names, !ok);
}

/* Makes the checksum of a header right. */
static void mend_sum(uint8_t *header)
{
    unsigned sum = 0;

    memset(header + 148, ' ', 8);
    for (unsigned i = 0; i < 512; i++)
        sum += header[i];
    g_snprintf((char *)header + 148, 8, "%06o", sum);
}

static void test_tar(void **state)
{
    static const char script[] =
        "cd \"$0\" && mkdir -p t/d && cd t && echo hi >d/f && chmod 4751 d/f && ln d/f hard && ln -s /a/b sym && "
        "chmod 755 d && n=$(printf '%0120d' 0) && : >$n && chmod 600 $n && tar --format=gnu -cf - ./d ./d/f ./hard ./sym ./$n";
    const char *const argv[] = {"sh", "-c", script, test_cache, NULL};
    g_autoptr(GByteArray) tar = g_byte_array_new();
    g_autofree char *long_name = g_strnfill(120, '0');

    assert_true(cache_run(&(struct cache_run){.argv = argv, .output = tar}, NULL));
    g_autofree char *last = g_strdup_printf("0 0600 %s  0;", long_name), *all = unpack(tar->data, tar->len);
    assert_non_null(strstr(all, "5 0755 d  0;0 4751 d/f  3;"));
    assert_non_null(strstr(all, "1 4751 hard d/f 0;2 0777 sym /a/b 0;"));
    assert_true(g_str_has_suffix(all, last));
    for (guint n = 0; n < tar->len; n += 13) /* cut off */
        g_free(unpack(tar->data, n));
    for (unsigned i = 0; i < 20000; i++) { /* damaged, most with a sum that is right */
        guint block = (guint)g_random_int_range(0, (gint32)tar->len / 512) * 512;
        uint8_t *p = tar->data + block + g_random_int_range(0, 512), old = *p;
        *p = (uint8_t)g_random_int();
        if (i % 4)
            mend_sum(tar->data + block);
        g_free(unpack(tar->data, tar->len));
        *p = old;
        mend_sum(tar->data + block);
    }
}

static void test_guest_addresses(void **state)
{
    static const char *const cases[][2] = {
        {"http://127.0.0.1:3142/debian", "http://10.0.2.2:3142/debian"},
        {"http://localhost/debian", "http://10.0.2.2/debian"},
        {"https://[::1]:80", "https://10.0.2.2:80"},
        {"http://localhost.example/debian", "http://localhost.example/debian"},
        {"http://m.example/127.0.0.1", "http://m.example/127.0.0.1"},
        {"Acquire::http::Proxy \"http://127.0.0.1:8080/\";", "Acquire::http::Proxy \"http://10.0.2.2:8080/\";"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *got = debian_guest_uri(cases[i][0]);
        assert_string_equal(got, cases[i][1]);
    }
}

static void test_sources(void **state)
{
    check_sources("", " http://deb.debian.org/debian bookworm main\n");
    check_sources("", " http://deb.debian.org/debian-security bookworm-security main\n");
    check_sources("# c\ndeb http://m.example/debian bookworm main contrib\n", " http://m.example/debian bookworm main\n");
    check_sources("deb [ arch=amd64 trusted=yes ] https://m.example/d bookworm main\n", " https://m.example/d bookworm ");
    check_sources("deb [arch=amd64] http://m.example/d bookworm main", " http://m.example/d bookworm-backports ");
    check_sources("deb cdrom:[Debian 12]/ bookworm main\n", " http://deb.debian.org/debian bookworm ");
    check_sources("deb http://m.example/ubuntu jammy main\n", " http://deb.debian.org/debian bookworm ");
    check_sources("deb-src http://m.example/d bookworm main\n", " http://deb.debian.org/debian bookworm ");
    check_sources("Types: deb\nURIs: http://m.example/d\nSuites: bookworm bookworm-updates\nComponents: main\n",
                  " http://m.example/d bookworm main\n");
    check_sources("Types: deb\nURIs: http://a/\nSuites: sid\n\nTypes: deb\nURIs: http://s/\nSuites: bookworm-security\n",
                  " http://s/ bookworm-security main\n");
    check_sources("Enabled: no\nTypes: deb\nURIs: http://m.example/d\nSuites: bookworm\n",
                  " http://deb.debian.org/debian bookworm ");
    check_sources("deb\n\ndeb [\n\ndeb [ ]\n\nURIs:\nSuites:\n", " http://deb.debian.org/debian bookworm ");
}

/* The number in a header's `index'-th field. */
static unsigned hex_field(const guint8 *header, unsigned index)
{
    char digits[9] = {0};

    memcpy(digits, header + 6 + 8 * index, 8);
    return (unsigned)strtoul(digits, NULL, 16);
}

/* The header of the entry `name', checking the archive on the way; *data is its contents. */
static const guint8 *find_entry(const GByteArray *a, const char *name, const guint8 **data)
{
    for (guint at = 0;;) {
        const guint8 *h = a->data + at;
        unsigned size, name_size;

        assert_true(at + 110 < a->len);
        assert_memory_equal(h, "070701", 6);
        size = hex_field(h, 6);
        name_size = hex_field(h, 11);
        assert_int_equal(h[110 + name_size - 1], 0);
        at += (110 + name_size + 3) & ~3U;
        *data = a->data + at;
        if (!strcmp((const char *)h + 110, name))
            return h;
        if (!strcmp((const char *)h + 110, "TRAILER!!!"))
            return NULL;
        at += (size + 3) & ~3U;
    }
}

static void test_cpio(void **state)
{
    struct cpio c;
    GByteArray *a;
    const guint8 *h, *data, *folder;

    cpio_init(&c);
    cpio_add_file(&c, "/a/b/file", 0755, "hello", 5);
    cpio_add_file(&c, "a/b/file", 0640, "replaced", 8);
    cpio_add_link(&c, "a/link", "b/file");
    cpio_add_char_device(&c, "dev/console", 0600, 5, 1);
    a = cpio_build(&c);
    cpio_clear(&c);
    assert_int_equal(a->len % 512, 0);
    h = find_entry(a, "a/b/file", &data);
    assert_non_null(h);
    assert_int_equal(hex_field(h, 1), S_IFREG | 0640);
    assert_int_equal(hex_field(h, 6), 8);
    assert_memory_equal(data, "replaced", 8);
    folder = find_entry(a, "a/b", &data);
    assert_non_null(folder);
    assert_true(folder < h);
    assert_int_equal(hex_field(folder, 1), S_IFDIR | 0755);
    h = find_entry(a, "a/link", &data);
    assert_int_equal(hex_field(h, 1), S_IFLNK | 0777);
    assert_memory_equal(data, "b/file", 6);
    h = find_entry(a, "dev/console", &data);
    assert_int_equal(hex_field(h, 1), S_IFCHR | 0600);
    assert_int_equal(hex_field(h, 9), 5);
    assert_int_equal(hex_field(h, 10), 1);
    assert_null(find_entry(a, "missing", &data));
    g_byte_array_unref(a);
}

static void test_applets_found(void **state)
{
    static const char binary[] = "junk\0more[\0x\0[\0[[\0ash\0cat\0zcat\0\0zebra";
    static const char unsorted[] = "[\0[[\0ash\0Zebra";
    char **names = applets_find(binary, sizeof binary);

    assert_non_null(names);
    assert_int_equal(g_strv_length(names), 5);
    assert_string_equal(names[4], "zcat");
    g_strfreev(names);
    names = applets_find(unsorted, sizeof unsorted);
    assert_int_equal(g_strv_length(names), 3);
    g_strfreev(names);
    /* The run reaches the end of the data without a NUL. */
    names = applets_find(unsorted, sizeof "[\0[[\0as" - 1);
    assert_int_equal(g_strv_length(names), 2);
    g_strfreev(names);
    assert_null(applets_find("nothing", 7));
    assert_string_equal(applets_folder("sh"), "bin");
    assert_string_equal(applets_folder("init"), "sbin");
    assert_string_equal(applets_folder("chroot"), "usr/sbin");
    assert_string_equal(applets_folder("["), "usr/bin");
    assert_string_equal(applets_folder("ini"), "bin");
}

/* An ELF file of two sections, .modinfo with `info' and the names. */
static GBytes *make_module(const char *info, gsize info_size)
{
    static const char names[] = "\0.shstrtab\0.modinfo";
    struct {
        Elf64_Ehdr eh;
        Elf64_Shdr sh[3];
        char names[32];
    } file = {.eh = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                     .e_type = ET_REL,
                     .e_machine = EM_AARCH64,
                     .e_shoff = sizeof(Elf64_Ehdr),
                     .e_shentsize = sizeof(Elf64_Shdr),
                     .e_shnum = 3,
                     .e_shstrndx = 1}};
    GByteArray *out = g_byte_array_new();

    memcpy(file.names, names, sizeof names);
    file.sh[1] = (Elf64_Shdr){.sh_name = 1,
                              .sh_type = SHT_STRTAB,
                              .sh_offset = (Elf64_Off)((char *)file.names - (char *)&file),
                              .sh_size = sizeof names};
    file.sh[2] = (Elf64_Shdr){.sh_name = 11, .sh_type = SHT_PROGBITS, .sh_offset = sizeof file, .sh_size = info_size};
    g_byte_array_append(out, (guint8 *)&file, sizeof file);
    g_byte_array_append(out, (const guint8 *)info, (guint)info_size);
    return g_byte_array_free_to_bytes(out);
}

static void test_module_info(void **state)
{
    static const char info[] = "license=GPL\0depends=a,b\0name=x";
    GBytes *elf = make_module(info, sizeof info), *open_end = make_module(info, sizeof info - 1);
    GBytes *empty = g_bytes_new(NULL, 0);

    assert_string_equal(modules_info(elf, "depends"), "a,b");
    assert_string_equal(modules_info(elf, "name"), "x");
    assert_null(modules_info(elf, "depend"));
    assert_null(modules_info(open_end, "name"));
    assert_null(modules_info(empty, "name"));
    g_bytes_unref(elf);
    g_bytes_unref(open_end);
    g_bytes_unref(empty);
}

/* Damaged modules of every length and with any byte changed end in an answer; the sanitizers watch. */
static void test_module_info_survives_damage(void **state)
{
    static const char info[] = "license=GPL\0depends=a,b";
    GBytes *good = make_module(info, sizeof info);
    gsize size;
    const guint8 *p = g_bytes_get_data(good, &size);
    unsigned found = 0;

    for (gsize i = 0; i < size; i++) {
        GBytes *shorter = g_bytes_new(p, i);

        assert_null(modules_info(shorter, "depends"));
        g_bytes_unref(shorter);
        for (unsigned bit = 0; bit < 8; bit++) {
            guint8 *copy = g_memdup2(p, size);
            GBytes *changed;
            const char *depends;

            copy[i] ^= (guint8)(1U << bit);
            changed = g_bytes_new_take(copy, size);
            depends = modules_info(changed, "depends");
            found += depends && !strcmp(depends, "a,b");
            g_bytes_unref(changed);
        }
    }
    /* Most bits of the file do not matter to us. */
    assert_true(found > size);
    g_bytes_unref(good);
}

static void write_module(const char *folder, const char *name, const char *info, gsize size)
{
    char *path = g_build_filename(folder, "kernel", name, NULL);
    GBytes *elf = make_module(info, size);
    gsize len;
    const void *data = g_bytes_get_data(elf, &len);

    assert_true(cache_write_file(path, data, len, NULL));
    g_bytes_unref(elf);
    g_free(path);
}

static void test_modules_resolve(void **state)
{
    static const char *const wanted[] = {"top-one", "inside", NULL}, *const missing[] = {"none", NULL};
    static const char *const broken[] = {"broken", NULL};
    char *builtin = g_build_filename(test_cache, "modules.builtin", NULL);
    GError *err = NULL;
    GPtrArray *order;

    write_module(test_cache, "top-one.ko", "depends=low_one,ring-a", sizeof "depends=low_one,ring-a");
    write_module(test_cache, "low-one.ko", "depends=", sizeof "depends=");
    write_module(test_cache, "ring-a.ko", "depends=ring-b", sizeof "depends=ring-b");
    write_module(test_cache, "ring-b.ko", "depends=ring-a,low-one", sizeof "depends=ring-a,low-one");
    write_module(test_cache, "broken.ko", "depends=none", sizeof "depends=none");
    assert_true(g_file_set_contents(builtin, "kernel/lib/inside.ko\n", -1, NULL));
    order = modules_resolve(test_cache, wanted, &err);
    assert_non_null(order);
    assert_int_equal(order->len, 4);
    assert_string_equal(((struct module *)order->pdata[0])->name, "low_one");
    assert_string_equal(((struct module *)order->pdata[3])->name, "top_one");
    g_ptr_array_unref(order);
    assert_null(modules_resolve(test_cache, missing, &err));
    assert_lab_error(g_steal_pointer(&err), LAB_ERROR_NOT_FOUND);
    assert_null(modules_resolve(test_cache, broken, &err));
    assert_lab_error(g_steal_pointer(&err), LAB_ERROR_NOT_FOUND);
    g_free(builtin);
}

static void test_unknown_series(void **state)
{
    struct lab_kernel k;
    GError *err = NULL;

    assert_false(lab_kernel_get("2.6", false, &k, &err));
    assert_lab_error(err, LAB_ERROR_NOT_FOUND);
}

static void test_no_network(void **state)
{
    struct lab_kernel k;
    GError *err = NULL;
    GPtrArray *list;

    /* Nothing listens there. */
    g_setenv("http_proxy", "http://127.0.0.1:9", TRUE);
    g_setenv("https_proxy", "http://127.0.0.1:9", TRUE);
    assert_false(lab_kernel_get(NULL, false, &k, &err));
    assert_lab_error(g_steal_pointer(&err), LAB_ERROR_NETWORK);
    assert_null(lab_busybox_get(&err));
    assert_lab_error(err, LAB_ERROR_NETWORK);
    g_unsetenv("http_proxy");
    g_unsetenv("https_proxy");
    list = lab_kernel_list();
    assert_int_equal(list->len, 0);
    g_ptr_array_unref(list);
}

static void test_no_apt(void **state)
{
    char *path = g_strdup(g_getenv("PATH"));
    struct lab_kernel k;
    GError *err = NULL;

    g_setenv("PATH", test_cache, TRUE);
    assert_false(lab_kernel_get("6.1", false, &k, &err));
    g_setenv("PATH", path, TRUE);
    assert_lab_error(err, LAB_ERROR_TOOL);
    g_free(path);
}

/* The tests from here on use the user's cache, and Debian if it is not there. */

static void test_real_kernel(void **state)
{
    struct lab_kernel k;
    GError *err = NULL;
    GPtrArray *list;
    char *text;
    gsize size;

    if (!lab_kernel_get("6.1", false, &k, &err))
        fail_msg("%s", err->message);
    assert_string_equal(k.series, "6.1");
    assert_true(g_str_has_prefix(k.release, "6.1."));
    assert_true(g_file_get_contents(k.image, &text, &size, NULL));
    assert_true(size > 10 << 20);
    assert_memory_equal(text + 56, "ARM\x64", 4); /* the arm64 Image header's magic */
    g_free(text);
    assert_true(g_file_get_contents(k.config, &text, NULL, NULL));
    assert_non_null(strstr(text, "\nCONFIG_ARM64=y\n"));
    g_free(text);
    assert_true(g_file_test(k.modules, G_FILE_TEST_IS_DIR));
    list = lab_kernel_list();
    assert_true(list->len >= 1);
    g_ptr_array_unref(list);
    lab_kernel_clear(&k);
}

static void test_real_initramfs(void **state)
{
    const struct lab_file extra = {.guest = "/opt/test/self", .host = "/proc/self/exe"};
    struct lab_initramfs what = {.modules = lab_virtio_modules, .files = &extra, .nfiles = 1};
    struct lab_kernel k;
    const guint8 *h, *data;
    char *first, *second, *plain, *text;
    GByteArray archive;
    gsize size;

    assert_true(lab_kernel_get("6.1", false, &k, NULL));
    what.kernel = &k;
    first = lab_initramfs_busybox(&what, NULL);
    second = lab_initramfs_busybox(&what, NULL);
    plain = lab_initramfs_busybox(NULL, NULL);
    assert_non_null(first);
    assert_string_equal(first, second);
    assert_string_not_equal(first, plain);
    assert_true(g_file_get_contents(first, &text, &size, NULL));
    archive = (GByteArray){.data = (guint8 *)text, .len = (guint)size};
    h = find_entry(&archive, "opt/test/self", &data);
    assert_int_equal(hex_field(h, 1), S_IFREG | 0755);
    assert_memory_equal(data, ELFMAG, 4);
    h = find_entry(&archive, "init", &data);
    assert_int_equal(hex_field(h, 1), S_IFREG | 0755);
    h = find_entry(&archive, "linuxrc", &data);
    assert_int_equal(hex_field(h, 1), S_IFLNK | 0777);
    assert_non_null(find_entry(&archive, "sbin/poweroff", &data));
    assert_non_null(find_entry(&archive, "bin/sh", &data));
    h = find_entry(&archive, "etc/modules", &data);
    assert_non_null(g_strstr_len((const char *)data, hex_field(h, 6), "/virtio_blk.ko\n"));
    g_free(text);
    g_free(first);
    g_free(second);
    g_free(plain);
    lab_kernel_clear(&k);
}

static void test_initramfs_with_missing_file(void **state)
{
    const struct lab_file extra = {.guest = "/x", .host = "/nonexistent/file"};
    struct lab_initramfs what = {.files = &extra, .nfiles = 1};
    GError *err = NULL;

    assert_null(lab_initramfs_busybox(&what, &err));
    assert_lab_error(err, LAB_ERROR_IO);
}

#define WITH_CACHE(fn) cmocka_unit_test_setup_teardown(fn, enter_cache, leave_cache)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_CACHE(test_cache_path),
        WITH_CACHE(test_publish_is_whole_or_nothing),
        WITH_CACHE(test_unwritable_cache),
        WITH_CACHE(test_space),
        cmocka_unit_test(test_run_errors),
        cmocka_unit_test(test_run_output_and_progress),
        cmocka_unit_test(test_sources),
        cmocka_unit_test(test_cpio),
        cmocka_unit_test(test_applets_found),
        cmocka_unit_test(test_module_info),
        cmocka_unit_test(test_module_info_survives_damage),
        WITH_CACHE(test_modules_resolve),
        cmocka_unit_test(test_unknown_series),
        cmocka_unit_test_setup_teardown(test_tar, enter_cache, leave_cache),
        cmocka_unit_test(test_guest_addresses),
        WITH_CACHE(test_no_network),
        WITH_CACHE(test_no_apt),
        cmocka_unit_test(test_real_kernel),
        cmocka_unit_test(test_real_initramfs),
        cmocka_unit_test(test_initramfs_with_missing_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
