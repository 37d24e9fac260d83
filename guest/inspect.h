/* What the agent can say about itself and the guest. */
#ifndef ROOST_GUEST_INSPECT_H
#define ROOST_GUEST_INSPECT_H

#include "fields.h"

#define AGENT_VERSION "roost-init 1"

/* Who speaks, and whether the guest came up: the fields of WELCOME. */
void put_facts(struct field_writer *writer);

/* INSPECT: those and more. */
void inspect(uint32_t id, const struct fields *request);

#endif
