/*
 * Option grammar, option table and boot loader without a machine: what is accepted, what is said about the rest, and
 * that no file whatever makes the loaders or the device tree reader leave their bounds (run it under ASan).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <elf.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <libfdt.h>

#include "machine/board.h"
#include "machine/boot.h"
#include "machine/config.h"
#include "machine/devtree.h"
#include "machine/machine.h"
#include "machine/props.h"

#define MIB (UINT64_C(1) << 20)

/* --- properties ------------------------------------------------------------------------------------------- */

static void test_props_grammar(void **state)
{
    struct props *p = props_new("virt,a_b=1,c=x,,y,d,nod2,c2=,a-b=2", "type");
    bool on;
    uint64_t n;

    (void)state;
    assert_string_equal(props_get(p, "type"), "virt");
    assert_string_equal(props_get(p, "a-b"), "2"); /* `_' equals `-', the last counts */
    assert_string_equal(props_get(p, "c"), "x,y");
    assert_true(props_bool(p, "d", false, &on, NULL) && on);
    assert_true(props_bool(p, "d2", true, &on, NULL) && !on);
    assert_string_equal(props_get(p, "c2"), "");
    assert_true(props_number(p, "a-b", 7, &n, NULL) && n == 2);
    assert_true(props_number(p, "absent", 7, &n, NULL) && n == 7);
    assert_true(props_finish(p, "x", NULL));
    props_free(p);
}

static void test_props_default(void **state)
{
    struct props *p = props_new("a=1", NULL);

    (void)state;
    props_default(p, "a", "2");
    props_default(p, "b_c", "3");
    assert_string_equal(props_get(p, "a"), "1");
    assert_string_equal(props_get(p, "b-c"), "3");
    props_free(p);
}

static void test_props_errors(void **state)
{
    struct props *p = props_new("drvie=a,n=12x,b=maybe", NULL);
    GError *err = NULL;
    bool on;
    uint64_t n;

    (void)state;
    props_get(p, "drive");
    assert_false(props_number(p, "n", 0, &n, &err));
    g_clear_error(&err);
    assert_false(props_bool(p, "b", false, &on, &err));
    g_clear_error(&err);
    assert_false(props_finish(p, "-device x", &err));
    assert_non_null(strstr(err->message, "no property 'drvie'"));
    assert_non_null(strstr(err->message, "'drive'"));
    g_clear_error(&err);
    props_free(p);
}

static void test_sizes(void **state)
{
    static const struct { const char *text; bool ok; uint64_t bytes; } cases[] = {
        { "2048", true, 2048 * MIB }, { "512M", true, 512 * MIB }, { "1.5G", true, 1536 * MIB }, { "1T", true, MIB * MIB },
        { "64k", true, 65536 }, { "7b", true, 7 }, { "", false, 0 }, { "x", false, 0 }, { "-1", false, 0 },
        { "1Q", false, 0 }, { "1MM", false, 0 }, { "9999999999T", false, 0 }, { "inf", false, 0 }, { "nan", false, 0 },
        { "1e3", false, 0 }, { "2E", false, 0 } };

    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        uint64_t bytes = 0;
        assert_int_equal(parse_size(cases[i].text, MIB, &bytes), cases[i].ok);
        if (cases[i].ok)
            assert_int_equal(bytes, cases[i].bytes);
    }
}

static void test_suggest(void **state)
{
    static const char *const names[] = { "kernel", "initrd", "append", NULL };

    (void)state;
    assert_string_equal(suggest("kenrel", names), "kernel");
    assert_string_equal(suggest("apend", names), "append");
    assert_null(suggest("zzzzzz", names));
    assert_null(suggest("", names));
}

/* --- options ---------------------------------------------------------------------------------------------- */

static struct config *parse(GError **err, const char *line)
{
    g_auto(GStrv) argv = NULL;
    int argc;

    assert_true(g_shell_parse_argv(line, &argc, &argv, NULL));
    return config_parse(argc, argv, err);
}

static void test_options(void **state)
{
    GError *err = NULL;
    struct config *c = parse(&err, "-machine virt -cpu cortex-a72 --machine type=virt,gic_version=2 -smp cpus=4 -m 1G "
                             "-kernel k --append 'a b' -no-reboot -action panic=exit-failure -echr 2 "
                             "-rtc base=2006-06-17T16:01:21 -global virtio-blk-device.queue_size=64 -snapshot disk.img");

    (void)state;
    assert_null(err);
    assert_string_equal(cpu_model_name(c->cpu), "cortex-a72");
    assert_int_equal(c->smp, 4);
    assert_int_equal(c->ram, 1024 * MIB);
    assert_string_equal(c->append, "a b");
    assert_true(c->no_reboot && c->snapshot);
    assert_int_equal(c->on_panic, PANIC_EXIT_FAILURE);
    assert_int_equal(c->escape, 2);
    assert_int_equal(c->rtc_base, 1150560081);
    assert_int_equal(c->globals->len, 1);
    assert_string_equal(((struct global_config *)c->globals->pdata[0])->property, "queue-size");
    assert_int_equal(c->drives->len, 1);
    assert_string_equal(props_get(c->drives->pdata[0], "file"), "disk.img");
    config_free(c);
}

static void test_option_errors(void **state)
{
    static const char *const lines[] = { "-smp 0", "-smp 9", "-smp 2,sockets=3", "-m 0", "-m 1T", "-m", "-cpu nope",
                                         "-frob", "-machine pc", "-append x", "-accel kvm", "-echr 300", "-vga std",
                                         "-rtc base=then", "-action panic=dance", "-global x", "-device nope,help" };

    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(lines); i++) {
        GError *err = NULL;
        assert_null(parse(&err, lines[i]));
        if (!err)
            fail_msg("%s: no error", lines[i]);
        assert_null(strchr(err->message, '\n'));
        g_error_free(err);
    }
}

/* --- loaders ---------------------------------------------------------------------------------------------- */

static bool load(const void *data, size_t size, struct boot_image *im)
{
    struct mem *mem = mem_new(BOARD_RAM_BASE, 16 * MIB);
    struct boot_files files = { .kernel_name = (char *)"k", .kernel = g_bytes_new(data, size) };
    GError *err = NULL;
    bool ok = boot_load(mem, &files, im, &err);

    if (ok) {
        uint64_t pc;
        uint8_t tree[64] = { 0 };
        assert_in_range(im->kernel_pa, BOARD_RAM_BASE, BOARD_RAM_BASE + 16 * MIB - im->kernel_size);
        assert_in_range(im->dtb_pa, im->kernel_pa + im->kernel_size, BOARD_RAM_BASE + 16 * MIB - sizeof tree);
        assert_true(boot_finish(mem, im, tree, sizeof tree, &pc, &err));
    } else {
        assert_non_null(err);
        assert_null(strchr(err->message, '\n'));
        g_error_free(err);
    }
    g_bytes_unref(files.kernel);
    mem_free(mem);
    return ok;
}

enum { KERNEL = 5000 };

static void make_image(uint8_t *k)
{
    memset(k, 0x5a, KERNEL);
    memset(k, 0, 64);
    k[17] = 0x40; /* image_size 16 KiB */
    k[24] = 2;    /* 4 KiB pages */
    memcpy(k + 56, "ARM\x64", 4);
}

static size_t make_gzip(const uint8_t *in, size_t n, uint8_t *out, size_t room)
{
    z_stream z = { .next_in = (Bytef *)(uintptr_t)in, .avail_in = (uInt)n, .next_out = out, .avail_out = (uInt)room };

    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    deflateEnd(&z);
    return room - z.avail_out;
}

static size_t make_zboot(uint8_t *out, size_t room)
{
    uint8_t k[KERNEL];

    make_image(k);
    memset(out, 0, 64);
    memcpy(out, "MZ\0\0zimg", 8);
    size_t n = make_gzip(k, KERNEL, out + 64, room - 64);
    const uint32_t where[2] = { 64, (uint32_t)n };
    memcpy(out + 8, where, 8);
    memcpy(out + 24, "gzip", 4);
    return 64 + n;
}

static size_t make_elf(uint8_t *out)
{
    const Elf64_Ehdr eh = { .e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT }, .e_type = ET_EXEC,
                            .e_machine = EM_AARCH64, .e_entry = UINT64_C(0xffff800008000010), .e_phoff = sizeof eh,
                            .e_phentsize = sizeof(Elf64_Phdr), .e_phnum = 1 };
    const Elf64_Phdr ph = { .p_type = PT_LOAD, .p_offset = 256, .p_vaddr = UINT64_C(0xffff800008000000),
                            .p_paddr = UINT64_C(0xffff800008000000), .p_filesz = 1000, .p_memsz = 3000 };
    memset(out, 0x77, 1256);
    memcpy(out, &eh, sizeof eh);
    memcpy(out + sizeof eh, &ph, sizeof ph);
    return 1256;
}

static void test_formats(void **state)
{
    uint8_t k[KERNEL], buf[2 * KERNEL];
    struct boot_image im;

    (void)state;
    make_image(k);
    assert_true(load(k, KERNEL, &im));
    assert_int_equal(im.kernel_pa, BOARD_RAM_BASE + 2 * MIB);
    assert_int_equal(im.kernel_size, 0x4000);
    assert_true(load(buf, make_gzip(k, KERNEL, buf, sizeof buf), &im));
    assert_int_equal(im.kernel_size, 0x4000);
    assert_true(load(buf, make_zboot(buf, sizeof buf), &im));
    assert_int_equal(im.kernel_size, 0x4000);
    assert_true(load(buf, make_elf(buf), &im));
    assert_int_equal(im.entry, BOARD_RAM_BASE + 2 * MIB + 0x10);
    assert_int_equal(im.kernel_size, 3000);
    k[24] |= 1;
    assert_false(load(k, KERNEL, &im)); /* big-endian */
    make_image(k);
    k[20] = 1;
    assert_false(load(k, KERNEL, &im)); /* 4 GiB of BSS */
}

static uint32_t rnd(uint32_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 17;
    *s ^= *s << 5;
    return *s;
}

/* An EFI zboot image whose payload is zstd. */
static size_t make_zboot_zstd(uint8_t *out, size_t room)
{
    uint8_t k[KERNEL];

    make_image(k);
    memset(out, 0, 64);
    memcpy(out, "MZ\0\0zimg", 8);
    size_t n = ZSTD_compress(out + 64, room - 64, k, KERNEL, 3);
    const uint32_t where[2] = { 64, (uint32_t)n };
    assert_false(ZSTD_isError(n));
    memcpy(out + 8, where, 8);
    memcpy(out + 24, "zstd22", 6);
    return 64 + n;
}

/* Good files with some bytes changed or cut off; what loads must lie in RAM, which load() checks. */
static void test_damaged_kernels(void **state)
{
    enum { FORMATS = 5 };
    uint8_t good[FORMATS][2 * KERNEL], k[KERNEL];
    size_t size[FORMATS] = { KERNEL };
    uint32_t seed = 1;
    struct boot_image im;

    (void)state;
    make_image(good[0]);
    size[1] = make_zboot(good[1], sizeof good[1]);
    size[2] = make_elf(good[2]);
    size[3] = make_gzip(good[0], KERNEL, good[3], sizeof good[3]);
    size[4] = make_zboot_zstd(good[4], sizeof good[4]);
    for (unsigned i = 0; i < FORMATS; i++)
        assert_true(load(good[i], size[i], &im));
    for (unsigned i = 0; i < 5000; i++) {
        unsigned which = i % FORMATS;
        size_t n = rnd(&seed) % 4 ? size[which] : rnd(&seed) % size[which];
        memcpy(k, good[which], MIN(n, sizeof k));
        n = MIN(n, sizeof k);
        for (unsigned j = rnd(&seed) % 6; j && n; j--)
            k[rnd(&seed) % (rnd(&seed) % 3 ? MIN(n, 128) : n)] = (uint8_t)(rnd(&seed) % 5 ? rnd(&seed) : 0xff);
        load(k, n, &im);
    }
}

static void test_initrd_places(void **state)
{
    struct boot_image im;
    uint8_t k[KERNEL];

    (void)state;
    make_image(k);
    for (unsigned ram = 1; ram < 40; ram += 3) {
        struct mem *mem = mem_new(BOARD_RAM_BASE, ram * MIB);
        struct boot_files f = { .kernel_name = (char *)"k", .kernel = g_bytes_new(k, KERNEL), .initrd_name = (char *)"i",
                                .initrd = g_bytes_new_take(g_malloc0(5 * MIB), 5 * MIB) };
        GError *err = NULL;
        if (boot_load(mem, &f, &im, &err)) {
            assert_true(im.initrd_pa >= im.kernel_pa + im.kernel_size);
            assert_true(im.dtb_pa >= im.initrd_pa + im.initrd_size);
            assert_true(im.dtb_pa + im.dtb_max <= BOARD_RAM_BASE + ram * MIB);
        } else {
            assert_true(ram < 16);
            g_error_free(err);
        }
        g_bytes_unref(f.kernel);
        g_bytes_unref(f.initrd);
        mem_free(mem);
    }
}

/* --- device trees -------------------------------------------------------------------------------------------- */

static void test_damaged_trees(void **state)
{
    struct devtree_config cfg = { .smp = 2, .ram_size = 64 * MIB, .model = cpu_model_find("cortex-a57"),
                                  .append = "console=ttyAMA0", .initrd_pa = BOARD_RAM_BASE, .initrd_size = 4096 };
    GBytes *good = devtree_build(&cfg, NULL);
    gsize size;
    const uint8_t *data = g_bytes_get_data(good, &size);
    g_autofree char *path = g_build_filename(g_get_tmp_dir(), "armlet-tree-XXXXXX", NULL);
    uint32_t seed = 7;
    unsigned accepted = 0;
    int fd = g_mkstemp(path);

    (void)state;
    assert_int_equal(fdt_check_full(data, size), 0);
    assert_true(fd >= 0);
    close(fd);
    cfg.dtb = path;
    for (unsigned i = 0; i < 1500; i++) {
        g_autofree uint8_t *bad = g_memdup2(data, size);
        gsize n = i && rnd(&seed) % 4 == 0 ? rnd(&seed) % size : size;
        for (unsigned j = i ? rnd(&seed) % 5 : 0; j; j--)
            bad[rnd(&seed) % (rnd(&seed) % 2 ? 64 : size)] = (uint8_t)rnd(&seed);
        assert_true(g_file_set_contents(path, (const char *)bad, (gssize)n, NULL));
        GError *err = NULL;
        GBytes *tree = devtree_build(&cfg, &err);
        assert_true(!tree == !!err);
        if (tree)
            assert_int_equal(fdt_check_full(g_bytes_get_data(tree, NULL), g_bytes_get_size(tree)), 0);
        accepted += tree != NULL;
        g_clear_pointer(&tree, g_bytes_unref);
        g_clear_error(&err);
    }
    assert_in_range(accepted, 100, 1499);
    unlink(path);
    g_bytes_unref(good);
}

/* --- command lines at random ---------------------------------------------------------------------------------- */

static const char *pick(uint32_t *seed, const char *const *words, unsigned n)
{
    return words[rnd(seed) % n];
}

/* PROP=VALUE,... as users write it, and as they should not. */
static void random_props(uint32_t *seed, GString *s)
{
    static const char *const keys[] = { "id", "file", "if", "format", "drive", "bus", "chardev", "netdev", "addr", "serial",
        "type", "gic-version", "cpus", "sockets", "size", "max-bytes", "period", "rng", "filename", "hostfwd", "net", "host",
        "name", "queue-size", "num-queues", "mac", "romfile", "disable-legacy", "mode", "base", "cache", "readonly",
        "tb-size", "check", "nr", "server", "wait", "panic", "", "\x01", "path", "snapshot", "index", "multifunction" };
    static const char *const values[] = { "on", "off", "0", "1", "-1", "4", "99999999999999999999", "1T", "1k", "x", "", "hd0",
        "none", "virtio", "raw", "null", "tcp::1-:2", "tcp:127.0.0.1:99999-:22", "10.0.2.0/24", "10.0.2.0/99", "52:54:00:12:34:56",
        "52:54", "02.0", "1f.7", "20.9", "/dev/null", "/nonexistent", "virtio-mmio-bus.31", "virtio-mmio-bus.99", "pcie.0",
        "r", "c", "n", "writethrough", "unsafe", "%s%n", "\xff\xfe", "0x10", "3.5", "2006-06-17", ",,", "=" };

    for (unsigned n = rnd(seed) % 5; n; n--)
        g_string_append_printf(s, ",%s%s%s", pick(seed, keys, G_N_ELEMENTS(keys)), rnd(seed) % 8 ? "=" : "",
                               pick(seed, values, G_N_ELEMENTS(values)));
}

static void random_option(uint32_t *seed, GPtrArray *argv)
{
    /* What opens the terminal, waits for somebody or writes files is not here. */
    static const char *const options[] = { "-machine", "-M", "-cpu", "-smp", "-m", "-kernel", "-initrd", "-append", "-dtb",
        "-device", "-drive", "-object", "-netdev", "-nic", "-net", "-chardev", "-mon", "-global", "-rtc", "-name", "-action",
        "-echr", "-accel", "-snapshot", "-no-reboot", "-S", "-hda", "-nodefaults", "-vga", "-frob", "--", "-", "x" };
    static const char *const firsts[] = { "virt", "cortex-a57", "max", "cortex-a99", "1", "8", "9", "64M", "tcg", "interp",
        "virtio-blk-device", "virtio-blk-pci", "virtio-net-pci", "virtio-net-device", "virtio-rng-device", "virtio-rng-pci",
        "virtio-serial-device", "virtconsole", "virtserialport", "virtio-serial-pci", "rng-random", "rng-builtin", "user", "none",
        "null", "ringbuf", "nic", "reboot=shutdown", "panic=pause", "virtio-blk-device.queue_size=64", "", "/dev/null", "nosuch" };

    g_ptr_array_add(argv, g_strdup(pick(seed, options, G_N_ELEMENTS(options))));
    if (rnd(seed) % 8) {
        GString *s = g_string_new(pick(seed, firsts, G_N_ELEMENTS(firsts)));
        random_props(seed, s);
        g_ptr_array_add(argv, g_string_free(s, FALSE));
    }
}

/* Either a machine or one line that says why not. */
static bool try_line(GPtrArray *argv)
{
    GError *err = NULL;
    struct config *c = config_parse((int)argv->len, (char *const *)argv->pdata, &err);
    struct machine *m = c ? machine_new(c, &err) : NULL;
    bool ok = m;

    assert_true(!m == !!err);
    if (err && (!*err->message || strchr(err->message, '\n')))
        fail_msg("not one line: '%s'", err->message);
    g_clear_error(&err);
    g_clear_pointer(&m, machine_free);
    g_clear_pointer(&c, config_free);
    return ok;
}

static void test_random_options(void **state)
{
    static const char *const quiet[] = { "-display", "none", "-serial", "null", "-monitor", "none" };
    uint32_t seed = 99;
    unsigned made = 0;

    (void)state;
    g_log_set_always_fatal(G_LOG_LEVEL_WARNING | G_LOG_LEVEL_CRITICAL); /* an error set twice */
    for (unsigned i = 0; i < 4000; i++) {
        GPtrArray *argv = g_ptr_array_new_with_free_func(g_free);
        for (unsigned j = 0; j < G_N_ELEMENTS(quiet); j++)
            g_ptr_array_add(argv, g_strdup(quiet[j]));
        for (unsigned j = 1 + rnd(&seed) % 3; j; j--)
            random_option(&seed, argv);
        made += try_line(argv);
        g_ptr_array_unref(argv);
    }
    assert_in_range(made, 20, 3999); /* some are good */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_props_grammar), cmocka_unit_test(test_props_default), cmocka_unit_test(test_props_errors),
        cmocka_unit_test(test_sizes), cmocka_unit_test(test_suggest), cmocka_unit_test(test_options),
        cmocka_unit_test(test_option_errors), cmocka_unit_test(test_formats), cmocka_unit_test(test_damaged_kernels),
        cmocka_unit_test(test_initrd_places), cmocka_unit_test(test_damaged_trees),
        cmocka_unit_test(test_random_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
