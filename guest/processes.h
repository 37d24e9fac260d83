/* The programs that the host runs: started, told about, signalled, and kept until the host has let go of
 * them. */
#ifndef ROOST_GUEST_PROCESSES_H
#define ROOST_GUEST_PROCESSES_H

#include "fields.h"

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

/* Requests; each is answered. */
void exec_process(uint32_t id, const struct fields *request);
void attach_process(uint32_t id, const struct fields *request);
void detach_process(uint32_t id, const struct fields *request);
void signal_process(uint32_t id, const struct fields *request);
void resize_process(uint32_t id, const struct fields *request);
void release_process(uint32_t id, const struct fields *request);
void list_processes(uint32_t id, const struct fields *request);

/* The session is over: streams wait for the next host, programs run on. */
void detach_processes(void);

/* Takes the ends of all children; those that nobody started here are orphans of the guest. True if one is
 * left. */
bool reap_children(void);

/* Tells of ends that the host does not know of. */
void announce_ends(void);

/* Whether there is one that the host has not let go of. */
bool any_process(void);

/* For every program that was started here on a terminal: a shell that somebody types into heeds no SIGTERM. */
void hang_up_terminals(void);

/* A signal for every program that was started here. */
void signal_all_processes(int signal);

#endif
