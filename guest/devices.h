/* Finds the guest's devices by what the host calls them, and waits for those that come late. */
#ifndef ROOST_GUEST_DEVICES_H
#define ROOST_GUEST_DEVICES_H

#include <stdbool.h>
#include <stddef.h>

/* Begins to listen for devices; what comes from now on is not missed. */
void watch_devices(void);

/* The path of a disk: `serial:TEXT` by its serial number, anything else is a path already. Waits a while for
 * it. */
bool find_disk(const char *wanted, char *path, size_t size);

/* Opens the virtio-serial port of a name for reading and writing, not blocking. Waits a while for it; -1:
 * there is none. */
int open_port(const char *name);

#endif
