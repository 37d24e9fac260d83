/* The container's root file system, in a mount namespace that nobody else is in and that ends with this process. */
#ifndef ROOST_WARDEN_ROOT_H
#define ROOST_WARDEN_ROOT_H

#include "options.h"

#include <stdbool.h>

/* Mounts the root file system at `merged` in the run directory; with the ids on disk and read-only, where the options have no
 * range of ids; what is below alone, where they have no upper. Fails with the reason. */
void mount_root(const struct options *options);

/* What liblxc would leave on the host, or take from it, is in this namespace nobody's but the container's. */
void hide_from_liblxc(void);

/* Whether the init of the root file system that is mounted is systemd. */
bool root_has_systemd(void);

#endif
