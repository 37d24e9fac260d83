/*
 * Children that Node knows nothing of. posix_spawn(3) shares the memory with the
 * child until it executes, as vfork does; Node's own spawn copies the page tables,
 * and so takes the longer the larger the process is, and the event loop with it.
 */
#define _GNU_SOURCE
#include "addon.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct request {
    char program[PATH_MAX];
    char directory[PATH_MAX];
    char **arguments;
    char **environment;
    int *descriptors;
    size_t descriptor_count;
};

static void free_request(struct request *request)
{
    free_strings(request->arguments);
    free_strings(request->environment);
    free(request->descriptors);
}

/* The request begins empty; the caller frees it also when this fails. */
static bool read_request(napi_env env, napi_value *arguments, struct request *request)
{
    if (!read_string(env, arguments[0], "program", request->program, sizeof request->program))
        return false;
    request->arguments = read_strings(env, arguments[1], "argv");
    if (request->arguments == NULL)
        return false;
    request->environment = read_strings(env, arguments[2], "env");
    if (request->environment == NULL)
        return false;
    if (!read_string(env, arguments[3], "cwd", request->directory, sizeof request->directory))
        return false;
    request->descriptors = read_ints(env, arguments[4], "descriptors", &request->descriptor_count);
    return request->descriptors != NULL;
}

/* What is ignored or blocked would stay so across exec; Node ignores SIGPIPE. Every
 * bit and not sigfillset: it leaves out the two signals that libc keeps for itself,
 * and posix_spawn has those ignored that it isn't told to reset. */
static int set_attributes(posix_spawnattr_t *attributes)
{
    sigset_t none, all;
    int error;

    sigemptyset(&none);
    memset(&all, 0xff, sizeof all);
    error = posix_spawnattr_setflags(attributes,
                                     POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    if (error == 0)
        error = posix_spawnattr_setsigmask(attributes, &none);
    if (error == 0)
        error = posix_spawnattr_setsigdefault(attributes, &all);
    return error;
}

/* The child's descriptors are 0 to count - 1, each a copy of one from `sources`,
 * which are all above: none is overwritten before it is copied, and none is
 * copied onto itself, which would keep it close-on-exec. */
static int add_actions(posix_spawn_file_actions_t *actions, const char *directory, const int *sources,
                       size_t count)
{
    int error = posix_spawn_file_actions_addchdir_np(actions, directory);

    for (size_t i = 0; error == 0 && i < count; i++)
        error = posix_spawn_file_actions_adddup2(actions, sources[i], (int)i);
    return error != 0 ? error : posix_spawn_file_actions_addclosefrom_np(actions, (int)count);
}

static int spawn_prepared(const struct request *request, const int *sources, pid_t *pid)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    int error = posix_spawnattr_init(&attributes);

    if (error != 0)
        return error;
    error = posix_spawn_file_actions_init(&actions);
    if (error == 0) {
        error = set_attributes(&attributes);
        if (error == 0)
            error = add_actions(&actions, request->directory, sources, request->descriptor_count);
        if (error == 0)
            error = posix_spawn(pid, request->program, &actions, &attributes, request->arguments,
                                request->environment);
        posix_spawn_file_actions_destroy(&actions);
    }
    posix_spawnattr_destroy(&attributes);
    return error;
}

/* Copies those descriptors out of the way that lie where the child's will be. */
static int lift(const struct request *request, int *sources, struct failure *failure)
{
    int count = (int)request->descriptor_count;

    for (int i = 0; i < count; i++) {
        int fd = request->descriptors[i];

        sources[i] = fd < count ? fcntl(fd, F_DUPFD_CLOEXEC, count) : fd;
        if (sources[i] < 0)
            return failed(failure, "fcntl");
    }
    return 0;
}

static void close_lifted(const struct request *request, const int *sources)
{
    for (size_t i = 0; i < request->descriptor_count; i++)
        if (sources[i] >= 0 && sources[i] != request->descriptors[i])
            close(sources[i]);
}

/* Returns the pid, or -1. */
static int spawn(const struct request *request, struct failure *failure)
{
    size_t count = request->descriptor_count;
    int *sources = malloc((count + 1) * sizeof *sources);
    pid_t pid = -1;

    if (sources == NULL)
        return failed_with(failure, "malloc", ENOMEM);
    for (size_t i = 0; i < count; i++)
        sources[i] = -1;
    if (lift(request, sources, failure) == 0) {
        int error = spawn_prepared(request, sources, &pid);

        if (error != 0)
            pid = failed_with(failure, "posix_spawn", error);
    }
    close_lifted(request, sources);
    free(sources);
    return pid;
}

/* A child on its way: made by a thread of libuv's pool, because whoever calls
 * posix_spawn stands still until the child executes, and that has to wait for a
 * processor of its own. */
struct spawning {
    struct request request;
    struct failure failure;
    int pid; /* -1: see failure */
    napi_async_work work;
    napi_deferred deferred;
};

static void free_spawning(struct spawning *spawning)
{
    free_request(&spawning->request);
    free(spawning);
}

static void in_pool(napi_env env, void *data)
{
    struct spawning *spawning = data;

    (void)env;
    spawning->pid = spawn(&spawning->request, &spawning->failure);
}

static void on_spawned(napi_env env, napi_status status, void *data)
{
    struct spawning *spawning = data;
    napi_value error;

    if (status != napi_ok)
        spawning->pid = failed_with(&spawning->failure, "posix_spawn", ECANCELED);
    if (spawning->pid >= 0) {
        (void)napi_resolve_deferred(env, spawning->deferred, int_value(env, spawning->pid));
    } else {
        (void)throw_failure(env, &spawning->failure, spawning->request.program);
        if (napi_get_and_clear_last_exception(env, &error) == napi_ok)
            (void)napi_reject_deferred(env, spawning->deferred, error);
    }
    (void)napi_delete_async_work(env, spawning->work);
    free_spawning(spawning);
}

/* The promise, or NULL after throwing; the work then is not under way. */
static napi_value begin(napi_env env, struct spawning *spawning)
{
    napi_value name, promise;

    if (!succeeded(env, napi_create_string_utf8(env, "roost:spawn", NAPI_AUTO_LENGTH, &name)) ||
        !succeeded(env, napi_create_async_work(env, NULL, name, in_pool, on_spawned, spawning,
                                               &spawning->work)))
        return NULL;
    if (succeeded(env, napi_create_promise(env, &spawning->deferred, &promise)) &&
        succeeded(env, napi_queue_async_work(env, spawning->work)))
        return promise;
    (void)napi_delete_async_work(env, spawning->work);
    return NULL;
}

/* spawnDetached(program, argv, env, cwd, descriptors): promise of a pid */
napi_value spawn_detached(napi_env env, napi_callback_info info)
{
    struct failure no_memory = {"calloc", ENOMEM};
    struct spawning *spawning = calloc(1, sizeof *spawning);
    napi_value arguments[5], promise = NULL;

    if (spawning == NULL)
        return throw_failure(env, &no_memory, "spawnDetached");
    if (read_arguments(env, info, 5, arguments) && read_request(env, arguments, &spawning->request))
        promise = begin(env, spawning);
    if (promise == NULL)
        free_spawning(spawning);
    return promise;
}

static napi_value end_value(napi_env env, int status)
{
    napi_value end, code, signal;

    code = WIFEXITED(status) ? int_value(env, WEXITSTATUS(status)) : null_value(env);
    signal = WIFSIGNALED(status) ? int_value(env, WTERMSIG(status)) : null_value(env);
    if (code == NULL || signal == NULL || !succeeded(env, napi_create_object(env, &end)) ||
        !succeeded(env, napi_set_named_property(env, end, "code", code)) ||
        !succeeded(env, napi_set_named_property(env, end, "signal", signal)))
        return NULL;
    return end;
}

/* reap(pid): {code, signal}, or undefined while the child has not ended */
napi_value reap(napi_env env, napi_callback_info info)
{
    napi_value argument;
    struct failure failure;
    int pid, status, found;

    if (!read_arguments(env, info, 1, &argument) || !read_int(env, argument, "pid", &pid))
        return NULL;
    /* 0 and below mean any child of many, Node's own among them. */
    if (pid <= 0) {
        failed_with(&failure, "waitpid", EINVAL);
        return throw_failure_of(env, &failure, "pid", pid);
    }
    found = waitpid(pid, &status, WNOHANG);
    if (found == 0)
        return undefined_value(env);
    if (found == pid)
        return end_value(env, status);
    failed(&failure, "waitpid");
    return throw_failure_of(env, &failure, "pid", pid);
}

/* openPipe(): [read end, write end] */
napi_value open_pipe(napi_env env, napi_callback_info info)
{
    napi_value pair, ends[2];
    struct failure failure;
    int fds[2];

    (void)info;
    if (pipe2(fds, O_CLOEXEC) < 0) {
        failed(&failure, "pipe2");
        return throw_failure(env, &failure, "a pipe");
    }
    ends[0] = int_value(env, fds[0]);
    ends[1] = int_value(env, fds[1]);
    if (ends[0] != NULL && ends[1] != NULL && succeeded(env, napi_create_array_with_length(env, 2, &pair)) &&
        succeeded(env, napi_set_element(env, pair, 0, ends[0])) &&
        succeeded(env, napi_set_element(env, pair, 1, ends[1])))
        return pair;
    close(fds[0]);
    close(fds[1]);
    return NULL;
}
