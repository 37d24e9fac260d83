/*
 * roost-warden: the process of one container, as QEMU is that of a machine. Who holds its lock lives; who kills it ends the
 * container, because every process of that is killed by the kernel in turn.
 *
 * Whatever can fail at the beginning fails before a client is greeted: message on standard error, exit 125.
 */
#define _GNU_SOURCE
#include "agent.h"
#include "clear.h"
#include "console.h"
#include "container.h"
#include "guard.h"
#include "loop.h"
#include "lxc-start.h"
#include "lxc-state.h"
#include "monitor.h"
#include "mounts.h"
#include "options.h"
#include "probe.h"
#include "process.h"
#include "root.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

const char program_name[] = "roost-warden";

static void signals_ready(short happened);

static sigset_t signals_read;
static struct watch signals = {.fd = -1, .events = POLLIN, .ready = signals_ready};

static void require_open(int fd)
{
    if (fcntl(fd, F_GETFD) < 0)
        fail("descriptor %d", fd);
}

static void set_unblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        fail("descriptor %d", fd);
}

/* No child has any of them but by intention; nothing that was forgotten stays open. */
static void take_descriptors(const struct options *options)
{
    int last = FIRST_FREE_FD - 1;

    for (int fd = 0; fd < FIRST_FREE_FD; fd++)
        require_open(fd);
    if (options->control_fd >= 0) {
        require_open(options->control_fd);
        require_open(options->streams_fd);
        last = options->control_fd > options->streams_fd ? options->control_fd : options->streams_fd;
    }
    for (int fd = FIRST_FREE_FD; fd < last; fd++)
        if (fd != options->control_fd && fd != options->streams_fd)
            close(fd);
    if (close_range((unsigned)last + 1, ~0U, 0) < 0 || close_range(LOCK_FD, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
        fail("close_range");
    set_unblocking(MONITOR_FD);
    set_unblocking(CONSOLE_FD);
}

static void write_identity(void)
{
    char line[160];
    size_t length = identity_line(getpid(), line, sizeof line);

    if (ftruncate(LOCK_FD, 0) < 0)
        fail("ftruncate descriptor %d", LOCK_FD);
    if (pwrite(LOCK_FD, line, length, 0) != (ssize_t)length)
        fail("write descriptor %d", LOCK_FD);
}

/* For whoever is begun from now on as well, unless that resets them. */
static void block_signals(void)
{
    sigemptyset(&signals_read);
    sigaddset(&signals_read, SIGCHLD);
    sigaddset(&signals_read, SIGTERM);
    sigaddset(&signals_read, SIGINT);
    sigaddset(&signals_read, SIGHUP);
    if (signal(SIGPIPE, SIG_IGN) == SIG_ERR || sigprocmask(SIG_SETMASK, &signals_read, NULL) < 0)
        fail("set the signals");
}

static void take_signals(void)
{
    signals.fd = signalfd(-1, &signals_read, SFD_CLOEXEC | SFD_NONBLOCK);
    /* The container of an lxc-start that was killed is ours to end and to reap. */
    if (signals.fd < 0 || prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
        fail("signalfd");
    loop_watch(&signals);
}

static void reap(void)
{
    int status;
    pid_t child;

    while ((child = waitpid(-1, &status, WNOHANG)) > 0) {
        container_child_ended(child, status);
        agent_child_ended(child, status);
        lxc_state_child_ended(child);
    }
    container_children_told(child == 0);
}

static void signals_ready(short happened)
{
    struct signalfd_siginfo info;

    (void)happened;
    while (read(signals.fd, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo == SIGCHLD)
            continue;
        fprintf(stderr, "%s: terminating on signal %u from pid %u\n", program_name, info.ssi_signo, info.ssi_pid);
        container_end_by_signal();
    }
    reap();
}

static int run_in_root(const struct options *options)
{
    int error;

    make_namespace();
    mount_root(options);
    if (chdir("merged") < 0)
        fail("chdir merged");
    execv(options->program[0], options->program);
    error = errno;
    fprintf(stderr, "%s: %s: %s\n", program_name, options->program[0], strerror(error));
    return error == ENOENT || error == ENOTDIR ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE;
}

static int keep_container(struct options *options)
{
    take_descriptors(options);
    write_identity();
    umask(022);
    make_namespace();
    hide_from_liblxc();
    block_signals();
    /* Before all that comes loose comes to us. */
    if (options->guard)
        guard_begin(options->cgroup);
    take_signals();
    /* Both take a while, and have it while the mounts are made. */
    container_open(options, console_open());
    begin_check(options);
    mount_root(options);
    if (options->halt_signal == 0)
        options->halt_signal = options->program[0] == NULL && root_has_systemd() ? SIGRTMIN + 3 : SIGPWR;
    agent_open(options);
    end_check(options);
    monitor_open();
    loop_run();
    console_close();
    monitor_close();
    return container_exit_status();
}

int main(int count, char **arguments)
{
    struct options options;

    read_options(count, arguments, &options);
    if (options.clear != NULL)
        return clear_groups(options.clear, options.after_fd);
    if (options.probe != NULL)
        return probe(options.probe);
    return options.mounted ? run_in_root(&options) : keep_container(&options);
}
