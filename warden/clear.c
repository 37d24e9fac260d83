/*
 * Ends what a container still has. Its processes are known by the groups that they are in, as the kernel tells of each: a
 * container makes as many groups below its own as it likes. It may have frozen some of them itself, and a frozen process does
 * not die, nor does the init that waits for it: all are killed, then all groups thawed, and only then is waited for.
 */
#define _GNU_SOURCE
#include "clear.h"

#include "groups.h"
#include "loop.h"
#include "process.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* How long those that were killed may take to be gone: they may have much memory to give back. */
#define END_MS 20000
/* After so long it is looked again who is there: some may have been made, or have been frozen, meanwhile. */
#define ROUND_MS 50

static const char *group_name;

/* A line of /proc/PID/cgroup: `NUMBER:CONTROLLERS:/NAME/payload`. Whether the process is one of the container's. */
static bool is_ours(const char *line)
{
    const char *controllers = strchr(line, ':'), *path = controllers == NULL ? NULL : strchr(controllers + 1, ':');
    size_t length = strlen(group_name);

    return path != NULL && path[1] == '/' && strncmp(path + 2, group_name, length) == 0 &&
           (path[2 + length] == '/' || path[2 + length] == '\n');
}

static bool is_member(pid_t pid)
{
    char name[64], *line = NULL;
    size_t size = 0;
    bool found = false;
    FILE *file;

    (void)snprintf(name, sizeof name, "/proc/%d/cgroup", pid);
    file = fopen(name, "re");
    if (file == NULL)
        return false;
    while (!found && getline(&line, &size, file) > 0)
        found = is_ours(line);
    free(line);
    (void)fclose(file);
    return found;
}

/*
 * Kills it by its descriptor, which is of one process for ever, and gives that. -1 where nothing of it runs: one that has
 * ended stays a member until its parent asks about it, which may be a while, and keeps no group.
 */
static int end(pid_t pid)
{
    struct pollfd process = {.events = POLLIN};

    process.fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (process.fd < 0)
        return -1;
    if (poll(&process, 1, 0) == 0 && is_member(pid)) {
        (void)syscall(SYS_pidfd_send_signal, process.fd, SIGKILL, NULL, 0);
        return process.fd;
    }
    close(process.fd);
    return -1;
}

/* The number of one of them; 0 where there was none. Does not wait long. */
static pid_t end_all(void)
{
    DIR *processes = opendir("/proc");
    struct pollfd one = {.fd = -1, .events = POLLIN};
    struct dirent *entry;
    pid_t found = 0;

    if (processes == NULL)
        fail("open /proc");
    while ((entry = readdir(processes)) != NULL) {
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
        int process = pid > 0 && is_member(pid) ? end(pid) : -1;

        if (process < 0)
            continue;
        if (one.fd >= 0)
            close(one.fd);
        one.fd = process;
        found = pid;
    }
    closedir(processes);
    if (found == 0)
        return 0;
    groups_thaw_all();
    (void)poll(&one, 1, ROUND_MS);
    close(one.fd);
    return found;
}

static void wait_for_end(int process)
{
    struct pollfd end = {.fd = process, .events = POLLIN};

    while (poll(&end, 1, -1) < 0)
        if (errno != EINTR)
            fail("poll");
}

int clear_groups(const char *name, int after)
{
    int64_t until;
    pid_t left;

    if (after >= 0)
        wait_for_end(after);
    until = now_ms() + END_MS;
    group_name = name;
    groups_open(name);
    while ((left = end_all()) != 0)
        if (now_ms() > until) {
            errno = ETIMEDOUT;
            fail("end process %d", left);
        }
    if (!groups_remove(true))
        fail("remove the groups %s", name);
    return EXIT_SUCCESS;
}
