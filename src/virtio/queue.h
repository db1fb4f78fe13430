/*
 * Split virtqueues (VIRTIO 1.2, 2.7), the device's side.
 *
 * Nothing the guest writes into its rings is believed: every index, address and length is copied out once and
 * checked; what is against the rules breaks the device (virtio_break(): DEVICE_NEEDS_RESET) and never the
 * host.
 *
 * All functions want the device's lock.  The iovecs of a popped element point into guest RAM, which does not
 * move: they may be read and written without the lock until the element is pushed or the queue is stopped
 * (see quiesce in virtio/virtio.h).
 */
#ifndef ARMLET_VIRTIO_QUEUE_H
#define ARMLET_VIRTIO_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

enum { VIRTQ_MAX_SIZE = 1024, VIRTQ_BUDGET = 512 };

struct virtio_device;

struct virtq {
    struct virtio_device *vdev;
    unsigned index;
    uint16_t num_max; /* a power of two, at most VIRTQ_MAX_SIZE; 0: there is no such queue */

    /* As the driver set them. */
    uint16_t num;
    uint64_t desc_pa, avail_pa, used_pa;
    bool ready;

    /* While ready: the rings in host memory, and where we are. */
    uint8_t *desc, *avail, *used;
    uint16_t last_avail;    /* the next entry of the available ring to take */
    uint16_t used_idx;
    uint16_t signalled;     /* used_idx when the driver was last interrupted */
    bool signalled_valid;
    unsigned in_flight;     /* popped and not yet pushed */
    uint32_t generation;    /* moves when the queue starts or stops, so that late pushes are seen */
    unsigned budget;        /* pops until the next kick; see virtio_defer() */
    bool deferred;
};

/* One request: first out_num pieces for the device to read, then in_num for it to write. */
struct virtq_elem {
    uint16_t head;
    uint32_t generation;
    unsigned out_num, in_num;
    size_t out_len, in_len;
    struct iovec iov[];
};

static inline const struct iovec *virtq_out(const struct virtq_elem *e)
{
    return e->iov;
}

static inline const struct iovec *virtq_in(const struct virtq_elem *e)
{
    return e->iov + e->out_num;
}

/*
 * Checks and maps the rings that num and *_pa describe; breaks the device and returns false when they are
 * wrong.
 */
bool virtq_start(struct virtq *q);
void virtq_stop(struct virtq *q);
/* Also forgets the addresses. */
void virtq_reset(struct virtq *q);

/*
 * The next request, or NULL: none, not ready, or the device is broken.  Then the device's notify will be
 * called when there is one; also after VIRTQ_BUDGET pops in a row, so that no driver can keep a thread here
 * for ever. The caller owns the element and gives it to virtq_push(), or to virtq_drop() when the queue has
 * been stopped.
 */
struct virtq_elem *virtq_pop(struct virtq *q);
bool virtq_is_empty(struct virtq *q);

/* Hands the buffers back, `written' bytes of the in part filled, and frees e.  Interrupts nobody. */
void virtq_push(struct virtq *q, struct virtq_elem *e, size_t written);
void virtq_drop(struct virtq_elem *e);

/* Interrupts the driver for what was pushed, if it wants to know. */
void virtq_notify(struct virtq *q);

#endif
