/* See spawn.h. */
#define _GNU_SOURCE
#include "spawn.h"

#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Of the kernel's own flags of a process (PF_EXITING). */
#define EXITING 0x4

static void reset_signals(void)
{
    sigset_t none;

    sigemptyset(&none);
    if (signal(SIGPIPE, SIG_DFL) == SIG_ERR || sigprocmask(SIG_SETMASK, &none, NULL) < 0)
        fail("reset the signals");
}

/* Everything else closes by itself. */
static void take_files(const struct files *files)
{
    int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (nothing < 0)
        fail("open /dev/null");
    if (dup2(nothing, 0) < 0)
        fail("dup2");
    for (size_t i = 0; i < files->count; i++) {
        int from = files->of[i] < 0 ? nothing : files->of[i], to = (int)i + 1;

        if (from != to && dup2(from, to) < 0)
            fail("dup2 to descriptor %d", to);
    }
}

/* 0 in the child, which dies with this process. */
static pid_t fork_for(const char *program)
{
    pid_t self = getpid(), child = fork();

    if (child < 0)
        fail("fork for %s", program);
    if (child == 0)
        die_with(self);
    return child;
}

_Noreturn static void become(char *const *arguments)
{
    int error;

    execv(arguments[0], arguments);
    error = errno;
    fprintf(stderr, "%s: %s: %s\n", program_name, arguments[0], strerror(error));
    _exit(error == ENOENT || error == ENOTDIR ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE);
}

static void join_group(const struct files *files)
{
    if (files->group != NULL)
        write_text(files->group, "0");
}

pid_t spawn(char *const *arguments, const struct files *files)
{
    pid_t child = fork_for(arguments[0]);

    if (child > 0)
        return child;
    join_group(files);
    reset_signals();
    take_files(files);
    become(arguments);
}

pid_t spawn_standing_by(char *const *arguments, const struct files *files, int *word)
{
    unsigned last = (unsigned)files->count + 1;
    int ends[2];
    pid_t child;
    char byte;

    if (pipe2(ends, O_CLOEXEC) < 0)
        fail("pipe");
    child = fork_for(arguments[0]);
    if (child > 0) {
        close(ends[0]);
        *word = ends[1];
        return child;
    }
    reset_signals();
    take_files(files);
    /* Nothing of the warden's is kept by one that only waits, its lock least of all. */
    if (dup3(ends[0], (int)last, O_CLOEXEC) < 0 || close_range(last + 1, ~0U, 0) < 0)
        fail("close_range");
    join_group(files);
    if (read((int)last, &byte, 1) != 1)
        _exit(EXIT_SUCCESS);
    become(arguments);
}

static FILE *open_proc(pid_t pid, const char *name)
{
    char path[64];

    (void)snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
    return fopen(path, "re");
}

/* Fields of proc(5)'s stat. */
static bool read_stat(pid_t pid, int *parent, unsigned *flags)
{
    FILE *file = open_proc(pid, "stat");
    char text[512];
    size_t length = file == NULL ? 0 : fread(text, 1, sizeof text - 1, file);
    const char *name_end;

    if (file != NULL)
        (void)fclose(file);
    text[length] = '\0';
    /* The name before it may hold blanks and brackets. */
    name_end = strrchr(text, ')');
    return name_end != NULL && sscanf(name_end, ") %*c %d %*d %*d %*d %*d %u", parent, flags) == 2;
}

pid_t parent_of(pid_t pid)
{
    unsigned flags;
    int parent;

    return read_stat(pid, &parent, &flags) ? parent : 0;
}

bool is_exiting(pid_t pid, pid_t its_parent)
{
    unsigned flags;
    int parent;

    return read_stat(pid, &parent, &flags) && parent == its_parent && (flags & EXITING) != 0;
}

void kill_children(void)
{
    char name[32];
    FILE *file;
    int child;

    (void)snprintf(name, sizeof name, "task/%d/children", (int)getpid());
    file = open_proc(getpid(), name);
    if (file == NULL)
        return;
    while (fscanf(file, "%d", &child) == 1)
        (void)kill(child, SIGKILL);
    (void)fclose(file);
}

char *path_in(const char *directory, const char *name)
{
    char *path;

    if (asprintf(&path, "%s/%s", directory, name) < 0)
        fail("asprintf");
    return path;
}
