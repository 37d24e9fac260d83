/* See power.h. */
#define _GNU_SOURCE
#include "power.h"

#include "loop.h"
#include "processes.h"
#include "renewal.h"
#include "session.h"

#include <errno.h>
#include <linux/reboot.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/reboot.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define DEFAULT_GRACE_MS 10000
#define LONGEST_GRACE_MS 3600000
/* For what SIGKILL does not end at once, and for disks that do not take what is written. */
#define LAST_GRACE_MS 5000

enum action { ACTION_OFF, ACTION_RESET, ACTION_COUNT };

/* In this order; each begins when the one before is done or its time is over. */
static enum { RUNNING, ASKING, KILLING, FLUSHING, GONE } stage;
static enum action action;
static struct watch timer = {.fd = -1};
static pid_t flusher;
static bool is_late;

static void time_is_over(struct watch *watch, uint32_t events)
{
    (void)watch;
    (void)events;
    is_late = true;
}

static void wait_at_most(uint32_t milliseconds)
{
    struct itimerspec due = {
        .it_value = {.tv_sec = milliseconds / 1000, .tv_nsec = (long)(milliseconds % 1000) * 1000000 + 1}};
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);

    loop_close(&timer);
    is_late =
        fd < 0 || timerfd_settime(fd, 0, &due, NULL) < 0 || !loop_add(&timer, fd, EPOLLIN, time_is_over);
}

/* As PID 1 of a guest everybody but this one; elsewhere those that were started here. */
static void signal_everybody(int signal)
{
    if (is_guest)
        (void)kill(-1, signal);
    else
        signal_all_processes(signal);
}

static void begin(uint32_t grace)
{
    if (stage != RUNNING)
        return;
    stage = ASKING;
    wait_at_most(grace);
    signal_everybody(SIGTERM);
    hang_up_terminals();
    /* A stopped program hears of it only then. */
    signal_everybody(SIGCONT);
}

void power(uint32_t id, const struct fields *request)
{
    uint8_t wanted = ACTION_OFF;
    uint32_t grace = DEFAULT_GRACE_MS;

    (void)read_u32(request, TAG_TIMEOUT, &grace);
    if (!read_u8(request, TAG_ACTION, &wanted) || wanted >= ACTION_COUNT || grace > LONGEST_GRACE_MS) {
        refuse(id, EINVAL, "off is 0, reset is 1; the grace is at most %d ms", LONGEST_GRACE_MS);
        return;
    }
    action = (enum action)wanted;
    reply_nothing(id);
    begin(grace);
}

void power_off(void)
{
    action = ACTION_OFF;
    begin(DEFAULT_GRACE_MS);
}

static void flush_disks(void)
{
    flusher = fork();
    if (flusher == 0) {
        sync();
        _exit(0);
    }
}

bool power_work(bool children)
{
    if (stage == ASKING && (!children || is_late)) {
        stage = KILLING;
        wait_at_most(LAST_GRACE_MS);
        signal_everybody(SIGKILL);
    }
    if (stage == KILLING && (!children || is_late)) {
        stage = FLUSHING;
        wait_at_most(LAST_GRACE_MS);
        if (is_guest)
            flush_disks();
        children = is_guest;
    }
    if (stage == FLUSHING && (!children || is_late)) {
        stage = GONE;
        loop_close(&timer);
        if (is_guest)
            (void)reboot(action == ACTION_OFF ? LINUX_REBOOT_CMD_POWER_OFF : LINUX_REBOOT_CMD_RESTART);
    }
    return stage == GONE;
}
