/*
 * Streams of bytes between the host and descriptors of the guest, under credit: each
 * end sends no more than the other has said it takes. Nothing is read from a program
 * for which the host has no room, so the agent never holds more than one frame.
 */
#ifndef ROOST_GUEST_STREAMS_H
#define ROOST_GUEST_STREAMS_H

#include "channel.h"
#include "loop.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes for a program's input that the agent keeps. */
#define INPUT_WINDOW_BYTES (256 * 1024)
/* More credit than this at once is no credit but nonsense. */
#define MAX_CREDIT_BYTES (64 * 1024 * 1024)

struct stream {
    struct watch watch;
    struct stream *next;
    uint32_t id;     /* 0: nobody at the host */
    bool to_program; /* the host writes; otherwise it reads */
    bool ready;      /* the descriptor, until it says EAGAIN */
    bool over;       /* the descriptor came to its end, or is closed */
    bool told;       /* the host knows of the end */
    bool leaving;    /* an output that the host lets go of: told so behind all that was sent */
    bool held;       /* the end is not told yet: the worker's exit status belongs to it */
    uint32_t error;  /* what the end was about; an errno, 0 for none */

    uint64_t credit; /* from a program: bytes that the host takes */

    uint8_t *input; /* to a program: a ring of INPUT_WINDOW_BYTES */
    size_t input_start, input_length;
    uint64_t granted; /* bytes that the host may still send */
    uint32_t owed;    /* bytes written to the program, for which the host gets credit */
    bool host_ended;  /* nothing comes after what is in the ring */
};

/* Begins with a descriptor (not blocking), which is the stream's from now on; also when this fails, for lack
 * of memory. */
bool stream_open(struct stream *stream, int fd, bool to_program);

/* Gives it to the host under an id; an input's whole window is granted anew, `window` is the host's for an
 * output. */
void stream_attach(struct stream *stream, uint32_t id, uint32_t window);

/* Lets the host have the end of what was sent, then takes it from the host. */
void stream_leave(struct stream *stream);

/* Takes it from the host; the program goes on, and waits once its pipe is full. */
void stream_detach(struct stream *stream);

void stream_close(struct stream *stream);

/* Whether nothing more is to be done for it. */
bool stream_finished(const struct stream *stream);

bool stream_is_known(uint32_t id);

/* A frame of the streams channel. False if the host broke the rules. */
bool streams_take(const struct frame *frame);

/* Moves bytes; true if there is more to do at once. */
bool streams_work(struct channel *channel, uint64_t session);

#endif
