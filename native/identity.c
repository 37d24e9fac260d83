/* Who is at the other end of a socket, and what a group's name stands for. */
#define _GNU_SOURCE
#include "addon.h"

#include <errno.h>
#include <grp.h>
#include <stdlib.h>
#include <sys/socket.h>

#define NAME_SIZE 256
#define GROUP_ENTRY_LIMIT (1024 * 1024)

/* peerCredentials(fd): {pid, uid, gid} as of the peer's connect() or listen() */
napi_value peer_credentials(napi_env env, napi_callback_info info)
{
    napi_value argument, result;
    struct ucred peer;
    socklen_t size = sizeof peer;
    struct failure failure;
    int fd;

    if (!read_arguments(env, info, 1, &argument) || !read_int(env, argument, "fd", &fd))
        return NULL;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0) {
        failed(&failure, "getsockopt");
        return throw_failure_of(env, &failure, "descriptor", fd);
    }
    if (!succeeded(env, napi_create_object(env, &result)) || !set_number(env, result, "pid", peer.pid) ||
        !set_number(env, result, "uid", peer.uid) || !set_number(env, result, "gid", peer.gid))
        return NULL;
    return result;
}

/* 1 found, 0 no such group, -1 failed; the buffer grows with the group's members. */
static int find_group(const char *name, gid_t *gid, struct failure *failure)
{
    for (size_t size = 1024; size <= GROUP_ENTRY_LIMIT; size *= 2) {
        struct group entry, *found = NULL;
        char *buffer = malloc(size);
        int error;

        if (buffer == NULL)
            return failed(failure, "malloc");
        error = getgrnam_r(name, &entry, buffer, size, &found);
        if (error == 0 && found != NULL)
            *gid = entry.gr_gid;
        free(buffer);
        if (error == 0)
            return found != NULL;
        /* getgrnam(3): these also say that there is no such group. */
        if (error == ENOENT || error == ESRCH)
            return 0;
        if (error != ERANGE)
            return failed_with(failure, "getgrnam_r", error);
    }
    return failed_with(failure, "getgrnam_r", ERANGE);
}

/* groupId(name): gid, or undefined when there is no such group */
napi_value group_id(napi_env env, napi_callback_info info)
{
    napi_value argument, value;
    char name[NAME_SIZE];
    struct failure failure;
    gid_t gid = 0;
    int found;

    if (!read_arguments(env, info, 1, &argument) || !read_string(env, argument, "name", name, sizeof name))
        return NULL;
    found = find_group(name, &gid, &failure);
    if (found < 0)
        return throw_failure(env, &failure, name);
    if (found == 0)
        return undefined_value(env);
    return succeeded(env, napi_create_uint32(env, gid, &value)) ? value : NULL;
}
