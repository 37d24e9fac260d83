/*
 * What the files of this addon share: the functions it exports and the few
 * helpers that carry values and failures between JavaScript and C.
 *
 * Rules kept by every file here: each descriptor is opened close-on-exec, each
 * system call is checked, and whatever fails becomes one JavaScript error with
 * `code`, `errno` (negative, as Node has it) and `syscall`.
 */
#ifndef ROOST_ADDON_H
#define ROOST_ADDON_H

#include <errno.h>
#include <node_api.h>
#include <stdbool.h>

/* Which system call failed, and with what. */
struct failure {
    const char *syscall;
    int error;
};

/* Notes a failure that no system call reported by errno; always returns -1. */
static inline int failed_with(struct failure *failure, const char *syscall, int error)
{
    failure->syscall = syscall;
    failure->error = error;
    return -1;
}

/* Notes errno under the name of a system call; always returns -1. */
static inline int failed(struct failure *failure, const char *syscall)
{
    return failed_with(failure, syscall, errno);
}

/* Throws the failure; `subject` is the path or name concerned. Returns NULL. */
napi_value throw_failure(napi_env env, const struct failure *failure, const char *subject);

/* The same, for functions whose subject is a number (a descriptor, a pid). */
napi_value throw_failure_of(napi_env env, const struct failure *failure, const char *kind, int number);

/* False, with a JavaScript exception pending, when a Node-API call failed. */
bool succeeded(napi_env env, napi_status status);

/* Fetches `count` arguments; missing ones are undefined and fail when read. */
bool read_arguments(napi_env env, napi_callback_info info, size_t count, napi_value *arguments);

/* Reads a whole number that fits an int; otherwise throws a TypeError. */
bool read_int(napi_env env, napi_value value, const char *what, int *result);

/* Reads a string without NUL bytes into a buffer; otherwise throws. */
bool read_string(napi_env env, napi_value value, const char *what, char *buffer, size_t size);

/* Throws a TypeError that says what `what` must be; returns false. */
bool throw_type_error(napi_env env, const char *what, const char *expected);

/* A list of strings with NULL at its end, for free_strings; NULL after throwing. */
char **read_strings(napi_env env, napi_value list, const char *what);
void free_strings(char **strings);

/* A list of whole numbers, for free(); NULL after throwing. */
int *read_ints(napi_env env, napi_value list, const char *what, size_t *count);

napi_value int_value(napi_env env, int number);
napi_value null_value(napi_env env);
napi_value undefined_value(napi_env env);

/* Sets `name` on an object to a number that may exceed an int (ids are unsigned). */
bool set_number(napi_env env, napi_value object, const char *name, double number);

/* lock.c */
napi_value lock_file(napi_env env, napi_callback_info info);

/* memory.c */
napi_value create_memory(napi_env env, napi_callback_info info);
napi_value seal_memory(napi_env env, napi_callback_info info);
napi_value read_ticks(napi_env env, napi_callback_info info);

/* links.c */
napi_value open_tap(napi_env env, napi_callback_info info);
napi_value enslave_link(napi_env env, napi_callback_info info);
napi_value set_link_up(napi_env env, napi_callback_info info);
napi_value link_index(napi_env env, napi_callback_info info);
napi_value open_neighbour_events(napi_env env, napi_callback_info info);

/* sockets.c */
napi_value listen_unix(napi_env env, napi_callback_info info);
napi_value adopt_listener(napi_env env, napi_callback_info info);
napi_value notify(napi_env env, napi_callback_info info);
napi_value send_descriptor(napi_env env, napi_callback_info info);

/* identity.c */
napi_value peer_credentials(napi_env env, napi_callback_info info);
napi_value group_id(napi_env env, napi_callback_info info);

/* pidfd.c */
napi_value open_pidfd(napi_env env, napi_callback_info info);
napi_value signal_pidfd(napi_env env, napi_callback_info info);

/* spawn.c */
napi_value spawn_detached(napi_env env, napi_callback_info info);
napi_value reap(napi_env env, napi_callback_info info);
napi_value open_pipe(napi_env env, napi_callback_info info);

/* watch.c */
napi_value watch_readable(napi_env env, napi_callback_info info);
napi_value close_watch(napi_env env, napi_callback_info info);

#endif
