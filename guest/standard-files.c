/* See standard-files.h. */
#define _GNU_SOURCE
#include "standard-files.h"

#include "frames.h"

#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define PIPE_BYTES (1024 * 1024)

static void close_all(int *descriptors, int count)
{
    for (int i = 0; i < count; i++)
        if (descriptors[i] >= 0) {
            close(descriptors[i]);
            descriptors[i] = -1;
        }
}

static bool open_pipes(struct ends *ends, const bool *wanted)
{
    for (int i = 0; i < STREAM_COUNT; i++) {
        int pair[2], agent = i == 0 ? 1 : 0;

        if (!wanted[i]) {
            ends->program[i] = open("/dev/null", (i == 0 ? O_RDONLY : O_WRONLY) | O_CLOEXEC);
            if (ends->program[i] < 0)
                return false;
            continue;
        }
        if (pipe2(pair, O_CLOEXEC) < 0)
            return false;
        ends->agent[i] = pair[agent];
        ends->program[i] = pair[1 - agent];
        /* Fewer, larger reads; a user without privileges may be over its share. */
        (void)fcntl(ends->agent[i], F_SETPIPE_SZ, PIPE_BYTES);
    }
    return true;
}

void set_terminal_size(int terminal, const struct field *size)
{
    struct winsize window = {.ws_row = get_u16(size->value), .ws_col = get_u16(size->value + 2)};

    (void)ioctl(terminal, TIOCSWINSZ, &window);
}

static bool open_terminal(struct ends *ends, const bool *wanted, const struct field *size)
{
    int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC), unlocked = 0;
    int slave;

    if (master < 0)
        return false;
    ends->agent[1] = master;
    if (ioctl(master, TIOCSPTLCK, &unlocked) < 0)
        return false;
    slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0)
        return false;
    ends->program[0] = slave;
    set_terminal_size(master, size);
    /* One open file for each direction: an epoll takes a descriptor once. */
    if (wanted[0])
        ends->agent[0] = fcntl(master, F_DUPFD_CLOEXEC, 0);
    return !wanted[0] || ends->agent[0] >= 0;
}

bool open_ends(struct ends *ends, const struct fields *request, const bool *wanted)
{
    struct field size;

    memset(ends, -1, sizeof *ends);
    if (pipe2(ends->status, O_CLOEXEC) < 0)
        return false;
    return find_field(request, TAG_TERMINAL, &size) ? open_terminal(ends, wanted, &size)
                                                    : open_pipes(ends, wanted);
}

void close_ends(struct ends *ends)
{
    close_all(ends->program, STREAM_COUNT);
    close_all(ends->agent, STREAM_COUNT);
    close_all(ends->status, 2);
}
