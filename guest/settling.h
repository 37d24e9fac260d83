/* The kernel's late work after its start, which each fork would otherwise do again. */
#ifndef ROOST_GUEST_SETTLING_H
#define ROOST_GUEST_SETTLING_H

#include "fields.h"

#include <stdint.h>

/* Answered when the kernel has come to its clock and has freed what it was to free, or has had some seconds for it. */
void settle(uint32_t id, const struct fields *request);

/* The session is over: nobody waits. */
void cancel_settling(void);

#endif
