/*
 * A line is `PROGRAM NAME TIME PRIORITY CATEGORY - FILE:FUNCTION:LINE - WORDS`. Nothing in the words that are looked for comes
 * from within the container. The log grows with each reboot inside; its beginning is given back to the file system, which
 * moves nothing that is written meanwhile.
 */
#define _GNU_SOURCE
#include "lxc-log.h"

#include "loop.h"
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#define LONGEST_LOG (1024 * 1024)
#define KEPT (64 * 1024)

static void changes_ready(short happened);

static struct watch changes = {.fd = -1, .events = POLLIN, .ready = changes_ready};
static const struct log_reader *told;
static int log_fd = -1;
static off_t given_back;
static char line[4096];
static size_t line_length;
static char complaint[512];

void lxc_log_open(const char *path, const struct log_reader *reader)
{
    told = reader;
    log_fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    changes.fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (log_fd < 0 || changes.fd < 0 || inotify_add_watch(changes.fd, path, IN_MODIFY) < 0)
        fail("open %s", path);
    loop_watch(&changes);
}

static void changes_ready(short happened)
{
    char events[1024];

    (void)happened;
    while (read(changes.fd, events, sizeof events) > 0)
        ;
    lxc_log_read();
}

static void understand(void)
{
    const char *place = strstr(line, " - "), *words = place == NULL ? NULL : strstr(place + 3, " - ");
    struct ending ending;
    int pid, end = 0;

    if (words == NULL)
        return;
    words += 3;
    if (complaint[0] == '\0' && memmem(line, (size_t)(place - line), " ERROR ", strlen(" ERROR ")) != NULL)
        (void)snprintf(complaint, sizeof complaint, "%s", words);
    if (strncmp(words, "Started \"", strlen("Started \"")) == 0) {
        const char *number = strstr(words, "\" with pid \"");

        if (number != NULL && sscanf(number, "\" with pid \"%d\"%n", &pid, &end) == 1 && end > 0)
            told->started(pid);
    } else if (sscanf(words, "Child <%d> ended on error (%d)%n", &pid, &ending.number, &end) == 2 && end > 0) {
        ending.by_signal = false;
        told->ended(ending);
    } else if (sscanf(words, "Child <%d> ended on signal %*[^(](%d)%n", &pid, &ending.number, &end) == 2 && end > 0) {
        ending.by_signal = true;
        told->ended(ending);
    } else if (strcmp(words, "Container requested reboot") == 0)
        told->rebooting();
}

/* The beginning, but for what people may want to look at. */
static void shorten(void)
{
    struct stat status;
    off_t end = lseek(log_fd, 0, SEEK_CUR) - KEPT;

    if (fstat(log_fd, &status) < 0 || status.st_size - given_back < LONGEST_LOG || end <= given_back)
        return;
    if (fallocate(log_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, end) == 0)
        given_back = end;
}

void lxc_log_read(void)
{
    char bytes[4096];
    ssize_t got;

    while ((got = read(log_fd, bytes, sizeof bytes)) > 0)
        for (ssize_t i = 0; i < got; i++) {
            if (bytes[i] != '\n') {
                /* Of one that is too long the beginning counts. */
                if (line_length < sizeof line - 1)
                    line[line_length++] = bytes[i];
                continue;
            }
            line[line_length] = '\0';
            line_length = 0;
            understand();
        }
    shorten();
}

const char *lxc_log_complaint(void)
{
    return complaint;
}

void lxc_log_forget(void)
{
    complaint[0] = '\0';
}
