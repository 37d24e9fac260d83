/* See processes.h, and docs/guest-protocol.md, "Programs". */
#define _GNU_SOURCE
#include "processes.h"

#include "frames.h"
#include "launch.h"
#include "loop.h"
#include "session.h"
#include "standard-files.h"
#include "streams.h"
#include "workers.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_PROCESSES 256

struct process {
    struct process *next;
    uint32_t id;
    pid_t pid;
    uint32_t request; /* of the EXEC, until it is answered */
    bool limited;     /* has a control group */
    bool terminal;
    bool attached; /* the host that is connected now knows of it */
    bool ended, told;
    int status;
    struct rusage usage;
    struct watch start; /* the status pipe, until it says how the start went */
    uint8_t failure[1024];
    size_t failure_length;
    bool has[STREAM_COUNT];
    struct stream streams[STREAM_COUNT]; /* in the order of the descriptors */
};

static const uint16_t stream_tags[STREAM_COUNT] = {TAG_STDIN, TAG_STDOUT, TAG_STDERR};

static struct process *processes;
static int process_count;

static struct process *find_process(uint32_t id)
{
    struct process *process = processes;

    while (process != NULL && process->id != id)
        process = process->next;
    return process;
}

/* Finds the process that a request names; refuses the request if there is none. */
static struct process *named_process(uint32_t id, const struct fields *request)
{
    uint32_t number = 0;
    struct process *process;

    (void)read_u32(request, TAG_PROCESS, &number);
    process = find_process(number);
    if (process == NULL)
        refuse(id, ESRCH, "there is no process %u", number);
    return process;
}

static void discard(struct process *process)
{
    for (struct process **link = &processes; *link != NULL; link = &(*link)->next)
        if (*link == process) {
            *link = process->next;
            process_count--;
            break;
        }
    loop_close(&process->start);
    for (int i = 0; i < STREAM_COUNT; i++)
        if (process->has[i])
            stream_close(&process->streams[i]);
    if (process->limited) {
        char path[64];

        cgroup_path(path, sizeof path, process->id);
        (void)rmdir(path);
    }
    free(process);
}

static void answer_start(struct process *process)
{
    struct fields failure = {process->failure, process->failure_length};
    uint8_t bytes[64];
    struct field_writer writer = {.bytes = bytes, .capacity = sizeof bytes};
    uint32_t error, request = process->request;
    char *message;

    process->request = 0;
    if (process->failure_length == 0) {
        put_u32_field(&writer, TAG_PID, (uint32_t)process->pid);
        if (request != 0)
            reply(request, &writer);
        return;
    }
    if (!check_fields(&failure) || !read_u32(&failure, TAG_ERRNO, &error))
        error = EIO;
    message = read_text_field(&failure, TAG_MESSAGE);
    if (request != 0)
        refuse(request, (int)error, "%s", message != NULL ? message : "the program could not be started");
    free(message);
    /* It ends by itself, as an orphan of which nobody is told. */
    discard(process);
}

static void start_ready(struct watch *watch, uint32_t events)
{
    struct process *process = CONTAINER_OF(watch, struct process, start);
    ssize_t got;

    (void)events;
    while ((got = read(watch->fd, process->failure + process->failure_length,
                       sizeof process->failure - process->failure_length)) > 0)
        process->failure_length += (size_t)got;
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    loop_close(watch);
    answer_start(process);
}

/* Which streams the host wants, under which ids. False if it cannot have them. */
static bool read_streams(uint32_t id, const struct fields *request, bool *wanted, uint32_t *ids)
{
    for (int i = 0; i < STREAM_COUNT; i++) {
        wanted[i] = has_field(request, stream_tags[i]);
        ids[i] = 0;
        if (!wanted[i])
            continue;
        if (!read_u32(request, stream_tags[i], &ids[i]) || ids[i] == 0 || stream_is_known(ids[i]) ||
            (i > 0 && ids[i] == ids[0]) || (i > 1 && ids[i] == ids[1])) {
            refuse(id, EINVAL, "a stream has no number, or one that is in use");
            return false;
        }
    }
    return true;
}

static uint32_t window_of(const struct fields *request)
{
    uint32_t window = 0;

    (void)read_u32(request, TAG_WINDOW, &window);
    return window < MAX_CREDIT_BYTES ? window : MAX_CREDIT_BYTES;
}

/* Takes the agent's ends over; the first failure closes the others with the process. */
static bool take_ends(struct process *process, struct ends *ends, const uint32_t *ids, uint32_t window)
{
    bool good = true;
    int status = ends->status[0];

    for (int i = 0; i < STREAM_COUNT; i++) {
        int fd = ends->agent[i];

        if (fd < 0)
            continue;
        ends->agent[i] = -1;
        (void)fcntl(fd, F_SETFL, O_NONBLOCK);
        process->has[i] = good = good && stream_open(&process->streams[i], fd, i == 0);
        if (process->has[i] && ids[i] != 0)
            stream_attach(&process->streams[i], ids[i], window);
    }
    ends->status[0] = -1;
    (void)fcntl(status, F_SETFL, O_NONBLOCK);
    return loop_add(&process->start, status, EPOLLIN, start_ready) && good;
}

/* Forks; the child goes its way. */
static pid_t start(const struct fields *request, const struct ends *ends, bool terminal)
{
    struct launch_files files = {.input = ends->program[0],
                                 .output = ends->program[terminal ? 0 : 1],
                                 .error = ends->program[terminal ? 0 : 2],
                                 .terminal = terminal,
                                 .status = ends->status[1]};
    pid_t pid = fork();

    if (pid == 0)
        launch(request, &files);
    return pid;
}

void exec_process(uint32_t id, const struct fields *request)
{
    const char *wrong = check_launch(request);
    bool wanted[STREAM_COUNT], terminal = has_field(request, TAG_TERMINAL);
    uint32_t ids[STREAM_COUNT], number = 0;
    struct process *process;
    struct ends ends;

    if (wrong == NULL && (!read_u32(request, TAG_PROCESS, &number) || number == 0))
        wrong = "a process without a number";
    if (wrong == NULL && terminal && has_field(request, TAG_STDERR))
        wrong = "a terminal has no standard error of its own";
    if (wrong != NULL) {
        refuse(id, EINVAL, "%s", wrong);
        return;
    }
    if (find_process(number) != NULL) {
        refuse(id, EEXIST, "there is a process %u already", number);
        return;
    }
    if (!read_streams(id, request, wanted, ids))
        return;
    process = process_count < MAX_PROCESSES ? calloc(1, sizeof *process) : NULL;
    if (process == NULL) {
        refuse(id, EAGAIN, "there are %d processes already", process_count);
        return;
    }
    process->id = number;
    process->start.fd = -1;
    process->pid = -1;
    if (open_ends(&ends, request, wanted))
        process->pid = start(request, &ends, terminal);
    if (process->pid < 0) {
        refuse(id, errno, "start a process");
        close_ends(&ends);
        free(process);
        return;
    }
    process->terminal = terminal;
    process->limited = has_field(request, TAG_CGROUP);
    process->attached = true;
    process->request = id;
    process->next = processes;
    processes = process;
    process_count++;
    if (!take_ends(process, &ends, ids, window_of(request))) {
        (void)kill(process->pid, SIGKILL);
        refuse(id, ENOMEM, "start a process");
        process->request = 0;
        discard(process);
    }
    close_ends(&ends);
}

void attach_process(uint32_t id, const struct fields *request)
{
    struct process *process = named_process(id, request);
    bool wanted[STREAM_COUNT];
    uint32_t ids[STREAM_COUNT];

    if (process == NULL || !read_streams(id, request, wanted, ids))
        return;
    for (int i = 0; i < STREAM_COUNT; i++)
        if (wanted[i] && (!process->has[i] || process->streams[i].id != 0)) {
            refuse(id, process->has[i] ? EBUSY : EINVAL, "descriptor %d of process %u %s", i, process->id,
                   process->has[i] ? "has its stream already" : "is no stream");
            return;
        }
    process->attached = true;
    process->told = false;
    reply_nothing(id);
    for (int i = 0; i < STREAM_COUNT; i++)
        if (wanted[i])
            stream_attach(&process->streams[i], ids[i], window_of(request));
}

/* What the host has had of it ends with an END that is none of the program's. */
void detach_process(uint32_t id, const struct fields *request)
{
    struct process *process = named_process(id, request);

    if (process == NULL)
        return;
    process->attached = false;
    process->told = false;
    for (int i = 0; i < STREAM_COUNT; i++)
        if (process->has[i])
            stream_leave(&process->streams[i]);
    reply_nothing(id);
}

/* Everything that a program has begun, if it has a control group: cgroup.kill knows but one signal. */
static bool kill_group(const struct process *process, int signal)
{
    char path[64];
    int fd;
    bool done;

    if (!process->limited || signal != SIGKILL)
        return false;
    cgroup_path(path, sizeof path - sizeof "/cgroup.kill", process->id);
    strcat(path, "/cgroup.kill");
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    done = write(fd, "1", 1) == 1;
    close(fd);
    return done;
}

void signal_process(uint32_t id, const struct fields *request)
{
    struct process *process = named_process(id, request);
    bool all = has_field(request, TAG_ALL);
    uint32_t number = 0;

    if (process == NULL)
        return;
    if (!read_u32(request, TAG_SIGNAL, &number) || number > (uint32_t)SIGRTMAX) {
        refuse(id, EINVAL, "%u is no signal", number);
        return;
    }
    /* Whoever ended may have left others behind in its group. */
    if (process->ended && !all) {
        refuse(id, ESRCH, "process %u has ended", process->id);
        return;
    }
    if ((all && kill_group(process, (int)number)) ||
        kill(all ? -process->pid : process->pid, (int)number) == 0)
        reply_nothing(id);
    else
        refuse(id, errno, "signal process %u", process->id);
}

void resize_process(uint32_t id, const struct fields *request)
{
    struct process *process = named_process(id, request);
    struct field size;

    if (process == NULL)
        return;
    if (!process->terminal || !find_field(request, TAG_TERMINAL, &size) || size.length != 4) {
        refuse(id, process->terminal ? EINVAL : ENOTTY, "process %u: no terminal, or no size", process->id);
        return;
    }
    if (process->streams[1].watch.fd >= 0)
        set_terminal_size(process->streams[1].watch.fd, &size);
    reply_nothing(id);
}

void release_process(uint32_t id, const struct fields *request)
{
    struct process *process = named_process(id, request);

    if (process == NULL)
        return;
    if (!process->ended) {
        refuse(id, EBUSY, "process %u runs", process->id);
        return;
    }
    discard(process);
    reply_nothing(id);
}

static void put_end(struct field_writer *writer, const struct process *process)
{
    if (WIFSIGNALED(process->status))
        put_u32_field(writer, TAG_EXIT_SIGNAL, (uint32_t)WTERMSIG(process->status));
    else
        put_u32_field(writer, TAG_EXIT_CODE, (uint32_t)WEXITSTATUS(process->status));
}

void list_processes(uint32_t id, const struct fields *request)
{
    static uint8_t bytes[MAX_PROCESSES * 48];
    struct field_writer writer = {.bytes = bytes, .capacity = sizeof bytes};

    (void)request;
    for (struct process *process = processes; process != NULL; process = process->next) {
        put_u32_field(&writer, TAG_PROCESS, process->id);
        put_u32_field(&writer, TAG_PID, (uint32_t)process->pid);
        if (process->ended)
            put_end(&writer, process);
        if (process->terminal)
            put_field(&writer, TAG_TERMINAL, NULL, 0);
    }
    reply(id, &writer);
}

void detach_processes(void)
{
    for (struct process *process = processes; process != NULL; process = process->next) {
        process->attached = false;
        process->told = false;
        process->request = 0;
        for (int i = 0; i < STREAM_COUNT; i++)
            if (process->has[i])
                stream_detach(&process->streams[i]);
    }
}

static void process_ended(struct process *process, int status, const struct rusage *usage)
{
    process->ended = true;
    process->status = status;
    process->usage = *usage;
    /* The word about the start is there, since the program that would write it is gone; and comes first. */
    if (process->start.fd >= 0)
        start_ready(&process->start, 0);
}

bool reap_children(void)
{
    struct rusage usage;
    int status;
    pid_t pid;

    while ((pid = wait4(-1, &status, WNOHANG, &usage)) > 0) {
        struct process *process = processes;

        if (work_ended(pid, status))
            continue;
        while (process != NULL && (process->pid != pid || process->ended))
            process = process->next;
        if (process != NULL)
            process_ended(process, status, &usage);
    }
    return pid == 0;
}

bool any_process(void)
{
    return process_count > 0;
}

void announce_ends(void)
{
    for (struct process *process = processes; process != NULL; process = process->next) {
        uint8_t bytes[128];
        struct field_writer writer = {.bytes = bytes, .capacity = sizeof bytes};
        const struct rusage *usage = &process->usage;

        if (!process->ended || process->told || !process->attached || process->start.fd >= 0)
            continue;
        put_end(&writer, process);
        put_u64_field(&writer, TAG_CPU_TIME,
                      (uint64_t)(usage->ru_utime.tv_sec + usage->ru_stime.tv_sec) * 1000000 +
                          (uint64_t)(usage->ru_utime.tv_usec + usage->ru_stime.tv_usec));
        put_u64_field(&writer, TAG_MAX_RSS, (uint64_t)usage->ru_maxrss * 1024);
        process->told = announce(FRAME_EXITED, process->id, &writer);
    }
}

void hang_up_terminals(void)
{
    for (struct process *process = processes; process != NULL; process = process->next)
        if (!process->ended && process->terminal)
            (void)kill(-process->pid, SIGHUP);
}

void signal_all_processes(int signal)
{
    for (struct process *process = processes; process != NULL; process = process->next)
        if (!process->ended)
            (void)kill(-process->pid, signal);
}
