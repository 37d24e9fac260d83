/*
 * By levels: what was not taken in this turn is told again in the next. Who is told may close what others wait for, and a
 * new descriptor may get its number in the same turn; all of them are non-blocking, so that a false alarm does nothing.
 */
#define _GNU_SOURCE
#include "loop.h"

#include "process.h"

#include <errno.h>
#include <limits.h>
#include <time.h>
#include <unistd.h>

#define MOST 16

static struct watch *watches[MOST];
static nfds_t watch_count;
static struct alarm *alarms[MOST];
static size_t alarm_count;
static bool is_over;

void loop_watch(struct watch *watch)
{
    watches[watch_count++] = watch;
}

void loop_alarm(struct alarm *alarm)
{
    alarms[alarm_count++] = alarm;
}

void watch_close(struct watch *watch)
{
    if (watch->fd >= 0)
        close(watch->fd);
    watch->fd = -1;
    watch->events = 0;
}

int64_t now_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int until_next_alarm(void)
{
    int64_t next = INT64_MAX, now = now_ms();

    for (size_t i = 0; i < alarm_count; i++)
        if (alarms[i]->due > 0 && alarms[i]->due < next)
            next = alarms[i]->due;
    if (next == INT64_MAX)
        return -1;
    if (next <= now)
        return 0;
    return next - now > INT_MAX ? INT_MAX : (int)(next - now);
}

static void ring_alarms(void)
{
    int64_t now = now_ms();

    for (size_t i = 0; i < alarm_count; i++) {
        if (alarms[i]->due == 0 || alarms[i]->due > now)
            continue;
        alarms[i]->due = 0;
        alarms[i]->ring();
    }
}

void loop_run(void)
{
    struct pollfd slots[MOST];

    while (!is_over) {
        for (nfds_t i = 0; i < watch_count; i++)
            slots[i] = (struct pollfd){.fd = watches[i]->fd, .events = watches[i]->events};
        if (poll(slots, watch_count, until_next_alarm()) < 0 && errno != EINTR)
            fail("poll");
        for (nfds_t i = 0; i < watch_count && !is_over; i++)
            if (slots[i].revents != 0 && watches[i]->fd == slots[i].fd)
                watches[i]->ready(slots[i].revents);
        if (!is_over)
            ring_alarms();
    }
}

void loop_end(void)
{
    is_over = true;
}
