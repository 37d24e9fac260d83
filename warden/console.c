/*
 * liblxc copies between a terminal in the container and this one. This end is read all the time, so that nobody in the
 * container waits for a client; the other one is kept open, so that the line is never cut.
 */
#define _GNU_SOURCE
#include "console.h"

#include "client.h"
#include "options.h"
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

static void listener_ready(short happened);
static void client_ready(short happened);
static void terminal_ready(short happened);

static struct watch listener = {.fd = CONSOLE_FD, .events = POLLIN, .ready = listener_ready};
static struct watch terminal = {.fd = -1, .events = POLLIN, .ready = terminal_ready};
static struct client client = {.line = {.fd = -1, .ready = client_ready}};
static char typed[4096]; /* what the terminal has not taken yet */
static size_t typed_length;

const char *console_open(void)
{
    static char name[64];
    struct termios modes, all;
    int other;

    terminal.fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    if (terminal.fd < 0 || grantpt(terminal.fd) < 0 || unlockpt(terminal.fd) < 0 ||
        ptsname_r(terminal.fd, name, sizeof name) != 0)
        fail("make a terminal");
    other = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (other < 0 || tcgetattr(other, &modes) < 0)
        fail("open %s", name);
    cfmakeraw(&modes);
    /* liblxc would have it add a carriage return to each that the container's own terminal has added. */
    memset(&all, 0xff, sizeof all);
    if (tcsetattr(other, TCSANOW, &modes) < 0 || ioctl(other, TIOCSLCKTRMIOS, &all) < 0)
        fail("set %s", name);
    loop_watch(&listener);
    loop_watch(&terminal);
    loop_watch(&client.line);
    return name;
}

static void listener_ready(short happened)
{
    (void)happened;
    if (client_accept(&client, listener.fd))
        listener.events = 0;
}

static void note_client(void)
{
    if (client.line.fd < 0)
        listener.events = POLLIN;
}

static void log_bytes(const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t written = write(CONSOLE_LOG_FD, bytes, length);

        if (written < 0 && errno == EINTR)
            continue;
        /* A disk that is full takes nothing; the container goes on. */
        if (written <= 0)
            return;
        bytes += written;
        length -= (size_t)written;
    }
}

static void type(void)
{
    ssize_t taken = typed_length > 0 ? write(terminal.fd, typed, typed_length) : 0;

    if (taken > 0) {
        typed_length -= (size_t)taken;
        memmove(typed, typed + taken, typed_length);
    }
    terminal.events = typed_length > 0 ? POLLIN | POLLOUT : POLLIN;
}

static bool read_terminal(void)
{
    char bytes[16 * 1024];
    ssize_t got = read(terminal.fd, bytes, sizeof bytes);

    if (got <= 0)
        return false;
    log_bytes(bytes, (size_t)got);
    client_send(&client, bytes, (size_t)got);
    note_client();
    return true;
}

static void terminal_ready(short happened)
{
    if ((happened & POLLOUT) != 0)
        type();
    if ((happened & POLLIN) != 0)
        (void)read_terminal();
    if (client.line.fd >= 0 && typed_length < sizeof typed)
        client.line.events |= POLLIN;
}

/* One that sends no more may still want to read; one that is gone does neither. */
static void client_ready(short happened)
{
    ssize_t got = -1;

    if ((happened & POLLOUT) != 0)
        client_flush(&client);
    if (client.line.fd >= 0 && (happened & POLLIN) != 0) {
        got = recv(client.line.fd, typed + typed_length, sizeof typed - typed_length, MSG_DONTWAIT);
        if (got > 0)
            typed_length += (size_t)got;
        if (got == 0 || typed_length == sizeof typed)
            client.line.events &= ~POLLIN;
        type();
    }
    if (client.line.fd >= 0 && (happened & (POLLHUP | POLLERR)) != 0 && got <= 0)
        client_close(&client);
    note_client();
}

void console_close(void)
{
    while (read_terminal())
        ;
    client_flush(&client);
    client_close(&client);
}
