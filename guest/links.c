/* See links.h. */
#define _GNU_SOURCE
#include "links.h"

#include "netlink.h"
#include "session.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAC_BYTES 6

/* An address or a destination: family, bytes, length of the prefix. */
struct prefix {
    int family;
    uint8_t bytes[16];
    size_t size;
    unsigned length;
};

static bool parse_address(const char *text, struct prefix *prefix)
{
    prefix->family = strchr(text, ':') != NULL ? AF_INET6 : AF_INET;
    prefix->size = prefix->family == AF_INET6 ? 16 : 4;
    prefix->length = (unsigned)prefix->size * 8;
    return inet_pton(prefix->family, text, prefix->bytes) == 1;
}

/* ADDRESS/LENGTH; without a length it is a single host. */
static bool parse_prefix(const char *text, struct prefix *prefix)
{
    char address[64];
    const char *slash = strchrnul(text, '/');
    char *end;
    unsigned long length;

    if ((size_t)(slash - text) >= sizeof address)
        return false;
    memcpy(address, text, (size_t)(slash - text));
    address[slash - text] = '\0';
    if (!parse_address(address, prefix))
        return false;
    if (*slash == '\0')
        return true;
    errno = 0;
    length = strtoul(slash + 1, &end, 10);
    if (slash[1] < '0' || slash[1] > '9' || *end != '\0' || errno != 0 || length > prefix->length)
        return false;
    prefix->length = (unsigned)length;
    return true;
}

static bool interface_request(const char *name, unsigned long request, struct ifreq *answer)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int result;

    memset(answer, 0, sizeof *answer);
    (void)snprintf(answer->ifr_name, sizeof answer->ifr_name, "%s", name);
    if (fd < 0)
        return false;
    result = ioctl(fd, request, answer);
    close(fd);
    return result == 0;
}

/* By name, or by the hardware address it has now. 0: there is none. */
static unsigned find_interface(const struct fields *request, char name[IF_NAMESIZE])
{
    char *wanted = read_text_field(request, TAG_INTERFACE);
    struct if_nameindex *all = if_nameindex();
    struct field mac;
    bool by_mac = find_field(request, TAG_MAC, &mac) && mac.length == MAC_BYTES;
    unsigned index = 0;

    for (struct if_nameindex *item = all; item != NULL && item->if_index != 0 && index == 0; item++) {
        struct ifreq answer;

        if (wanted != NULL && strcmp(wanted, item->if_name) != 0)
            continue;
        if (wanted == NULL && !by_mac)
            continue;
        if (by_mac && (!interface_request(item->if_name, SIOCGIFHWADDR, &answer) ||
                       memcmp(answer.ifr_hwaddr.sa_data, mac.value, MAC_BYTES) != 0))
            continue;
        index = item->if_index;
        (void)snprintf(name, IF_NAMESIZE, "%s", item->if_name);
    }
    if (all != NULL)
        if_freenameindex(all);
    free(wanted);
    return index;
}

static bool change_link(unsigned index, uint16_t attribute, const void *value, size_t length, bool up,
                        bool down)
{
    struct netlink_request request;

    netlink_begin(&request, RTM_NEWLINK, 0, sizeof request.body.link);
    request.body.link.ifi_family = AF_UNSPEC;
    request.body.link.ifi_index = (int)index;
    request.body.link.ifi_change = up || down ? IFF_UP : 0;
    request.body.link.ifi_flags = up ? IFF_UP : 0;
    if (length > 0)
        netlink_add(&request, attribute, value, length);
    return netlink_ask(&request);
}

void start_loopback(void)
{
    unsigned index = if_nametoindex("lo");

    if (index != 0)
        (void)change_link(index, 0, NULL, 0, true, false);
}

/* Deletes what a dump shows of one interface. */
struct flush {
    unsigned index;
    uint16_t type;
};

static void delete_shown(const struct nlmsghdr *message, void *context)
{
    const struct flush *flush = context;
    struct netlink_request request;
    size_t size = message->nlmsg_len - NLMSG_LENGTH(0);
    unsigned index = 0;

    if (size > sizeof request.body)
        return;
    netlink_begin(&request, flush->type, 0, size);
    memcpy(&request.body, NLMSG_DATA(message), size);
    if (flush->type == RTM_DELADDR) {
        index = request.body.address.ifa_index;
    } else {
        struct rtattr *attribute =
            (struct rtattr *)(void *)((uint8_t *)&request.body + sizeof request.body.route);
        int left = (int)(size - sizeof request.body.route);

        if (request.body.route.rtm_table != RT_TABLE_MAIN)
            return;
        for (; RTA_OK(attribute, left); attribute = RTA_NEXT(attribute, left))
            if (attribute->rta_type == RTA_OIF)
                memcpy(&index, RTA_DATA(attribute), sizeof index);
    }
    if (index == flush->index)
        (void)netlink_ask(&request);
}

/* netlink_ask() uses the buffer of the dump that is being read: so what is to go is kept first. */
struct kept {
    struct flush flush;
    size_t count;
    struct nlmsghdr *messages[256];
};

static void keep_shown(const struct nlmsghdr *message, void *context)
{
    struct kept *kept = context;
    struct nlmsghdr *copy;

    if (kept->count == sizeof kept->messages / sizeof *kept->messages)
        return;
    copy = malloc(message->nlmsg_len);
    if (copy == NULL)
        return;
    memcpy(copy, message, message->nlmsg_len);
    kept->messages[kept->count++] = copy;
}

static bool flush(unsigned index, uint16_t dump, uint16_t delete)
{
    static struct kept kept;
    struct netlink_request request;
    bool worked;

    kept = (struct kept){.flush = {index, delete}};
    netlink_begin(&request, dump, 0,
                  dump == RTM_GETADDR ? sizeof request.body.address : sizeof request.body.route);
    worked = netlink_dump(&request, keep_shown, &kept);
    for (size_t i = 0; i < kept.count; i++) {
        delete_shown(kept.messages[i], &kept.flush);
        free(kept.messages[i]);
    }
    return worked;
}

static bool add_address(unsigned index, const char *text)
{
    struct netlink_request request;
    struct prefix address;

    errno = EINVAL;
    if (!parse_prefix(text, &address))
        return false;
    netlink_begin(&request, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, sizeof request.body.address);
    request.body.address.ifa_family = (uint8_t)address.family;
    request.body.address.ifa_prefixlen = (uint8_t)address.length;
    request.body.address.ifa_index = index;
    /* The host gives the address to nobody else, so nobody waits until the guest has asked around. */
    request.body.address.ifa_flags = address.family == AF_INET6 ? IFA_F_NODAD : 0;
    netlink_add(&request, IFA_LOCAL, address.bytes, address.size);
    netlink_add(&request, IFA_ADDRESS, address.bytes, address.size);
    if (address.family == AF_INET && address.length < 31) {
        uint32_t bits;

        memcpy(&bits, address.bytes, sizeof bits);
        bits |= htonl(address.length == 0 ? UINT32_MAX : UINT32_MAX >> address.length);
        netlink_add(&request, IFA_BROADCAST, &bits, sizeof bits);
    }
    return netlink_ask(&request);
}

/* DESTINATION/LENGTH, then a blank and the gateway unless it is on the link. */
static bool add_route(unsigned index, char *text)
{
    struct netlink_request request;
    struct prefix destination, gateway;
    char *blank = strchr(text, ' ');

    if (blank != NULL)
        *blank = '\0';
    errno = EINVAL;
    if (!parse_prefix(text, &destination) ||
        (blank != NULL && (!parse_address(blank + 1, &gateway) || gateway.family != destination.family)))
        return false;
    netlink_begin(&request, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, sizeof request.body.route);
    request.body.route.rtm_family = (uint8_t)destination.family;
    request.body.route.rtm_dst_len = (uint8_t)destination.length;
    request.body.route.rtm_table = RT_TABLE_MAIN;
    request.body.route.rtm_protocol = RTPROT_STATIC;
    request.body.route.rtm_scope = blank != NULL ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK;
    request.body.route.rtm_type = RTN_UNICAST;
    if (destination.length > 0)
        netlink_add(&request, RTA_DST, destination.bytes, destination.size);
    if (blank != NULL)
        netlink_add(&request, RTA_GATEWAY, gateway.bytes, gateway.size);
    netlink_add(&request, RTA_OIF, &index, sizeof index);
    return netlink_ask(&request);
}

/* Tells the link who has the address now, as RFC 5227, section 3 has it: switches and neighbours learn at
 * once. */
static void announce_address(unsigned index, const char *name, const char *text)
{
    struct sockaddr_ll everybody = {.sll_family = AF_PACKET,
                                    .sll_protocol = htons(ETH_P_ARP),
                                    .sll_ifindex = (int)index,
                                    .sll_halen = MAC_BYTES,
                                    .sll_addr = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}};
    uint8_t packet[28] = {0, 1, 8, 0, MAC_BYTES, 4, 0, 1};
    struct prefix address;
    struct ifreq hardware;
    int fd;

    if (!parse_prefix(text, &address) || address.family != AF_INET ||
        !interface_request(name, SIOCGIFHWADDR, &hardware))
        return;
    memcpy(packet + 8, hardware.ifr_hwaddr.sa_data, MAC_BYTES);
    memcpy(packet + 14, address.bytes, 4);
    memcpy(packet + 24, address.bytes, 4);
    fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    (void)!sendto(fd, packet, sizeof packet, MSG_DONTWAIT, (struct sockaddr *)&everybody, sizeof everybody);
    close(fd);
}

/* Does it to each text of a tag until one fails, which is then told. */
static bool each_text(uint32_t id, const struct fields *request, uint16_t tag, unsigned index,
                      bool (*apply)(unsigned index, char *text), const char *what)
{
    size_t count;
    char **texts = read_texts(request, tag, &count);
    bool worked = texts != NULL;

    if (!worked)
        refuse(id, EINVAL, "%s: no text", what);
    for (size_t i = 0; worked && i < count; i++) {
        char shown[128];

        (void)snprintf(shown, sizeof shown, "%s", texts[i]);
        worked = apply(index, texts[i]);
        if (!worked)
            refuse(id, errno, "%s %s", what, shown);
    }
    free_texts(texts);
    return worked;
}

static bool apply_address(unsigned index, char *text)
{
    return add_address(index, text);
}

static bool is_running(const char *name)
{
    struct ifreq answer;

    return interface_request(name, SIOCGIFFLAGS, &answer) && (answer.ifr_flags & IFF_RUNNING) != 0;
}

/* Hardware address, MTU, and what is to be forgotten. */
static bool prepare_link(uint32_t id, const struct fields *request, unsigned index)
{
    struct field mac;
    uint32_t mtu;

    if (find_field(request, TAG_NEW_MAC, &mac) &&
        (mac.length != MAC_BYTES || !change_link(index, IFLA_ADDRESS, mac.value, MAC_BYTES, false, false))) {
        refuse(id, mac.length != MAC_BYTES ? EINVAL : errno, "set the hardware address");
        return false;
    }
    if (read_u32(request, TAG_MTU, &mtu) && !change_link(index, IFLA_MTU, &mtu, sizeof mtu, false, false)) {
        refuse(id, errno, "set the MTU to %u", mtu);
        return false;
    }
    if (has_field(request, TAG_REPLACE) &&
        (!flush(index, RTM_GETROUTE, RTM_DELROUTE) || !flush(index, RTM_GETADDR, RTM_DELADDR))) {
        refuse(id, errno, "forget the addresses");
        return false;
    }
    return true;
}

void set_link(uint32_t id, const struct fields *request)
{
    char name[IF_NAMESIZE];
    unsigned index = find_interface(request, name);
    uint8_t up = 0, bytes[64];
    bool has_up = read_u8(request, TAG_UP, &up);
    struct field_writer writer = {.bytes = bytes, .capacity = sizeof bytes};
    char **addresses;
    size_t count;

    if (index == 0) {
        refuse(id, ENODEV, "there is no such interface");
        return;
    }
    if (!prepare_link(id, request, index) ||
        !each_text(id, request, TAG_ADDRESS, index, apply_address, "address"))
        return;
    if (has_up && !change_link(index, 0, NULL, 0, up != 0, up == 0)) {
        refuse(id, errno, "bring %s %s", name, up != 0 ? "up" : "down");
        return;
    }
    if (!each_text(id, request, TAG_ROUTE, index, add_route, "route"))
        return;
    addresses = read_texts(request, TAG_ADDRESS, &count);
    for (size_t i = 0; addresses != NULL && i < count; i++)
        announce_address(index, name, addresses[i]);
    free_texts(addresses);
    put_text_field(&writer, TAG_INTERFACE, name);
    put_u8_field(&writer, TAG_UP, is_running(name));
    reply(id, &writer);
}

static long milliseconds(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void wait_link(const struct fields *request, struct work_files *files)
{
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    char name[IF_NAMESIZE], drained[8192];
    uint32_t timeout = 10000;
    long until;

    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
        work_fail(files, "netlink");
    errno = ENODEV;
    if (find_interface(request, name) == 0)
        work_fail(files, "there is no such interface");
    (void)read_u32(request, TAG_TIMEOUT, &timeout);
    until = milliseconds() + (long)timeout;
    /* Asked after the events are subscribed to, so that none is missed. */
    while (!is_running(name)) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        long left = until - milliseconds();

        errno = ETIMEDOUT;
        if (left <= 0)
            work_fail(files, "%s has no carrier", name);
        if (poll(&ready, 1, (int)left) > 0)
            (void)!recv(fd, drained, sizeof drained, MSG_DONTWAIT);
    }
    work_reply(files, NULL);
}
