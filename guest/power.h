/* The end of the guest: programs are asked, then ended, disks flushed, the machine switched off or reset. */
#ifndef ROOST_GUEST_POWER_H
#define ROOST_GUEST_POWER_H

#include "fields.h"

#include <stdbool.h>

void power(uint32_t id, const struct fields *request);

/* The same by a signal to the agent. */
void power_off(void);

/* Goes on with an end that was begun, after children were reaped; `children` says whether some are left.
 * True once there is nothing left to do but to go, which outside of a guest the caller does. */
bool power_work(bool children);

#endif
