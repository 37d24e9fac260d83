/*
 * roost-splice: gives a program parts of files as its standard input, one after
 * another, without copying them anywhere before. It reads a plan and no content:
 * what the bytes mean is the business of whoever wrote the plan, and of the program.
 *
 * The plan is a file of records of three 64-bit numbers, little-endian: the number
 * of a source (0 is the first that is named; all ones stands for zero bytes without
 * end), an offset in it, a length.
 *
 * Ends as the program did. A source that is shorter than the plan says, or that
 * cannot be read, ends both: the program is killed, so that it cannot take a part
 * for the whole.
 */
#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define EXIT_FAILED 124
#define EXIT_NOT_EXECUTED 127
#define ZEROS UINT64_MAX
#define MAX_SOURCES 1024
#define CHUNK (1024 * 1024)
#define RECORDS 1024

struct record {
    uint64_t source, offset, length;
};

struct source {
    const char *path;
    int fd;
    uint64_t size;
};

static struct source sources[MAX_SOURCES];
static size_t source_count;
static pid_t program;

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...)
{
    int error = errno;
    va_list arguments;

    /* Before anything is said: nobody may see the input end as if it were whole. */
    if (program > 0)
        kill(program, SIGKILL);
    fputs("roost-splice: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "%s%s\n", error == 0 ? "" : ": ", error == 0 ? "" : strerror(error));
    exit(EXIT_FAILED);
}

static int open_file(const char *path, uint64_t *size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct stat found;

    if (fd < 0 || fstat(fd, &found) < 0)
        fail("open %s", path);
    errno = EINVAL;
    if (!S_ISREG(found.st_mode))
        fail("%s is no regular file", path);
    *size = (uint64_t)found.st_size;
    return fd;
}

/* Starts the program with the pipe's end as its standard input; gives the other. */
static int start(char **arguments)
{
    int ends[2];
    pid_t parent = getpid();

    if (pipe2(ends, O_CLOEXEC) < 0)
        fail("pipe");
    /* A larger pipe takes fewer turns; the kernel may well refuse one. */
    (void)fcntl(ends[1], F_SETPIPE_SZ, CHUNK);
    program = fork();
    if (program < 0)
        fail("fork");
    if (program == 0) {
        if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 || getppid() != parent ||
            dup2(ends[0], STDIN_FILENO) < 0)
            _exit(EXIT_NOT_EXECUTED);
        signal(SIGPIPE, SIG_DFL);
        execv(arguments[0], arguments);
        fprintf(stderr, "roost-splice: %s: %s\n", arguments[0], strerror(errno));
        _exit(EXIT_NOT_EXECUTED);
    }
    close(ends[0]);
    return ends[1];
}

/* Ends as the program did; called when it reads no further, too. */
__attribute__((noreturn)) static void end_as_program(bool complete)
{
    int status;
    pid_t ended;

    do
        ended = waitpid(program, &status, 0);
    while (ended < 0 && errno == EINTR);
    if (ended < 0)
        fail("wait");
    if (WIFSIGNALED(status)) {
        signal(WTERMSIG(status), SIG_DFL);
        raise(WTERMSIG(status));
        exit(EXIT_FAILED);
    }
    /* A program that did not want all of it has not done what it was to do. */
    exit(WEXITSTATUS(status) == 0 && !complete ? EXIT_FAILED : WEXITSTATUS(status));
}

static void give_zeros(int to, uint64_t length)
{
    static const char zeros[CHUNK];

    while (length > 0) {
        ssize_t done = write(to, zeros, length < CHUNK ? length : CHUNK);

        if (done < 0 && errno == EPIPE)
            end_as_program(false);
        if (done < 0 && errno != EINTR)
            fail("write");
        if (done > 0)
            length -= (uint64_t)done;
    }
}

static void give(int to, const struct record *record)
{
    const struct source *source;
    loff_t offset = (loff_t)record->offset;
    uint64_t length = record->length;

    if (record->source == ZEROS) {
        give_zeros(to, length);
        return;
    }
    errno = 0;
    if (record->source >= source_count)
        fail("the plan names source %llu", (unsigned long long)record->source);
    source = &sources[record->source];
    if (record->offset > source->size || length > source->size - record->offset)
        fail("%s is shorter than the plan says", source->path);
    while (length > 0) {
        ssize_t done = splice(source->fd, &offset, to, NULL, length < CHUNK ? length : CHUNK, 0);

        if (done < 0 && errno == EPIPE)
            end_as_program(false);
        if (done < 0 && errno != EINTR)
            fail("read %s", source->path);
        errno = 0;
        if (done == 0)
            fail("%s ended early", source->path);
        if (done > 0)
            length -= (uint64_t)done;
    }
}

static void carry_out(FILE *plan, int to)
{
    static struct record records[RECORDS];

    for (;;) {
        size_t count = fread(records, 1, sizeof records, plan);

        errno = 0;
        if (ferror(plan) || count % sizeof(struct record) != 0)
            fail("the plan cannot be read, or ends in the middle of a record");
        if (count == 0)
            return;
        for (size_t i = 0; i < count / sizeof(struct record); i++) {
            const struct record record = {.source = le64toh(records[i].source),
                                          .offset = le64toh(records[i].offset),
                                          .length = le64toh(records[i].length)};

            give(to, &record);
        }
    }
}

int main(int count, char **arguments)
{
    int at = 2, to;
    uint64_t size;
    FILE *plan;

    while (at < count && strcmp(arguments[at], "--") != 0)
        at++;
    errno = 0;
    if (at + 1 >= count)
        fail("usage: roost-splice PLAN [SOURCE]... -- PROGRAM [ARGUMENT]...");
    if (at - 2 > MAX_SOURCES)
        fail("more than %d sources", MAX_SOURCES);
    signal(SIGPIPE, SIG_IGN);
    plan = fdopen(open_file(arguments[1], &size), "r");
    if (plan == NULL)
        fail("open %s", arguments[1]);
    for (int i = 2; i < at; i++) {
        struct source *source = &sources[source_count++];

        source->path = arguments[i];
        source->fd = open_file(arguments[i], &source->size);
    }
    to = start(arguments + at + 1);
    carry_out(plan, to);
    if (close(to) < 0)
        fail("close");
    end_as_program(true);
}
