/*
 * What lxc-start itself says by its exit status is only whether there was a container; how that ended is in its log. The init
 * is killed and not lxc-start, wherever that can be: an lxc-start that lives gives the host its network links back.
 */
#define _GNU_SOURCE
#include "container.h"

#include "agent.h"
#include "groups.h"
#include "loop.h"
#include "lxc-log.h"
#include "lxc-start.h"
#include "lxc-state.h"
#include "process.h"
#include "spawn.h"
#include "standing.h"
#include "verdict.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* How often a container is looked at that is to stand still: the kernel tells nobody when it does (v1). */
#define FIRST_LOOK_MS 1
#define LONGEST_LOOK_MS 64
#define LONGEST_THAW_MS 1000
/* How often it is looked whether the init waits for what it cannot wait for, which nobody tells of. */
#define EXITING_LOOK_MS 5000

static void look_whether_frozen(void);
static void lxc_told(void);
static void thaw_ending(void);
static void look_whether_exiting(void);
static void init_started(pid_t pid);
static void init_ended(struct ending how);
static void init_reboots(void);
static void finish(void);

static const struct log_reader reader = {.started = init_started, .ended = init_ended, .rebooting = init_reboots};
static const struct options *options;
static char **lxc_start;

/* IDLE: no lxc-start; BEGINNING: it runs and the init does not, the first time or after a reboot; ENDING: the init is killed. */
static enum { IDLE, BEGINNING, RUNNING, ENDING } phase;
static enum { THAWED, FREEZING, FROZEN } stillness;
static bool was_begun;    /* an init was executed in the life of this warden */
static bool is_rebooting; /* an init asked for the next one */

/* Of this run; a reboot inside begins anew. */
static pid_t starter; /* lxc-start; 0: none */
static int init = -1; /* a pidfd; -1: none that is known */
static pid_t init_pid; /* its number, while there is the pidfd */
static struct evidence run;

static struct asker beginner, freezer, thawer;
static struct alarm look = {.ring = look_whether_frozen};
static int64_t look_ms;
static struct alarm exiting_look = {.ring = look_whether_exiting};
static int exit_status;

void container_open(const struct options *given, const char *terminal)
{
    options = given;
    lxc_start = lxc_start_line(options, terminal);
    lxc_log_open(options->lxc_log, &reader);
    groups_open(options->cgroup);
    loop_alarm(&look);
    lxc_state_open(options, lxc_told);
    loop_alarm(&exiting_look);
    stand_by(lxc_start);
}

static void forget_init(void)
{
    if (init >= 0)
        close(init);
    init = -1;
}

static void begin(void)
{
    lxc_log_forget();
    lxc_state_forget();
    run = (struct evidence){0};
    is_rebooting = false;
    starter = begin_standing(lxc_start);
    phase = BEGINNING;
}

static void begin_to_freeze(void)
{
    /* That it is thawed, which would thaw it. */
    if (lxc_state_is_being_told())
        return;
    if (!groups_freeze(true)) {
        stillness = THAWED;
        refuse(&freezer, GENERIC, "The container cannot be frozen: %s", strerror(errno));
        return;
    }
    look_ms = FIRST_LOOK_MS;
    look_whether_frozen();
}

static void look_whether_frozen(void)
{
    if (phase == ENDING) {
        thaw_ending();
        return;
    }
    if (stillness != FREEZING || phase != RUNNING)
        return;
    if (!groups_are_frozen()) {
        look.due = now_ms() + look_ms;
        look_ms = look_ms * 2 < LONGEST_LOOK_MS ? look_ms * 2 : LONGEST_LOOK_MS;
        return;
    }
    lxc_state_tell(true);
}

/* Also of a killed one, which does not die before. */
static void thaw(void)
{
    look.due = 0;
    (void)groups_freeze(false);
}

/* What it was told it has also done, and that may be over meanwhile. */
static void lxc_told(void)
{
    if (stillness == THAWED || phase == ENDING)
        thaw();
    if (phase != RUNNING) {
        answer(&thawer, NULL);
        return;
    }
    if (stillness == THAWED && lxc_state_is_frozen())
        lxc_state_tell(false);
    else if (stillness == THAWED)
        answer(&thawer, NULL);
    else if (!lxc_state_is_frozen())
        begin_to_freeze();
    else if (stillness == FREEZING) {
        stillness = FROZEN;
        tell("STOP", NULL);
        answer(&freezer, NULL);
    }
}

/* Its init waits for all that is in it, also for what the container froze itself, or does so at the last moment. */
static void thaw_ending(void)
{
    groups_thaw_all();
    look.due = now_ms() + look_ms;
    look_ms = look_ms * 2 < LONGEST_THAW_MS ? look_ms * 2 : LONGEST_THAW_MS;
}

/* All in there are to die with the init: what the container froze itself does not, and holds it up for ever. */
static void look_whether_exiting(void)
{
    bool is_held_up = phase == RUNNING && stillness == THAWED && init >= 0 && is_exiting(init_pid, starter);

    exiting_look.due = phase == RUNNING ? now_ms() + (is_held_up ? LONGEST_THAW_MS : EXITING_LOOK_MS) : 0;
    if (is_held_up)
        groups_thaw_all();
}

static void kill_init(void)
{
    agent_end();
    if (init >= 0)
        (void)syscall(SYS_pidfd_send_signal, init, SIGKILL, NULL, 0);
    lxc_state_interrupt();
    thaw();
    phase = ENDING;
    look_ms = FIRST_LOOK_MS;
    thaw_ending();
}

/* By the time the log is read the pid may be somebody else's. */
static int open_init(pid_t pid)
{
    int init = (int)syscall(SYS_pidfd_open, pid, 0);

    if (init >= 0 && starter > 0 && parent_of(pid) == starter)
        return init;
    if (init >= 0)
        close(init);
    return -1;
}

static void init_started(pid_t pid)
{
    bool is_first = !was_begun;

    forget_init();
    init = open_init(pid);
    init_pid = pid;
    exiting_look.due = now_ms() + EXITING_LOOK_MS;
    run.is_started = was_begun = true;
    is_rebooting = false;
    run.is_ended = false;
    if (phase == BEGINNING) {
        phase = RUNNING;
        if (is_first || beginner.client != 0)
            tell("RESUME", NULL);
        answer(&beginner, NULL);
    }
    /* It rebooted while it was to be killed, or was to be before it was there. */
    if (run.wanted != NOTHING) {
        kill_init();
        return;
    }
    agent_begin();
    if (stillness != THAWED) {
        stillness = FREEZING;
        begin_to_freeze();
    }
}

static void init_ended(struct ending how)
{
    run.is_ended = true;
    run.how = how;
}

static void init_reboots(void)
{
    agent_end();
    forget_init();
    lxc_state_forget();
    run.is_started = run.is_ended = false;
    if (phase != RUNNING)
        return;
    phase = BEGINNING;
    is_rebooting = true;
    tell("RESET", "{\"guest\": true, \"reason\": \"guest-reset\"}");
}

const char *container_status(void)
{
    if (phase == ENDING && run.wanted != RESET)
        return "shutdown";
    if (stillness == FROZEN)
        return "paused";
    return was_begun ? "running" : "prelaunch";
}

bool container_can_run(void)
{
    return phase == RUNNING && stillness == THAWED;
}

void container_look_around(void)
{
    if (phase == RUNNING && init >= 0)
        (void)syscall(SYS_pidfd_send_signal, init, SIGCHLD, NULL, 0);
}

static bool is_ending(struct asker *asker)
{
    if (phase != ENDING || run.wanted == RESET)
        return false;
    refuse(asker, GENERIC, "The container is being ended");
    return true;
}

/* Whether it is begun for the first time just now. */
static bool is_awaited(struct asker *asker)
{
    if (phase != BEGINNING || was_begun)
        return false;
    refuse(asker, GENERIC, "The container is being begun");
    return true;
}

void container_continue(struct asker *asker)
{
    if (is_ending(asker) || is_awaited(asker))
        return;
    if (phase == IDLE) {
        beginner = *asker;
        stillness = THAWED;
        begin();
        return;
    }
    if (stillness != THAWED) {
        thaw();
        if (stillness == FROZEN)
            tell("RESUME", NULL);
        else
            refuse(&freezer, GENERIC, "The container was continued meanwhile");
        stillness = THAWED;
        if (phase == RUNNING) {
            thawer = *asker;
            if (lxc_state_is_being_told())
                lxc_state_interrupt();
            else
                lxc_state_tell(false);
            return;
        }
    }
    answer(asker, NULL);
}

void container_stop(struct asker *asker)
{
    if (is_ending(asker) || is_awaited(asker))
        return;
    if (phase == IDLE || stillness == FROZEN) {
        answer(asker, NULL);
        return;
    }
    if (stillness == FREEZING) {
        refuse(asker, GENERIC, "The container is being frozen");
        return;
    }
    freezer = *asker;
    stillness = FREEZING;
    if (phase == RUNNING)
        begin_to_freeze();
}

void container_power_down(struct asker *asker)
{
    if (is_ending(asker))
        return;
    if (phase != RUNNING || init < 0 ||
        syscall(SYS_pidfd_send_signal, init, options->halt_signal, NULL, 0) < 0) {
        refuse(asker, GENERIC, "The container has no init at this moment");
        return;
    }
    tell("POWERDOWN", NULL);
    answer(asker, NULL);
}

void container_reset(struct asker *asker)
{
    if (is_ending(asker) || is_awaited(asker))
        return;
    if (phase == IDLE)
        tell("RESET", "{\"guest\": false, \"reason\": \"host-qmp-system-reset\"}");
    else
        run.wanted = RESET;
    if (phase == RUNNING)
        kill_init();
    answer(asker, NULL);
}

static void end_by_force(void)
{
    if (phase == IDLE) {
        finish();
        return;
    }
    if (init < 0 && starter > 0)
        (void)kill(starter, SIGKILL);
    kill_init();
}

void container_quit(struct asker *asker)
{
    answer(asker, NULL);
    if (run.wanted != SIGNAL)
        run.wanted = QUIT;
    end_by_force();
}

void container_end_by_signal(void)
{
    run.wanted = SIGNAL;
    end_by_force();
}

void container_child_ended(pid_t child, int status)
{
    standing_ended(child);
    if (child != starter)
        return;
    starter = 0;
    run.starter_status = status;
    lxc_log_read();
    kill_init();
}

int container_exit_status(void)
{
    return exit_status;
}

/* What lxc-start said last is its own; this is for who reads one line. */
static void say_failure(void)
{
    char words[768];

    describe_failure(&run, lxc_log_complaint(), words, sizeof words);
    fprintf(stderr, "%s: %s\n", program_name, words);
    refuse(&beginner, GENERIC, "%s", words);
    exit_status = 1;
}

static void finish(void)
{
    struct verdict verdict = judge(&run);
    struct ending ending = ending_of(&run);

    dismiss_standing();
    if (verdict.is_failure)
        say_failure();
    refuse(&beginner, GENERIC, "The container was ended meanwhile");
    refuse(&freezer, GENERIC, "The container ended meanwhile");
    refuse(&thawer, GENERIC, "The container ended meanwhile");
    if (!groups_remove(true))
        fprintf(stderr, "%s: remove the control groups of %s: %s\n", program_name, options->cgroup, strerror(errno));
    tell("SHUTDOWN", "{\"guest\": %s, \"reason\": \"%s\"}", verdict.guest ? "true" : "false", verdict.reason);
    if (phase != IDLE)
        tell("CONTAINER_END", "{\"%s\": %d}", ending.by_signal ? "signal" : "status", ending.number);
    loop_end();
}

/* Whether lxc-start is run again. */
static bool is_to_go_on(void)
{
    if (is_orderly(&run))
        return run.wanted == RESET;
    /* It found the group in use by a program that was on its way into the container, when that was to be rebooted. */
    return is_rebooting && WIFEXITED(run.starter_status) && (run.wanted == NOTHING || run.wanted == RESET);
}

void container_children_told(bool is_any_left)
{
    /* The agent's end may be a part of the container's. */
    if (starter > 0)
        look_whether_exiting();
    if (phase == IDLE || starter > 0)
        return;
    if (is_any_left) {
        /* Of an lxc-start that was killed, the container is ours; so is what a hook left. */
        kill_children();
        return;
    }
    forget_init();
    if (!is_to_go_on()) {
        finish();
        return;
    }
    if (run.wanted == RESET)
        tell("RESET", "{\"guest\": false, \"reason\": \"host-qmp-system-reset\"}");
    if (stillness == FROZEN) {
        phase = IDLE;
        run.wanted = NOTHING;
    } else
        begin();
}
