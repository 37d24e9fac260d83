/* Descriptors of processes: a signal through one never meets a reused pid. */
#define _GNU_SOURCE
#include "addon.h"

#include <sys/syscall.h>
#include <unistd.h>

/* openPidfd(pid): descriptor; the kernel sets close-on-exec on it */
napi_value open_pidfd(napi_env env, napi_callback_info info)
{
    napi_value argument;
    struct failure failure;
    int pid, fd;

    if (!read_arguments(env, info, 1, &argument) || !read_int(env, argument, "pid", &pid))
        return NULL;
    fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd >= 0)
        return int_value(env, fd);
    failed(&failure, "pidfd_open");
    return throw_failure_of(env, &failure, "pid", pid);
}

/* signalPidfd(fd, signal) */
napi_value signal_pidfd(napi_env env, napi_callback_info info)
{
    napi_value arguments[2];
    struct failure failure;
    int fd, signal;

    if (!read_arguments(env, info, 2, arguments) || !read_int(env, arguments[0], "fd", &fd) ||
        !read_int(env, arguments[1], "signal", &signal))
        return NULL;
    if (syscall(SYS_pidfd_send_signal, fd, signal, NULL, 0) == 0)
        return undefined_value(env);
    failed(&failure, "pidfd_send_signal");
    return throw_failure_of(env, &failure, "descriptor", fd);
}
