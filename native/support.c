/* Carries values and failures between JavaScript and C. */
#define _GNU_SOURCE
#include "addon.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

static napi_value throw_message(napi_env env, const struct failure *failure, const char *code,
                                const char *message)
{
    napi_value code_value, message_value, syscall_value, error;

    if (!succeeded(env, napi_create_string_utf8(env, code, NAPI_AUTO_LENGTH, &code_value)) ||
        !succeeded(env, napi_create_string_utf8(env, message, NAPI_AUTO_LENGTH, &message_value)) ||
        !succeeded(env, napi_create_string_utf8(env, failure->syscall, NAPI_AUTO_LENGTH, &syscall_value)) ||
        !succeeded(env, napi_create_error(env, code_value, message_value, &error)) ||
        !succeeded(env, napi_set_named_property(env, error, "syscall", syscall_value)) ||
        !set_number(env, error, "errno", -failure->error))
        return NULL;
    succeeded(env, napi_throw(env, error));
    return NULL;
}

napi_value throw_failure(napi_env env, const struct failure *failure, const char *subject)
{
    const char *code = strerrorname_np(failure->error);
    const char *description = strerrordesc_np(failure->error);
    char message[PATH_MAX + 256];

    if (code == NULL)
        code = "EUNKNOWN";
    if (description == NULL)
        description = "unknown error";
    /* A subject too long for the message is cut, which an error text survives. */
    (void)snprintf(message, sizeof message, "%s: %s, %s '%s'", code, description, failure->syscall, subject);
    return throw_message(env, failure, code, message);
}

napi_value throw_failure_of(napi_env env, const struct failure *failure, const char *kind, int number)
{
    char subject[64];

    (void)snprintf(subject, sizeof subject, "%s %d", kind, number);
    return throw_failure(env, failure, subject);
}

bool succeeded(napi_env env, napi_status status)
{
    const napi_extended_error_info *info = NULL;
    bool pending = false;

    if (status == napi_ok)
        return true;
    (void)napi_get_last_error_info(env, &info);
    if (napi_is_exception_pending(env, &pending) == napi_ok && !pending) {
        const char *message = info != NULL ? info->error_message : NULL;
        (void)napi_throw_error(env, NULL, message != NULL ? message : "a Node-API call failed");
    }
    return false;
}

bool read_arguments(napi_env env, napi_callback_info info, size_t count, napi_value *arguments)
{
    return succeeded(env, napi_get_cb_info(env, info, &count, arguments, NULL, NULL));
}

bool throw_type_error(napi_env env, const char *what, const char *expected)
{
    char message[128];

    (void)snprintf(message, sizeof message, "%s must be %s", what, expected);
    (void)napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", message);
    return false;
}

bool read_int(napi_env env, napi_value value, const char *what, int *result)
{
    double number;

    /* Read as a double: napi_get_value_int32 turns NaN into 0, which is a descriptor. */
    if (napi_get_value_double(env, value, &number) != napi_ok || !(number >= INT_MIN && number <= INT_MAX) ||
        number != (int)number)
        return throw_type_error(env, what, "a whole number of 32 bits");
    *result = (int)number;
    return true;
}

bool read_string(napi_env env, napi_value value, const char *what, char *buffer, size_t size)
{
    size_t length, copied;
    struct failure too_long = {what, ENAMETOOLONG};

    if (napi_get_value_string_utf8(env, value, NULL, 0, &length) != napi_ok)
        return throw_type_error(env, what, "a string");
    if (!succeeded(env, napi_get_value_string_utf8(env, value, buffer, size, &copied)))
        return false;
    if (strlen(buffer) != copied)
        return throw_type_error(env, what, "a string without NUL bytes");
    if (length >= size) {
        throw_failure(env, &too_long, buffer);
        return false;
    }
    return true;
}

napi_value int_value(napi_env env, int number)
{
    napi_value value;

    return succeeded(env, napi_create_int32(env, number, &value)) ? value : NULL;
}

napi_value null_value(napi_env env)
{
    napi_value value;

    return succeeded(env, napi_get_null(env, &value)) ? value : NULL;
}

napi_value undefined_value(napi_env env)
{
    napi_value value;

    return succeeded(env, napi_get_undefined(env, &value)) ? value : NULL;
}

bool set_number(napi_env env, napi_value object, const char *name, double number)
{
    napi_value value;

    return succeeded(env, napi_create_double(env, number, &value)) &&
           succeeded(env, napi_set_named_property(env, object, name, value));
}
