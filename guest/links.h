/* Network interfaces: hardware address, MTU, addresses, routes, up and down; by rtnetlink(7). */
#ifndef ROOST_GUEST_LINKS_H
#define ROOST_GUEST_LINKS_H

#include "workers.h"

/* Brings the loopback interface up. */
void start_loopback(void);

/* SET_LINK: answers the request. Quick: nothing in it waits for anything but the kernel. */
void set_link(uint32_t id, const struct fields *request);

/* WAIT_LINK: ends when the interface has its carrier. */
work_function wait_link;

#endif
