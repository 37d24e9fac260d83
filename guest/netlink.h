/* Requests to the kernel's rtnetlink, one at a time. */
#ifndef ROOST_GUEST_NETLINK_H
#define ROOST_GUEST_NETLINK_H

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct netlink_request {
    struct nlmsghdr header;
    union {
        struct ifinfomsg link;
        struct ifaddrmsg address;
        struct rtmsg route;
        uint8_t bytes[1024];
    } body;
};

/* Begins a request whose body has `size` bytes. */
void netlink_begin(struct netlink_request *request, uint16_t type, uint16_t flags, size_t size);
void netlink_add(struct netlink_request *request, uint16_t type, const void *value, size_t length);

/* Sends it and waits for the kernel's word. False with errno. */
bool netlink_ask(struct netlink_request *request);

/* Asks for all objects of a kind and hands each to `each`. False with errno. */
bool netlink_dump(struct netlink_request *request,
                  void (*each)(const struct nlmsghdr *message, void *context), void *context);

#endif
