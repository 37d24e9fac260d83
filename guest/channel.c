/* Bytes from and to the host; see channel.h. */
#define _GNU_SOURCE
#include "channel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

bool channel_init(struct channel *channel, size_t capacity, void (*cut)(struct channel *channel))
{
    channel->line.fd = -1;
    channel->listener.fd = -1;
    channel->cut = cut;
    channel->out_capacity = capacity;
    channel->out = malloc(capacity);
    reset_reader(&channel->reader);
    return channel->out != NULL;
}

static void line_ready(struct watch *watch, uint32_t events)
{
    struct channel *channel = CONTAINER_OF(watch, struct channel, line);

    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP)) != 0)
        channel->readable = true;
    if ((events & EPOLLOUT) != 0)
        channel->writable = true;
    if ((events & EPOLLHUP) != 0 && channel->listener.fd < 0)
        channel->hung_up = true;
}

/* A connection is over. */
static void line_cut(struct channel *channel)
{
    channel->readable = false;
    channel->writable = false;
    reset_reader(&channel->reader);
    channel_discard(channel);
    loop_close(&channel->line);
    channel->cut(channel);
}

static void listener_ready(struct watch *watch, uint32_t events)
{
    struct channel *channel = CONTAINER_OF(watch, struct channel, listener);
    int line;

    (void)events;
    while ((line = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
        if (channel->line.fd >= 0)
            line_cut(channel);
        (void)channel_use_port(channel, line);
    }
}

bool channel_use_port(struct channel *channel, int port)
{
    reset_reader(&channel->reader);
    channel->readable = true;
    channel->writable = true;
    return loop_add(&channel->line, port, EPOLLIN | EPOLLOUT | EPOLLRDHUP, line_ready);
}

bool channel_use_listener(struct channel *channel, int listener)
{
    return loop_add(&channel->listener, listener, EPOLLIN, listener_ready);
}

bool channel_read(struct channel *channel, struct frame *frame)
{
    uint8_t *space;
    size_t size;
    ssize_t got;

    if (next_frame(&channel->reader, frame))
        return true;
    if (!channel->readable || channel->line.fd < 0)
        return false;
    space = reader_space(&channel->reader, &size);
    got = read(channel->line.fd, space, size);
    if (got > 0) {
        reader_took(&channel->reader, (size_t)got);
        return next_frame(&channel->reader, frame);
    }
    if (got < 0 && errno == EINTR)
        return false;
    /*
     * On a port 0 bytes say that no host is there, until an edge tells of one. They end
     * nothing: the kernel hears of a new host's coming on another queue than of its
     * bytes, so that they can follow upon its greeting.
     */
    if ((got < 0 && errno == EAGAIN) || channel->listener.fd < 0)
        channel->readable = false;
    else
        line_cut(channel);
    return false;
}

uint8_t *channel_room(struct channel *channel, size_t payload)
{
    size_t needed = HEADER_BYTES + payload;

    if (channel->out_capacity - channel->out_end < needed && channel->out_start > 0) {
        channel->out_end -= channel->out_start;
        memmove(channel->out, channel->out + channel->out_start, channel->out_end);
        channel->out_start = 0;
    }
    return channel->out_capacity - channel->out_end < needed ? NULL
                                                             : channel->out + channel->out_end + HEADER_BYTES;
}

void channel_commit(struct channel *channel, uint8_t type, uint8_t flags, uint32_t id, uint64_t session,
                    uint32_t length)
{
    put_header(channel->out + channel->out_end, type, flags, id, session, length);
    channel->out_end += HEADER_BYTES + length;
}

void channel_flush(struct channel *channel)
{
    while (channel->writable && channel->line.fd >= 0 && channel->out_start < channel->out_end) {
        ssize_t put =
            write(channel->line.fd, channel->out + channel->out_start, channel->out_end - channel->out_start);

        if (put > 0)
            channel->out_start += (size_t)put;
        else if (put < 0 && errno == EINTR)
            continue;
        else if (put == 0 || errno == EAGAIN)
            channel->writable = false;
        else {
            /* The end of a connection is told by reading. */
            channel->readable = true;
            channel->writable = false;
        }
    }
    if (channel->out_start == channel->out_end)
        channel_discard(channel);
}

size_t channel_waiting(const struct channel *channel)
{
    return channel->out_end - channel->out_start;
}

void channel_discard(struct channel *channel)
{
    channel->out_start = 0;
    channel->out_end = 0;
}
