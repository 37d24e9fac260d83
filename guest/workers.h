/*
 * Requests that may have to wait (for a disk, for a frozen file system, for whatever
 * lies behind a path of the guest) are done by a forked child each, so that the agent
 * itself always answers. Workers belong to the session that asked.
 */
#ifndef ROOST_GUEST_WORKERS_H
#define ROOST_GUEST_WORKERS_H

#include "fields.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct rusage;

/*
 * Directories below everything that a path can lead to, which workers have as well;
 * a guest's stage 1 puts them at these numbers.
 */
enum { UPPER_FD = 6, MODULES_FD = 7, FIRST_FREE_FD = 8 };

/* What the child has. */
struct work_files {
    int result;
    int input;  /* what the host writes; -1: nothing */
    int output; /* what the host reads; -1: nothing */
};

enum work_streams { WORK_ALONE, WORK_READS, WORK_WRITES };

/* Does the request in the child; says work_reply() or work_fail() once. */
typedef void work_function(const struct fields *request, struct work_files *files);

/* Starts one; it answers the request itself. `id` 0: nobody is to be answered. Returns its pid, 0 if it was
 * refused. */
pid_t start_work(uint32_t id, const struct fields *request, work_function *run, enum work_streams streams);

/* In the child: the answer. */
void work_reply(struct work_files *files, const struct field_writer *fields);

/* In the child: the refusal, with errno; ends the child. */
__attribute__((noreturn, format(printf, 2, 3))) void work_fail(struct work_files *files, const char *format,
                                                               ...);

/* The host gives a request up. */
void cancel_work(uint32_t id);

/* The session is over: ends all workers. */
void cancel_all_work(void);

/* A child has ended; false if it was no worker. */
bool work_ended(pid_t pid, int status);

/* Forgets those of which nothing is left to do. */
void sweep_work(void);

#endif
