/* Network links: taps that live as long as their descriptor, their bridge, and who is on it. */
#define _GNU_SOURCE
#include "addon.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* A name as JavaScript gave it; longer than any link's, to report it whole. */
#define NAME_SIZE 256

static int name_request(struct ifreq *request, const char *name, const char *syscall, struct failure *failure)
{
    memset(request, 0, sizeof *request);
    if (strlen(name) >= sizeof request->ifr_name)
        return failed_with(failure, syscall, ENAMETOOLONG);
    strcpy(request->ifr_name, name);
    return 0;
}

/* Not persistent: the kernel takes the tap away with its last descriptor. EXCL,
 * because one that was there already would outlive ours. */
static int attach_tap(int fd, const char *name, struct failure *failure)
{
    struct ifreq request;

    if (name_request(&request, name, "TUNSETIFF", failure) < 0)
        return -1;
    request.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL);
    if (ioctl(fd, TUNSETIFF, &request) < 0)
        return failed(failure, "TUNSETIFF");
    /* An empty name or one with %d is a pattern to the kernel, which fills it in. */
    if (strcmp(request.ifr_name, name) != 0)
        return failed_with(failure, "TUNSETIFF", EINVAL);
    return 0;
}

/* openTap(name): descriptor */
napi_value open_tap(napi_env env, napi_callback_info info)
{
    napi_value argument;
    char name[NAME_SIZE];
    struct failure failure;
    int fd;

    if (!read_arguments(env, info, 1, &argument) || !read_string(env, argument, "name", name, sizeof name))
        return NULL;
    fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        failed(&failure, "open");
        return throw_failure(env, &failure, "/dev/net/tun");
    }
    if (attach_tap(fd, name, &failure) < 0) {
        close(fd);
        return throw_failure(env, &failure, name);
    }
    return int_value(env, fd);
}

static int index_of(const char *name, struct failure *failure)
{
    unsigned int index = if_nametoindex(name);

    return index != 0 ? (int)index : failed(failure, "if_nametoindex");
}

static int add_to_bridge(int control, const char *link, const char *bridge, struct failure *failure)
{
    struct ifreq request;

    if (name_request(&request, bridge, "SIOCBRADDIF", failure) < 0)
        return -1;
    request.ifr_ifindex = index_of(link, failure);
    if (request.ifr_ifindex < 0)
        return -1;
    return ioctl(control, SIOCBRADDIF, &request) < 0 ? failed(failure, "SIOCBRADDIF") : 0;
}

static int bring_up(int control, const char *link, struct failure *failure)
{
    struct ifreq request;

    if (name_request(&request, link, "SIOCGIFFLAGS", failure) < 0)
        return -1;
    if (ioctl(control, SIOCGIFFLAGS, &request) < 0)
        return failed(failure, "SIOCGIFFLAGS");
    request.ifr_flags |= IFF_UP;
    return ioctl(control, SIOCSIFFLAGS, &request) < 0 ? failed(failure, "SIOCSIFFLAGS") : 0;
}

/* Interface ioctls go through any socket. */
static int open_control(struct failure *failure)
{
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    return fd < 0 ? failed(failure, "socket") : fd;
}

/* enslaveLink(link, bridge) */
napi_value enslave_link(napi_env env, napi_callback_info info)
{
    napi_value arguments[2];
    char link[NAME_SIZE], bridge[NAME_SIZE], subject[2 * NAME_SIZE + 4];
    struct failure failure;
    int control, result;

    if (!read_arguments(env, info, 2, arguments) ||
        !read_string(env, arguments[0], "link", link, sizeof link) ||
        !read_string(env, arguments[1], "bridge", bridge, sizeof bridge))
        return NULL;
    control = open_control(&failure);
    result = control < 0 ? -1 : add_to_bridge(control, link, bridge, &failure);
    if (control >= 0)
        close(control);
    if (result == 0)
        return undefined_value(env);
    strcpy(stpcpy(stpcpy(subject, link), " -> "), bridge);
    return throw_failure(env, &failure, subject);
}

/* setLinkUp(link) */
napi_value set_link_up(napi_env env, napi_callback_info info)
{
    napi_value argument;
    char link[NAME_SIZE];
    struct failure failure;
    int control, result;

    if (!read_arguments(env, info, 1, &argument) || !read_string(env, argument, "link", link, sizeof link))
        return NULL;
    control = open_control(&failure);
    result = control < 0 ? -1 : bring_up(control, link, &failure);
    if (control >= 0)
        close(control);
    return result == 0 ? undefined_value(env) : throw_failure(env, &failure, link);
}

/* linkIndex(name): index, or undefined when there is no such link */
napi_value link_index(napi_env env, napi_callback_info info)
{
    napi_value argument;
    char name[NAME_SIZE];
    struct failure failure;
    int index;

    if (!read_arguments(env, info, 1, &argument) || !read_string(env, argument, "name", name, sizeof name))
        return NULL;
    index = index_of(name, &failure);
    if (index >= 0)
        return int_value(env, index);
    return failure.error == ENODEV ? undefined_value(env) : throw_failure(env, &failure, name);
}

/* openNeighbourEvents(): descriptor of a socket that gets rtnetlink(7)'s messages on neighbours, each in a read of its own */
napi_value open_neighbour_events(napi_env env, napi_callback_info info)
{
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_NEIGH};
    struct failure failure;
    int fd;

    (void)info;
    fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
    if (fd < 0) {
        failed(&failure, "socket");
        return throw_failure(env, &failure, "NETLINK_ROUTE");
    }
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        failed(&failure, "bind");
        close(fd);
        return throw_failure(env, &failure, "NETLINK_ROUTE");
    }
    return int_value(env, fd);
}
