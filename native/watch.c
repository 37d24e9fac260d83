/*
 * Watches a descriptor on Node's event loop and calls back once, when it can be
 * read (a pidfd: when the process has ended). A watch never keeps the loop alive.
 *
 * A watch has two owners, the event loop and the JavaScript object; the memory
 * goes with the second of them. It polls a duplicate of the descriptor, so the
 * caller may close its own at any time.
 */
#define _GNU_SOURCE
#include "addon.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#include <uv.h>

struct watch {
    uv_poll_t poll;
    int fd;
    int owners;
    napi_env env;
    napi_ref on_readable; /* NULL from the moment the watch is being closed */
    napi_async_context context;
    napi_async_cleanup_hook_handle cleanup;
};

static void release(struct watch *watch)
{
    if (--watch->owners == 0)
        free(watch);
}

static void on_closed(uv_handle_t *handle)
{
    struct watch *watch = handle->data;

    close(watch->fd);
    /* Lets the environment finish if it is waiting for us; also when it isn't. */
    if (watch->cleanup != NULL)
        (void)napi_remove_async_cleanup_hook(watch->cleanup);
    release(watch);
}

static void begin_close(struct watch *watch)
{
    if (watch->on_readable == NULL)
        return;
    (void)napi_delete_reference(watch->env, watch->on_readable);
    watch->on_readable = NULL;
    (void)napi_async_destroy(watch->env, watch->context);
    uv_close((uv_handle_t *)&watch->poll, on_closed);
}

/* The environment (the process or a worker) ends with the watch still open. */
static void on_environment_end(napi_async_cleanup_hook_handle handle, void *data)
{
    (void)handle;
    begin_close(data);
}

static void on_collected(napi_env env, void *data, void *hint)
{
    (void)env;
    (void)hint;
    release(data);
}

static void report_exception(napi_env env)
{
    napi_value exception;
    bool pending = false;

    if (napi_is_exception_pending(env, &pending) == napi_ok && pending &&
        napi_get_and_clear_last_exception(env, &exception) == napi_ok)
        (void)napi_fatal_exception(env, exception);
}

static void call_back(struct watch *watch)
{
    napi_env env = watch->env;
    napi_value function, receiver, result;

    if (napi_get_reference_value(env, watch->on_readable, &function) == napi_ok &&
        napi_get_global(env, &receiver) == napi_ok)
        (void)napi_make_callback(env, watch->context, receiver, function, 0, NULL, &result);
    report_exception(env);
}

/* An error of the poll counts as readable: the caller will find out what it is. */
static void on_event(uv_poll_t *poll, int status, int events)
{
    struct watch *watch = poll->data;
    napi_env env = watch->env;
    napi_handle_scope scope;

    (void)status;
    (void)events;
    (void)uv_poll_stop(poll);
    if (napi_open_handle_scope(env, &scope) != napi_ok)
        return;
    call_back(watch);
    begin_close(watch);
    (void)napi_close_handle_scope(env, scope);
}

/* Makes the libuv handle; from here on only uv_close may end it. */
static int start_poll(struct watch *watch, uv_loop_t *loop, int fd, struct failure *failure)
{
    int status;

    watch->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (watch->fd < 0)
        return failed(failure, "fcntl");
    status = uv_poll_init(loop, &watch->poll, watch->fd);
    if (status < 0) {
        close(watch->fd);
        return failed_with(failure, "epoll_ctl", -status);
    }
    watch->poll.data = watch;
    watch->owners = 1;
    uv_unref((uv_handle_t *)&watch->poll);
    return 0;
}

/* Ties a polling watch to JavaScript; the caller closes it when this fails. */
static bool tie(struct watch *watch, napi_value on_readable, napi_value *handle)
{
    napi_env env = watch->env;
    napi_value name;

    if (!succeeded(env, napi_create_string_utf8(env, "RoostWatch", NAPI_AUTO_LENGTH, &name)) ||
        !succeeded(env, napi_async_init(env, NULL, name, &watch->context)))
        return false;
    if (!succeeded(env, napi_create_reference(env, on_readable, 1, &watch->on_readable))) {
        (void)napi_async_destroy(env, watch->context);
        return false;
    }
    if (!succeeded(env, napi_add_async_cleanup_hook(env, on_environment_end, watch, &watch->cleanup)) ||
        !succeeded(env, napi_create_external(env, watch, on_collected, NULL, handle)))
        return false;
    watch->owners++;
    return true;
}

static void abandon(struct watch *watch)
{
    if (watch->on_readable != NULL)
        begin_close(watch);
    else
        uv_close((uv_handle_t *)&watch->poll, on_closed);
}

static bool read_function(napi_env env, napi_value value)
{
    napi_valuetype type;

    if (!succeeded(env, napi_typeof(env, value, &type)))
        return false;
    if (type == napi_function)
        return true;
    (void)napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", "onReadable must be a function");
    return false;
}

/* watchReadable(fd, onReadable): a handle for closeWatch */
napi_value watch_readable(napi_env env, napi_callback_info info)
{
    napi_value arguments[2], handle;
    uv_loop_t *loop;
    struct watch *watch;
    struct failure failure;
    int fd, status;

    if (!read_arguments(env, info, 2, arguments) || !read_int(env, arguments[0], "fd", &fd) ||
        !read_function(env, arguments[1]) || !succeeded(env, napi_get_uv_event_loop(env, &loop)))
        return NULL;
    watch = calloc(1, sizeof *watch);
    if (watch == NULL) {
        failed(&failure, "calloc");
        return throw_failure_of(env, &failure, "descriptor", fd);
    }
    watch->env = env;
    if (start_poll(watch, loop, fd, &failure) < 0) {
        free(watch);
        return throw_failure_of(env, &failure, "descriptor", fd);
    }
    if (!tie(watch, arguments[1], &handle)) {
        abandon(watch);
        return NULL;
    }
    status = uv_poll_start(&watch->poll, UV_READABLE, on_event);
    if (status < 0) {
        begin_close(watch);
        failed_with(&failure, "epoll_ctl", -status);
        return throw_failure_of(env, &failure, "descriptor", fd);
    }
    return handle;
}

/* closeWatch(handle): after it onReadable is not called; closing twice is allowed */
napi_value close_watch(napi_env env, napi_callback_info info)
{
    napi_value argument;
    void *watch;

    if (!read_arguments(env, info, 1, &argument) ||
        !succeeded(env, napi_get_value_external(env, argument, &watch)))
        return NULL;
    begin_close(watch);
    return undefined_value(env);
}
