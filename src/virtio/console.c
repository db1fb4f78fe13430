/*
 * virtio-serial: a bus of ports, each a console or a plain channel, on character devices; with the multiport
 * feature, or without it for port 0 alone.  Emergency write.
 *
 * Left out: the window size (F_SIZE is not offered: drivers disagree about the order of its fields), hot-plug
 * of ports.
 *
 * Threading: the board's lock; back-end callbacks come on the main thread and take it.
 */
#include "virtio/console.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/compiler.h"
#include "virtio/iov.h"

enum { F_MULTIPORT = 1, F_EMERG_WRITE = 2 };
enum { QUEUE_SIZE = 128, Q_CONTROL_RX = 2, Q_CONTROL_TX = 3, MAX_PENDING = 256 };

/* Control messages (5.3.6.2). */
enum {
    DEVICE_READY = 0,
    PORT_ADD = 1,
    PORT_READY = 3,
    CONSOLE_PORT = 4,
    PORT_OPEN = 6,
    PORT_NAME = 7
};

struct PACKED control {
    uint32_t id;
    uint16_t event, value;
};

struct PACKED config {
    uint16_t cols, rows;
    uint32_t max_nr_ports, emerg_wr;
};

struct virtio_serial;

struct port {
    struct virtio_serial *serial;
    unsigned nr;
    bool console, guest_open, host_open;
    char *name;
    struct chardev *chr;
    struct virtq_elem *rx; /* taken ahead, so that we know how much fits; or NULL */
    struct virtq_elem *tx; /* the back end did not take all of it yet; or NULL */
    size_t tx_done;        /* bytes of tx that it took */
};

struct virtio_serial {
    struct virtio_device vdev;
    unsigned max_ports;
    struct port *ports[VIRTIO_SERIAL_MAX_PORTS];
    GQueue pending; /* of GBytes: control messages that wait for a buffer */
};

static struct virtio_serial *from_vdev(struct virtio_device *vdev)
{
    return CONTAINER_OF(vdev, struct virtio_serial, vdev);
}

/* Ports 0, 1, 2, ... have queues 0 and 1, 4 and 5, 6 and 7, ...: the control queues came later. */
static struct virtq *rx_queue(struct port *p)
{
    return &p->serial->vdev.queues[p->nr ? 2 * p->nr + 2 : 0];
}

static struct virtq *tx_queue(struct port *p)
{
    return &p->serial->vdev.queues[p->nr ? 2 * p->nr + 3 : 1];
}

static struct port *port_of_queue(struct virtio_serial *s, unsigned index)
{
    unsigned nr = index < 2 ? 0 : index / 2 - 1;

    return index == Q_CONTROL_RX || index == Q_CONTROL_TX ? NULL : s->ports[nr];
}

/* --- control messages to the guest ---------------------------------------------------------------------- */

static void send_pending(struct virtio_serial *s)
{
    struct virtq *q = &s->vdev.queues[Q_CONTROL_RX];
    bool pushed = false;

    while (!g_queue_is_empty(&s->pending)) {
        struct virtq_elem *e = virtq_pop(q);
        GBytes *msg;
        gsize len;
        const void *data;

        if (!e)
            break;
        msg = g_queue_pop_head(&s->pending);
        data = g_bytes_get_data(msg, &len);
        virtq_push(q, e, iov_write(virtq_in(e), e->in_num, 0, data, len));
        g_bytes_unref(msg);
        pushed = true;
    }
    if (pushed)
        virtq_notify(q);
}

static void send_control(struct virtio_serial *s, unsigned id, unsigned event, unsigned value,
                         const char *text)
{
    struct control c = {GUINT32_TO_LE(id), GUINT16_TO_LE((uint16_t)event), GUINT16_TO_LE((uint16_t)value)};
    GByteArray *msg;

    if (!virtio_has(&s->vdev, F_MULTIPORT) || !virtio_is_running(&s->vdev))
        return;
    if (g_queue_get_length(&s->pending) >= MAX_PENDING) {
        virtio_break(&s->vdev, "control messages are not taken");
        return;
    }
    msg = g_byte_array_new();
    g_byte_array_append(msg, (const guint8 *)&c, sizeof(c));
    if (text)
        g_byte_array_append(msg, (const guint8 *)text, (guint)strlen(text));
    g_queue_push_tail(&s->pending, g_byte_array_free_to_bytes(msg));
    send_pending(s);
}

/* --- data from the guest -------------------------------------------------------------------------------- */

/* True when the back end took all that was left of p->tx. */
static bool write_out(struct port *p)
{
    struct virtq_elem *e = p->tx;

    while (p->tx_done < e->out_len) {
        struct iovec piece[VIRTQ_MAX_SIZE];
        size_t n;

        iov_slice(virtq_out(e), e->out_num, p->tx_done, e->out_len - p->tx_done, piece);
        n = chardev_write(p->chr, piece[0].iov_base, piece[0].iov_len);
        p->tx_done += n;
        if (n < piece[0].iov_len)
            return false;
    }
    return true;
}

static void transmit(struct port *p)
{
    struct virtq *q = tx_queue(p);
    bool pushed = false;

    for (;;) {
        if (!p->tx) {
            p->tx = virtq_pop(q);
            p->tx_done = 0;
        }
        if (!p->tx || !write_out(p))
            break;
        virtq_push(q, p->tx, 0);
        p->tx = NULL;
        pushed = true;
    }
    if (pushed)
        virtq_notify(q);
}

static void discard_output(struct virtq *q)
{
    struct virtq_elem *e;
    bool pushed = false;

    for (; (e = virtq_pop(q)); pushed = true)
        virtq_push(q, e, 0);
    if (pushed)
        virtq_notify(q);
}

/* --- data to the guest ---------------------------------------------------------------------------------- */

static bool guest_listens(struct port *p)
{
    struct virtio_device *vdev = &p->serial->vdev;

    if (!virtio_is_running(vdev) || !rx_queue(p)->ready)
        return false;
    return virtio_has(vdev, F_MULTIPORT) ? p->guest_open : p->nr == 0;
}

/* An empty buffer takes nothing, and would stop the input for ever: it goes back. */
static bool find_rx_buffer(struct port *p)
{
    struct virtq *q = rx_queue(p);

    while (!p->rx) {
        p->rx = virtq_pop(q);
        if (!p->rx)
            return false;
        if (p->rx->in_len)
            break;
        virtq_push(q, p->rx, 0);
        p->rx = NULL;
    }
    return true;
}

static size_t can_receive(void *opaque)
{
    struct port *p = opaque;
    size_t room = 0;

    g_mutex_lock(p->serial->vdev.lock);
    if (guest_listens(p) && find_rx_buffer(p))
        room = p->rx->in_len;
    g_mutex_unlock(p->serial->vdev.lock);
    return room;
}

/* The guest may have reset the device since can_receive(): then the bytes are lost, as on a wire. */
static void receive(void *opaque, const uint8_t *buf, size_t len)
{
    struct port *p = opaque;
    bool pushed = false;

    g_mutex_lock(p->serial->vdev.lock);
    while (len && guest_listens(p) && find_rx_buffer(p)) {
        size_t n = iov_write(virtq_in(p->rx), p->rx->in_num, 0, buf, len);

        virtq_push(rx_queue(p), p->rx, n);
        p->rx = NULL;
        buf += n;
        len -= n;
        pushed = true;
    }
    if (pushed)
        virtq_notify(rx_queue(p));
    g_mutex_unlock(p->serial->vdev.lock);
}

static void handle_event(void *opaque, enum chardev_event event)
{
    struct port *p = opaque;

    if (p->console || (event != CHARDEV_OPENED && event != CHARDEV_CLOSED && event != CHARDEV_ENDED))
        return; /* a console is there whether or not somebody looks at it */
    /* The end of the input is for the guest to see: its reads end only when the port is closed. */
    g_mutex_lock(p->serial->vdev.lock);
    if (p->host_open != (event == CHARDEV_OPENED)) {
        p->host_open = event == CHARDEV_OPENED;
        send_control(p->serial, p->nr, PORT_OPEN, p->host_open, NULL);
    }
    g_mutex_unlock(p->serial->vdev.lock);
}

static void handle_writable(void *opaque)
{
    struct port *p = opaque;

    g_mutex_lock(p->serial->vdev.lock);
    if (virtio_is_running(&p->serial->vdev))
        transmit(p);
    g_mutex_unlock(p->serial->vdev.lock);
}

static const struct chardev_client client = {can_receive, receive, handle_event, handle_writable};

/* --- control messages from the guest -------------------------------------------------------------------- */

static void introduce_ports(struct virtio_serial *s)
{
    for (unsigned i = 0; i < s->max_ports; i++) {
        if (s->ports[i])
            send_control(s, i, PORT_ADD, 1, NULL);
    }
}

static void describe_port(struct port *p)
{
    if (p->console)
        send_control(p->serial, p->nr, CONSOLE_PORT, 1, NULL);
    if (p->name)
        send_control(p->serial, p->nr, PORT_NAME, 1, p->name);
    if (p->host_open)
        send_control(p->serial, p->nr, PORT_OPEN, 1, NULL);
}

static void handle_control(struct virtio_serial *s, const struct control *c)
{
    uint32_t id = GUINT32_FROM_LE(c->id);
    struct port *p = id < s->max_ports ? s->ports[id] : NULL;
    bool value = c->value;

    switch (GUINT16_FROM_LE(c->event)) {
    case DEVICE_READY:
        if (value)
            introduce_ports(s);
        break;
    case PORT_READY:
        if (p && value)
            describe_port(p);
        break;
    case PORT_OPEN:
        if (!p)
            break;
        p->guest_open = value;
        chardev_accept_input(p->chr);
        break;
    }
}

static void take_control(struct virtio_serial *s, struct virtq *q)
{
    struct virtq_elem *e;
    bool pushed = false;

    while ((e = virtq_pop(q))) {
        struct control c;
        bool whole = iov_read(virtq_out(e), e->out_num, 0, &c, sizeof(c)) == sizeof(c);

        virtq_push(q, e, 0);
        pushed = true;
        if (whole)
            handle_control(s, &c);
    }
    if (pushed)
        virtq_notify(q);
}

static void serial_notify(struct virtio_device *vdev, struct virtq *q)
{
    struct virtio_serial *s = from_vdev(vdev);
    struct port *p = port_of_queue(s, q->index);

    if (q->index == Q_CONTROL_TX)
        take_control(s, q);
    else if (q->index == Q_CONTROL_RX)
        send_pending(s);
    else if (p && q == tx_queue(p))
        transmit(p);
    else if (p)
        chardev_accept_input(p->chr);
    else if (q->index & 1)
        discard_output(q);
}

/* --- configuration -------------------------------------------------------------------------------------- */

static void serial_config_read(struct virtio_device *vdev, uint8_t *buf)
{
    struct config c = {.max_nr_ports = GUINT32_TO_LE(from_vdev(vdev)->max_ports)};

    memcpy(buf, &c, sizeof(c));
}

/* For consoles that cannot use queues yet: any time, features or not (5.3.4). */
static void serial_config_write(struct virtio_device *vdev, const uint8_t *buf, unsigned off, unsigned len)
{
    struct port *p = from_vdev(vdev)->ports[0];

    (void)len;
    if (off == offsetof(struct config, emerg_wr) && p)
        chardev_write(p->chr, buf + off, 1);
}

/* --- the device ----------------------------------------------------------------------------------------- */

static void serial_quiesce(struct virtio_device *vdev, struct virtq *q)
{
    struct virtio_serial *s = from_vdev(vdev);

    for (unsigned i = 0; i < s->max_ports; i++) {
        struct port *p = s->ports[i];

        if (!p)
            continue;
        if (!q || q == rx_queue(p))
            g_clear_pointer(&p->rx, virtq_drop);
        if (!q || q == tx_queue(p))
            g_clear_pointer(&p->tx, virtq_drop);
    }
}

static void clear_pending(struct virtio_serial *s)
{
    g_queue_clear_full(&s->pending, (GDestroyNotify)g_bytes_unref);
}

static void serial_reset(struct virtio_device *vdev)
{
    struct virtio_serial *s = from_vdev(vdev);

    clear_pending(s);
    for (unsigned i = 0; i < s->max_ports; i++) {
        if (s->ports[i])
            s->ports[i]->guest_open = false;
    }
}

static void serial_free(struct virtio_device *vdev)
{
    struct virtio_serial *s = from_vdev(vdev);

    serial_quiesce(vdev, NULL);
    clear_pending(s);
    for (unsigned i = 0; i < s->max_ports; i++) {
        if (!s->ports[i])
            continue;
        chardev_connect(s->ports[i]->chr, NULL, NULL);
        g_free(s->ports[i]->name);
        g_free(s->ports[i]);
    }
    virtio_cleanup(vdev);
    g_free(s);
}

static void serial_describe(struct virtio_device *vdev, GString *out)
{
    struct virtio_serial *s = from_vdev(vdev);

    g_string_append_printf(out, "max_ports = %u\n", s->max_ports);
    for (unsigned i = 0; i < s->max_ports; i++) {
        const struct port *p = s->ports[i];

        if (p)
            g_string_append_printf(out, "dev: %s, nr %u, name \"%s\", guest %s, host %s\n",
                                   p->console ? "virtconsole" : "virtserialport", i, p->name ? p->name : "",
                                   p->guest_open ? "on" : "off", p->host_open ? "on" : "off");
    }
}

static const struct virtio_class serial_class = {
    .name = "virtio-serial-device",
    .device_id = VIRTIO_ID_CONSOLE,
    .config_read = serial_config_read,
    .config_write = serial_config_write,
    .notify = serial_notify,
    .quiesce = serial_quiesce,
    .reset = serial_reset,
    .free = serial_free,
    .describe = serial_describe,
};

struct virtio_device *virtio_serial_new(GMutex *lock, struct mem *mem, unsigned max_ports)
{
    struct virtio_serial *s = g_new0(struct virtio_serial, 1);

    s->max_ports = max_ports ? MIN(max_ports, VIRTIO_SERIAL_MAX_PORTS) : VIRTIO_SERIAL_MAX_PORTS;
    g_queue_init(&s->pending);
    virtio_init(&s->vdev, &serial_class, lock, mem, BIT(F_MULTIPORT) | BIT(F_EMERG_WRITE),
                sizeof(struct config));
    for (unsigned i = 0; i < 2 * (s->max_ports + 1); i++)
        virtio_add_queue(&s->vdev, QUEUE_SIZE);
    return &s->vdev;
}

static int choose_number(const struct virtio_serial *s, const struct virtio_port_options *o)
{
    if (o->nr >= (int)s->max_ports || o->nr < -1)
        return -EINVAL;
    if (o->nr >= 0)
        return s->ports[o->nr] ? -EBUSY : o->nr;
    for (unsigned i = o->console ? 0 : 1; i < s->max_ports; i++) {
        if (!s->ports[i])
            return (int)i;
    }
    return -ENOSPC;
}

int virtio_serial_add_port(struct virtio_device *vdev, const struct virtio_port_options *o)
{
    struct virtio_serial *s = from_vdev(vdev);
    int nr = choose_number(s, o);
    struct port *p;

    if (nr < 0)
        return nr;
    p = g_new0(struct port, 1);
    p->serial = s;
    p->nr = (unsigned)nr;
    p->console = o->console;
    p->name = g_strdup(o->name);
    p->chr = o->chr;
    p->host_open = o->console || (o->chr && o->chr->open);
    s->ports[nr] = p;
    chardev_connect(p->chr, &client, p);
    return nr;
}
