/* What roost-warden was asked to do, and the reading of its command line; docs/warden.md says what each option is. */
#ifndef ROOST_WARDEN_OPTIONS_H
#define ROOST_WARDEN_OPTIONS_H

#include <stdbool.h>
#include <sys/types.h>

/* Descriptors that it is begun with. */
enum {
    EVENTS_FD = 1,
    LOCK_FD = 3,
    MONITOR_FD = 4,
    CONSOLE_FD = 5,
    CONSOLE_LOG_FD = 6,
    FIRST_FREE_FD = 7,
};

struct options {
    bool mounted; /* run a program in the root file system, and be no warden */
    const char *clear; /* of this group, and be no warden */
    int after_fd;      /* of a process: clear it once that is gone; -1: at once */
    char **probe;      /* these directories, and be no warden; NULL: none */
    const char *lxcpath, *name, *run, *image, *lower, *upper, *cgroup, *lxc_log, *agent, *programs;
    uid_t first_id, id_count; /* count 0: the ids are those on disk */
    int halt_signal;
    bool guard; /* one more who ends the container */
    int control_fd, streams_fd; /* -1: no agent */
    char **program;             /* of the container's init, or to run; empty: none */
};

/* Reads the command line; prints what is wrong and how it goes, and exits, on any mistake. */
void read_options(int count, char **arguments, struct options *options);

#endif
