/* See client.h. */
#define _GNU_SOURCE
#include "client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define MOST_WAITING (1024 * 1024)

bool client_accept(struct client *client, int listener)
{
    int fd = client->line.fd < 0 ? accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK) : -1;

    if (fd < 0)
        return false;
    client->line.fd = fd;
    client->line.events = POLLIN;
    return true;
}

void client_close(struct client *client)
{
    watch_close(&client->line);
    free(client->waiting);
    client->waiting = NULL;
    client->start = client->end = client->room = 0;
}

void client_flush(struct client *client)
{
    while (client->line.fd >= 0 && client->start < client->end) {
        ssize_t sent = send(client->line.fd, client->waiting + client->start, client->end - client->start,
                            MSG_NOSIGNAL | MSG_DONTWAIT);

        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno != EAGAIN)
            client_close(client);
        if (sent < 0)
            break;
        client->start += (size_t)sent;
    }
    if (client->start == client->end)
        client->start = client->end = 0;
    if (client->end > 0)
        client->line.events |= POLLOUT;
    else
        client->line.events &= ~POLLOUT;
}

/* Room for more behind what waits. */
static bool make_room(struct client *client, size_t length)
{
    size_t waiting = client->end - client->start;

    if (waiting + length > MOST_WAITING)
        return false;
    if (client->start > 0)
        memmove(client->waiting, client->waiting + client->start, waiting);
    client->start = 0;
    client->end = waiting;
    if (client->room < waiting + length) {
        size_t room = (waiting + length) * 2;
        char *larger = realloc(client->waiting, room);

        if (larger == NULL)
            return false;
        client->waiting = larger;
        client->room = room;
    }
    return true;
}

void client_send(struct client *client, const char *bytes, size_t length)
{
    if (client->line.fd < 0)
        return;
    if (!make_room(client, length)) {
        client_close(client);
        return;
    }
    memcpy(client->waiting + client->end, bytes, length);
    client->end += length;
    client_flush(client);
}
