/* How the guest finds others by name: /etc/resolv.conf and /etc/hosts. */
#ifndef ROOST_GUEST_NAMES_H
#define ROOST_GUEST_NAMES_H

#include "workers.h"

work_function set_resolver, set_hosts;

#endif
