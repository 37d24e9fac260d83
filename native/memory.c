/* Memory that processes share by a descriptor (memfd_create(2)), and seals that
 * make it the same for ever: whoever opens it afterwards can only read it, or
 * map it privately. */
#define _GNU_SOURCE
#include "addon.h"

#include <fcntl.h>
#include <sys/mman.h>

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

#define NAME_SIZE 128

/* createMemory(name): descriptor of a new, empty memory */
napi_value create_memory(napi_env env, napi_callback_info info)
{
    napi_value argument;
    char name[NAME_SIZE];
    struct failure failure;
    int fd;

    if (!read_arguments(env, info, 1, &argument) || !read_string(env, argument, "name", name, sizeof name))
        return NULL;
    fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) {
        failed(&failure, "memfd_create");
        return throw_failure(env, &failure, name);
    }
    return int_value(env, fd);
}

/* sealMemory(fd): mappings that can write it already stay as they are */
napi_value seal_memory(napi_env env, napi_callback_info info)
{
    const int seals = F_SEAL_FUTURE_WRITE | F_SEAL_GROW | F_SEAL_SHRINK;
    napi_value argument;
    struct failure failure;
    int fd;

    if (!read_arguments(env, info, 1, &argument) || !read_int(env, argument, "fd", &fd))
        return NULL;
    if (fcntl(fd, F_ADD_SEALS, seals) < 0) {
        failed(&failure, "F_ADD_SEALS");
        return throw_failure_of(env, &failure, "descriptor", fd);
    }
    return undefined_value(env);
}
