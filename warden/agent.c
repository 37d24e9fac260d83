/*
 * What the agent is given belongs to the container from then on: its standard files are pipes, of which one tells that it
 * listens and the other what went wrong before, and both are closed then; the program is open for reading only, and owned by
 * nobody whom the container knows.
 */
#define _GNU_SOURCE
#include "agent.h"

#include "container.h"
#include "loop.h"
#include "monitor.h"
#include "process.h"
#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* After its end it is run again, at first soon. */
#define FIRST_DELAY_MS 1000
#define LONGEST_DELAY_MS 30000
/* One that was asked to end, and did: a system that goes down asks everybody, and would wait for another. */
#define ASKED_DELAY_MS 120000
/* One that lived so long did not fail. */
#define GOOD_LIFE_MS 30000
/* It says this when it takes connections. */
#define LISTENING "listening\n"
#define MOST_WORDS 1024

static void said_ready(short happened);
static void complained_ready(short happened);
static void try(void);

static struct watch said = {.fd = -1, .ready = said_ready}, complained = {.fd = -1, .ready = complained_ready};
static struct alarm again = {.ring = try};
static char *attach[20];
static struct files files = {.of = {-1, -1, -1, -1, -1}, .count = 5};
static pid_t child; /* 0: none */
static bool is_to_run, is_listening;
static bool is_of_before; /* it is that of an init that is gone */
static int64_t begun_ms, delay_ms;
static char words[MOST_WORDS]; /* what it complains of */
static size_t words_length;

static void make_command_line(const struct options *options)
{
    char *const arguments[] = {
        path_in(options->programs, "lxc-attach"),
        "-P",
        (char *)options->lxcpath,
        "-n",
        (char *)options->name,
        "--clear-env",
        "-v",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "-v",
        "HOME=/root",
        "--",
        /* Descriptors as `files` has them. */
        "/proc/self/fd/5",
        "--listeners",
        "3",
        "4",
        NULL,
    };

    memcpy(attach, arguments, sizeof arguments);
}

void agent_open(const struct options *options)
{
    int program;

    if (options->agent == NULL)
        return;
    make_command_line(options);
    program = open(options->agent, O_RDONLY | O_CLOEXEC);
    if (program < 0)
        fail("open %s", options->agent);
    files.of[2] = options->control_fd;
    files.of[3] = options->streams_fd;
    files.of[4] = program;
    loop_watch(&said);
    loop_watch(&complained);
    loop_alarm(&again);
}

bool agent_is_wanted(void)
{
    return attach[0] != NULL;
}

bool agent_is_open(void)
{
    return is_listening;
}

static void make_pipe(struct watch *from, int *to)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0)
        fail("pipe");
    if (fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0)
        fail("fcntl");
    watch_close(from);
    from->fd = ends[0];
    from->events = POLLIN;
    *to = ends[1];
}

static void try(void)
{
    if (!is_to_run || child != 0)
        return;
    if (!container_can_run()) {
        again.due = now_ms() + FIRST_DELAY_MS;
        return;
    }
    make_pipe(&said, &files.of[0]);
    make_pipe(&complained, &files.of[1]);
    words_length = 0;
    is_of_before = false;
    begun_ms = now_ms();
    child = spawn(attach, &files);
    close(files.of[0]);
    close(files.of[1]);
}

void agent_begin(void)
{
    is_to_run = agent_is_wanted();
    delay_ms = FIRST_DELAY_MS;
    is_of_before = child != 0;
    if (child == 0)
        try();
}

void agent_end(void)
{
    is_to_run = false;
    again.due = 0;
    if (child != 0)
        (void)kill(child, SIGKILL);
}

static void tell_port(bool is_open)
{
    is_listening = is_open;
    tell("VSERPORT_CHANGE", "{\"id\": \"agent0\", \"open\": %s}", is_open ? "true" : "false");
}

static void said_ready(short happened)
{
    char bytes[64];
    ssize_t got = read(said.fd, bytes, sizeof bytes);

    (void)happened;
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    watch_close(&said);
    if (got < (ssize_t)strlen(LISTENING) || memcmp(bytes, LISTENING, strlen(LISTENING)) != 0)
        return;
    watch_close(&complained);
    tell_port(true);
}

static void complained_ready(short happened)
{
    ssize_t got = read(complained.fd, words + words_length, sizeof words - words_length);

    (void)happened;
    if (got > 0)
        words_length += (size_t)got;
    else if (got == 0 || (errno != EAGAIN && errno != EINTR))
        watch_close(&complained);
}

/* Into the log of the process, as words of one who may be believed or not. */
static void say_complaint(void)
{
    if (complained.fd >= 0)
        complained_ready(POLLIN);
    for (size_t i = 0; i < words_length; i++)
        if (words[i] < ' ' || words[i] > '~')
            words[i] = ' ';
    if (words_length > 0 && is_to_run)
        fprintf(stderr, "the agent: %.*s\n", (int)words_length, words);
}

void agent_child_ended(pid_t ended, int status)
{
    if (ended != child)
        return;
    child = 0;
    container_look_around();
    say_complaint();
    watch_close(&said);
    watch_close(&complained);
    if (is_listening)
        tell_port(false);
    if (is_to_run && is_of_before)
        try();
    if (!is_to_run || child != 0)
        return;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        again.due = now_ms() + ASKED_DELAY_MS;
        return;
    }
    if (now_ms() - begun_ms > GOOD_LIFE_MS)
        delay_ms = FIRST_DELAY_MS;
    again.due = now_ms() + delay_ms;
    delay_ms = delay_ms * 2 < LONGEST_DELAY_MS ? delay_ms * 2 : LONGEST_DELAY_MS;
}
