/*
 * fw_cfg over MMIO: selector, data register, DMA (interface version 3).
 *
 * Multi-byte registers are big-endian; the data register gives bytes in memory order at any access width.
 * Items cannot be written by the guest: a DMA write is answered with an error.
 *
 * Threading: the board's lock.
 */
#include "dev/fw_cfg.h"

#include <errno.h>

#include "base/bits.h"
#include "base/report.h"

enum { DATA = 0x00, SELECTOR = 0x08, DMA_HIGH = 0x10, DMA_LOW = 0x14, FW_CFG_SIZE = 0x18 };
enum { NUM_KEYS = FW_CFG_FILE_FIRST + FW_CFG_MAX_FILES, NO_KEY = 0xffff };
enum { FILE_NAME_SIZE = 56, FILE_ENTRY_SIZE = 64 };
enum { ID_TRADITIONAL = 1, ID_DMA = 2 };
enum { DMA_ERROR = 1, DMA_READ = 2, DMA_SKIP = 4, DMA_SELECT = 8, DMA_WRITE = 16 };

#define DMA_SIGNATURE UINT64_C(0x51454d5520434647) /* "QEMU CFG" */

struct item {
    uint8_t *data;
    uint32_t len;
    char name[FILE_NAME_SIZE]; /* files only */
};

struct fw_cfg {
    struct device dev;
    struct mem *mem;
    struct item items[NUM_KEYS];
    unsigned num_files;
    uint16_t key;    /* selected; NO_KEY: one that does not exist */
    uint32_t pos;    /* within the selected item */
    uint64_t dma_pa; /* as written so far */
};

/* The list a driver sees as 32-bit words is only the DMA address register; the rest has other widths. */
static const struct reg regs[] = {
    {"DATA", DATA, REG_RO | REG_SIDE, 0xffffffff, 0},
    {"SELECTOR", SELECTOR, REG_WO | REG_SIDE, 0xffff, 0},
    {"DMA_HIGH", DMA_HIGH, REG_RW | REG_SIDE, 0xffffffff, 0x554d4551},
    {"DMA_LOW", DMA_LOW, REG_RW | REG_SIDE, 0xffffffff, 0x47464320},
};

static const struct item *selected(const struct fw_cfg *fw)
{
    static const struct item none;

    return fw->key < NUM_KEYS ? &fw->items[fw->key] : &none;
}

static void select_key(struct fw_cfg *fw, uint16_t key)
{
    fw->key = key < NUM_KEYS ? key : NO_KEY;
    fw->pos = 0;
}

/* Past the end of an item there are zeros. */
static uint64_t read_data(struct fw_cfg *fw, unsigned size)
{
    const struct item *it = selected(fw);
    uint64_t v = 0;

    for (unsigned i = 0; i < size && fw->pos < it->len; i++)
        v |= (uint64_t)it->data[fw->pos++] << (8 * i);
    return v;
}

/* Copies up to len bytes of the item to the guest, then zeros.  False when an address is not RAM. */
static bool dma_copy(struct fw_cfg *fw, uint64_t pa, uint32_t len)
{
    const struct item *it = selected(fw);
    uint32_t n = MIN(len, it->len - MIN(fw->pos, it->len));
    struct span s = mem_span(fw->mem, pa, len);

    if (!s.hva)
        return false;
    if (n)
        memcpy(s.hva, it->data + fw->pos, n);
    memset(s.hva + n, 0, len - n);
    fw->pos += n;
    return true;
}

/* struct { be32 control; be32 length; be64 address } at dma_pa; the answer goes into control. */
static void run_dma(struct fw_cfg *fw, uint64_t pa)
{
    struct span s = mem_span(fw->mem, pa, 16);
    uint32_t control, len, answer = 0;
    uint64_t address;

    if (!s.hva) {
        dev_guest_error(&fw->dev, "DMA descriptor outside RAM", DMA_LOW, pa);
        return;
    }
    memcpy(&control, s.hva, 4);
    memcpy(&len, s.hva + 4, 4);
    memcpy(&address, s.hva + 8, 8);
    control = GUINT32_FROM_BE(control);
    len = GUINT32_FROM_BE(len);
    address = GUINT64_FROM_BE(address);
    if (control & DMA_SELECT)
        select_key(fw, (uint16_t)(control >> 16));
    if (control & DMA_READ) {
        if (len && !dma_copy(fw, address, len))
            answer = DMA_ERROR;
    } else if (control & DMA_WRITE) {
        answer = DMA_ERROR;
    } else if (control & DMA_SKIP) {
        fw->pos += MIN(len, selected(fw)->len - MIN(fw->pos, selected(fw)->len));
    }
    answer = GUINT32_TO_BE(answer);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    memcpy(s.hva, &answer, 4);
}

static uint64_t fw_cfg_read(void *opaque, uint64_t off, unsigned size)
{
    struct fw_cfg *fw = opaque;

    if (off < SELECTOR)
        return read_data(fw, size);
    if (off >= DMA_HIGH && off + size <= FW_CFG_SIZE)
        return bits_extract(GUINT64_SWAP_LE_BE(DMA_SIGNATURE), (unsigned)(off - DMA_HIGH) * 8, size * 8);
    return 0;
}

/* The low half of the DMA address starts the transfer. */
static void write_dma(struct fw_cfg *fw, uint64_t off, uint64_t value, unsigned size)
{
    uint64_t pa;

    if (size == 8 && off == DMA_HIGH) {
        pa = GUINT64_SWAP_LE_BE(value);
    } else if (size == 4 && off == DMA_HIGH) {
        fw->dma_pa = (uint64_t)GUINT32_SWAP_LE_BE((uint32_t)value) << 32;
        return;
    } else if (size == 4 && off == DMA_LOW) {
        pa = fw->dma_pa | GUINT32_SWAP_LE_BE((uint32_t)value);
    } else {
        dev_guest_error(&fw->dev, "odd write to the DMA address", off, value);
        return;
    }
    fw->dma_pa = 0;
    run_dma(fw, pa);
}

static void fw_cfg_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
    struct fw_cfg *fw = opaque;

    if (off == SELECTOR && size == 2)
        select_key(fw, GUINT16_SWAP_LE_BE((uint16_t)value));
    else if (off >= DMA_HIGH)
        write_dma(fw, off, value, size);
    else
        dev_guest_error(&fw->dev, "no such register to write", off, value);
}

/* --- contents ------------------------------------------------------------------------------------------- */

static struct fw_cfg *from_device(struct device *dev)
{
    return CONTAINER_OF(dev, struct fw_cfg, dev);
}

static void set_item(struct item *it, const void *data, uint32_t len)
{
    g_free(it->data);
    it->data = g_memdup2(data, len);
    it->len = len;
}

void fw_cfg_add_bytes(struct device *dev, enum fw_cfg_key key, const void *data, uint32_t len)
{
    BUG_ON(key >= FW_CFG_FILE_FIRST);
    set_item(&from_device(dev)->items[key], data, len);
}

void fw_cfg_add_string(struct device *dev, enum fw_cfg_key key, const char *s)
{
    fw_cfg_add_bytes(dev, key, s, (uint32_t)strlen(s) + 1);
}

void fw_cfg_add_u16(struct device *dev, enum fw_cfg_key key, uint16_t value)
{
    value = GUINT16_TO_LE(value);
    fw_cfg_add_bytes(dev, key, &value, sizeof(value));
}

void fw_cfg_add_u32(struct device *dev, enum fw_cfg_key key, uint32_t value)
{
    value = GUINT32_TO_LE(value);
    fw_cfg_add_bytes(dev, key, &value, sizeof(value));
}

void fw_cfg_add_u64(struct device *dev, enum fw_cfg_key key, uint64_t value)
{
    value = GUINT64_TO_LE(value);
    fw_cfg_add_bytes(dev, key, &value, sizeof(value));
}

/* be32 count, then for each file: be32 size, be16 key, be16 zero, char name[56]. */
static void write_directory(struct fw_cfg *fw)
{
    uint32_t len = 4 + fw->num_files * FILE_ENTRY_SIZE, be32 = GUINT32_TO_BE(fw->num_files);
    uint8_t *dir = g_malloc0(len);

    memcpy(dir, &be32, 4);
    for (unsigned i = 0; i < fw->num_files; i++) {
        const struct item *it = &fw->items[FW_CFG_FILE_FIRST + i];
        uint8_t *entry = dir + 4 + i * FILE_ENTRY_SIZE;
        uint16_t key = GUINT16_TO_BE((uint16_t)(FW_CFG_FILE_FIRST + i));

        be32 = GUINT32_TO_BE(it->len);
        memcpy(entry, &be32, 4);
        memcpy(entry + 4, &key, 2);
        memcpy(entry + 8, it->name, FILE_NAME_SIZE);
    }
    set_item(&fw->items[FW_CFG_FILE_DIR], dir, len);
    g_free(dir);
}

/* Files are kept sorted by name: guests may search, and the order shall not depend on that of the options. */
int fw_cfg_add_file(struct device *dev, const char *name, const void *data, size_t len)
{
    struct fw_cfg *fw = from_device(dev);
    struct item *files = &fw->items[FW_CFG_FILE_FIRST];
    unsigned i = 0;

    if (strlen(name) > FW_CFG_MAX_NAME)
        return -ENAMETOOLONG;
    if (len > UINT32_MAX)
        return -EFBIG;
    while (i < fw->num_files && strcmp(files[i].name, name) < 0)
        i++;
    if (i == fw->num_files || strcmp(files[i].name, name)) {
        if (fw->num_files == FW_CFG_MAX_FILES)
            return -ENOSPC;
        memmove(&files[i + 1], &files[i], (fw->num_files - i) * sizeof(files[0]));
        files[i] = (struct item){.data = NULL};
        strncpy(files[i].name, name, FILE_NAME_SIZE - 1);
        fw->num_files++;
    }
    set_item(&files[i], data, (uint32_t)len);
    write_directory(fw);
    return 0;
}

/* --- the device ----------------------------------------------------------------------------------------- */

static void fw_cfg_reset(struct device *dev)
{
    struct fw_cfg *fw = from_device(dev);

    select_key(fw, FW_CFG_SIGNATURE);
    fw->dma_pa = 0;
}

static void fw_cfg_free(struct device *dev)
{
    struct fw_cfg *fw = from_device(dev);

    for (unsigned i = 0; i < NUM_KEYS; i++)
        g_free(fw->items[i].data);
    g_free(dev->id);
    g_free(fw);
}

static void fw_cfg_describe(struct device *dev, GString *out)
{
    struct fw_cfg *fw = from_device(dev);

    for (unsigned i = 0; i < fw->num_files; i++) {
        const struct item *it = &fw->items[FW_CFG_FILE_FIRST + i];

        g_string_append_printf(out, "file \"%s\", %u bytes\n", it->name, it->len);
    }
}

static const struct device_class fw_cfg_class = {
    .name = "fw_cfg_mem",
    .reg_list = regs,
    .reg_count = ARRAY_LEN(regs),
    .reset = fw_cfg_reset,
    .free = fw_cfg_free,
    .describe = fw_cfg_describe,
};

static const struct mem_ops fw_cfg_ops = {fw_cfg_read, fw_cfg_write, 1, 8, false};

struct device *fw_cfg_new(GMutex *lock, struct mem *mem)
{
    struct fw_cfg *fw = g_new0(struct fw_cfg, 1);

    dev_init(&fw->dev, &fw_cfg_class, &fw_cfg_ops, FW_CFG_SIZE, lock);
    fw->mem = mem;
    fw_cfg_add_bytes(&fw->dev, FW_CFG_SIGNATURE, "QEMU", 4);
    fw_cfg_add_u32(&fw->dev, FW_CFG_ID, ID_TRADITIONAL | ID_DMA);
    write_directory(fw);
    fw_cfg_reset(&fw->dev);
    return &fw->dev;
}
