/*
 * roost-init: PID 1, stage 1 and agent of a microVM, in one static program without
 * an exec between them. Elsewhere it is the agent alone, on unix sockets, and leaves
 * alone what is the host's: in a container, on two that it inherits (`--listeners
 * CONTROL STREAMS`), and for tests (`--listen DIRECTORY`).
 */
#define _GNU_SOURCE
#include "boot.h"
#include "devices.h"
#include "interval-timer.h"
#include "links.h"
#include "power.h"
#include "renewal.h"
#include "session.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CONTROL_PORT_NAME "org.roost.control.0"
#define STREAMS_PORT_NAME "org.roost.streams.0"
/* Below 1024 a guest's program needs CAP_NET_BIND_SERVICE to take the agent's place. */
#define CONTROL_VSOCK_PORT 901
#define STREAMS_VSOCK_PORT 902

static struct watch signals;

/* Children are looked for in each turn of the loop; all that is needed is the turn. */
static void signal_ready(struct watch *watch, uint32_t events)
{
    struct signalfd_siginfo info;

    (void)events;
    while (read(watch->fd, &info, sizeof info) == sizeof info)
        if (info.ssi_signo != SIGCHLD)
            power_off();
}

/* Everything is blocked; the children get their own mask back. */
static bool take_signals(void)
{
    sigset_t all, read;
    int fd;

    sigfillset(&all);
    sigemptyset(&read);
    sigaddset(&read, SIGCHLD);
    sigaddset(&read, SIGTERM);
    sigaddset(&read, SIGINT);
    sigaddset(&read, SIGPWR);
    if (sigprocmask(SIG_BLOCK, &all, NULL) < 0)
        return false;
    fd = signalfd(-1, &read, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd >= 0 && loop_add(&signals, fd, EPOLLIN, signal_ready);
}

static int listen_at(const struct sockaddr *address, socklen_t length)
{
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd >= 0 && bind(fd, address, length) == 0 && listen(fd, 4) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

static int listen_unix(const char *directory, const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (snprintf(address.sun_path, sizeof address.sun_path, "%s/%s", directory, name) >=
        (int)sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    return listen_at((const struct sockaddr *)&address, sizeof address);
}

static int listen_vsock(unsigned port)
{
    struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = port};

    return listen_at((const struct sockaddr *)&address, sizeof address);
}

static bool use_listeners(int control, int streams)
{
    return control >= 0 && streams >= 0 && channel_use_listener(control_channel(), control) &&
           channel_use_listener(streams_channel(), streams);
}

static bool use_ports(void)
{
    int control = open_port(CONTROL_PORT_NAME), streams = open_port(STREAMS_PORT_NAME);

    return control >= 0 && streams >= 0 && channel_use_port(control_channel(), control) &&
           channel_use_port(streams_channel(), streams);
}

static int run_agent(int control, int streams)
{
    /* Orphans come here as they come to a PID 1. */
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    if (!loop_open() || !take_signals() || !session_open() || !use_listeners(control, streams)) {
        fprintf(stderr, "roost-init: %s\n", strerror(errno));
        return 1;
    }
    /* For whoever started it: from now on a connection is taken. */
    (void)!write(STDOUT_FILENO, "listening\n", 10);
    loop_run(session_work);
    return 0;
}

static int run_agent_at(const char *directory)
{
    int control = listen_unix(directory, "control"), streams = listen_unix(directory, "streams");

    if (control >= 0 && streams >= 0)
        return run_agent(control, streams);
    fprintf(stderr, "roost-init: %s: %s\n", directory, strerror(errno));
    return 1;
}

/* The number of an inherited descriptor. */
static int inherited(const char *text)
{
    int number = -1, end = 0;

    return sscanf(text, "%9d%n", &number, &end) == 1 && text[end] == '\0' ? number : -1;
}

/*
 * The program was executed by a descriptor, whose path says nothing to people. Nobody else is to take connections beside
 * its next one, so that it ends with who put it into the container.
 */
static int run_agent_on(char **arguments)
{
    static const char name[] = "roost-agent";
    int control = inherited(arguments[2]), streams = inherited(arguments[3]);

    (void)prctl(PR_SET_NAME, name, 0, 0, 0);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if (strlen(arguments[0]) >= strlen(name))
        (void)memset(mempcpy(arguments[0], name, strlen(name)), 0, strlen(arguments[0] + strlen(name)));
    if (close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC) < 0 || fcntl(control, F_SETFL, O_NONBLOCK) < 0 ||
        fcntl(streams, F_SETFL, O_NONBLOCK) < 0) {
        fprintf(stderr, "roost-init: --listeners: %s\n", strerror(errno));
        return 1;
    }
    return run_agent(control, streams);
}

/* The command line as stage 1 finds it. */
static void read_command_line(struct settings *settings)
{
    char line[4096], wrong[SETTING_BYTES];
    int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t got = fd >= 0 ? read(fd, line, sizeof line - 1) : -1;

    if (fd >= 0)
        close(fd);
    line[got > 0 ? got : 0] = '\0';
    if (!read_settings(line, settings, wrong))
        log_line("the kernel's command line has '%s', which is no setting", wrong);
}

__attribute__((noreturn)) static void give_up(const char *what)
{
    log_line("%s: %s", what, strerror(errno));
    /* Nobody can be told anything else: with -no-reboot QEMU ends, and the host sees that. */
    (void)reboot(RB_AUTOBOOT);
    for (;;)
        (void)pause();
}

static void run_guest(void)
{
    struct settings settings;
    bool vsock;

    is_guest = true;
    prepare_kernel();
    rest_interval_timer();
    read_command_line(&settings);
    enter_root(&settings);
    start_loopback();
    vsock = strcmp(settings.transport, "vsock") == 0;
    if (vsock)
        load_modules_for("vsock");
    if (!loop_open() || !take_signals() || !session_open())
        give_up("start the agent");
    /* Ctrl-Alt-Del, which is what a power button of a PC becomes, is a signal and not a reset. */
    (void)reboot(RB_DISABLE_CAD);
    if (vsock ? !use_listeners(listen_vsock(CONTROL_VSOCK_PORT), listen_vsock(STREAMS_VSOCK_PORT))
              : !use_ports())
        give_up("open the channels to the host");
    loop_run(session_work);
    give_up("end");
}

int main(int count, char **arguments)
{
    if (count == 3 && strcmp(arguments[1], "--listen") == 0)
        return run_agent_at(arguments[2]);
    if (count == 4 && strcmp(arguments[1], "--listeners") == 0)
        return run_agent_on(arguments);
    if (getpid() != 1) {
        fprintf(stderr, "usage: roost-init --listen DIRECTORY | --listeners CONTROL STREAMS   (otherwise it is a guest's PID 1)\n");
        return 2;
    }
    run_guest();
    return 1;
}
