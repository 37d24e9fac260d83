/* How the guest finds others by name: /etc/resolv.conf and /etc/hosts. */
#ifndef ROOST_GUEST_NAMES_H
#define ROOST_GUEST_NAMES_H

#include "workers.h"

/* Writes the file that the request tells of. What has failed, with errno; NULL: nothing has. */
const char *write_resolver(const struct fields *request);
const char *write_hosts(const struct fields *request);

work_function set_resolver, set_hosts;

#endif
