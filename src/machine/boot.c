/*
 * Kernel formats and the boot protocol of arm64 Linux (Documentation/arch/arm64/booting.rst).
 *
 * Every size and offset in a file is checked against the file before use and against RAM before the copy; a bad file
 * is the user's mistake and gets one line.  Left out: U-Boot images, bzip2/xz/lz4 payloads (named in the error).
 * Threads: runs before the vCPUs start, or with all of them stopped.
 */
#include "machine/boot.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "base/trace.h"

enum {
    BOOT_STUB_SPACE = 4096,
    IMAGE_MAGIC_OFF = 56,
    IMAGE_HEADER_SIZE = 64,
    KERNEL_MAX = 1 << 30, /* an unpacked kernel larger than this is a decompression bomb */
};
#define MIB (UINT64_C(1) << 20)

GQuark boot_error_quark(void)
{
    return g_quark_from_static_string("armlet-boot");
}

/* Returns NULL, so that it can stand for a pointer or for false. */
static void *bad_format(GError **err, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
static void *bad_format(GError **err, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (err)
        *err = g_error_new_valist(BOOT_ERROR, BOOT_ERROR_FORMAT, fmt, ap);
    va_end(ap);
    return NULL;
}

static uint64_t le(const uint8_t *p, unsigned bytes)
{
    uint64_t v = 0;
    for (unsigned i = bytes; i--;)
        v = v << 8 | p[i];
    return v;
}

static bool has_magic(const uint8_t *p, size_t size, size_t off, const char *magic, size_t n)
{
    return size >= off + n && !memcmp(p + off, magic, n);
}

/* --- decompression ------------------------------------------------------------------------------- */

static GBytes *gunzip(const char *name, const uint8_t *in, size_t size, GError **err)
{
    z_stream z = { .next_in = (Bytef *)(uintptr_t)in, .avail_in = (uInt)size };
    GByteArray *out = g_byte_array_new();
    uint8_t *buf = g_malloc(MIB);
    int r = inflateInit2(&z, 16 + MAX_WBITS);

    while (r == Z_OK && out->len < KERNEL_MAX) {
        z.next_out = buf;
        z.avail_out = MIB;
        r = inflate(&z, Z_NO_FLUSH);
        g_byte_array_append(out, buf, (guint)(MIB - z.avail_out));
    }
    inflateEnd(&z);
    g_free(buf);
    GBytes *bytes = g_byte_array_free_to_bytes(out);
    if (r == Z_STREAM_END)
        return bytes;
    g_bytes_unref(bytes);
    return bad_format(err, "%s: the gzip data is damaged or cut off", name);
}

static GBytes *unzstd(const char *name, const uint8_t *in, size_t size, GError **err)
{
    ZSTD_DStream *z = ZSTD_createDStream();
    GByteArray *out = g_byte_array_new();
    uint8_t *buf = g_malloc(MIB);
    ZSTD_inBuffer src = { in, size, 0 };
    size_t r = 1;

    while (r && !ZSTD_isError(r) && out->len < KERNEL_MAX) {
        ZSTD_outBuffer dst = { buf, MIB, 0 };
        size_t before = src.pos;
        r = ZSTD_decompressStream(z, &dst, &src);
        g_byte_array_append(out, buf, (guint)dst.pos);
        if (!dst.pos && src.pos == before)
            break;
    }
    ZSTD_freeDStream(z);
    g_free(buf);
    GBytes *bytes = g_byte_array_free_to_bytes(out);
    if (!r)
        return bytes;
    g_bytes_unref(bytes);
    return bad_format(err, "%s: the zstd data is damaged or cut off", name);
}

/* EFI zboot: "MZ", "zimg" at 4, payload offset and size at 8 and 12, compression's name at 24. */
static GBytes *unpack_zboot(const char *name, const uint8_t *p, size_t size, GError **err)
{
    char type[9] = { 0 };

    if (size < 64)
        return bad_format(err, "%s: the EFI zboot header is cut off", name);
    uint64_t off = le(p + 8, 4), len = le(p + 12, 4);
    memcpy(type, p + 24, 8);
    if (off > size || len > size - off)
        return bad_format(err, "%s: the EFI zboot payload lies outside the file (truncated kernel?)", name);
    if (!strcmp(type, "gzip"))
        return gunzip(name, p + off, len, err);
    if (!strcmp(type, "zstd") || !strcmp(type, "zstd22"))
        return unzstd(name, p + off, len, err);
    return bad_format(err, "%s: EFI zboot compression '%s' is not supported (gzip and zstd are)", name, type);
}

GBytes *boot_unpack_kernel(const char *name, GBytes *file, GError **err)
{
    size_t size;
    const uint8_t *p = g_bytes_get_data(file, &size);

    if (has_magic(p, size, 0, "\x1f\x8b", 2))
        return gunzip(name, p, size, err);
    if (has_magic(p, size, 0, "\x28\xb5\x2f\xfd", 4))
        return unzstd(name, p, size, err);
    if (has_magic(p, size, 0, "MZ", 2) && has_magic(p, size, 4, "zimg", 4))
        return unpack_zboot(name, p, size, err);
    return g_bytes_ref(file);
}

/* --- formats ------------------------------------------------------------------------------------- */

/* What a file that is no arm64 kernel seems to be; NULL when nothing is known of it. */
static const char *foreign_kind(const uint8_t *p, size_t size)
{
    if (!size)
        return "an empty file";
    if (has_magic(p, size, 0x202, "HdrS", 4))
        return "an x86 kernel (bzImage)";
    if (has_magic(p, size, 0x24, "\x18\x28\x6f\x01", 4))
        return "a 32-bit Arm kernel (zImage)";
    if (has_magic(p, size, 0x30, "RISCV", 5) || has_magic(p, size, 0x38, "RSC\x05", 4))
        return "a RISC-V kernel";
    if (has_magic(p, size, 0, "\x27\x05\x19\x56", 4))
        return "a U-Boot image (give the Image inside it)";
    if (has_magic(p, size, 0, "070701", 6))
        return "a cpio archive (an initrd?)";
    if (has_magic(p, size, 0, "\xd0\x0d\xfe\xed", 4))
        return "a device tree or FIT image";
    return NULL;
}

static bool no_space(GError **err, const char *what, uint64_t need, struct mem *mem)
{
    g_set_error(err, BOOT_ERROR, BOOT_ERROR_SPACE, "%s needs %" PRIu64 " MiB and does not fit into %" PRIu64
                " MiB of guest memory (give more with -m)", what, (need + MIB - 1) / MIB, mem_ram_size(mem) / MIB);
    return false;
}

static bool place(struct mem *mem, const char *name, uint64_t pa, const void *data, uint64_t file_size,
                  uint64_t mem_size, GError **err)
{
    struct span to = mem_span(mem, pa, mem_size);
    if (!to.hva)
        return no_space(err, name, mem_size, mem);
    memcpy(to.hva, data, file_size);
    memset(to.hva + file_size, 0, mem_size - file_size);
    return true;
}

/*
 * The header's image_size counts memory, not the file; but a kernel with the EFI stub is a PE file too, and its section
 * table says how long the file must be.  0 when it is no PE file.
 */
static uint64_t raw_image_needs(const uint8_t *p, size_t size)
{
    uint64_t pe = le(p + 60, 4), need = pe + 24;

    if (!has_magic(p, size, 0, "MZ", 2) || pe < IMAGE_HEADER_SIZE)
        return 0;
    if (size < need)
        return need;
    if (!has_magic(p, size, pe, "PE\0\0", 4))
        return 0;
    uint64_t sections = le(p + pe + 6, 2), table = pe + 24 + le(p + pe + 20, 2);
    need = table + 40 * sections;
    for (uint64_t i = 0; i < sections && table + 40 * (i + 1) <= size; i++) {
        const uint8_t *s = p + table + 40 * i;
        need = MAX(need, le(s + 20, 4) + le(s + 16, 4));
    }
    return need;
}

static bool load_raw_image(struct mem *mem, const char *name, const uint8_t *p, size_t size, struct boot_image *im,
                           GError **err)
{
    uint64_t text_offset = le(p + 8, 8), image_size = le(p + 16, 8), flags = le(p + 24, 8);

    if (flags & 1) {
        bad_format(err, "%s: a big-endian kernel; only little-endian ones are supported", name);
        return false;
    }
    if (raw_image_needs(p, size) > size) {
        bad_format(err, "%s: the kernel is cut off: %zu of at least %" PRIu64 " bytes are there", name, size,
                   raw_image_needs(p, size));
        return false;
    }
    /* Kernels before 3.17 leave image_size 0; the offset is then 0x80000 whatever the field says (booting.rst). */
    if (!image_size) {
        image_size = size;
        text_offset = 0x80000;
    }
    if (image_size < size)
        image_size = size;
    if (text_offset > mem_ram_size(mem) || image_size > mem_ram_size(mem))
        return no_space(err, name, image_size, mem);
    if (text_offset < BOOT_STUB_SPACE)
        text_offset += 2 * MIB;
    im->kernel_pa = im->entry = mem_ram_base(mem) + text_offset;
    im->kernel_size = image_size;
    return place(mem, name, im->kernel_pa, p, size, image_size, err);
}

static bool load_segment(struct mem *mem, const char *name, const uint8_t *p, size_t size, const Elf64_Phdr *ph,
                         uint64_t slide, struct boot_image *im, GError **err)
{
    if (ph->p_offset > size || ph->p_filesz > size - ph->p_offset || ph->p_filesz > ph->p_memsz) {
        bad_format(err, "%s: an ELF segment lies outside the file (truncated kernel?)", name);
        return false;
    }
    uint64_t pa = ph->p_paddr + slide, end = pa + ph->p_memsz;
    if (!place(mem, name, pa, p + ph->p_offset, ph->p_filesz, ph->p_memsz, err))
        return false;
    if (!im->kernel_size) {
        im->kernel_pa = pa;
        im->kernel_size = ph->p_memsz;
    }
    uint64_t low = MIN(im->kernel_pa, pa), high = MAX(im->kernel_pa + im->kernel_size, end);
    im->kernel_pa = low;
    im->kernel_size = high - low;
    return true;
}

/*
 * A vmlinux carries virtual addresses in p_paddr and e_entry; it is placed as its Image would be, at the start of RAM.
 * An ELF program whose physical addresses lie in RAM is placed where it says.
 */
static bool load_elf(struct mem *mem, const char *name, const uint8_t *p, size_t size, struct boot_image *im,
                     GError **err)
{
    Elf64_Ehdr eh;
    uint64_t low = UINT64_MAX;

    if (size < sizeof eh || p[EI_CLASS] != ELFCLASS64 || p[EI_DATA] != ELFDATA2LSB) {
        bad_format(err, "%s: not a 64-bit little-endian ELF file", name);
        return false;
    }
    memcpy(&eh, p, sizeof eh);
    if (eh.e_machine != EM_AARCH64) {
        bad_format(err, "%s: an ELF file for another machine (%u), not for AArch64", name, eh.e_machine);
        return false;
    }
    if (eh.e_phentsize != sizeof(Elf64_Phdr) || eh.e_phoff > size ||
        (uint64_t)eh.e_phnum * sizeof(Elf64_Phdr) > size - eh.e_phoff) {
        bad_format(err, "%s: the ELF program headers lie outside the file (truncated kernel?)", name);
        return false;
    }
    Elf64_Phdr *ph = g_memdup2(p + eh.e_phoff, (size_t)eh.e_phnum * sizeof *ph);
    for (unsigned i = 0; i < eh.e_phnum; i++)
        if (ph[i].p_type == PT_LOAD && ph[i].p_memsz)
            low = MIN(low, ph[i].p_paddr);
    uint64_t base = mem_ram_base(mem), slide = 0, entry = eh.e_entry;
    if (low < base || low >= base + mem_ram_size(mem)) {
        uint64_t offset = low & (2 * MIB - 1); /* text_offset of the kernel's link address */
        slide = base + (offset < BOOT_STUB_SPACE ? offset + 2 * MIB : offset) - low;
        for (unsigned i = 0; i < eh.e_phnum; i++)
            if (ph[i].p_type == PT_LOAD && eh.e_entry - ph[i].p_vaddr < ph[i].p_memsz)
                entry = eh.e_entry - ph[i].p_vaddr + ph[i].p_paddr;
        entry += slide;
    }
    bool ok = low != UINT64_MAX;
    if (!ok)
        bad_format(err, "%s: an ELF file without anything to load", name);
    for (unsigned i = 0; ok && i < eh.e_phnum; i++)
        if (ph[i].p_type == PT_LOAD && ph[i].p_memsz)
            ok = load_segment(mem, name, p, size, &ph[i], slide, im, err);
    g_free(ph);
    im->entry = entry;
    im->is_elf = true;
    return ok;
}

static bool load_kernel(struct mem *mem, const char *name, GBytes *kernel, struct boot_image *im, GError **err)
{
    size_t size;
    const uint8_t *p = g_bytes_get_data(kernel, &size);

    if (has_magic(p, size, IMAGE_MAGIC_OFF, "ARM\x64", 4) && size >= IMAGE_HEADER_SIZE)
        return load_raw_image(mem, name, p, size, im, err);
    if (has_magic(p, size, 0, ELFMAG, SELFMAG))
        return load_elf(mem, name, p, size, im, err);
    const char *kind = foreign_kind(p, size);
    bad_format(err, "%s: not an arm64 kernel: %s", name,
                 kind ? kind : "neither an Image, a compressed Image nor an ELF file (truncated?)");
    return false;
}

/* What cannot be mapped (pipes, /proc/self/fd/N), which may never end. */
static GBytes *read_stream(const char *path, GError **err)
{
    enum { PIECE = 1 << 20, LIMIT = 512 << 20 };
    g_autoptr(GByteArray) all = g_byte_array_new();
    int fd = open(path, O_RDONLY | O_CLOEXEC), why;
    ssize_t n = fd;
    guint have = 0;

    while (n >= 0 && have < LIMIT) {
        g_byte_array_set_size(all, have + PIECE);
        n = read(fd, all->data + have, PIECE);
        if (n <= 0 && !(n < 0 && errno == EINTR))
            break;
        have += (guint)MAX(n, 0);
        n = 0;
    }
    why = errno;
    if (fd >= 0)
        close(fd);
    if (n < 0)
        g_set_error(err, G_FILE_ERROR, g_file_error_from_errno(why), "%s: %s", path, g_strerror(why));
    else if (have >= LIMIT)
        bad_format(err, "%s: no end after %u MiB", path, LIMIT >> 20);
    if (n < 0 || have >= LIMIT)
        return NULL;
    g_byte_array_set_size(all, have);
    return g_byte_array_free_to_bytes(g_steal_pointer(&all));
}

static GBytes *read_file(const char *what, const char *path, bool *mapped, GError **err)
{
    GError *why = NULL;
    struct stat st;

    if (!stat(path, &st) && S_ISCHR(st.st_mode)) { /* /dev/zero never ends */
        bad_format(err, "%s: a character device, not the file of a kernel or an initrd", path);
        return NULL;
    }
    GMappedFile *map = g_mapped_file_new(path, FALSE, &why);
    *mapped = map;
    if (map) {
        GBytes *bytes = g_mapped_file_get_bytes(map);
        g_mapped_file_unref(map);
        return bytes;
    }
    g_clear_error(&why);
    GBytes *bytes = read_stream(path, err);
    if (!bytes)
        g_prefix_error(err, "cannot read the %s: ", what);
    return bytes;
}

static bool place_initrd(struct mem *mem, const struct boot_files *files, struct boot_image *im, GError **err)
{
    uint64_t base = mem_ram_base(mem), ram = mem_ram_size(mem);
    uint64_t at = MAX(base + MIN(ram / 2, 128 * MIB), im->kernel_pa + im->kernel_size);

    im->initrd_pa = (at + MEM_PAGE_SIZE - 1) & ~(uint64_t)(MEM_PAGE_SIZE - 1);
    im->initrd_size = 0;
    if (files->initrd) {
        im->initrd_size = g_bytes_get_size(files->initrd);
        if (!place(mem, files->initrd_name, im->initrd_pa, g_bytes_get_data(files->initrd, NULL), im->initrd_size,
                   im->initrd_size, err))
            return false;
    }
    /* The kernel maps the tree with 2 MiB blocks: it must not straddle one (booting.rst). */
    im->dtb_pa = (im->initrd_pa + im->initrd_size + 2 * MIB - 1) & ~(2 * MIB - 1);
    im->dtb_max = 2 * MIB;
    if (im->dtb_pa + im->dtb_max > base + ram) {
        /* Small RAM: the tree goes to the last 2 MiB-aligned place above the initrd that can hold 64 KiB. */
        im->dtb_pa = (im->initrd_pa + im->initrd_size + 0xffff) & ~UINT64_C(0xffff);
        if (im->dtb_pa + 0x10000 > base + ram)
            return no_space(err, "the kernel with its initrd and device tree",
                            im->dtb_pa + 0x10000 - base, mem);
        im->dtb_max = base + ram - im->dtb_pa;
    }
    return true;
}

bool boot_open(struct boot_files *files, const char *kernel, const char *initrd, GError **err)
{
    *files = (struct boot_files){ .kernel_name = g_strdup(kernel), .initrd_name = g_strdup(initrd) };
    if ((!kernel || (files->kernel = read_file("kernel", kernel, &files->kernel_mapped, err))) &&
        (!initrd || (files->initrd = read_file("initrd", initrd, &files->initrd_mapped, err))))
        return true;
    boot_close(files);
    return false;
}

void boot_close(struct boot_files *files)
{
    g_clear_pointer(&files->kernel, g_bytes_unref);
    g_clear_pointer(&files->initrd, g_bytes_unref);
    g_clear_pointer(&files->kernel_name, g_free);
    g_clear_pointer(&files->initrd_name, g_free);
}

/* The file is needed again only after a reset: its pages need not stay until then. */
static void give_back(GBytes *file, bool mapped)
{
    gsize size;
    void *p = file && mapped ? (void *)(uintptr_t)g_bytes_get_data(file, &size) : NULL;

    if (p)
        madvise(p, size, MADV_DONTNEED);
}

bool boot_load(struct mem *mem, const struct boot_files *files, struct boot_image *image, GError **err)
{
    memset(image, 0, sizeof *image);
    image->entry = mem_ram_base(mem);
    if (files->kernel) {
        GBytes *unpacked = boot_unpack_kernel(files->kernel_name, files->kernel, err);
        bool ok = unpacked && load_kernel(mem, files->kernel_name, unpacked, image, err);
        g_clear_pointer(&unpacked, g_bytes_unref);
        if (!ok)
            return false;
    }
    if (!place_initrd(mem, files, image, err))
        return false;
    give_back(files->kernel, files->kernel_mapped);
    give_back(files->initrd, files->initrd_mapped);
    return true;
}

bool boot_finish(struct mem *mem, const struct boot_image *image, const void *dtb, uint64_t size, uint64_t *pc,
                 GError **err)
{
    uint64_t base = mem_ram_base(mem);

    if (size > image->dtb_max)
        return no_space(err, "the device tree", size, mem);
    if (!mem_write(mem, image->dtb_pa, dtb, size))
        return no_space(err, "the device tree", size, mem);
    if (image->kernel_size)
        trace(BOOT, "kernel at %#" PRIx64 ", %" PRIu64 " bytes, starts at %#" PRIx64, image->kernel_pa, image->kernel_size,
              image->entry);
    if (image->initrd_size)
        trace(BOOT, "initrd at %#" PRIx64 ", %" PRIu64 " bytes", image->initrd_pa, image->initrd_size);
    trace(BOOT, "device tree at %#" PRIx64 ", %" PRIu64 " bytes", image->dtb_pa, size);
    *pc = image->entry;
    /* An ELF program that covers the start of RAM brings its own first instructions. */
    if (!image->kernel_size || (image->is_elf && image->kernel_pa < base + BOOT_STUB_SPACE))
        return true;
    const uint32_t stub[] = {
        0x580000c0,                   /* ldr x0, dtb */
        0xaa1f03e1,                   /* mov x1, xzr */
        0xaa1f03e2,                   /* mov x2, xzr */
        0xaa1f03e3,                   /* mov x3, xzr */
        0x58000084,                   /* ldr x4, entry */
        0xd61f0080,                   /* br x4 */
        (uint32_t)image->dtb_pa, (uint32_t)(image->dtb_pa >> 32),
        (uint32_t)image->entry, (uint32_t)(image->entry >> 32),
    };
    *pc = base;
    return mem_write(mem, base, stub, sizeof stub);
}
