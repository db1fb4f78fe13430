/*
 * PL011 UART: FIFOs, all interrupts and their levels, loopback, break, flow control as registers.
 *
 * Characters take no time: what is written leaves at once unless the back end is full, and then waits in the
 * transmit FIFO.  Input waits in the back end while the receive FIFO is full, so that typing ahead is not
 * lost to overruns. As early consoles rely on it, the UART works before UARTEN is set; word length and parity
 * shape nothing.  The modem inputs CTS, DSR and DCD are asserted.  Left out: IrDA, DMA requests (no
 * controller; the register is stored).
 *
 * Threading: the board's lock; back-end callbacks take it.
 */
#include "dev/pl011.h"

#include "base/compiler.h"

enum {
    DR = 0x00,
    RSR_ECR = 0x04,
    FR = 0x18,
    ILPR = 0x20,
    IBRD = 0x24,
    FBRD = 0x28,
    LCR_H = 0x2c,
    CR = 0x30,
    IFLS = 0x34,
    IMSC = 0x38,
    RIS = 0x3c,
    MIS = 0x40,
    ICR = 0x44,
    DMACR = 0x48,
    ID = 0xfe0
};

enum { DR_FE = 0x100, DR_PE = 0x200, DR_BE = 0x400, DR_OE = 0x800 };
enum {
    FR_CTS = 0x01,
    FR_DSR = 0x02,
    FR_DCD = 0x04,
    FR_BUSY = 0x08,
    FR_RXFE = 0x10,
    FR_TXFF = 0x20,
    FR_RXFF = 0x40,
    FR_TXFE = 0x80,
    FR_RI = 0x100,
    FR_MODEM = FR_CTS | FR_DSR | FR_DCD | FR_RI
};
enum { LCR_BRK = 0x01, LCR_FEN = 0x10 };
enum { CR_LBE = 0x80, CR_RXE = 0x200, CR_DTR = 0x400, CR_RTS = 0x800, CR_OUT1 = 0x1000, CR_OUT2 = 0x2000 };
enum {
    INT_RI = 0x001,
    INT_CTS = 0x002,
    INT_DCD = 0x004,
    INT_DSR = 0x008,
    INT_RX = 0x010,
    INT_TX = 0x020,
    INT_RT = 0x040,
    INT_FE = 0x080,
    INT_PE = 0x100,
    INT_BE = 0x200,
    INT_OE = 0x400,
    INT_ALL = 0x7ff
};

#define FIFO_SIZE 16

struct fifo {
    uint16_t data[FIFO_SIZE]; /* as DR shows them */
    unsigned head, count;
};

struct pl011 {
    struct device dev;
    struct chardev *chr;
    struct fifo rx, tx;
    bool overrun; /* DR.OE of the next character that comes in */
    uint32_t rsr, modem, ilpr, ibrd, fbrd, lcr_h, cr, ifls, imsc, ris, dmacr;
};

static const struct reg regs[] = {
    {"UARTDR", DR, REG_RW | REG_SIDE, 0xfff, 0},
    {"UARTRSR", RSR_ECR, REG_RW | REG_SIDE, 0xf, 0},
    {"UARTFR", FR, REG_RO, 0x1ff, 0x97},
    {"UARTILPR", ILPR, REG_RW, 0xff, 0},
    {"UARTIBRD", IBRD, REG_RW, 0xffff, 0},
    {"UARTFBRD", FBRD, REG_RW, 0x3f, 0},
    {"UARTLCR_H", LCR_H, REG_RW, 0xff, 0},
    {"UARTCR", CR, REG_RW, 0xff87, 0x300},
    {"UARTIFLS", IFLS, REG_RW, 0x3f, 0x12},
    {"UARTIMSC", IMSC, REG_RW, INT_ALL, 0},
    {"UARTRIS", RIS, REG_RO, INT_ALL, 0},
    {"UARTMIS", MIS, REG_RO, INT_ALL, 0},
    {"UARTICR", ICR, REG_WO | REG_SIDE, INT_ALL, 0},
    {"UARTDMACR", DMACR, REG_RW, 0x7, 0},
    {"UARTPeriphID0", ID + 0x00, REG_RO, 0xff, 0x11},
    {"UARTPeriphID1", ID + 0x04, REG_RO, 0xff, 0x10},
    {"UARTPeriphID2", ID + 0x08, REG_RO, 0xff, 0x14},
    {"UARTPeriphID3", ID + 0x0c, REG_RO, 0xff, 0x00},
    {"UARTPCellID0", ID + 0x10, REG_RO, 0xff, 0x0d},
    {"UARTPCellID1", ID + 0x14, REG_RO, 0xff, 0xf0},
    {"UARTPCellID2", ID + 0x18, REG_RO, 0xff, 0x05},
    {"UARTPCellID3", ID + 0x1c, REG_RO, 0xff, 0xb1},
};

/* --- FIFOs and levels ----------------------------------------------------------------------------------- */

static void fifo_put(struct fifo *f, uint16_t c)
{
    f->data[(f->head + f->count++) % FIFO_SIZE] = c;
}

static uint16_t fifo_get(struct fifo *f)
{
    uint16_t c = f->data[f->head];

    f->head = (f->head + 1) % FIFO_SIZE;
    f->count--;
    return c;
}

static unsigned depth(const struct pl011 *u)
{
    return u->lcr_h & LCR_FEN ? FIFO_SIZE : 1;
}

/* An IFLS field as a number of characters; the reserved values are taken for the highest. */
static unsigned trigger(unsigned field)
{
    static const uint8_t chars[8] = {2, 4, 8, 12, 14, 14, 14, 14};

    return chars[field & 7];
}

static unsigned rx_trigger(const struct pl011 *u)
{
    return u->lcr_h & LCR_FEN ? trigger(u->ifls >> 3) : 1;
}

static unsigned tx_trigger(const struct pl011 *u)
{
    return u->lcr_h & LCR_FEN ? trigger(u->ifls) : 0;
}

static void update(struct pl011 *u)
{
    irq_set(&u->dev.irq, u->ris & u->imsc);
}

static uint32_t flags(const struct pl011 *u)
{
    uint32_t fr = u->modem;

    if (u->tx.count)
        fr |= FR_BUSY;
    else
        fr |= FR_TXFE;
    if (u->tx.count >= depth(u))
        fr |= FR_TXFF;
    if (!u->rx.count)
        fr |= FR_RXFE;
    if (u->rx.count >= depth(u))
        fr |= FR_RXFF;
    return fr;
}

/* In loopback the modem outputs are the inputs (DDI 0183 2.5.3, UARTCR.LBE). */
static void update_modem(struct pl011 *u)
{
    uint32_t now = FR_CTS | FR_DSR | FR_DCD, changed;

    if (u->cr & CR_LBE) {
        now = (u->cr & CR_RTS ? FR_CTS : 0) | (u->cr & CR_DTR ? FR_DSR : 0) | (u->cr & CR_OUT1 ? FR_DCD : 0) |
              (u->cr & CR_OUT2 ? FR_RI : 0);
    }
    changed = now ^ u->modem;
    u->modem = now;
    u->ris |= (changed & FR_CTS ? INT_CTS : 0) | (changed & FR_DSR ? INT_DSR : 0) |
              (changed & FR_DCD ? INT_DCD : 0) | (changed & FR_RI ? INT_RI : 0);
}

/* --- receiving ------------------------------------------------------------------------------------------ */

static void receive_char(struct pl011 *u, uint16_t c)
{
    if (c & DR_BE)
        u->ris |= INT_BE;
    if (u->rx.count >= depth(u)) {
        u->overrun = true;
        u->rsr |= DR_OE >> 8;
        u->ris |= INT_OE;
        return;
    }
    fifo_put(&u->rx, c | (u->overrun ? DR_OE : 0));
    u->overrun = false;
    if (u->rx.count >= rx_trigger(u))
        u->ris |= INT_RX;
}

static uint32_t read_data(struct pl011 *u)
{
    uint16_t c;

    if (!u->rx.count)
        return 0;
    c = fifo_get(&u->rx);
    u->rsr = (u->rsr & (DR_OE >> 8)) | c >> 8;
    if (u->rx.count < rx_trigger(u))
        u->ris &= ~(uint32_t)INT_RX;
    if (!u->rx.count)
        u->ris &= ~(uint32_t)INT_RT;
    update(u);
    chardev_accept_input(u->chr);
    return c;
}

static size_t can_receive(void *opaque)
{
    struct pl011 *u = opaque;
    size_t room = 0;

    dev_lock(&u->dev);
    if ((u->cr & CR_RXE) && !(u->cr & CR_LBE) && u->rx.count < depth(u))
        room = depth(u) - u->rx.count;
    dev_unlock(&u->dev);
    return room;
}

/*
 * The host's bytes come in bursts: after the last there is silence, which is what the receive timeout
 * reports.
 */
static void receive(void *opaque, const uint8_t *buf, size_t len)
{
    struct pl011 *u = opaque;

    dev_lock(&u->dev);
    for (size_t i = 0; i < len; i++)
        receive_char(u, buf[i]);
    if (u->rx.count && (u->lcr_h & LCR_FEN))
        u->ris |= INT_RT;
    update(u);
    dev_unlock(&u->dev);
}

static void handle_event(void *opaque, enum chardev_event event)
{
    struct pl011 *u = opaque;

    if (event != CHARDEV_BREAK)
        return;
    dev_lock(&u->dev);
    if (!(u->cr & CR_LBE)) {
        receive_char(u, DR_BE);
        if (u->rx.count && (u->lcr_h & LCR_FEN))
            u->ris |= INT_RT;
        update(u);
    }
    dev_unlock(&u->dev);
}

/* --- sending -------------------------------------------------------------------------------------------- */

/* Moves what it can from the FIFO to the back end, or round the loop. */
static void transmit(struct pl011 *u)
{
    while (u->tx.count) {
        uint8_t c = (uint8_t)u->tx.data[u->tx.head];

        if (u->cr & CR_LBE)
            receive_char(u, c);
        else if (!chardev_write(u->chr, &c, 1))
            break;
        fifo_get(&u->tx);
    }
    if ((u->cr & CR_LBE) && u->rx.count && (u->lcr_h & LCR_FEN))
        u->ris |= INT_RT;
    if (u->tx.count <= tx_trigger(u))
        u->ris |= INT_TX;
}

static void write_data(struct pl011 *u, uint32_t value)
{
    if (u->tx.count >= depth(u)) {
        dev_guest_error(&u->dev, "transmit FIFO overrun", DR, value);
        return;
    }
    fifo_put(&u->tx, (uint8_t)value);
    if (u->tx.count > tx_trigger(u))
        u->ris &= ~(uint32_t)INT_TX;
    transmit(u);
}

static void handle_writable(void *opaque)
{
    struct pl011 *u = opaque;

    dev_lock(&u->dev);
    if (u->tx.count)
        transmit(u);
    update(u);
    dev_unlock(&u->dev);
}

static const struct chardev_client client = {can_receive, receive, handle_event, handle_writable};

/* --- registers ------------------------------------------------------------------------------------------ */

static uint64_t pl011_read(void *opaque, uint64_t off, unsigned size)
{
    struct pl011 *u = opaque;
    const struct reg *r;

    (void)size;
    switch (off) {
    case DR:
        return read_data(u);
    case RSR_ECR:
        return u->rsr;
    case FR:
        return flags(u);
    case ILPR:
        return u->ilpr;
    case IBRD:
        return u->ibrd;
    case FBRD:
        return u->fbrd;
    case LCR_H:
        return u->lcr_h;
    case CR:
        return u->cr;
    case IFLS:
        return u->ifls;
    case IMSC:
        return u->imsc;
    case RIS:
        return u->ris;
    case MIS:
        return u->ris & u->imsc;
    case DMACR:
        return u->dmacr;
    default:
        r = dev_reg_find(regs, ARRAY_LEN(regs), off);
        if (!r || !(r->access & REG_RO))
            dev_guest_error(&u->dev, "no such register to read", off, 0);
        return r ? r->reset : 0;
    }
}

/* Turning the FIFOs on or off empties the receiver; what waits to be sent is still sent. */
static void write_lcr_h(struct pl011 *u, uint32_t value)
{
    uint32_t changed = u->lcr_h ^ value;

    u->lcr_h = value;
    if (changed & LCR_FEN) {
        u->rx.count = 0;
        u->ris &= ~(uint32_t)(INT_RX | INT_RT);
        chardev_accept_input(u->chr);
    }
    if (!(changed & LCR_BRK))
        return;
    if (!(u->cr & CR_LBE))
        chardev_set_break(u->chr, value & LCR_BRK);
    else if (value & LCR_BRK)
        receive_char(u, DR_BE);
}

static void write_cr(struct pl011 *u, uint32_t value)
{
    u->cr = value;
    update_modem(u);
    if (u->tx.count)
        transmit(u);
    chardev_accept_input(u->chr);
}

static void write_reg(struct pl011 *u, uint64_t off, uint32_t value)
{
    switch (off) {
    case DR:
        write_data(u, value);
        break;
    case RSR_ECR:
        u->rsr = 0;
        break;
    case ILPR:
        u->ilpr = value;
        break;
    case IBRD:
        u->ibrd = value;
        break;
    case FBRD:
        u->fbrd = value;
        break;
    case LCR_H:
        write_lcr_h(u, value);
        break;
    case CR:
        write_cr(u, value);
        break;
    case IFLS:
        u->ifls = value;
        break;
    case IMSC:
        u->imsc = value;
        break;
    case ICR:
        u->ris &= ~value;
        break;
    case DMACR:
        u->dmacr = value;
        break;
    }
}

static void pl011_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
    struct pl011 *u = opaque;
    const struct reg *r = dev_reg_find(regs, ARRAY_LEN(regs), off);

    (void)size;
    if (!r || !(r->access & REG_WO)) {
        dev_guest_error(&u->dev, "no such register to write", off, value);
        return;
    }
    write_reg(u, off, (uint32_t)value & r->mask);
    update(u);
}

/* --- the device ----------------------------------------------------------------------------------------- */

static void pl011_reset(struct device *dev)
{
    struct pl011 *u = CONTAINER_OF(dev, struct pl011, dev);

    if (u->lcr_h & LCR_BRK)
        chardev_set_break(u->chr, false);
    u->rx = (struct fifo){.count = 0};
    u->overrun = false;
    u->rsr = u->ilpr = u->ibrd = u->fbrd = u->lcr_h = u->imsc = u->ris = u->dmacr = 0;
    u->cr = 0x300;
    u->ifls = 0x12;
    u->modem = FR_CTS | FR_DSR | FR_DCD;
    transmit(u);
    u->ris = 0;
    update(u);
    chardev_accept_input(u->chr);
}

static void pl011_free(struct device *dev)
{
    struct pl011 *u = CONTAINER_OF(dev, struct pl011, dev);

    chardev_connect(u->chr, NULL, NULL);
    g_free(dev->id);
    g_free(u);
}

static void pl011_describe(struct device *dev, GString *out)
{
    struct pl011 *u = CONTAINER_OF(dev, struct pl011, dev);

    g_string_append_printf(out, "chardev = \"%s\"\n", u->chr && u->chr->id ? u->chr->id : "");
}

static const struct device_class pl011_class = {
    .name = "pl011",
    .reg_list = regs,
    .reg_count = ARRAY_LEN(regs),
    .reset = pl011_reset,
    .free = pl011_free,
    .describe = pl011_describe,
};

/*
 * Narrow accesses reach the register at their address: debuggers and early consoles store single bytes to DR.
 */
static const struct mem_ops pl011_ops = {pl011_read, pl011_write, 1, 4, false};

struct device *pl011_new(GMutex *lock, struct chardev *chr)
{
    struct pl011 *u = g_new0(struct pl011, 1);

    dev_init(&u->dev, &pl011_class, &pl011_ops, MEM_PAGE_SIZE, lock);
    u->chr = chr;
    pl011_reset(&u->dev);
    chardev_connect(chr, &client, u);
    return &u->dev;
}
