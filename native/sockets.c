/* Unix sockets: listening ones that can be handed to a child or were handed to us,
 * descriptors that travel over connected ones, and sd_notify's. */
#define _GNU_SOURCE
#include "addon.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define MESSAGE_SIZE 4096

/* A socket's file: its name within an open directory. */
struct place {
    int directory;
    const char *name;
};

static int open_place(const char *path, struct place *place, struct failure *failure)
{
    char parent[PATH_MAX] = ".";
    const char *slash = strrchr(path, '/');

    place->name = slash != NULL ? slash + 1 : path;
    if (*place->name == '\0')
        return failed_with(failure, "bind", EINVAL);
    if (slash != NULL) {
        size_t length = (size_t)(slash - path) + 1;

        memcpy(parent, path, length);
        parent[length] = '\0';
    }
    place->directory = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return place->directory < 0 ? failed(failure, "open") : 0;
}

/* sun_path holds 107 bytes; a longer path is reached through the directory's
 * descriptor. Not always, because the address is what others see as the name. */
static int address_of(const char *path, const struct place *place, struct sockaddr_un *address,
                      struct failure *failure)
{
    size_t size = sizeof address->sun_path;
    int length;

    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    if (strlen(path) < size) {
        strcpy(address->sun_path, path);
        return 0;
    }
    length = snprintf(address->sun_path, size, "/proc/self/fd/%d/%s", place->directory, place->name);
    return length < 0 || (size_t)length >= size ? failed_with(failure, "bind", ENAMETOOLONG) : 0;
}

/* Removes what an earlier run left; anything but a socket is left for bind to refuse. */
static int remove_stale(const struct place *place, struct failure *failure)
{
    struct stat found;

    if (fstatat(place->directory, place->name, &found, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : failed(failure, "fstatat");
    if (!S_ISSOCK(found.st_mode))
        return 0;
    if (unlinkat(place->directory, place->name, 0) < 0 && errno != ENOENT)
        return failed(failure, "unlinkat");
    return 0;
}

static int set_mode_and_listen(int fd, const struct place *place, mode_t mode, int backlog,
                               struct failure *failure)
{
    if (fchmodat(place->directory, place->name, mode, 0) < 0)
        return failed(failure, "fchmodat");
    return listen(fd, backlog) < 0 ? failed(failure, "listen") : 0;
}

/* bind makes the file with the socket's own mode less the umask: never wider
 * than asked, not even for a moment. What the umask took is given back after. */
static int publish(int fd, const char *path, const struct place *place, mode_t mode, int backlog,
                   struct failure *failure)
{
    struct sockaddr_un address;

    if (address_of(path, place, &address, failure) < 0 || remove_stale(place, failure) < 0)
        return -1;
    if (fchmod(fd, mode) < 0)
        return failed(failure, "fchmod");
    if (bind(fd, (const struct sockaddr *)&address, sizeof address) < 0)
        return failed(failure, "bind");
    if (set_mode_and_listen(fd, place, mode, backlog, failure) < 0) {
        (void)unlinkat(place->directory, place->name, 0);
        return -1;
    }
    return 0;
}

static int open_listener(const char *path, mode_t mode, int backlog, struct failure *failure)
{
    struct place place;
    int fd, result;

    if (open_place(path, &place, failure) < 0)
        return -1;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    result = fd < 0 ? failed(failure, "socket") : publish(fd, path, &place, mode, backlog, failure);
    close(place.directory);
    if (result == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

/* listenUnix(path, mode, backlog): descriptor */
napi_value listen_unix(napi_env env, napi_callback_info info)
{
    napi_value arguments[3];
    char path[PATH_MAX];
    struct failure failure;
    int mode, backlog, fd;

    if (!read_arguments(env, info, 3, arguments) ||
        !read_string(env, arguments[0], "path", path, sizeof path) ||
        !read_int(env, arguments[1], "mode", &mode) || !read_int(env, arguments[2], "backlog", &backlog))
        return NULL;
    fd = open_listener(path, (mode_t)mode, backlog, &failure);
    return fd >= 0 ? int_value(env, fd) : throw_failure(env, &failure, path);
}

/* What a service manager promised: a listening stream socket with a path. */
static int check_listener(int fd, struct sockaddr_un *address, struct failure *failure)
{
    socklen_t length = sizeof *address, size = sizeof(int);
    int type = 0, listening = 0;

    memset(address, 0, sizeof *address);
    if (getsockname(fd, (struct sockaddr *)address, &length) < 0)
        return failed(failure, "getsockname");
    if (address->sun_family != AF_UNIX || address->sun_path[0] != '/')
        return failed_with(failure, "getsockname", EAFNOSUPPORT);
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) < 0)
        return failed(failure, "getsockopt");
    if (type != SOCK_STREAM || !listening)
        return failed_with(failure, "getsockopt", ESOCKTNOSUPPORT);
    return 0;
}

/* adoptListener(fd): path of the socket */
napi_value adopt_listener(napi_env env, napi_callback_info info)
{
    napi_value argument, path;
    struct sockaddr_un address;
    struct failure failure;
    int fd;

    if (!read_arguments(env, info, 1, &argument) || !read_int(env, argument, "fd", &fd))
        return NULL;
    if (check_listener(fd, &address, &failure) < 0)
        return throw_failure_of(env, &failure, "descriptor", fd);
    /* It came through exec without the mark that every descriptor of ours has. */
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
        failed(&failure, "fcntl");
        return throw_failure_of(env, &failure, "descriptor", fd);
    }
    if (!succeeded(env, napi_create_string_utf8(env, address.sun_path,
                                                strnlen(address.sun_path, sizeof address.sun_path), &path)))
        return NULL;
    return path;
}

/* sd_notify(3): a path, or an abstract name written with a leading '@'. */
static int notify_address(const char *target, struct sockaddr_un *address, socklen_t *length,
                          struct failure *failure)
{
    size_t size = strlen(target);

    if (target[0] != '/' && target[0] != '@')
        return failed_with(failure, "sendto", EAFNOSUPPORT);
    if (size >= sizeof address->sun_path)
        return failed_with(failure, "sendto", ENAMETOOLONG);
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path, target, size);
    if (target[0] == '@')
        address->sun_path[0] = '\0';
    /* An abstract name is as long as the address says; a path ends with its NUL. */
    *length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size + (target[0] == '/' ? 1 : 0));
    return 0;
}

static int send_notice(const char *target, const char *message, struct failure *failure)
{
    struct sockaddr_un address;
    socklen_t length;
    int fd, result = 0;

    if (notify_address(target, &address, &length, failure) < 0)
        return -1;
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return failed(failure, "socket");
    /* The event loop must not wait for a manager that reads slowly. */
    if (sendto(fd, message, strlen(message), MSG_NOSIGNAL | MSG_DONTWAIT, (const struct sockaddr *)&address,
               length) < 0)
        result = failed(failure, "sendto");
    close(fd);
    return result;
}

/* notify(target, message) */
napi_value notify(napi_env env, napi_callback_info info)
{
    napi_value arguments[2];
    char target[PATH_MAX], message[MESSAGE_SIZE];
    struct failure failure;

    if (!read_arguments(env, info, 2, arguments) ||
        !read_string(env, arguments[0], "target", target, sizeof target) ||
        !read_string(env, arguments[1], "message", message, sizeof message))
        return NULL;
    if (send_notice(target, message, &failure) < 0)
        return throw_failure(env, &failure, target);
    return undefined_value(env);
}

static int send_with(int fd, const char *text, int descriptor, struct failure *failure)
{
    char control[CMSG_SPACE(sizeof descriptor)] = {0};
    struct iovec part = {.iov_base = (void *)text, .iov_len = strlen(text)};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    ssize_t sent;

    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof descriptor);
    memcpy(CMSG_DATA(header), &descriptor, sizeof descriptor);
    /* The event loop must not wait for a peer that reads slowly. */
    sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    return sent < 0 ? failed(failure, "sendmsg") : (int)sent;
}

/* sendDescriptor(fd, text, descriptor): bytes of the text that were sent */
napi_value send_descriptor(napi_env env, napi_callback_info info)
{
    napi_value arguments[3];
    char text[MESSAGE_SIZE];
    struct failure failure;
    int fd, descriptor, sent;

    if (!read_arguments(env, info, 3, arguments) || !read_int(env, arguments[0], "fd", &fd) ||
        !read_string(env, arguments[1], "text", text, sizeof text) ||
        !read_int(env, arguments[2], "descriptor", &descriptor))
        return NULL;
    sent = send_with(fd, text, descriptor, &failure);
    return sent >= 0 ? int_value(env, sent) : throw_failure_of(env, &failure, "fd", fd);
}
