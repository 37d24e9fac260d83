/* See files.h. Nearly all of it runs in workers, so it may wait; nothing in it is shared with the agent. */
#define _GNU_SOURCE
#include "files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define COPY_BYTES 65536

static char *wanted_path(const struct fields *request, struct work_files *files, uint16_t tag)
{
    char *path = read_text_field(request, tag);

    errno = EINVAL;
    if (path == NULL || path[0] == '\0')
        work_fail(files, "no path");
    return path;
}

static bool write_all(int fd, const uint8_t *bytes, size_t length)
{
    while (length > 0) {
        ssize_t put = write(fd, bytes, length);

        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return false;
        bytes += put;
        length -= (size_t)put;
    }
    return true;
}

/* Until the end. False with errno; `written` tells which side it was that failed. */
static bool copy(int from, int to, bool *written)
{
    static uint8_t bytes[COPY_BYTES];

    for (;;) {
        ssize_t got = read(from, bytes, sizeof bytes);

        *written = false;
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got == 0;
        *written = true;
        if (!write_all(to, bytes, (size_t)got))
            return false;
    }
}

static void put_status(struct field_writer *writer, const struct stat *status)
{
    put_u32_field(writer, TAG_MODE, status->st_mode);
    put_u32_field(writer, TAG_UID, status->st_uid);
    put_u32_field(writer, TAG_GID, status->st_gid);
    put_u64_field(writer, TAG_SIZE, (uint64_t)status->st_size);
    put_u64_field(writer, TAG_MTIME,
                  (uint64_t)status->st_mtim.tv_sec * 1000000000U + (uint64_t)status->st_mtim.tv_nsec);
}

void read_file(const struct fields *request, struct work_files *files)
{
    char *path = wanted_path(request, files, TAG_PATH);
    /* Not blocking, for a FIFO without a writer; a plain file blocks all the same. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    uint8_t bytes[256];
    struct field_writer writer = {.bytes = bytes, .capacity = sizeof bytes};
    struct stat status;
    bool written;

    if (fd < 0 || fstat(fd, &status) < 0)
        work_fail(files, "open %.400s", path);
    errno = S_ISDIR(status.st_mode) ? EISDIR : EINVAL;
    if (!S_ISREG(status.st_mode))
        work_fail(files, "%.400s is no plain file", path);
    put_status(&writer, &status);
    work_reply(files, &writer);
    if (!copy(fd, files->output, &written) && !written)
        _exit(errno);
}

/* Owner before mode: a change of the owner takes the set-user-id bit away. */
static void set_attributes(const struct fields *request, struct work_files *files, int fd, const char *path)
{
    uint32_t mode = 0644, uid = UINT32_MAX, gid = UINT32_MAX;
    uint64_t mtime;

    (void)read_u32(request, TAG_UID, &uid);
    (void)read_u32(request, TAG_GID, &gid);
    if ((uid != UINT32_MAX || gid != UINT32_MAX) && fchown(fd, uid, gid) < 0)
        work_fail(files, "chown %.400s", path);
    if (read_u32(request, TAG_MODE, &mode) && fchmod(fd, mode & 07777) < 0)
        work_fail(files, "chmod %.400s", path);
    if (read_u64(request, TAG_MTIME, &mtime)) {
        struct timespec times[2] = {
            {.tv_nsec = UTIME_OMIT},
            {.tv_sec = (time_t)(mtime / 1000000000U), .tv_nsec = (long)(mtime % 1000000000U)}};

        if (futimens(fd, times) < 0)
            work_fail(files, "set the time of %.400s", path);
    }
}

/* The file that has no name of its own yet, for the end by a signal. */
static char *unfinished;

static void remove_unfinished(int signal)
{
    (void)signal;
    unlink(unfinished);
    _exit(ECANCELED);
}

/* Fills a file under another name and then gives it its own: nobody ever sees half of it. */
static void write_replacing(const struct fields *request, struct work_files *files, const char *path)
{
    char *temporary = NULL;
    uint64_t size = 0;
    bool written, limited = read_u64(request, TAG_SIZE, &size);
    struct stat status;
    int fd;

    if (asprintf(&temporary, "%s.roost-XXXXXX", path) < 0)
        work_fail(files, "memory");
    fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0)
        work_fail(files, "create %.400s", path);
    unfinished = temporary;
    (void)signal(SIGTERM, remove_unfinished);
    if (!copy(files->input, fd, &written)) {
        int error = errno;

        unlink(temporary);
        errno = error;
        work_fail(files, "write %.400s", path);
    }
    /* The host says how much it is, so that what a broken session cut short never gets the name. */
    if (limited && fstat(fd, &status) == 0 && (uint64_t)status.st_size != size) {
        unlink(temporary);
        errno = ECANCELED;
        work_fail(files, "%.400s came short", path);
    }
    (void)fchmod(fd, 0644);
    set_attributes(request, files, fd, path);
    if (rename(temporary, path) < 0) {
        int error = errno;

        unlink(temporary);
        errno = error;
        work_fail(files, "rename to %.400s", path);
    }
}

void write_file_in(const struct fields *request, struct work_files *files)
{
    char *path = wanted_path(request, files, TAG_PATH);
    bool written;
    int fd;

    if (!has_field(request, TAG_IN_PLACE)) {
        write_replacing(request, files, path);
        work_reply(files, NULL);
        return;
    }
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0644);
    if (fd < 0)
        work_fail(files, "open %.400s", path);
    if (!copy(files->input, fd, &written))
        work_fail(files, "write %.400s", path);
    set_attributes(request, files, fd, path);
    work_reply(files, NULL);
}

void stat_file(const struct fields *request, struct work_files *files)
{
    char *path = wanted_path(request, files, TAG_PATH);
    uint8_t bytes[PATH_MAX + 256];
    struct field_writer writer = {.bytes = bytes, .capacity = sizeof bytes};
    char target[PATH_MAX];
    struct stat status;

    if (lstat(path, &status) < 0)
        work_fail(files, "stat %.400s", path);
    put_status(&writer, &status);
    if (S_ISLNK(status.st_mode)) {
        ssize_t length = readlink(path, target, sizeof target);

        if (length < 0)
            work_fail(files, "readlink %.400s", path);
        put_field(&writer, TAG_TARGET, target, (size_t)length);
    }
    work_reply(files, &writer);
}

/* The names, each with a NUL after it, in the order of the directory. */
void list_directory(const struct fields *request, struct work_files *files)
{
    char *path = wanted_path(request, files, TAG_PATH);
    DIR *directory = opendir(path);
    struct dirent *entry;

    if (directory == NULL)
        work_fail(files, "open %.400s", path);
    work_reply(files, NULL);
    errno = 0;
    while ((entry = readdir(directory)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (!write_all(files->output, (const uint8_t *)entry->d_name, strlen(entry->d_name) + 1))
            return;
        errno = 0;
    }
    if (errno != 0)
        _exit(errno);
}

bool read_small_file(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd >= 0 ? read(fd, text, size - 1) : -1;

    if (fd >= 0)
        close(fd);
    text[got > 0 ? got : 0] = '\0';
    return got > 0;
}

bool make_directories(const char *path, mode_t mode)
{
    char part[PATH_MAX];
    size_t length = strlen(path);

    if (length >= sizeof part) {
        errno = ENAMETOOLONG;
        return false;
    }
    for (size_t i = 1; i <= length; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdir(part, path[i] == '\0' ? mode : 0755) < 0 && errno != EEXIST)
            return false;
    }
    return true;
}

void make_directory(const struct fields *request, struct work_files *files)
{
    char *path = wanted_path(request, files, TAG_PATH);
    uint32_t mode = 0755;
    int fd;

    (void)read_u32(request, TAG_MODE, &mode);
    if (has_field(request, TAG_PARENTS)) {
        if (!make_directories(path, (mode_t)mode))
            work_fail(files, "mkdir %.400s", path);
    } else if (mkdir(path, (mode_t)mode) < 0)
        work_fail(files, "mkdir %.400s", path);
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        work_fail(files, "open %.400s", path);
    set_attributes(request, files, fd, path);
    work_reply(files, NULL);
}

void make_link(const struct fields *request, struct work_files *files)
{
    char *path = wanted_path(request, files, TAG_PATH);
    char *target = wanted_path(request, files, TAG_TARGET);
    uint32_t uid = UINT32_MAX, gid = UINT32_MAX;

    if (symlink(target, path) < 0)
        work_fail(files, "symlink %.400s", path);
    (void)read_u32(request, TAG_UID, &uid);
    (void)read_u32(request, TAG_GID, &gid);
    if ((uid != UINT32_MAX || gid != UINT32_MAX) && lchown(path, uid, gid) < 0)
        work_fail(files, "chown %.400s", path);
    work_reply(files, NULL);
}

/* A plain file that nobody else knows by another name is written over: to make another and rename it takes many times as
 * long. */
static bool write_over(const char *path, const void *bytes, size_t length, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat is;
    bool done;

    if (fd < 0)
        return false;
    done = fstat(fd, &is) == 0 && S_ISREG(is.st_mode) && is.st_nlink == 1 && is.st_uid == 0 && (is.st_mode & 07777) == mode &&
           write_all(fd, bytes, length) && ((size_t)is.st_size <= length || ftruncate(fd, (off_t)length) == 0);
    close(fd);
    return done;
}

bool replace_file(const char *path, const void *bytes, size_t length, mode_t mode)
{
    char temporary[PATH_MAX];
    int fd, error;

    if (write_over(path, bytes, length, mode))
        return true;
    if (snprintf(temporary, sizeof temporary, "%s.roost-XXXXXX", path) >= (int)sizeof temporary) {
        errno = ENAMETOOLONG;
        return false;
    }
    fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0)
        return false;
    if (write_all(fd, bytes, length) && fchmod(fd, mode) == 0 && rename(temporary, path) == 0) {
        close(fd);
        return true;
    }
    error = errno;
    close(fd);
    unlink(temporary);
    errno = error;
    return false;
}
