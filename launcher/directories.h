/* Directories of the host that the program is served: a virtiofsd for each, in a namespace of its own. */
#ifndef ROOST_LAUNCHER_DIRECTORIES_H
#define ROOST_LAUNCHER_DIRECTORIES_H

#include "options.h"

/*
 * Starts what serves them. Each ends with the program, has the file of `lock_fd` open as long as it lives, and stands in
 * there with a line `INDEX PID STARTTICKS BOOTID`. The program has the connection to it as the directory's descriptor.
 */
void serve_directories(const struct options *options);

#endif
