/*
 * roost-launcher: becomes the guest's identity, gives away what the guest must
 * not have, and executes the guest's program in its own place (same pid).
 *
 * What needs privileges comes first. The bounding set goes before the identity,
 * because dropping from it takes CAP_SETPCAP, which setresuid() takes away. The
 * first step that fails ends the launch: message on standard error, exit 125.
 */
#define _GNU_SOURCE
#include "directories.h"
#include "options.h"
#include "process.h"

#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

const char program_name[] = "roost-launcher";

/* The kernel's signal numbers end at 64. */
#define LAST_SIGNAL 64

static void write_pid(int fd)
{
    char line[160];
    size_t length = identity_line(getpid(), line, sizeof line);

    if (ftruncate(fd, 0) < 0)
        fail("ftruncate descriptor %d", fd);
    if (pwrite(fd, line, length, 0) != (ssize_t)length)
        fail("write descriptor %d", fd);
}

/* Before there is anything to be moved with it. */
static void join_group(const char *directory)
{
    char path[PATH_MAX];

    (void)snprintf(path, sizeof path, "%s/cgroup.procs", directory);
    write_text(path, "0");
}

static void set_oom_score_adj(int score)
{
    char text[16];

    (void)snprintf(text, sizeof text, "%d", score);
    write_text("/proc/self/oom_score_adj", text);
}

static void set_limits(const struct limit *limits)
{
    for (size_t i = 0; i < LIMIT_COUNT; i++)
        if (limits[i].given && setrlimit(limits[i].resource, &limits[i].value) < 0)
            fail("setrlimit %s", limits[i].name);
}

/* Node ignores SIGPIPE, and what is ignored or blocked stays so across exec. */
static void reset_signals(void)
{
    struct sigaction action = {.sa_handler = SIG_DFL};
    sigset_t none;

    for (int signal = 1; signal <= LAST_SIGNAL; signal++) {
        if (signal == SIGKILL || signal == SIGSTOP)
            continue;
        /* EINVAL: one of the two that libc keeps for itself. */
        if (sigaction(signal, &action, NULL) < 0 && errno != EINVAL)
            fail("sigaction %d", signal);
    }
    if (sigemptyset(&none) < 0 || sigprocmask(SIG_SETMASK, &none, NULL) < 0)
        fail("sigprocmask");
}

/* Without privileges (`rootless`) the bounding set can't be lowered; it is then
 * no-new-privs that keeps exec from giving anything. */
static void empty_bounding_set(bool rootless)
{
    for (unsigned long capability = 0;; capability++) {
        int held = prctl(PR_CAPBSET_READ, capability, 0, 0, 0);

        if (held < 0 && errno == EINVAL)
            return;
        if (held < 0)
            fail("PR_CAPBSET_READ %lu", capability);
        if (held == 1 && prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0 && !(rootless && errno == EPERM))
            fail("PR_CAPBSET_DROP %lu", capability);
    }
}

static void set_inheritable(uint32_t capabilities)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

    if (syscall(SYS_capget, &header, data) < 0)
        fail("capget");
    for (size_t i = 0; i < _LINUX_CAPABILITY_U32S_3; i++)
        data[i].inheritable = i == 0 ? capabilities : 0;
    if (syscall(SYS_capset, &header, data) < 0)
        fail("capset");
}

static void clear_ambient(void)
{
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
        fail("PR_CAP_AMBIENT_CLEAR_ALL");
}

/* What reads the directory that it is shown may read what others own, and nothing more: the program has this by being
 * ambient, which asks nothing of the bounding set. */
static void keep_reading(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {{0}};

    data[0].permitted = data[0].effective = data[0].inheritable = 1U << CAP_DAC_READ_SEARCH;
    if (syscall(SYS_capset, &header, data) < 0)
        fail("capset");
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_READ_SEARCH, 0, 0) < 0)
        fail("PR_CAP_AMBIENT_RAISE");
}

static void take_identity(const struct options *options)
{
    if (setgroups(options->group_count, options->groups) < 0)
        fail("setgroups");
    if (setresgid(options->gid, options->gid, options->gid) < 0)
        fail("setresgid %u", options->gid);
    if (setresuid(options->uid, options->uid, options->uid) < 0)
        fail("setresuid %u", options->uid);
}

/* Asks the kernel instead of trusting the calls above. */
static void verify_identity(const struct options *options)
{
    uid_t real_uid, effective_uid, saved_uid;
    gid_t real_gid, effective_gid, saved_gid;

    if (getresuid(&real_uid, &effective_uid, &saved_uid) < 0)
        fail("getresuid");
    if (getresgid(&real_gid, &effective_gid, &saved_gid) < 0)
        fail("getresgid");
    errno = EPERM;
    if (real_uid != options->uid || effective_uid != options->uid || saved_uid != options->uid)
        fail("still another uid than %u", options->uid);
    if (real_gid != options->gid || effective_gid != options->gid || saved_gid != options->gid)
        fail("still another gid than %u", options->gid);
    if (setuid(0) == 0 || setgid(0) == 0)
        fail("root can be had back");
}

static void drop_privileges(const struct options *options)
{
    bool reads = options->view != NULL && options->uid_given;

    clear_ambient();
    /* It can be had no more once it is out of the bounding set, and is lost with the identity unless kept. */
    set_inheritable(reads ? 1U << CAP_DAC_READ_SEARCH : 0);
    if (reads && prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
        fail("PR_SET_KEEPCAPS");
    empty_bounding_set(!options->uid_given);
    if (options->uid_given) {
        take_identity(options);
        verify_identity(options);
    }
    if (reads)
        keep_reading();
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        fail("PR_SET_NO_NEW_PRIVS");
}

static void apply(const struct options *options)
{
    if (options->pid_fd >= 0)
        write_pid(options->pid_fd);
    if (options->oom_given)
        set_oom_score_adj(options->oom_score_adj);
    if (options->group != NULL)
        join_group(options->group);
    reset_signals();
    serve_directories(options);
    if (options->view != NULL)
        show_directory(options->view);
    set_limits(options->limits);
    if (options->keep_fds >= 0 && close_range((unsigned)options->keep_fds, ~0U, 0) < 0)
        fail("close_range %d", options->keep_fds);
    umask(options->umask);
    drop_privileges(options);
    /* After the identity was taken, which clears the signal. */
    if (options->parent != 0)
        die_with(options->parent);
}

int main(int count, char **arguments)
{
    struct options options;
    int error;

    read_options(count, arguments, &options);
    apply(&options);
    /* Not execvp: PATH and its fallback to a shell have no place here. */
    execv(options.program[0], options.program);
    error = errno;
    fprintf(stderr, "roost-launcher: %s: %s\n", options.program[0], strerror(error));
    return error == ENOENT || error == ENOTDIR ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE;
}
