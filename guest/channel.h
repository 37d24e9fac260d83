/*
 * One of the two channels to the host, over whatever carries its bytes: a
 * virtio-serial port, or a listening socket (vsock, and unix for tests) that serves
 * its newest connection.
 */
#ifndef ROOST_GUEST_CHANNEL_H
#define ROOST_GUEST_CHANNEL_H

#include "frames.h"
#include "loop.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct channel {
    struct watch line;     /* the port, or the connection; -1: none */
    struct watch listener; /* -1: the line is a port */
    bool readable, writable;
    bool hung_up; /* nobody was at the other end of a port, when it was last told; for the owner to take back */
    /* Told when a connection ends. A port's host goes and comes without a word; its next greeting tells. */
    void (*cut)(struct channel *channel);
    struct frame_reader reader;
    uint8_t *out; /* what is to be written */
    size_t out_start, out_end, out_capacity;
};

/* Prepares the channel; `capacity` bytes may wait to be written. False without memory. */
bool channel_init(struct channel *channel, size_t capacity, void (*cut)(struct channel *channel));

/* Takes over a port that is open for reading and writing, not blocking. */
bool channel_use_port(struct channel *channel, int port);

/* Takes over a listening socket, not blocking. */
bool channel_use_listener(struct channel *channel, int listener);

/* The next frame that is there; reads at most once. False if there is none now. */
bool channel_read(struct channel *channel, struct frame *frame);

/* Room for a whole frame of this payload, or NULL; channel_commit() sends what was written there. */
uint8_t *channel_room(struct channel *channel, size_t payload);
void channel_commit(struct channel *channel, uint8_t type, uint8_t flags, uint32_t id, uint64_t session,
                    uint32_t length);

/* Writes what waits, as far as it goes. */
void channel_flush(struct channel *channel);

size_t channel_waiting(const struct channel *channel);

/* Forgets what waits to be written. */
void channel_discard(struct channel *channel);

#endif
