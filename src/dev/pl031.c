/*
 * PL031: a counter of seconds, set by software as an offset to the source, and an interrupt when it reaches
 * MR.
 *
 * The time set by the guest outlives a reset of the board, as in hardware with a battery.
 *
 * Threading: the board's lock; the alarm runs on the main thread and takes it.
 */
#include "dev/pl031.h"

#include "base/compiler.h"

enum {
    DR = 0x00,
    MR = 0x04,
    LR = 0x08,
    CR = 0x0c,
    IMSC = 0x10,
    RIS = 0x14,
    MIS = 0x18,
    ICR = 0x1c,
    ID = 0xfe0
};

#define USEC INT64_C(1000000)
/* How long to sleep at most: the source may be stepped meanwhile. */
#define MAX_SLEEP (60 * USEC)

struct pl031 {
    struct device dev;
    struct rtc_source source;
    uint32_t offset; /* counter = seconds of the source + offset, modulo 2^32 */
    uint32_t mr, lr;
    bool imsc, ris;
    GSource *alarm;      /* NULL: none */
    int64_t alarm_time;  /* in the source's time */
};

static const struct reg regs[] = {
    {"RTCDR", DR, REG_RO | REG_SIDE, 0xffffffff, 0},
    {"RTCMR", MR, REG_RW, 0xffffffff, 0},
    {"RTCLR", LR, REG_RW, 0xffffffff, 0},
    {"RTCCR", CR, REG_RW | REG_SIDE, 0x1, 1},
    {"RTCIMSC", IMSC, REG_RW, 0x1, 0},
    {"RTCRIS", RIS, REG_RO | REG_SIDE, 0x1, 0},
    {"RTCMIS", MIS, REG_RO | REG_SIDE, 0x1, 0},
    {"RTCICR", ICR, REG_WO | REG_SIDE, 0x1, 0},
    {"RTCPeriphID0", ID + 0x00, REG_RO, 0xff, 0x31},
    {"RTCPeriphID1", ID + 0x04, REG_RO, 0xff, 0x10},
    {"RTCPeriphID2", ID + 0x08, REG_RO, 0xff, 0x14},
    {"RTCPeriphID3", ID + 0x0c, REG_RO, 0xff, 0x00},
    {"RTCPCellID0", ID + 0x10, REG_RO, 0xff, 0x0d},
    {"RTCPCellID1", ID + 0x14, REG_RO, 0xff, 0xf0},
    {"RTCPCellID2", ID + 0x18, REG_RO, 0xff, 0x05},
    {"RTCPCellID3", ID + 0x1c, REG_RO, 0xff, 0xb1},
};

static int64_t host_now(void *opaque)
{
    (void)opaque;
    return g_get_real_time();
}

static int64_t source_now(struct pl031 *r)
{
    return r->source.now(r->source.opaque);
}

/* Floor, for sources before 1970. */
static int64_t to_seconds(int64_t usec)
{
    return usec >= 0 ? usec / USEC : -((-usec + USEC - 1) / USEC);
}

static uint32_t counter(struct pl031 *r)
{
    return (uint32_t)to_seconds(source_now(r)) + r->offset;
}

static void update(struct pl031 *r)
{
    irq_set(&r->dev.irq, r->ris && r->imsc);
}

static gboolean handle_alarm(gpointer opaque);

static void sleep_until_alarm(struct pl031 *r)
{
    int64_t usec = MIN(r->alarm_time - source_now(r), MAX_SLEEP);

    r->alarm = g_timeout_source_new((guint)((MAX(usec, 0) + 999) / 1000));
    g_source_set_callback(r->alarm, handle_alarm, r, NULL);
    g_source_attach(r->alarm, NULL);
}

static void cancel_alarm(struct pl031 *r)
{
    if (!r->alarm)
        return;
    g_source_destroy(r->alarm);
    g_source_unref(r->alarm);
    r->alarm = NULL;
}

/*
 * The interrupt comes when the counter becomes equal to MR: a time gone by comes again only after 2^32
 * seconds.
 */
static void set_alarm(struct pl031 *r)
{
    int64_t now = source_now(r);
    uint32_t left = r->mr - counter(r);

    cancel_alarm(r);
    if (left == 0) {
        r->ris = true;
        return;
    }
    r->alarm_time = (to_seconds(now) + left) * USEC;
    sleep_until_alarm(r);
}

/* A vCPU may have cancelled the alarm while this waited for the lock: then it is another alarm's business. */
static gboolean handle_alarm(gpointer opaque)
{
    struct pl031 *r = opaque;

    dev_lock(&r->dev);
    if (!g_source_is_destroyed(g_main_current_source())) {
        bool due = source_now(r) >= r->alarm_time;

        cancel_alarm(r);
        if (due)
            r->ris = true;
        else
            sleep_until_alarm(r);
        update(r);
    }
    dev_unlock(&r->dev);
    return G_SOURCE_REMOVE;
}

static uint64_t pl031_read(void *opaque, uint64_t off, unsigned size)
{
    struct pl031 *r = opaque;
    const struct reg *reg;

    (void)size;
    switch (off) {
    case DR:
        return counter(r);
    case MR:
        return r->mr;
    case LR:
        return r->lr;
    case IMSC:
        return r->imsc;
    case RIS:
        return r->ris;
    case MIS:
        return r->ris && r->imsc;
    default:
        reg = dev_reg_find(regs, ARRAY_LEN(regs), off);
        if (!reg || !(reg->access & REG_RO))
            dev_guest_error(&r->dev, "no such register to read", off, 0);
        return reg ? reg->reset : 0;
    }
}

static void pl031_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
    struct pl031 *r = opaque;
    uint32_t v = (uint32_t)value;

    (void)size;
    switch (off) {
    case MR:
        r->mr = v;
        set_alarm(r);
        break;
    case LR:
        r->lr = v;
        r->offset += v - counter(r);
        set_alarm(r);
        break;
    case CR: /* once started it cannot be stopped (DDI 0224 3.3.4), and it starts at reset */
        break;
    case IMSC:
        r->imsc = v & 1;
        break;
    case ICR:
        r->ris = r->ris && !(v & 1);
        break;
    default:
        dev_guest_error(&r->dev, "no such register to write", off, value);
        return;
    }
    update(r);
}

static void pl031_reset(struct device *dev)
{
    struct pl031 *r = CONTAINER_OF(dev, struct pl031, dev);

    cancel_alarm(r);
    r->mr = r->lr = 0;
    r->imsc = r->ris = false;
    update(r);
}

static void pl031_free(struct device *dev)
{
    struct pl031 *r = CONTAINER_OF(dev, struct pl031, dev);

    cancel_alarm(r);
    g_free(dev->id);
    g_free(r);
}

static const struct device_class pl031_class = {
    .name = "pl031",
    .reg_list = regs,
    .reg_count = ARRAY_LEN(regs),
    .reset = pl031_reset,
    .free = pl031_free,
};

static const struct mem_ops pl031_ops = {pl031_read, pl031_write, 4, 4, false};

struct device *pl031_new(GMutex *lock, const struct rtc_source *source)
{
    struct pl031 *r = g_new0(struct pl031, 1);

    dev_init(&r->dev, &pl031_class, &pl031_ops, MEM_PAGE_SIZE, lock);
    r->source = source ? *source : (struct rtc_source){host_now, NULL};
    return &r->dev;
}
