/* How the guest finds others by name: /etc/resolv.conf and /etc/hosts. */
#ifndef ROOST_GUEST_NAMES_H
#define ROOST_GUEST_NAMES_H

#include "workers.h"

/* In a worker, which fails with the reason; the answer is the caller's. */
work_function write_resolver, write_hosts;

work_function set_resolver, set_hosts;

#endif
