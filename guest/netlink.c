/* See netlink.h. The kernel answers a request before send(2) is over, so nothing here waits. */
#define _GNU_SOURCE
#include "netlink.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ANSWER_BYTES 32768

void netlink_begin(struct netlink_request *request, uint16_t type, uint16_t flags, size_t size)
{
    memset(request, 0, sizeof *request);
    request->header.nlmsg_len = (uint32_t)NLMSG_LENGTH(size);
    request->header.nlmsg_type = type;
    request->header.nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
}

void netlink_add(struct netlink_request *request, uint16_t type, const void *value, size_t length)
{
    size_t at = NLMSG_ALIGN(request->header.nlmsg_len);
    struct rtattr *attribute = (struct rtattr *)(void *)((uint8_t *)request + at);

    if (at + RTA_SPACE(length) > sizeof *request)
        return;
    attribute->rta_type = type;
    attribute->rta_len = (uint16_t)RTA_LENGTH(length);
    memcpy(RTA_DATA(attribute), value, length);
    request->header.nlmsg_len = (uint32_t)(at + RTA_LENGTH(length));
}

static int open_netlink(const struct netlink_request *request)
{
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

    if (fd < 0)
        return -1;
    if (sendto(fd, request, request->header.nlmsg_len, 0, (struct sockaddr *)&kernel, sizeof kernel) < 0) {
        int error = errno;

        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

/* Reads answers until the last; returns 0 or an errno. */
static int read_answers(int fd, void (*each)(const struct nlmsghdr *message, void *context), void *context)
{
    static _Alignas(struct nlmsghdr) uint8_t bytes[ANSWER_BYTES];

    for (;;) {
        ssize_t got = recv(fd, bytes, sizeof bytes, 0);
        size_t left = got > 0 ? (size_t)got : 0;
        struct nlmsghdr *message = (struct nlmsghdr *)(void *)bytes;

        if (got < 0 && errno != EINTR)
            return errno;
        for (; NLMSG_OK(message, left); message = NLMSG_NEXT(message, left)) {
            if (message->nlmsg_type == NLMSG_DONE)
                return 0;
            if (message->nlmsg_type == NLMSG_ERROR)
                return -((struct nlmsgerr *)NLMSG_DATA(message))->error;
            if (each != NULL)
                each(message, context);
        }
    }
}

static bool exchange(struct netlink_request *request,
                     void (*each)(const struct nlmsghdr *message, void *context), void *context)
{
    int fd = open_netlink(request);

    if (fd < 0)
        return false;
    errno = read_answers(fd, each, context);
    int error = errno;
    close(fd);
    errno = error;
    return error == 0;
}

bool netlink_ask(struct netlink_request *request)
{
    request->header.nlmsg_flags |= NLM_F_ACK;
    return exchange(request, NULL, NULL);
}

bool netlink_dump(struct netlink_request *request,
                  void (*each)(const struct nlmsghdr *message, void *context), void *context)
{
    request->header.nlmsg_flags |= NLM_F_DUMP;
    return exchange(request, each, context);
}
