/* The one client of a listening socket: who comes meanwhile waits to be accepted. It may be slow, up to a bound. */
#ifndef ROOST_WARDEN_CLIENT_H
#define ROOST_WARDEN_CLIENT_H

#include "loop.h"

#include <stddef.h>

struct client {
    struct watch line; /* -1: none */
    char *waiting;     /* what it has not taken yet */
    size_t start, end, room;
};

/* Takes the next one, where there is none and one waits. */
bool client_accept(struct client *client, int listener);

/* Lets go of one that lets too much wait. */
void client_send(struct client *client, const char *bytes, size_t length);

/* Sends what waits, as far as it goes. */
void client_flush(struct client *client);

void client_close(struct client *client);

#endif
