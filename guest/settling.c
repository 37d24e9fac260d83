/* See settling.h. */
#define _GNU_SOURCE
#include "settling.h"

#include "files.h"
#include "loop.h"
#include "session.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define CLOCK_SOURCE "/sys/devices/system/clocksource/clocksource0/current_clocksource"
/* What it is called until the kernel has looked at it for a second or two; nobody is told of the end of that. */
#define EARLY_CLOCK "tsc-early"
#define LOOK_EVERY_NS 50000000L
#define MOST_LOOKS 100

static struct watch timer = {.fd = -1};
static uint32_t asked_by;
static int looks;

static bool has_its_clock(void)
{
    char name[32];

    return !read_small_file(CLOCK_SOURCE, name, sizeof name) ||
           strncmp(name, EARLY_CLOCK, strlen(EARLY_CLOCK)) != 0;
}

/* A grace period of RCU: what was to be freed before the first can be freed then, and is before the second ends. */
static void await_freeing(void)
{
    (void)syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0);
    (void)syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0);
}

static void look(struct watch *watch, uint32_t events)
{
    uint64_t times;

    (void)events;
    (void)!read(watch->fd, &times, sizeof times);
    looks++;
    if (looks < MOST_LOOKS && !has_its_clock())
        return;
    loop_close(&timer);
    await_freeing();
    reply_nothing(asked_by);
}

void settle(uint32_t id, const struct fields *request)
{
    struct itimerspec regularly = {.it_interval.tv_nsec = LOOK_EVERY_NS, .it_value.tv_nsec = LOOK_EVERY_NS};
    int fd;

    (void)request;
    if (timer.fd >= 0) {
        refuse(id, EBUSY, "it settles already");
        return;
    }
    looks = 0;
    asked_by = id;
    fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (fd < 0 || timerfd_settime(fd, 0, &regularly, NULL) < 0 || !loop_add(&timer, fd, EPOLLIN, look))
        refuse(id, errno, "set a timer");
}

void cancel_settling(void)
{
    if (timer.fd >= 0)
        loop_close(&timer);
}
