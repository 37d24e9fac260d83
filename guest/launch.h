/* What a new program gets besides its arguments, and becoming it: the part between fork() and exec(). */
#ifndef ROOST_GUEST_LAUNCH_H
#define ROOST_GUEST_LAUNCH_H

#include "fields.h"

/* The descriptors of a new program. */
struct launch_files {
    int input, output, error; /* for a terminal all three are its slave */
    bool terminal;
    int status; /* close-on-exec: receives fields about what failed, or nothing */
};

/* The fields of an EXEC request that are the program's; others are the agent's. */
extern const uint16_t exec_tags[];

/* What is wrong with an EXEC request, or NULL; looks at the request alone. */
const char *check_launch(const struct fields *request);

/* Does what the request says and executes it; never returns. Runs in the child. */
__attribute__((noreturn)) void launch(const struct fields *request, const struct launch_files *files);

/* Tells the agent what failed, with errno, and ends the child. */
__attribute__((noreturn, format(printf, 1, 2))) void fail_launch(const char *format, ...);

/* The directory of a process's control group. */
void cgroup_path(char *path, size_t size, uint32_t process);

#endif
