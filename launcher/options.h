/* What roost-launcher was asked to do, and the reading of its command line. */
#ifndef ROOST_LAUNCHER_OPTIONS_H
#define ROOST_LAUNCHER_OPTIONS_H

#include <stdbool.h>
#include <sys/resource.h>
#include <sys/types.h>

#define MAX_GROUPS 64
#define LIMIT_COUNT 6
#define MAX_DIRECTORIES 16

struct limit {
    const char *name;
    int resource;
    bool given;
    struct rlimit value;
};

/* A directory of the host, and the descriptor by which the program reaches what serves it. */
struct directory {
    int fd;
    bool read_only;
    const char *path;
};

struct options {
    bool uid_given, gid_given, groups_given;
    uid_t uid;
    gid_t gid;
    gid_t groups[MAX_GROUPS];
    size_t group_count;
    bool oom_given;
    int oom_score_adj;
    struct limit limits[LIMIT_COUNT];
    mode_t umask;
    int keep_fds; /* descriptors from this one on are closed; -1: none */
    int pid_fd;   /* -1: none */
    pid_t parent; /* whose end is to be the program's; 0: nobody's */
    const char *group; /* directory of a control group; NULL: none */
    struct directory directories[MAX_DIRECTORIES];
    size_t directory_count;
    char *virtiofsd;
    int directories_fd; /* locked by those who serve the directories; -1: none */
    const char *view;   /* a directory that the program may read, whoever it is; NULL: none */
    char **program;
};

/* Reads the command line; prints what is wrong and how it goes, and exits, on any mistake. */
void read_options(int count, char **arguments, struct options *options);

#endif
