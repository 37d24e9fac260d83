/*
 * Edges and not levels: a port whose host is away, and a pipe for whose bytes nobody
 * gave credit, are ready all the time, and a loop that is told so again and again
 * does nothing else. So whoever owns a watch remembers that it is ready until a
 * read or a write says EAGAIN.
 */
#define _GNU_SOURCE
#include "loop.h"

#include <errno.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <unistd.h>

#define BATCH 32

static int epoll = -1;
static struct epoll_event batch[BATCH];
static int batch_size;

bool loop_open(void)
{
    epoll = epoll_create1(EPOLL_CLOEXEC);
    return epoll >= 0;
}

bool loop_add(struct watch *watch, int fd, uint32_t events,
              void (*ready)(struct watch *watch, uint32_t events))
{
    struct epoll_event event = {.events = events | EPOLLET, .data.ptr = watch};

    watch->fd = fd;
    watch->ready = ready;
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0)
        return true;
    int error = errno;
    close(fd);
    watch->fd = -1;
    errno = error;
    return false;
}

void loop_close(struct watch *watch)
{
    if (watch->fd < 0)
        return;
    /* Not left to close(2): a forked worker may hold the same open file for a moment. */
    (void)epoll_ctl(epoll, EPOLL_CTL_DEL, watch->fd, NULL);
    close(watch->fd);
    watch->fd = -1;
    for (int i = 0; i < batch_size; i++)
        if (batch[i].data.ptr == watch)
            batch[i].data.ptr = NULL;
}

void loop_run(enum work (*work)(void))
{
    for (;;) {
        enum work more = work();

        if (more == WORK_STOP)
            return;
        batch_size = epoll_wait(epoll, batch, BATCH, more == WORK_MORE ? 0 : -1);
        for (int i = 0; i < batch_size; i++) {
            struct watch *watch = batch[i].data.ptr;

            if (watch != NULL)
                watch->ready(watch, batch[i].events);
        }
    }
}
