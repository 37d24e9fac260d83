/*
 * Until a process is let into a control group the kernel waits for a grace period, about as long as all that the warden does
 * before a container is begun. So lxc-start is forked first, and waits in its group for the word.
 */
#include "standing.h"

#include "groups.h"
#include "process.h"
#include "spawn.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t warden, child; /* 0: none */
static int word = -1;

static void forget(void)
{
    if (word >= 0)
        close(word);
    word = -1;
    child = 0;
}

static void prepare(char *const *line)
{
    char *group;

    /* What an earlier run left is in the way of this one. */
    (void)groups_remove(false);
    group = groups_make_first();
    child = spawn_standing_by(line, &(struct files){.of = {-1, STDERR_FILENO}, .count = 2, .group = group}, &word);
    free(group);
}

/* Where something failed before a client was greeted, nothing is left. */
static void leave(void)
{
    if (getpid() != warden || child == 0)
        return;
    dismiss_standing();
    (void)groups_remove(true);
}

void stand_by(char *const *line)
{
    warden = getpid();
    if (atexit(leave) != 0)
        fail("atexit");
    prepare(line);
}

pid_t begin_standing(char *const *line)
{
    pid_t begun;

    if (child == 0)
        prepare(line);
    begun = child;
    /* One that has ended meanwhile is told of as any lxc-start that ends. */
    (void)!write(word, "", 1);
    forget();
    return begun;
}

void dismiss_standing(void)
{
    if (child == 0)
        return;
    (void)kill(child, SIGKILL);
    (void)waitpid(child, NULL, 0);
    forget();
}

void standing_ended(pid_t ended)
{
    if (ended == child)
        forget();
}
