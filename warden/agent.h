/* The agent in the container: run by lxc-attach, out of a file of the host, on sockets of the host. */
#ifndef ROOST_WARDEN_AGENT_H
#define ROOST_WARDEN_AGENT_H

#include "options.h"

#include <sys/types.h>

void agent_open(const struct options *options);

/* A new init is there to run it under. */
void agent_begin(void);

/* None is, until the next. */
void agent_end(void);

void agent_child_ended(pid_t child, int status);

bool agent_is_wanted(void);

/* Whether it listens. */
bool agent_is_open(void);

#endif
