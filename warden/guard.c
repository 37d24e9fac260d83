/* This program once more, in the mode that clears a group away, once the process is gone that it has a descriptor of. */
#define _GNU_SOURCE
#include "guard.h"

#include "process.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Of the guard: the process that it waits for. */
#define WAITS_FOR 3

__attribute__((noreturn)) static void become_guard(int process, const char *cgroup)
{
    char fd[16], *arguments[] = {(char *)program_name, "--clear", "--cgroup", (char *)cgroup, "--after", fd, NULL};
    int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);

    /* Standard error stays, for its words; the lock goes with the descriptor that takes its number. */
    if (nothing < 0 || dup2(nothing, 0) < 0 || dup2(nothing, 1) < 0 || dup2(process, WAITS_FOR) < 0)
        fail("dup2");
    (void)snprintf(fd, sizeof fd, "%d", WAITS_FOR);
    execv("/proc/self/exe", arguments);
    fail("/proc/self/exe");
}

void guard_begin(const char *cgroup)
{
    int process, status;
    pid_t child;

    process = (int)syscall(SYS_pidfd_open, getpid(), 0);
    if (process < 0)
        fail("pidfd_open");
    child = fork();
    if (child < 0)
        fail("fork");
    if (child == 0) {
        pid_t guard = fork();

        if (guard < 0)
            fail("fork");
        if (guard == 0)
            become_guard(process, cgroup);
        _exit(0);
    }
    close(process);
    if (waitpid(child, &status, 0) != child || status != 0)
        fail("begin the guard of %s", cgroup);
}
