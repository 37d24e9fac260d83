/* See devices.h. */
#define _GNU_SOURCE
#include "devices.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LONGEST_WAIT_MS 10000

static int events = -1;

void watch_devices(void)
{
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK, .nl_groups = 1};

    events = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);
    if (events >= 0 && bind(events, (struct sockaddr *)&kernel, sizeof kernel) < 0) {
        close(events);
        events = -1;
    }
}

static long milliseconds(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Looks now, and again after each event of the kernel's. */
static bool await(bool (*look)(const char *wanted, char *path, size_t size), const char *wanted, char *path,
                  size_t size)
{
    long until = milliseconds() + LONGEST_WAIT_MS;
    char event[8192];

    while (!look(wanted, path, size)) {
        struct pollfd ready = {.fd = events, .events = POLLIN};
        long left = until - milliseconds();

        if (left <= 0 || events < 0)
            return false;
        if (poll(&ready, 1, (int)left) > 0)
            (void)!recv(events, event, sizeof event, MSG_DONTWAIT);
    }
    return true;
}

/* The entry of a directory of /sys in whose file stands the wanted text. */
static bool find_entry(const char *directory, const char *file, const char *wanted, char *name, size_t size)
{
    DIR *entries = opendir(directory);
    struct dirent *entry;
    bool found = false;

    while (entries != NULL && !found && (entry = readdir(entries)) != NULL) {
        char path[512], text[256];
        ssize_t got;
        int fd;

        (void)snprintf(path, sizeof path, "%s/%s/%s", directory, entry->d_name, file);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            continue;
        got = read(fd, text, sizeof text - 1);
        close(fd);
        text[got > 0 ? got : 0] = '\0';
        text[strcspn(text, "\n")] = '\0';
        found = strcmp(text, wanted) == 0;
        if (found)
            (void)snprintf(name, size, "/dev/%s", entry->d_name);
    }
    if (entries != NULL)
        closedir(entries);
    return found && access(name, F_OK) == 0;
}

static bool look_for_serial(const char *wanted, char *path, size_t size)
{
    return find_entry("/sys/block", "serial", wanted, path, size);
}

static bool look_for_path(const char *wanted, char *path, size_t size)
{
    (void)snprintf(path, size, "%s", wanted);
    return access(path, F_OK) == 0;
}

static bool look_for_port(const char *wanted, char *path, size_t size)
{
    return find_entry("/sys/class/virtio-ports", "name", wanted, path, size);
}

bool find_disk(const char *wanted, char *path, size_t size)
{
    static const char serial[] = "serial:";

    if (strncmp(wanted, serial, strlen(serial)) == 0)
        return await(look_for_serial, wanted + strlen(serial), path, size);
    return await(look_for_path, wanted, path, size);
}

int open_port(const char *name)
{
    char path[300];

    if (!await(look_for_port, name, path, sizeof path))
        return -1;
    return open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
}
