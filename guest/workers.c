/* See workers.h. */
#define _GNU_SOURCE
#include "workers.h"

#include "filesystems.h"
#include "loop.h"
#include "renewal.h"
#include "session.h"
#include "streams.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_WORKERS 64
#define MAX_RESULT_BYTES 16384
#define PIPE_BYTES (1024 * 1024)

struct worker {
    struct worker *next;
    uint32_t request;
    pid_t pid;
    bool ended; /* reaped */
    bool answered;
    struct watch result; /* closed once the answer is whole */
    uint8_t bytes[MAX_RESULT_BYTES];
    size_t length;
    bool has_stream;
    struct stream stream;
};

static struct worker *workers;
static int worker_count;

static void answer(struct worker *worker)
{
    struct fields fields = {worker->bytes, worker->length};
    struct field_writer said = {.bytes = worker->bytes, .length = worker->length};
    uint32_t error = 0;
    char *message;

    worker->answered = true;
    if (worker->request == 0)
        return;
    if (worker->length == 0 || !check_fields(&fields)) {
        refuse(worker->request, EIO, "the agent's helper ended without an answer");
        return;
    }
    if (!read_u32(&fields, TAG_ERRNO, &error) || error == 0) {
        reply(worker->request, &said);
        return;
    }
    message = read_text_field(&fields, TAG_MESSAGE);
    refuse(worker->request, (int)error, "%s", message != NULL ? message : "");
    free(message);
}

static void result_ready(struct watch *watch, uint32_t events)
{
    struct worker *worker = CONTAINER_OF(watch, struct worker, result);
    ssize_t got;

    (void)events;
    while ((got = read(watch->fd, worker->bytes + worker->length, MAX_RESULT_BYTES - worker->length)) > 0)
        worker->length += (size_t)got;
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    loop_close(watch);
    if (!worker->answered)
        answer(worker);
}

/* In the child: everything of the agent's is let go of, then the work. */
__attribute__((noreturn)) static void be_worker(const struct fields *request, work_function *run,
                                                struct work_files *files)
{
    int kept[3] = {files->result, files->input, files->output};
    struct sigaction action = {.sa_handler = SIG_IGN};
    sigset_t none;

    /* Standard error is kept, for sanitizers. */
    for (int i = 0; i < 3; i++)
        if (kept[i] >= 0 && (kept[i] = fcntl(kept[i], F_DUPFD_CLOEXEC, 100)) < 0)
            _exit(EMFILE);
    for (int i = 0; i < 3; i++)
        if (kept[i] >= 0 && (kept[i] = dup3(kept[i], 3 + i, O_CLOEXEC)) < 0)
            _exit(EMFILE);
    *files = (struct work_files){kept[0], kept[1], kept[2]};
    for (int i = 0; i < 3; i++)
        if (kept[i] < 0)
            close(3 + i);
    (void)close_range(is_guest ? FIRST_FREE_FD : UPPER_FD, ~0U, 0);
    (void)sigaction(SIGPIPE, &action, NULL);
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)setsid();
    run(request, files);
    _exit(0);
}

void work_reply(struct work_files *files, const struct field_writer *fields)
{
    /* An answer without fields still has one, so that it differs from none. */
    uint8_t nothing[16];
    struct field_writer none = {.bytes = nothing, .capacity = sizeof nothing};

    if (fields == NULL || fields->length == 0) {
        put_u32_field(&none, TAG_ERRNO, 0);
        fields = &none;
    }
    (void)!write(files->result, fields->bytes, fields->length);
    close(files->result);
}

void work_fail(struct work_files *files, const char *format, ...)
{
    int error = errno != 0 ? errno : EIO;
    uint8_t bytes[1024];
    char what[512];
    struct field_writer writer = {.bytes = bytes, .capacity = sizeof bytes};
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    put_u32_field(&writer, TAG_ERRNO, (uint32_t)error);
    put_text_field(&writer, TAG_MESSAGE, what);
    (void)!write(files->result, bytes, writer.length);
    _exit(error < 256 ? error : EIO);
}

/* The pipes of a worker: [0] is the child's end, [1] the agent's. */
static bool make_pipes(enum work_streams streams, int result[2], int stream[2])
{
    if (pipe2(result, O_CLOEXEC) < 0)
        return false;
    stream[0] = stream[1] = -1;
    if (streams != WORK_ALONE && pipe2(stream, O_CLOEXEC) < 0) {
        close(result[0]);
        close(result[1]);
        return false;
    }
    if (streams != WORK_ALONE)
        (void)fcntl(stream[0], F_SETPIPE_SZ, PIPE_BYTES);
    return true;
}

static void discard(struct worker *worker)
{
    loop_close(&worker->result);
    if (worker->has_stream)
        stream_close(&worker->stream);
    free(worker);
    worker_count--;
}

/* The agent's ends. True if the host's id and all descriptors are in order. */
static bool take_ends(struct worker *worker, const struct fields *request, enum work_streams streams,
                      int result, int stream)
{
    uint32_t id = 0, window = 0;
    bool to_program = streams == WORK_READS;

    (void)fcntl(result, F_SETFL, O_NONBLOCK);
    if (!loop_add(&worker->result, result, EPOLLIN, result_ready)) {
        if (stream >= 0)
            close(stream);
        return false;
    }
    if (streams == WORK_ALONE)
        return true;
    (void)fcntl(stream, F_SETFL, O_NONBLOCK);
    if (!stream_open(&worker->stream, stream, to_program))
        return false;
    worker->has_stream = true;
    (void)read_u32(request, TAG_STREAM, &id);
    (void)read_u32(request, TAG_WINDOW, &window);
    stream_attach(&worker->stream, id, window < MAX_CREDIT_BYTES ? window : MAX_CREDIT_BYTES);
    worker->stream.held = !to_program;
    return true;
}

static bool stream_is_free(const struct fields *request)
{
    uint32_t id;

    return read_u32(request, TAG_STREAM, &id) && id != 0 && !stream_is_known(id);
}

pid_t start_work(uint32_t id, const struct fields *request, work_function *run, enum work_streams streams)
{
    int result[2], stream[2];
    struct worker *worker;
    bool reads = streams == WORK_READS;

    if (streams != WORK_ALONE && !stream_is_free(request)) {
        refuse(id, EINVAL, "the stream has no number, or one that is in use");
        return 0;
    }
    worker = worker_count < MAX_WORKERS ? calloc(1, sizeof *worker) : NULL;
    if (worker == NULL || !make_pipes(streams, result, stream)) {
        free(worker);
        refuse(id, EAGAIN, "%d requests are under way already", worker_count);
        return 0;
    }
    worker->request = id;
    worker->pid = fork();
    if (worker->pid == 0) {
        struct work_files files = {result[1], reads ? stream[0] : -1,
                                   streams == WORK_WRITES ? stream[1] : -1};

        be_worker(request, run, &files);
    }
    worker_count++;
    close(result[1]);
    if (streams != WORK_ALONE)
        close(stream[reads ? 0 : 1]);
    if (!take_ends(worker, request, streams, result[0], stream[reads ? 1 : 0]) || worker->pid < 0) {
        if (worker->pid > 0)
            (void)kill(worker->pid, SIGKILL);
        discard(worker);
        refuse(id, EAGAIN, "there is no room for another helper");
        return 0;
    }
    worker->next = workers;
    workers = worker;
    return worker->pid;
}

/* SIGTERM: one that has begun a file removes it. */
static void cancel(struct worker *worker)
{
    if (!worker->ended)
        (void)kill(worker->pid, SIGTERM);
    worker->answered = true;
    loop_close(&worker->result);
    if (worker->has_stream)
        stream_close(&worker->stream);
    worker->has_stream = false;
}

void cancel_work(uint32_t id)
{
    for (struct worker *worker = workers; worker != NULL; worker = worker->next)
        if (worker->request == id && id != 0) {
            if (!worker->answered)
                refuse(id, ECANCELED, "the request was given up");
            cancel(worker);
        }
}

void cancel_all_work(void)
{
    /* What nobody asked for goes on: a thaw is for everybody. */
    for (struct worker *worker = workers; worker != NULL; worker = worker->next)
        if (worker->request != 0)
            cancel(worker);
}

bool work_ended(pid_t pid, int status)
{
    for (struct worker *worker = workers; worker != NULL; worker = worker->next) {
        if (worker->pid != pid || worker->ended)
            continue;
        worker->ended = true;
        filesystem_work_ended(pid, WIFEXITED(status) && WEXITSTATUS(status) == 0);
        if (worker->has_stream && WIFEXITED(status) && WEXITSTATUS(status) != 0)
            worker->stream.error = (uint32_t)WEXITSTATUS(status);
        else if (worker->has_stream && !WIFEXITED(status))
            worker->stream.error = EIO;
        worker->stream.held = false;
        return true;
    }
    return false;
}

void sweep_work(void)
{
    struct worker **link = &workers;

    while (*link != NULL) {
        struct worker *worker = *link;

        if (!worker->ended || !worker->answered || worker->result.fd >= 0 ||
            (worker->has_stream && !stream_finished(&worker->stream) && !worker->stream.to_program)) {
            link = &worker->next;
            continue;
        }
        *link = worker->next;
        discard(worker);
    }
}
