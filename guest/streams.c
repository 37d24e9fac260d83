/* See streams.h, and docs/guest-protocol.md, "Streams". */
#define _GNU_SOURCE
#include "streams.h"

#include "fields.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/uio.h>
#include <unistd.h>

/* Frames that are sent before other things get their turn. */
#define FRAMES_A_TURN 16
/* Credit is given back in pieces of this size, not for every byte. */
#define CREDIT_STEP (INPUT_WINDOW_BYTES / 4)

static struct stream *streams;

static void stream_ready(struct watch *watch, uint32_t events)
{
    struct stream *stream = CONTAINER_OF(watch, struct stream, watch);

    (void)events;
    stream->ready = true;
}

bool stream_open(struct stream *stream, int fd, bool to_program)
{
    *stream = (struct stream){.watch.fd = -1, .to_program = to_program, .ready = true, .next = streams};
    if (to_program)
        stream->input = malloc(INPUT_WINDOW_BYTES);
    if (to_program && stream->input == NULL) {
        close(fd);
        return false;
    }
    if (!loop_add(&stream->watch, fd, to_program ? EPOLLOUT : EPOLLIN, stream_ready)) {
        free(stream->input);
        stream->input = NULL;
        return false;
    }
    streams = stream;
    return true;
}

void stream_attach(struct stream *stream, uint32_t id, uint32_t window)
{
    stream->id = id;
    stream->told = false;
    if (stream->to_program) {
        stream->granted = 0;
        stream->owed = (uint32_t)(INPUT_WINDOW_BYTES - stream->input_length);
    } else
        stream->credit = window;
}

void stream_detach(struct stream *stream)
{
    stream->id = 0;
    stream->credit = 0;
    stream->granted = 0;
    stream->owed = 0;
    stream->leaving = false;
}

void stream_leave(struct stream *stream)
{
    if (stream->id == 0 || stream->to_program || (stream->over && stream->told))
        stream_detach(stream);
    else
        stream->leaving = true;
}

void stream_close(struct stream *stream)
{
    for (struct stream **link = &streams; *link != NULL; link = &(*link)->next)
        if (*link == stream) {
            *link = stream->next;
            break;
        }
    loop_close(&stream->watch);
    free(stream->input);
    *stream = (struct stream){.watch.fd = -1, .over = true, .told = true};
}

bool stream_finished(const struct stream *stream)
{
    return stream->over && (stream->told || stream->id == 0);
}

static struct stream *find_stream(uint32_t id)
{
    struct stream *stream = streams;

    while (stream != NULL && stream->id != id)
        stream = stream->next;
    return stream;
}

bool stream_is_known(uint32_t id)
{
    return find_stream(id) != NULL;
}

/* The descriptor's end; `error` is what the host is told with it. */
static void finish(struct stream *stream, uint32_t error)
{
    loop_close(&stream->watch);
    stream->over = true;
    if (error != 0)
        stream->error = error;
    stream->input_length = 0;
}

static bool take_data(struct stream *stream, const struct frame *frame)
{
    size_t at, first;

    if (!stream->to_program || frame->length == 0 || frame->length > stream->granted || stream->host_ended)
        return false;
    stream->granted -= frame->length;
    /* The host did not know yet that nobody reads any more. */
    if (stream->over)
        return true;
    at = (stream->input_start + stream->input_length) % INPUT_WINDOW_BYTES;
    first = frame->length < INPUT_WINDOW_BYTES - at ? frame->length : INPUT_WINDOW_BYTES - at;
    memcpy(stream->input + at, frame->payload, first);
    memcpy(stream->input, frame->payload + first, frame->length - first);
    stream->input_length += frame->length;
    return true;
}

static bool take_credit(struct stream *stream, const struct frame *frame)
{
    uint32_t credit = frame->length == 4 ? get_u32(frame->payload) : 0;

    if (stream->to_program || credit == 0 || credit > MAX_CREDIT_BYTES - stream->credit)
        return false;
    stream->credit += credit;
    return true;
}

bool streams_take(const struct frame *frame)
{
    struct stream *stream = frame->id != 0 ? find_stream(frame->id) : NULL;

    /* Its end and this frame met on the way. */
    if (stream == NULL)
        return true;
    switch (frame->type) {
    case FRAME_DATA:
        return take_data(stream, frame);
    case FRAME_CREDIT:
        return take_credit(stream, frame);
    case FRAME_END:
        if (!stream->to_program)
            return false;
        stream->host_ended = true;
        return true;
    case FRAME_STOP:
        if (stream->to_program)
            return false;
        finish(stream, 0);
        return true;
    default:
        return false;
    }
}

/* To the program, as much as it takes now. */
static void write_input(struct stream *stream)
{
    while (stream->ready && stream->input_length > 0) {
        size_t first = INPUT_WINDOW_BYTES - stream->input_start;
        struct iovec parts[2] = {{stream->input + stream->input_start, first},
                                 {stream->input, stream->input_length - first}};
        bool wraps = stream->input_length > first;
        ssize_t put;

        if (!wraps)
            parts[0].iov_len = stream->input_length;
        put = writev(stream->watch.fd, parts, wraps ? 2 : 1);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0 && errno == EAGAIN) {
            stream->ready = false;
            return;
        }
        if (put < 0) {
            finish(stream, 0);
            return;
        }
        stream->input_start = (stream->input_start + (size_t)put) % INPUT_WINDOW_BYTES;
        stream->input_length -= (size_t)put;
        if (stream->id != 0)
            stream->owed += (uint32_t)put;
    }
    if (stream->host_ended && stream->input_length == 0) {
        finish(stream, 0);
        stream->told = true;
    }
}

/* What an input has to tell: room for more, or that nobody reads. */
static bool tell_input(struct stream *stream, struct channel *channel, uint64_t session)
{
    bool stop = stream->over && !stream->told;
    uint8_t *room;

    if (!stop && (stream->over || stream->host_ended || stream->owed == 0 ||
                  (stream->owed < CREDIT_STEP && stream->granted >= CREDIT_STEP)))
        return false;
    room = channel_room(channel, 4);
    if (room == NULL)
        return false;
    if (stop) {
        channel_commit(channel, FRAME_STOP, 0, stream->id, session, 0);
        stream->told = true;
        return true;
    }
    put_u32(room, stream->owed);
    channel_commit(channel, FRAME_CREDIT, 0, stream->id, session, 4);
    stream->granted += stream->owed;
    stream->owed = 0;
    return true;
}

/* One frame of what the program wrote, or its end. */
static bool tell_output(struct stream *stream, struct channel *channel, uint64_t session)
{
    uint8_t *room = channel_room(channel, MAX_PAYLOAD_BYTES);

    if (room == NULL)
        return false;
    if (stream->leaving) {
        channel_commit(channel, FRAME_END, 0, stream->id, session, 0);
        stream_detach(stream);
        return true;
    }
    if (!stream->over && stream->ready && stream->credit > 0) {
        size_t most = stream->credit < MAX_PAYLOAD_BYTES ? (size_t)stream->credit : MAX_PAYLOAD_BYTES;
        ssize_t got = read(stream->watch.fd, room, most);

        if (got > 0) {
            stream->credit -= (uint64_t)got;
            channel_commit(channel, FRAME_DATA, 0, stream->id, session, (uint32_t)got);
            return true;
        }
        if (got < 0 && errno == EAGAIN)
            stream->ready = false;
        else if (got == 0 || errno != EINTR)
            /* EIO of a terminal says that the last program has closed it. */
            finish(stream, got == 0 || errno == EIO ? 0 : (uint32_t)errno);
    }
    if (!stream->over || stream->told || stream->held)
        return false;
    struct field_writer writer = {.bytes = room, .capacity = MAX_PAYLOAD_BYTES};
    if (stream->error != 0)
        put_u32_field(&writer, TAG_ERRNO, stream->error);
    channel_commit(channel, FRAME_END, 0, stream->id, session, (uint32_t)writer.length);
    stream->told = true;
    return true;
}

bool streams_work(struct channel *channel, uint64_t session)
{
    int sent = 0;
    bool progress = true;

    for (struct stream *stream = streams; stream != NULL; stream = stream->next)
        if (stream->to_program && !stream->over)
            write_input(stream);
    while (progress && session != 0) {
        progress = false;
        for (struct stream *stream = streams; stream != NULL; stream = stream->next) {
            if (stream->id == 0)
                continue;
            if (channel_waiting(channel) > 0) {
                channel_flush(channel);
                if (channel_waiting(channel) > 0)
                    return false;
            }
            if (stream->to_program ? tell_input(stream, channel, session)
                                   : tell_output(stream, channel, session)) {
                progress = true;
                sent++;
            }
        }
        if (sent >= FRAMES_A_TURN)
            return true;
    }
    channel_flush(channel);
    return false;
}
