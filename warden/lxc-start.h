/* How lxc-start is run, and whether it will understand what it is told. */
#ifndef ROOST_WARDEN_LXC_START_H
#define ROOST_WARDEN_LXC_START_H

#include "options.h"

/* Its command line, for a container whose console is this terminal. */
char **lxc_start_line(const struct options *options, const char *terminal);

/* Has liblxc read the configuration, and waits until it has; fails in its words. */
void begin_check(const struct options *options);
void end_check(const struct options *options);

#endif
