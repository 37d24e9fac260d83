/*
 * The conversation with one host after another: handshake, requests and their
 * answers. A new session takes the place of the one before; programs outlive it,
 * what was being done for it does not.
 */
#ifndef ROOST_GUEST_SESSION_H
#define ROOST_GUEST_SESSION_H

#include "channel.h"
#include "fields.h"
#include "loop.h"

#include <stdbool.h>

#define PROTOCOL_VERSION 1

/* Prepares both channels; false without memory. */
bool session_open(void);
struct channel *control_channel(void);
struct channel *streams_channel(void);

/* Answers a request. */
void reply(uint32_t request, const struct field_writer *fields);
void reply_nothing(uint32_t request);
__attribute__((format(printf, 3, 4))) void refuse(uint32_t request, int error, const char *format, ...);

/* Tells of something that nobody asked for just now. False if there is no room: try again. */
bool announce(uint8_t type, uint32_t id, const struct field_writer *fields);

/* Whether a host is there that has a session. */
bool session_is_open(void);

/* Moves everything on that can be moved. */
enum work session_work(void);

#endif
