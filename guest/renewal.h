/* What makes a guest itself, and has to be made new after a fork: random numbers, clock, identity. */
#ifndef ROOST_GUEST_RENEWAL_H
#define ROOST_GUEST_RENEWAL_H

#include "workers.h"

#include <stddef.h>

#define MAX_TOKEN_BYTES 64

void seed_random(uint32_t id, const struct fields *request);
void set_clock(uint32_t id, const struct fields *request);
void set_identity(uint32_t id, const struct fields *request);

/* The token of the last identity; it says which template this memory comes from. */
const uint8_t *identity_token(size_t *length);

/* Whether this is a guest of its own; without, the host's clock and random numbers are left alone. */
extern bool is_guest;

#endif
