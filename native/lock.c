/* Whole-file locks by flock(2): they belong to the open file, so a child that
 * inherits the descriptor holds the lock until it ends, however it ends. */
#define _GNU_SOURCE
#include "addon.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static int open_and_lock(const char *path, mode_t mode, struct failure *failure)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, mode);

    if (fd < 0)
        return failed(failure, "open");
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        failed(failure, "flock");
        close(fd);
        return -1;
    }
    return fd;
}

static bool still_at(const char *path, int fd)
{
    struct stat opened, named;

    return fstat(fd, &opened) == 0 && stat(path, &named) == 0 && opened.st_dev == named.st_dev &&
           opened.st_ino == named.st_ino;
}

/* The last holder may have removed the file between our open and our flock: a
 * lock on a file without a name excludes nobody, so begin again. */
static int lock_path(const char *path, mode_t mode, struct failure *failure)
{
    for (;;) {
        int fd = open_and_lock(path, mode, failure);

        if (fd < 0 || still_at(path, fd))
            return fd;
        close(fd);
    }
}

/* lockFile(path, mode): descriptor, or null when somebody else holds the lock */
napi_value lock_file(napi_env env, napi_callback_info info)
{
    napi_value arguments[2];
    char path[PATH_MAX];
    int mode, fd;
    struct failure failure;

    if (!read_arguments(env, info, 2, arguments) ||
        !read_string(env, arguments[0], "path", path, sizeof path) ||
        !read_int(env, arguments[1], "mode", &mode))
        return NULL;
    fd = lock_path(path, (mode_t)mode, &failure);
    if (fd >= 0)
        return int_value(env, fd);
    if (strcmp(failure.syscall, "flock") == 0 && failure.error == EWOULDBLOCK)
        return null_value(env);
    return throw_failure(env, &failure, path);
}
