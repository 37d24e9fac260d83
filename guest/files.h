/* Files of the guest, in and out: what workers do for READ_FILE, WRITE_FILE and their like. */
#ifndef ROOST_GUEST_FILES_H
#define ROOST_GUEST_FILES_H

#include "workers.h"

#include <stddef.h>

work_function read_file, write_file_in, stat_file, list_directory, make_directory, make_link;

/* Makes a directory and those above it. False with errno. */
bool make_directories(const char *path, mode_t mode);

/* The beginning of a small file, as a string. False, and an empty one, if nothing of it could be read. */
bool read_small_file(const char *path, char *text, size_t size);

/* Replaces a small file as a whole, whatever was there under its name. False with errno. */
bool replace_file(const char *path, const void *bytes, size_t length, mode_t mode);

#endif
