/*
 * Ends what a container still has. Its processes are known by the groups that they are in, as the kernel tells of each: a
 * container makes as many groups below its own as it likes. It may have frozen some of them itself, so that each process is
 * thawed in all groups that it is in, the container's among them; a frozen one does not die.
 */
#define _GNU_SOURCE
#include "clear.h"

#include "groups.h"
#include "process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* How long one that was killed may take to be gone: it may have much memory to give back. */
#define END_MS 20000

static const char *group_name;

/* Whether a path among control groups is of the container: `/NAME/payload`. */
static const char *below_name(const char *path)
{
    size_t length = strlen(group_name);

    return path[0] == '/' && strncmp(path + 1, group_name, length) == 0 &&
                   (path[1 + length] == '/' || path[1 + length] == '\0')
               ? path
               : NULL;
}

static void thaw_from(char *path)
{
    for (char *end; below_name(path) != NULL; *end = '\0') {
        groups_thaw(path);
        end = strrchr(path, '/');
    }
}

/* A line of /proc/PID/cgroup: `NUMBER:CONTROLLERS:PATH`. Whether the process is one of the container's. */
static bool read_line(char *line, bool thaw)
{
    char *controllers = strchr(line, ':'), *path = controllers == NULL ? NULL : strchr(controllers + 1, ':');

    if (path == NULL)
        return false;
    path++;
    path[strcspn(path, "\n")] = '\0';
    if (below_name(path) == NULL)
        return false;
    if (thaw && strncmp(controllers, ":freezer:", strlen(":freezer:")) == 0)
        thaw_from(path);
    return true;
}

static bool is_member(pid_t pid, bool thaw)
{
    char name[64], *line = NULL;
    size_t size = 0;
    bool found = false;
    FILE *file;

    (void)snprintf(name, sizeof name, "/proc/%d/cgroup", pid);
    file = fopen(name, "re");
    if (file == NULL)
        return false;
    while (getline(&line, &size, file) > 0)
        found = read_line(line, thaw) || found;
    free(line);
    (void)fclose(file);
    return found;
}

/*
 * By its descriptor, which is of one process for ever. False where nothing of it runs: one that has ended stays a member
 * until its parent asks about it, which may be a while, and keeps no group.
 */
static bool end(pid_t pid)
{
    struct pollfd process = {.events = POLLIN};
    bool runs;

    process.fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (process.fd < 0)
        return false;
    runs = poll(&process, 1, 0) == 0 && is_member(pid, false);
    if (runs) {
        (void)syscall(SYS_pidfd_send_signal, process.fd, SIGKILL, NULL, 0);
        (void)is_member(pid, true);
        if (poll(&process, 1, END_MS) == 0) {
            errno = ETIMEDOUT;
            fail("end process %d", pid);
        }
    }
    close(process.fd);
    return runs;
}

/* Whether there was one. */
static bool end_all(void)
{
    DIR *processes = opendir("/proc");
    struct dirent *entry;
    bool found = false;

    if (processes == NULL)
        fail("open /proc");
    while ((entry = readdir(processes)) != NULL) {
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);

        if (pid > 0 && is_member(pid, false))
            found = end(pid) || found;
    }
    closedir(processes);
    return found;
}

int clear_groups(const char *name)
{
    group_name = name;
    groups_open(name);
    /* Whoever was being made while we looked. */
    for (int rounds = 0; rounds < 100 && end_all(); rounds++)
        ;
    if (!groups_remove(true))
        fail("remove the groups %s", name);
    return EXIT_SUCCESS;
}
