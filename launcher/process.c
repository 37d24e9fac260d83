#define _GNU_SOURCE
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

void fail(const char *format, ...)
{
    int error = errno;
    char what[PATH_MAX + 64];
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    fprintf(stderr, "%s: %s: %s\n", program_name, what, strerror(error));
    exit(EXIT_LAUNCH_FAILED);
}

/* Reads a small file of /proc as a string. */
static void read_text(const char *path, char *buffer, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length;

    if (fd < 0)
        fail("open %s", path);
    length = read(fd, buffer, size - 1);
    if (length < 0)
        fail("read %s", path);
    buffer[length] = '\0';
    close(fd);
}

void write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        fail("open %s", path);
    if (write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        fail("write %s", path);
    if (close(fd) < 0)
        fail("close %s", path);
}

/* Field 22 of proc(5)'s stat. The name before it may hold blanks and brackets, so
 * count from the last bracket, after which field 3 begins. */
static uint64_t start_ticks(pid_t pid)
{
    char path[64], text[4096];
    char *at;
    int field = 2;

    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    read_text(path, text, sizeof text);
    at = strrchr(text, ')');
    while (at != NULL && field < 22) {
        at = strchr(at + 1, ' ');
        field++;
    }
    if (at == NULL) {
        errno = EPROTO;
        fail("read %s", path);
    }
    return strtoull(at + 1, NULL, 10);
}

size_t identity_line(pid_t pid, char *line, size_t size)
{
    char boot_id[64];

    read_text("/proc/sys/kernel/random/boot_id", boot_id, sizeof boot_id);
    boot_id[strcspn(boot_id, "\n")] = '\0';
    return (size_t)snprintf(line, size, "%d %llu %s\n", (int)pid, (unsigned long long)start_ticks(pid), boot_id);
}

/* A parent that died before the signal was set has left this process to another one. */
void die_with(pid_t parent)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
        fail("PR_SET_PDEATHSIG");
    errno = ESRCH;
    if (getppid() != parent)
        fail("parent %d", (int)parent);
}
