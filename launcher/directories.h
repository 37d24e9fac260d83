/* Directories of the host: served to the program by a virtiofsd each, in a namespace of its own; or shown to it. */
#ifndef ROOST_LAUNCHER_DIRECTORIES_H
#define ROOST_LAUNCHER_DIRECTORIES_H

#include "options.h"

/*
 * Starts what serves them. Each ends with the program, has the file of `lock_fd` open as long as it lives, and stands in
 * there with a line `INDEX PID STARTTICKS BOOTID`. The program has the connection to it as the directory's descriptor.
 */
void serve_directories(const struct options *options);

/*
 * Shows this process, and what it becomes, a directory of the host at /mnt, read-only with all that is mounted below it.
 * No symbolic link in it is followed, whatever is put in its place meanwhile: who writes there leads nobody out of it.
 */
void show_directory(const char *path);

#endif
